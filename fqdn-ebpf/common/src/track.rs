//! What becomes of flows: known ones go on, new ones are judged, old ones are judged again.
//!
//! In:  a packet that is sound and whose source is right; the maps.
//! Out: a verdict, and the flow table as it shall be.
//! Not here: parsing and the source guard (`path`), weighing entries (`verdict`).

use crate::{
    Direction,
    address::Addr,
    config::Config,
    conntrack::{Flow, FlowKey, Opening, Seen, Sighting},
    endpoint::{Endpoint, NOT_OWN},
    env::{Case, Env, Meta},
    event::Kind,
    icmp, ipcache,
    learned::{LearnedKey, SLOTS},
    metric::{Passed, RuleKey},
    packet::{Packet, Part},
    path::{Scratch, Verdict, spare},
    policy::{Action, MatchType},
    protocol,
    reason::DropReason,
    related::related,
    verdict::{Ask, Judgement, Peers},
};

/// Decides about a packet by its flow.
#[inline(always)]
pub(crate) fn track(
    env: &impl Env,
    meta: &Meta,
    config: &Config,
    endpoint: &Endpoint,
    scratch: &mut Scratch,
    own: u8,
) -> Result<Verdict, DropReason> {
    let packet = &scratch.packet;
    let peer = match meta.direction {
        Direction::Egress => packet.destination,
        Direction::Ingress => packet.source,
    };
    let sighting = Sighting {
        direction: meta.direction,
        protocol: packet.protocol,
        tcp_flags: packet.tcp_flags,
        bytes: env.len(),
        now: meta.now,
        revision: endpoint.revision(),
        epoch: config.ipcache_epoch(),
    };
    let (key, may_open) = match place(packet, meta.direction, own, peer) {
        Place::Flow(key) => (key, true),
        Place::Answer(key) => (key, false),
        Place::Alone => return fresh(env, meta, endpoint, scratch, &sighting, peer, None, false),
        Place::Error => return related(env, meta, endpoint, packet),
    };
    let slot = endpoint.slot();
    let again = match env.see(slot, &key, &sighting) {
        Some(Seen::Known) => return Ok(Verdict::Pass(Passed::Established)),
        Some(Seen::Stale { opened, opening }) => {
            return again(
                env, meta, endpoint, scratch, &sighting, &key, opened, &opening,
            );
        }
        Some(Seen::Reopens { again }) => again,
        Some(Seen::Expired) | None => false,
    };
    let at = if may_open { Some(&key) } else { None };
    fresh(env, meta, endpoint, scratch, &sighting, peer, at, again)
}

/// Where a packet belongs in the table of flows.
enum Place {
    /// At this key; it may open a flow there.
    Flow(FlowKey),
    /// At this key if at all: it answers something.
    Answer(FlowKey),
    /// Nowhere: judged by itself.
    Alone,
    /// At the flow that it quotes.
    Error,
}

#[inline(always)]
fn place(packet: &Packet, direction: Direction, own: u8, peer: Addr) -> Place {
    if own == NOT_OWN {
        // Broadcast and multicast: an answer comes from another address, so no flow matches it.
        return Place::Alone;
    }
    if packet.is_icmp() {
        let id = packet.source_port;
        let key = |request, asks| FlowKey::icmp(own, peer, packet.protocol, request, id, asks);
        return match icmp::kind(packet.protocol, packet.icmp_type()) {
            icmp::Kind::Request(request) => Place::Flow(key(request, direction)),
            icmp::Kind::Reply(request) => Place::Answer(key(request, direction.reverse())),
            icmp::Kind::Error => Place::Error,
            icmp::Kind::Other => Place::Alone,
        };
    }
    let (own_port, peer_port) = match direction {
        Direction::Egress => (packet.source_port, packet.destination_port),
        Direction::Ingress => (packet.destination_port, packet.source_port),
    };
    Place::Flow(FlowKey::new(
        own,
        own_port,
        peer,
        peer_port,
        packet.protocol,
    ))
}

/// Judges a flow that begins with this packet, and remembers it at `at`. `again`: the packet
/// repeats one that was judged and reported before.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a struct for them would only live on the 512-byte stack"
)]
fn fresh(
    env: &impl Env,
    meta: &Meta,
    endpoint: &Endpoint,
    scratch: &mut Scratch,
    sighting: &Sighting,
    peer: Addr,
    at: Option<&FlowKey>,
    again: bool,
) -> Result<Verdict, DropReason> {
    let slot = endpoint.slot();
    let identity = peer_identity(env, meta, &peer);
    scratch.case.peers = Peers {
        identity,
        learned: if ipcache::names_count_for(identity) {
            live(env, meta, endpoint, peer)
        } else {
            [0; SLOTS]
        },
    };
    scratch.case.ask = Ask {
        policy: endpoint.policy(),
        deny_by_default: endpoint.denies(meta.direction),
        direction: meta.direction,
        protocol: scratch.packet.protocol,
        port: scratch.packet.destination_port,
    };
    env.judge(&mut scratch.case);
    count(env, &scratch.case);
    let judgement = scratch.case.judgement;
    scratch.report.judged(Kind::Flow, &judgement);
    let mut action = judgement.action;
    let mut passed = Passed::New;
    if endpoint.shadow() != 0 {
        scratch.case.ask.policy = endpoint.shadow();
        scratch.case.ask.deny_by_default = endpoint.shadow_denies(meta.direction);
        env.judge(&mut scratch.case);
        count(env, &scratch.case);
        let shadow = scratch.case.judgement;
        scratch.report.shadow(&shadow);
        match (action, shadow.action) {
            (Action::Allow, shadow) if shadow.drops() => {
                scratch.report.judged(Kind::Audit, &judgement);
                passed = Passed::Audited;
            }
            // Names are learned in audit too, or everything opened by name would look denied.
            (Action::Allow, Action::RedirectDns) => action = Action::RedirectDns,
            _ => {}
        }
    }
    match action {
        Action::Deny | Action::NeedsProxy | Action::Refuse | Action::Mixed => {
            Err(refusal(&judgement))
        }
        Action::RedirectDns => {
            scratch.report.silence();
            // A flow from before the interception would let the answer bypass the proxy.
            if let Some(key) = at {
                env.close(slot, key);
            }
            steer(endpoint, meta.direction, &scratch.packet)
        }
        Action::Allow => {
            if again {
                scratch.report.silence();
            }
            let Some(key) = at else {
                return Ok(Verdict::Pass(passed));
            };
            let opening = opening(&judgement, identity, sighting);
            match env.open(slot, key, &Flow::open(sighting, &opening)) {
                Ok(()) => Ok(Verdict::Pass(passed)),
                Err(reason) => spare(endpoint, reason),
            }
        }
    }
}

/// Judges a flow again that was opened under another policy or another IPCACHE.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a struct for them would only live on the 512-byte stack"
)]
fn again(
    env: &impl Env,
    meta: &Meta,
    endpoint: &Endpoint,
    scratch: &mut Scratch,
    sighting: &Sighting,
    key: &FlowKey,
    opened: Direction,
    before: &Opening,
) -> Result<Verdict, DropReason> {
    let slot = endpoint.slot();
    let mut identity = identity(env, &key.peer());
    // Whether a packet from a node address came from the node itself shows only at its hook; the
    // flow's first packet was there.
    if identity == ipcache::HOST
        && matches!(opened, Direction::Ingress)
        && ipcache::names_count_for(before.identity)
    {
        identity = before.identity;
    }
    let learned = if ipcache::names_count_for(identity) {
        before.learned
    } else {
        0
    };
    scratch.case.peers = Peers {
        identity,
        learned: [learned, 0, 0, 0],
    };
    scratch.case.ask = Ask {
        policy: endpoint.policy(),
        deny_by_default: endpoint.denies(opened),
        direction: opened,
        protocol: key.protocol(),
        port: key.policy_port(opened),
    };
    env.judge(&mut scratch.case);
    let mut carried_by = before.learned;
    if matches!(scratch.case.judgement.action, Action::Deny) && ipcache::names_count_for(identity) {
        // The rule behind the name it was opened by is gone. What would open it anew carries it on:
        // another selector may stand for the same name.
        scratch.case.peers.learned = live(env, meta, endpoint, key.peer());
        env.judge(&mut scratch.case);
        carried_by = scratch.case.judgement.learned;
    }
    count(env, &scratch.case);
    let judgement = scratch.case.judgement;
    match judgement.action {
        Action::Allow => {
            let mut opening = opening(&judgement, identity, sighting);
            opening.learned = carried_by;
            // Gone in the meantime means judged as new with the next packet.
            let _ = env.flow(slot, key, |flow| flow.renew(sighting, &opening));
            Ok(Verdict::Pass(Passed::Renewed))
        }
        Action::Deny | Action::NeedsProxy | Action::Refuse | Action::Mixed => {
            // The record stays, unrenewed: without it the next packet of the other side would be
            // judged as a flow of its own, by the other direction's rules, and carry on this one.
            scratch.report.judged(Kind::Drop, &judgement);
            Err(refusal(&judgement))
        }
        Action::RedirectDns => {
            env.close(slot, key);
            if opened == meta.direction {
                steer(endpoint, meta.direction, &scratch.packet)
            } else {
                scratch.report.judged(Kind::Drop, &judgement);
                spare(endpoint, DropReason::PolicyDenied)
            }
        }
    }
}

/// Counts a packet for the rules that decided about it; the default is nobody's rule.
#[inline(always)]
fn count(env: &impl Env, case: &Case) {
    if !matches!(case.judgement.match_type, MatchType::None) {
        env.count(&RuleKey::new(case.ask.policy, case.judgement.rule_set));
    }
}

/// What names taught about an address and is not over.
#[inline(always)]
fn live(env: &impl Env, meta: &Meta, endpoint: &Endpoint, peer: Addr) -> [u32; SLOTS] {
    env.learned(&LearnedKey::new(endpoint.id(), peer), |learned| {
        learned.live(env.exact_now(meta))
    })
    .unwrap_or([0; SLOTS])
}

#[inline(always)]
const fn opening(judgement: &Judgement, identity: u32, sighting: &Sighting) -> Opening {
    Opening {
        learned: judgement.learned,
        identity,
        revision: sighting.revision,
        epoch: sighting.epoch,
        rule_set: judgement.rule_set,
    }
}

#[inline(always)]
const fn refusal(judgement: &Judgement) -> DropReason {
    match (judgement.action, judgement.match_type) {
        (Action::NeedsProxy, _) => DropReason::NeedsProxy,
        (Action::Mixed, _) => DropReason::MixedBackends,
        (_, MatchType::None) => DropReason::PolicyDenied,
        _ => DropReason::PolicyDeny,
    }
}

/// The identity of an address, for every endpoint alike.
#[inline(always)]
pub(crate) fn identity(env: &impl Env, address: &Addr) -> u32 {
    if let Some(entry) = env.address(address) {
        return entry.identity();
    }
    env.prefix(address)
        .and_then(|entry| entry.speaks_for(*address))
        .unwrap_or(ipcache::world_of(*address))
}

/// The identity of the peer of a packet at this hook. A packet with an address of the node that
/// did not originate here was translated on its way (NodePort, masquerade): it is not the node's.
#[inline(always)]
fn peer_identity(env: &impl Env, meta: &Meta, peer: &Addr) -> u32 {
    let identity = identity(env, peer);
    let forwarded = matches!(meta.direction, Direction::Ingress) && meta.ingress_ifindex != 0;
    if identity == ipcache::HOST && forwarded {
        ipcache::world_of(*peer)
    } else {
        identity
    }
}

/// What is for the proxy and can be handed to it.
#[inline(always)]
fn steer(
    endpoint: &Endpoint,
    direction: Direction,
    packet: &Packet,
) -> Result<Verdict, DropReason> {
    // Reassembly loses the socket in IPv4, and in IPv6 the ports are only in the first fragment.
    if packet.part != Part::Whole {
        return spare(endpoint, DropReason::FragmentIntercepted);
    }
    match (direction, packet.protocol) {
        (Direction::Egress, protocol::TCP | protocol::UDP) => Ok(Verdict::Steer),
        _ => spare(endpoint, DropReason::SocketLookupFailed),
    }
}
