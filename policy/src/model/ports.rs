//! On which ports a clause applies, and what may be said there.
//!
//! In:  `toPorts`, `icmps`.
//! Out: [`Ports`].
//! Not here: power-of-two prefixes (`compiled::PortPrefix`), numbers of names (`compile`).

use std::sync::Arc;

use crate::{compiled::Protocol, fqdn::NameSelector, l7::L7};

/// The ports of a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// No restriction was written: every protocol.
    All,
    /// `toPorts`.
    Rules(Vec<PortRule>),
    /// `icmps`: protocol (ICMP or ICMPv6) and type.
    Icmp(Vec<(Protocol, u8)>),
}

/// One element of `toPorts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// The ports. Without any, and without names, nothing is selected.
    pub ports: Vec<PortRange>,
    /// Ports by the name that the container of the receiving side gives them.
    pub named: Vec<NamedPort>,
    /// `rules.dns`, if it holds any entry.
    pub dns: Option<Vec<NameSelector>>,
    /// What may be inside of the connections, if anything is said about it.
    pub l7: Option<Arc<L7>>,
    /// The line it starts on.
    pub line: u32,
}

/// A port by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name, in lower case.
    pub name: Arc<str>,
    /// The protocol; `None` is `ANY`.
    pub proto: Option<Protocol>,
}

/// Ports of one protocol, or of all that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The protocol; `None` is `ANY`: TCP, UDP and SCTP.
    pub proto: Option<Protocol>,
    /// First port. 0 with `last` 65535 is every port.
    pub first: u16,
    /// Last port, at least `first`.
    pub last: u16,
}

impl PortRange {
    /// The protocols it stands for.
    pub fn protocols(self) -> impl Iterator<Item = Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .filter(move |proto| self.proto.is_none_or(|own| own == *proto))
    }

    /// Whether it is one port.
    pub const fn is_single(self) -> bool {
        self.first == self.last
    }
}
