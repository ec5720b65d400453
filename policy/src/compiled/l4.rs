//! Protocols and ports of an entry, as the POLICY map's longest-prefix key sees them.
//!
//! In:  protocols, port ranges, ICMP types.
//! Out: [`L4`], a chain of prefixes: everything ⊃ one protocol ⊃ a power-of-two port range.
//! Not here: names of services (unsupported), peers.

use std::fmt;

/// A protocol policies can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP over IPv4; its "port" is the type.
    Icmp,
    /// ICMP over IPv6; its "port" is the type.
    Icmpv6,
}

/// A protocol number no policy can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("protocol number {0} has no name in policies")]
pub struct UnknownProtocol(pub u8);

impl Protocol {
    /// The number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Icmp => 1,
            Self::Icmpv6 => 58,
        }
    }
}

impl TryFrom<u8> for Protocol {
    type Error = UnknownProtocol;

    fn try_from(number: u8) -> Result<Self, UnknownProtocol> {
        Ok(match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            1 => Self::Icmp,
            58 => Self::Icmpv6,
            other => return Err(UnknownProtocol(other)),
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Icmpv6 => "ICMPv6",
        })
    }
}

/// A power-of-two range of ports: the upper `len` bits of `base`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPrefix {
    base: u16,
    len: u8,
}

impl PortPrefix {
    /// Every port.
    pub const ALL: Self = Self { base: 0, len: 0 };

    /// One port.
    pub const fn one(port: u16) -> Self {
        Self {
            base: port,
            len: 16,
        }
    }

    /// The fewest prefixes that together are `first..=last`; none when the range is empty.
    pub fn split(first: u16, last: u16) -> Vec<Self> {
        let mut prefixes = Vec::new();
        let (mut next, last) = (u32::from(first), u32::from(last));
        while next <= last {
            let aligned = if next == 0 {
                16
            } else {
                next.trailing_zeros().min(16)
            };
            let fits = (last - next + 1).ilog2();
            let bits = aligned.min(fits);
            // `next` is at most 65535 and `bits` at most 16 here.
            prefixes.push(Self {
                base: next as u16,
                len: (16 - bits) as u8,
            });
            next += 1 << bits;
        }
        prefixes
    }

    /// The first port.
    pub const fn base(self) -> u16 {
        self.base
    }

    /// How many leading bits are fixed: 16 for one port, 0 for every port.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a number of bits, not of elements"
    )]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// Whether the prefix stands for every port.
    pub const fn is_all(self) -> bool {
        self.len == 0
    }

    /// The prefix of `len` bits it is inside of.
    fn shortened(self, len: u8) -> Self {
        let len = len.min(self.len);
        let mask = u16::MAX
            .checked_shl(16 - u32::from(len.min(16)))
            .unwrap_or(0);
        Self {
            base: self.base & mask,
            len,
        }
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.base | u16::MAX.checked_shr(u32::from(self.len)).unwrap_or(0)
    }

    /// Whether `port` is in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.base..=self.last()).contains(&port)
    }

    /// Whether the whole of `other` is in the range.
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && self.contains(other.base)
    }
}

impl fmt::Display for PortPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len {
            0 => f.write_str("*"),
            16 => write!(f, "{}", self.base),
            _ => write!(f, "{}-{}", self.base, self.last()),
        }
    }
}

impl fmt::Debug for PortPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Protocol and ports of an entry. `Port` never holds [`PortPrefix::ALL`]: that is `Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4 {
    /// Every protocol, also those without ports.
    Any,
    /// Every port (or type) of one protocol.
    Protocol {
        /// The protocol.
        proto: Protocol,
    },
    /// Some ports of one protocol; for ICMP the type, always of length 16.
    Port {
        /// The protocol.
        proto: Protocol,
        /// The ports.
        ports: PortPrefix,
    },
}

impl L4 {
    /// These ports of this protocol, in the one form they have.
    pub const fn new(proto: Protocol, ports: PortPrefix) -> Self {
        if ports.is_all() {
            Self::Protocol { proto }
        } else {
            Self::Port { proto, ports }
        }
    }

    /// One port, or one ICMP type.
    pub const fn port(proto: Protocol, port: u16) -> Self {
        Self::new(proto, PortPrefix::one(port))
    }

    /// The protocol, if one is named.
    pub const fn proto(self) -> Option<Protocol> {
        match self {
            Self::Any => None,
            Self::Protocol { proto } | Self::Port { proto, .. } => Some(proto),
        }
    }

    /// The ports; every one when none is named.
    pub const fn ports(self) -> PortPrefix {
        match self {
            Self::Any | Self::Protocol { .. } => PortPrefix::ALL,
            Self::Port { ports, .. } => ports,
        }
    }

    /// Whether a packet of this protocol and destination port (or ICMP type) matches.
    pub fn contains(self, proto: Protocol, port: u16) -> bool {
        self.proto().is_none_or(|own| own == proto) && self.ports().contains(port)
    }

    /// Whether everything `other` matches is matched by `self`.
    pub fn covers(self, other: Self) -> bool {
        match (self.proto(), other.proto()) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(a), Some(b)) => a == b && self.ports().covers(other.ports()),
        }
    }

    /// Everything that covers it, itself excluded, the nearest first.
    pub(crate) fn wider(self) -> impl Iterator<Item = Self> {
        let (proto, ports) = (self.proto(), self.ports());
        let of_ports = proto.into_iter().flat_map(move |proto| {
            (0..ports.len)
                .rev()
                .map(move |len| Self::new(proto, ports.shortened(len)))
        });
        of_ports.chain(proto.map(|_| Self::Any))
    }

    /// How long the prefix is in the POLICY map's key: the longer, the more specific.
    pub const fn specificity(self) -> u8 {
        match self {
            Self::Any => 0,
            Self::Protocol { .. } => 8,
            Self::Port { ports, .. } => 8 + ports.len(),
        }
    }
}

impl fmt::Display for L4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any port"),
            Self::Protocol { proto } => write!(f, "any {proto}"),
            Self::Port {
                proto: proto @ (Protocol::Icmp | Protocol::Icmpv6),
                ports,
            } => write!(f, "{proto} type {ports}"),
            Self::Port { proto, ports } => write!(f, "{ports}/{proto}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_that_is_a_power_of_two_is_one_prefix() {
        assert_eq!(PortPrefix::split(8080, 8095).len(), 1);
        assert_eq!(PortPrefix::split(0, 65535), vec![PortPrefix::ALL]);
        assert_eq!(PortPrefix::split(443, 443), vec![PortPrefix::one(443)]);
        assert_eq!(PortPrefix::split(2, 1), vec![]);
        assert_eq!(PortPrefix::one(65535).last(), 65535);
    }

    proptest! {
        #[test]
        fn prefixes_are_exactly_the_range(first: u16, last: u16, port: u16) {
            let prefixes = PortPrefix::split(first, last);
            let hits = prefixes.iter().filter(|p| p.contains(port)).count();
            prop_assert_eq!(hits, usize::from((first..=last).contains(&port)));
            prop_assert!(prefixes.len() <= 30);
        }

        #[test]
        fn covering_is_containing_everything(a in 0u8..=16, b in 0u8..=16, x: u16, y: u16, port: u16) {
            let prefix = |base: u16, len: u8| PortPrefix {
                base: if len == 0 { 0 } else { base >> (16 - len) << (16 - len) }, len };
            let (p, q) = (prefix(x, a), prefix(y, b));
            if p.covers(q) && q.contains(port) {
                prop_assert!(p.contains(port));
            }
            if !p.covers(q) {
                prop_assert!(!(p.contains(q.base()) && p.contains(q.last())));
            }
        }
    }
}
