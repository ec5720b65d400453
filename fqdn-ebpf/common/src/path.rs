//! The whole way of a packet through the datapath, from its bytes to its verdict.
//!
//! In:  [`Env`]: a packet, its [`Meta`], and the maps.
//! Out: [`Verdict`]; the parsed packet and a [`Report`] for the event, both in [`Scratch`].
//! Not here: what becomes of flows (`track`), carrying the verdict out, steering (`fqdn-ebpf`).

use crate::{
    Direction,
    address::Addr,
    arp,
    config::Config,
    endpoint::Endpoint,
    env::{Case, Env, Meta},
    event::Report,
    fragment::{DatagramKey, Ports},
    guard::{self, Guard},
    metric::Passed,
    packet::{self, Network, Packet, Part},
    reason::DropReason,
    track::{identity, track},
};

/// Where the way of a packet leaves its findings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scratch {
    /// The packet as far as it could be read.
    pub packet: Packet,
    /// What to tell user space.
    pub report: Report,
    /// What policy is asked.
    pub(crate) case: Case,
    /// Whether `packet` is about this packet: 1 when it is.
    parsed: u32,
}

impl Scratch {
    /// Nothing found yet.
    pub const EMPTY: Self = Self {
        packet: Packet::EMPTY,
        report: Report::NONE,
        case: Case::EMPTY,
        parsed: 0,
    };
}

impl Default for Scratch {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// What happens to the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on.
    Pass(Passed),
    /// It goes to the DNS proxy.
    Steer,
    /// It ends here.
    Drop(DropReason),
}

/// Decides about one packet.
#[inline(always)]
pub fn decide(
    env: &impl Env,
    meta: &Meta,
    config: Option<&Config>,
    endpoint: Option<&Endpoint>,
    scratch: &mut Scratch,
) -> Verdict {
    // The space is not cleared as a whole: that would cost every packet what only events need.
    scratch.report.clear();
    scratch.parsed = 0;
    let verdict = match walk(env, meta, config, endpoint, scratch) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::Drop(reason),
    };
    if let Verdict::Drop(reason) = verdict {
        // An event must not show the addresses of the packet before.
        if scratch.parsed == 0 {
            scratch.packet = Packet::EMPTY;
        }
        scratch.report.dropped(reason);
    }
    verdict
}

#[inline(always)]
fn walk(
    env: &impl Env,
    meta: &Meta,
    config: Option<&Config>,
    endpoint: Option<&Endpoint>,
    scratch: &mut Scratch,
) -> Result<Verdict, DropReason> {
    let config = config
        .filter(|config| config.is_ours())
        .ok_or(DropReason::NoConfig)?;
    let endpoint = endpoint.ok_or(DropReason::NoEndpoint)?;
    let from_workload = matches!(meta.direction, Direction::Egress);
    if !from_workload && meta.ingress_ifindex == 0 && config.is_from_proxy(meta.mark) {
        return Ok(Verdict::Pass(Passed::FromProxy));
    }
    if meta.vlan {
        return Err(DropReason::VlanFiltered);
    }
    let frame = packet::frame(env)?;
    if from_workload && frame.source != *endpoint.mac() {
        return Err(DropReason::InvalidSourceMac);
    }
    match frame.network {
        Network::Arp => {
            if from_workload {
                arp::from_workload(env, endpoint)?;
            }
            return Ok(Verdict::Pass(Passed::Control));
        }
        Network::V4 => packet::ipv4(env, &mut scratch.packet),
        Network::V6 => packet::ipv6(env, &mut scratch.packet),
    }
    .inspect_err(|reason| {
        // The network header is sound then.
        scratch.parsed = u32::from(*reason == DropReason::TruncatedHeader);
    })?;
    scratch.parsed = 1;
    let own = endpoint.own_index(match meta.direction {
        Direction::Egress => &scratch.packet.source,
        Direction::Ingress => &scratch.packet.destination,
    });
    let guard = if from_workload {
        let peer_identity = |peer: &Addr| identity(env, peer);
        guard::from_workload(env, &scratch.packet, endpoint, own, peer_identity)?
    } else {
        guard::to_workload(&scratch.packet)
    };
    if guard == Guard::Control {
        return Ok(Verdict::Pass(Passed::Control));
    }
    if scratch.packet.part == Part::Later {
        let known = env
            .ports(endpoint.slot(), &DatagramKey::of(&scratch.packet))
            .is_some_and(|ports| ports.complete(&mut scratch.packet, meta.now));
        if !known {
            return spare(endpoint, DropReason::FirstFragmentMissing);
        }
    }
    let verdict = track(env, meta, config, endpoint, scratch, own)?;
    if scratch.packet.part == Part::First && matches!(verdict, Verdict::Pass(_)) {
        let packet = &scratch.packet;
        env.remember(
            endpoint.slot(),
            &DatagramKey::of(packet),
            &Ports::of(packet, meta.now),
        );
    }
    Ok(verdict)
}

/// A drop that is not a matter of policy: an audited endpoint is spared it.
#[inline(always)]
pub(crate) const fn spare(endpoint: &Endpoint, reason: DropReason) -> Result<Verdict, DropReason> {
    if endpoint.is_audited() {
        Ok(Verdict::Pass(Passed::Spared))
    } else {
        Err(reason)
    }
}
