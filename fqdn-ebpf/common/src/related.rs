//! ICMP errors: which of them answer something.
//!
//! In:  an error and the packet it quotes.
//! Out: passed when it goes to the sender of a packet of a known flow.
//! Not here: reading the quotation (`icmp`).

use crate::{
    Direction,
    conntrack::FlowKey,
    endpoint::{Endpoint, NOT_OWN},
    env::{Env, Meta},
    icmp,
    metric::Passed,
    packet::{Packet, Part},
    path::{Verdict, spare},
    protocol,
    reason::DropReason,
};

/// An ICMP error passes when it goes to the sender of a packet of a known flow.
#[inline(always)]
pub(crate) fn related(
    env: &impl Env,
    meta: &Meta,
    endpoint: &Endpoint,
    packet: &Packet,
) -> Result<Verdict, DropReason> {
    const UNRELATED: DropReason = DropReason::IcmpErrorUnrelated;
    if packet.part != Part::Whole {
        return spare(endpoint, UNRELATED);
    }
    let Ok(quoted) = icmp::quoted(env, packet) else {
        return spare(endpoint, UNRELATED);
    };
    // Towards the workload it quotes what the workload sent, and the other way round.
    let (own, peer, own_port, peer_port) = match meta.direction {
        Direction::Ingress => (
            quoted.source,
            quoted.destination,
            quoted.source_port,
            quoted.destination_port,
        ),
        Direction::Egress => (
            quoted.destination,
            quoted.source,
            quoted.destination_port,
            quoted.source_port,
        ),
    };
    let own = endpoint.own_index(&own);
    if own == NOT_OWN || packet.destination != quoted.source {
        return spare(endpoint, UNRELATED);
    }
    // The quoted packet went the other way than the error.
    let sent = meta.direction.reverse();
    let key = if matches!(quoted.protocol, protocol::ICMP | protocol::ICMPV6) {
        let (request, asks) = match icmp::kind(quoted.protocol, quoted.destination_port as u8) {
            icmp::Kind::Request(request) => (request, sent),
            icmp::Kind::Reply(request) => (request, sent.reverse()),
            icmp::Kind::Error | icmp::Kind::Other => return spare(endpoint, UNRELATED),
        };
        FlowKey::icmp(
            own,
            peer,
            quoted.protocol,
            request,
            quoted.source_port,
            asks,
        )
    } else {
        FlowKey::new(own, own_port, peer, peer_port, quoted.protocol)
    };
    match env.flow(endpoint.slot(), &key, |flow| flow.is_live(meta.now)) {
        Some(true) => Ok(Verdict::Pass(Passed::Related)),
        Some(false) | None => spare(endpoint, UNRELATED),
    }
}
