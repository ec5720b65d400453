//! The POLICY map of one endpoint, in ordinary memory.
//!
//! In:  compiled entries.
//! Out: [`Rules`]: the longest matching prefix, as the kernel's map answers.
//! Not here: the verdict (`fqdn-ebpf/common`).

use std::collections::HashMap;

use fqdn_ebpf_common::{
    Direction,
    policy::{ANY_PEER, Action, L4Bits, PolicyEntry, PolicyKey},
    verdict::Rules,
};
use identity::IdentityId;
use policy::compiled::{self, EndpointPolicy, L4, Peer, Precedence, RuleSetId};

/// Bits of the port in a whole key.
const PORT_BITS: u8 = 16;

/// Peer, direction, how many bits of protocol and port count, protocol, port.
type Prefix = (u32, u8, u8, u8, u16);

/// Entries by prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries(HashMap<Prefix, PolicyEntry>);

impl Entries {
    /// The entries of a policy. Those of names come with [`Entries::teach`].
    pub(super) fn of(policy: &EndpointPolicy) -> Self {
        let mut entries = Self::default();
        for entry in &policy.entries {
            let identity = match entry.peer {
                Peer::Any => ANY_PEER,
                Peer::Identity(identity) => identity.get(),
                Peer::Fqdn(_) => continue,
            };
            entries.insert(
                identity,
                entry.direction,
                entry.l4,
                entry.action,
                entry.precedence,
                entry.rule_set,
            );
        }
        entries
    }

    /// Adds what an identity that a name was given may do.
    pub(super) fn teach(
        &mut self,
        policy: &EndpointPolicy,
        identity: IdentityId,
        set: &identity::SelectorSet,
    ) {
        for entry in policy.entries_of_set(set) {
            self.insert(
                identity.get(),
                entry.direction,
                entry.l4,
                entry.action,
                entry.precedence,
                entry.rule_set,
            );
        }
    }

    fn insert(
        &mut self,
        identity: u32,
        direction: compiled::Direction,
        l4: L4,
        action: compiled::Action,
        precedence: Precedence,
        rule_set: RuleSetId,
    ) {
        let bits = bits_of(l4);
        let prefix = (
            identity,
            direction_of(direction).number(),
            bits.get(),
            l4.proto().map_or(0, |protocol| protocol.number()),
            l4.ports().base(),
        );
        let entry = PolicyEntry::new(action_of(action), precedence.get(), rule_set.get(), bits);
        self.0.insert(prefix, entry);
    }
}

impl Rules for Entries {
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry> {
        let direction = key.direction()?.number();
        let at = |bits: L4Bits, protocol, port| {
            self.0
                .get(&(key.identity(), direction, bits.get(), protocol, port))
                .copied()
        };
        (1..=PORT_BITS)
            .rev()
            .find_map(|bits| {
                let mask = u16::MAX << (PORT_BITS - bits);
                at(L4Bits::port(bits), key.protocol(), key.port() & mask)
            })
            .or_else(|| at(L4Bits::PROTOCOL, key.protocol(), 0))
            .or_else(|| at(L4Bits::ANY, 0, 0))
    }
}

/// The datapath's word for a direction.
pub(super) const fn direction_of(direction: compiled::Direction) -> Direction {
    match direction {
        compiled::Direction::Ingress => Direction::Ingress,
        compiled::Direction::Egress => Direction::Egress,
    }
}

const fn action_of(action: compiled::Action) -> Action {
    match action {
        compiled::Action::Allow => Action::Allow,
        compiled::Action::Deny => Action::Deny,
        compiled::Action::RedirectDns => Action::RedirectDns,
        compiled::Action::NeedsProxy => Action::NeedsProxy,
        compiled::Action::Refuse => Action::Refuse,
        compiled::Action::Mixed => Action::Mixed,
    }
}

/// How specific an entry is, as the map counts.
pub(super) const fn bits_of(l4: L4) -> L4Bits {
    match l4 {
        L4::Any => L4Bits::ANY,
        L4::Protocol { .. } => L4Bits::PROTOCOL,
        L4::Port { ports, .. } => L4Bits::port(ports.len()),
    }
}
