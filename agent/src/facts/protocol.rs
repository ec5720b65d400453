//! Protocols as worlds and flows write them.
//!
//! In:  `TCP`, `ICMPv6`.
//! Out: [`Protocol`].
//! Not here: the names policies know (`policy`).

use std::fmt;

use serde::Deserialize;

/// A protocol flows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
    /// ICMP over IPv4.
    #[serde(rename = "ICMP")]
    Icmp,
    /// ICMP over IPv6.
    #[serde(rename = "ICMPv6")]
    Icmpv6,
}

impl Protocol {
    /// Whether it has types where others have ports.
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::Icmp | Self::Icmpv6)
    }
}

impl From<Protocol> for policy::compiled::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
            Protocol::Icmp => Self::Icmp,
            Protocol::Icmpv6 => Self::Icmpv6,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        policy::compiled::Protocol::from(*self).fmt(f)
    }
}
