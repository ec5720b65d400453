//! POLICY: what an identity may do, by longest prefix over protocol and port.
//!
//! In:  entries of a compiled policy.
//! Out: [`PolicyKey`] with the length of its prefix, and [`PolicyEntry`].
//! Not here: choosing between entries of several identities (`verdict`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Direction;

/// Identity 0 in a key: whoever the peer is.
pub const ANY_PEER: u32 = 0;

/// Prefix length of a key without protocol and port: policy, identity, direction.
pub const BASE_BITS: u32 = 72;
/// Prefix length of a key with a protocol.
pub const PROTOCOL_BITS: u32 = 80;
/// Prefix length of a whole key.
pub const FULL_BITS: u32 = 96;

/// Policy, peer, direction, protocol, port; what the longest-prefix match runs over.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyKey {
    policy: u32,
    identity: u32,
    direction: u8,
    protocol: u8,
    port: [u8; 2],
}

const _: () = assert!(size_of::<PolicyKey>() == 12);

impl PolicyKey {
    /// The key of a packet (or, with trailing parts zero, of an entry).
    #[inline(always)]
    pub const fn new(
        policy: u32,
        identity: u32,
        direction: Direction,
        protocol: u8,
        port: u16,
    ) -> Self {
        Self {
            policy,
            identity,
            direction: direction.number(),
            protocol,
            port: port.to_be_bytes(),
        }
    }

    /// Which policy.
    pub const fn policy(&self) -> u32 {
        self.policy
    }

    /// Which peer; 0 is any.
    pub const fn identity(&self) -> u32 {
        self.identity
    }

    /// Which way.
    pub const fn direction(&self) -> Option<Direction> {
        Direction::from_number(self.direction)
    }

    /// Which protocol.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Which port, the first of a prefix.
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
    }
}

/// How specific an entry is about protocol and port: 0 not at all, 1 the protocol, 2..=17 the
/// protocol and this many minus one bits of the port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct L4Bits(u8);

impl L4Bits {
    /// Any protocol.
    pub const ANY: Self = Self(0);
    /// One protocol.
    pub const PROTOCOL: Self = Self(1);

    /// One protocol and the first `bits` of the port, at most 16.
    pub const fn port(bits: u8) -> Self {
        Self(if bits > 16 { 17 } else { bits.wrapping_add(1) })
    }

    /// The prefix length of the entry's key.
    pub const fn prefix_len(self) -> u32 {
        match self.0 {
            0 => BASE_BITS,
            n => PROTOCOL_BITS.wrapping_add(n as u32).wrapping_sub(1),
        }
    }

    /// The number as the map holds it.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Action {
    /// Let it pass.
    Allow = 1,
    /// Drop it.
    Deny = 2,
    /// Hand it to the DNS proxy.
    RedirectDns = 3,
    /// Drop it: only an L7 rule allows it, and there is no proxy to ask.
    NeedsProxy = 4,
    /// Drop it as if no entry were there: what a tier passed on, and nobody after it allows.
    Refuse = 5,
    /// Drop it: behind a service's address some may be reached and others may not.
    Mixed = 6,
}

impl Action {
    /// The action with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Allow,
            2 => Self::Deny,
            3 => Self::RedirectDns,
            4 => Self::NeedsProxy,
            5 => Self::Refuse,
            6 => Self::Mixed,
            _ => return None,
        })
    }

    /// Whether the packet ends here.
    #[inline(always)]
    pub const fn drops(self) -> bool {
        match self {
            Self::Deny | Self::NeedsProxy | Self::Refuse | Self::Mixed => true,
            Self::Allow | Self::RedirectDns => false,
        }
    }
}

/// The record of one entry.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyEntry {
    precedence: u32,
    rule_set: u32,
    action: u8,
    l4_bits: u8,
    /// Room for the port of a layer-7 proxy; 0 is none.
    proxy_port: u16,
}

const _: () = assert!(size_of::<PolicyEntry>() == 12);

impl PolicyEntry {
    /// An entry.
    pub const fn new(action: Action, precedence: u32, rule_set: u32, l4: L4Bits) -> Self {
        Self {
            precedence,
            rule_set,
            action: action as u8,
            l4_bits: l4.0,
            proxy_port: 0,
        }
    }

    /// Against entries of other identities: the higher one counts.
    #[inline(always)]
    pub const fn precedence(&self) -> u32 {
        self.precedence
    }

    /// Which rules are behind it.
    #[inline(always)]
    pub const fn rule_set(&self) -> u32 {
        self.rule_set
    }

    /// What it says. A number nobody knows denies.
    #[inline(always)]
    pub const fn action(&self) -> Action {
        match Action::from_number(self.action) {
            Some(action) => action,
            None => Action::Deny,
        }
    }

    /// How specific it is about protocol and port.
    #[inline(always)]
    pub const fn l4_bits(&self) -> L4Bits {
        L4Bits(self.l4_bits)
    }
}

/// How an entry matched, numbers as in Cilium's policy-verdict events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum MatchType {
    /// No entry: the direction's default.
    #[default]
    None = 0,
    /// By peer.
    L3Only = 1,
    /// By peer and port.
    L3L4 = 2,
    /// By port.
    L4Only = 3,
    /// An entry for everything.
    All = 4,
    /// By peer and protocol.
    L3Proto = 5,
    /// By protocol.
    ProtoOnly = 6,
}

impl MatchType {
    /// How an entry of this identity and specificity matches.
    #[inline(always)]
    pub const fn of(identity: u32, l4: L4Bits) -> Self {
        match (identity != ANY_PEER, l4.0) {
            (true, 0) => Self::L3Only,
            (true, 1) => Self::L3Proto,
            (true, _) => Self::L3L4,
            (false, 0) => Self::All,
            (false, 1) => Self::ProtoOnly,
            (false, _) => Self::L4Only,
        }
    }

    /// The type with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::L3Only,
            2 => Self::L3L4,
            3 => Self::L4Only,
            4 => Self::All,
            5 => Self::L3Proto,
            6 => Self::ProtoOnly,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_lengths() {
        assert_eq!(L4Bits::ANY.prefix_len(), BASE_BITS);
        assert_eq!(L4Bits::PROTOCOL.prefix_len(), PROTOCOL_BITS);
        assert_eq!(L4Bits::port(0).prefix_len(), PROTOCOL_BITS);
        assert_eq!(L4Bits::port(9).prefix_len(), 89);
        assert_eq!(L4Bits::port(16).prefix_len(), FULL_BITS);
    }

    #[test]
    fn an_unknown_action_denies() {
        assert_eq!(PolicyEntry::default().action(), Action::Deny);
        assert_eq!(Action::from_number(7), None);
        for action in (1..7).filter_map(Action::from_number) {
            assert_eq!(PolicyEntry::new(action, 0, 0, L4Bits::ANY).action(), action);
        }
    }
}
