//! What is in the maps, for an operator.
//!
//! In:  records.
//! Out: rows in the house's types.
//! Not here: tables and JSON (`cli`).

use std::{net::IpAddr, time::Duration};

use dnsproxy_core::Moment;
use fqdn_ebpf_common::{
    Direction,
    conntrack::{Flow, FlowKey},
    endpoint::PolicyId,
    learned::{Learned, LearnedKey},
    policy::{Action, PolicyEntry, PolicyKey},
};
use identity::{EndpointId, IdentityId};
use nix::time::{ClockId, clock_gettime};

/// What DNS taught one endpoint about one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedRow {
    /// Whom.
    pub endpoint: EndpointId,
    /// About which address.
    pub address: IpAddr,
    /// Ephemeral identities and when each stops opening flows.
    pub slots: Vec<(IdentityId, Moment)>,
}

/// One tracked flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowRow {
    /// Whose.
    pub endpoint: EndpointId,
    /// Who opened it: egress is the workload.
    pub opened: Direction,
    /// Protocol number.
    pub protocol: u8,
    /// The other side.
    pub peer: IpAddr,
    /// The workload's port (or ICMP identifier).
    pub own_port: u16,
    /// The other side's port (or ICMP type).
    pub peer_port: u16,
    /// When it is forgotten without another packet.
    pub expires: Moment,
    /// The peer's identity when it was judged.
    pub identity: IdentityId,
    /// The learned identity it was opened under.
    pub learned: Option<IdentityId>,
    /// The rules that allowed it, as numbered in the endpoint's policy.
    pub rule_set: u32,
    /// Packets and bytes of the opener.
    pub sent: (u64, u64),
    /// Packets and bytes of the other side.
    pub received: (u64, u64),
}

/// One POLICY entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyRow {
    /// Of which policy.
    pub policy: PolicyId,
    /// About which peer; none is any.
    pub identity: Option<IdentityId>,
    /// Which way.
    pub direction: Option<Direction>,
    /// Which protocol; none is any.
    pub protocol: Option<u8>,
    /// First port and how many of its bits count; none is any port.
    pub ports: Option<(u16, u8)>,
    /// What it says.
    pub action: Action,
    /// Against entries of other peers.
    pub precedence: u32,
    /// The rules behind it.
    pub rule_set: u32,
}

pub(crate) fn learned_row(key: &LearnedKey, learned: &Learned) -> LearnedRow {
    LearnedRow {
        endpoint: EndpointId::new(key.endpoint()),
        address: key.address().ip(),
        slots: learned
            .slots()
            .iter()
            .filter(|slot| slot.identity() != 0)
            .map(|slot| {
                (
                    IdentityId::from_raw(slot.identity()),
                    Moment::from_nanos(slot.expires()),
                )
            })
            .collect(),
    }
}

/// How long the machine has slept since boot: by so much the clock of flows is behind the others.
pub(crate) fn slept() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    // Read first, so that it can only be too small: a machine that never slept shows nothing.
    let boot = read(ClockId::CLOCK_BOOTTIME);
    boot.saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

pub(crate) fn flow_row(
    endpoint: EndpointId,
    key: &FlowKey,
    flow: &Flow,
    slept: Duration,
) -> FlowRow {
    let opening = flow.opening();
    FlowRow {
        endpoint,
        opened: flow.opened(),
        protocol: key.protocol(),
        peer: key.peer().ip(),
        own_port: key.own_port(),
        peer_port: key.peer_port(),
        expires: Moment::from_nanos(flow.expires()).after(slept),
        identity: IdentityId::from_raw(opening.identity),
        learned: (opening.learned != 0).then(|| IdentityId::from_raw(opening.learned)),
        rule_set: opening.rule_set,
        sent: flow.sent(),
        received: flow.received(),
    }
}

pub(crate) fn policy_row(prefix_len: u32, key: &PolicyKey, entry: &PolicyEntry) -> PolicyRow {
    use fqdn_ebpf_common::policy::{ANY_PEER, BASE_BITS, PROTOCOL_BITS};
    PolicyRow {
        policy: PolicyId::new(key.policy()),
        identity: (key.identity() != ANY_PEER).then(|| IdentityId::from_raw(key.identity())),
        direction: key.direction(),
        protocol: (prefix_len > BASE_BITS).then(|| key.protocol()),
        ports: (prefix_len > PROTOCOL_BITS)
            .then(|| Some((key.port(), u8::try_from(prefix_len - PROTOCOL_BITS).ok()?)))
            .flatten(),
        action: entry.action(),
        precedence: entry.precedence(),
        rule_set: entry.rule_set(),
    }
}
