//! Who lives where in the world.
//!
//! In:  nothing.
//! Out: addresses as text, the way they go on command lines.
//! Not here: names (`zone`).

use std::net::IpAddr;

use anyhow::{Context, Result};

/// The world's end of the wire.
pub const UPLINK4: &str = "198.51.100.1";
/// The world's end of the wire.
pub const UPLINK6: &str = "2001:db8:ffff::1";
/// The host's end of the wire.
pub const HOST4: &str = "198.51.100.2";
/// The host's end of the wire.
pub const HOST6: &str = "2001:db8:ffff::2";

/// `example.test`.
pub const EXAMPLE: &str = "203.0.113.10";
/// `example.test`.
pub const EXAMPLE6: &str = "2001:db8:113::10";
/// `api.example.test`.
pub const API: &str = "203.0.113.11";
/// `a.b.example.test`.
pub const DEEP: &str = "203.0.113.12";
/// The end of the CNAME chain of `www.chain.test`.
pub const EDGE: &str = "203.0.113.13";
/// `short.ttl.test` and `long.ttl.test`.
pub const SHARED: &str = "203.0.113.14";
/// `brief.test`, whose TTL is one second.
pub const BRIEF: &str = "203.0.113.15";
/// `six.test`, which has no IPv4 address.
pub const SIX6: &str = "2001:db8:113::16";
/// `other.test`.
pub const OTHER: &str = "203.0.113.17";
/// `other.test`.
pub const OTHER6: &str = "2001:db8:113::17";
/// The trusted resolver.
pub const RESOLVER: &str = "203.0.113.53";
/// The trusted resolver.
pub const RESOLVER6: &str = "2001:db8:113::53";
/// A resolver that answers every question with [`EVIL`].
pub const LIAR: &str = "203.0.113.54";
/// Free for a resolver that a test writes itself.
pub const STRANGE: &str = "203.0.113.55";
/// Nothing answers there.
pub const NOBODY: &str = "203.0.113.56";
/// `evil.test`, and what the liar says.
pub const EVIL: &str = "203.0.113.66";
/// `evil.test`.
pub const EVIL6: &str = "2001:db8:113::66";
/// github.com and api.github.com for policies that are written about them.
pub const GITHUB: &str = "203.0.113.70";
/// api.github.com.
pub const GITHUB_API: &str = "203.0.113.71";
/// api.stripe.com.
pub const STRIPE: &str = "203.0.113.72";
/// Where markers of a capture go.
pub const MARKER: &str = "203.0.113.99";

/// Every address above that the world answers for.
pub const ALL: &[&str] = &[
    EXAMPLE,
    EXAMPLE6,
    API,
    DEEP,
    EDGE,
    SHARED,
    BRIEF,
    SIX6,
    OTHER,
    OTHER6,
    RESOLVER,
    RESOLVER6,
    LIAR,
    STRANGE,
    EVIL,
    EVIL6,
    GITHUB,
    GITHUB_API,
    STRIPE,
    MARKER,
    "203.0.113.20",
    "203.0.113.21",
    "203.0.113.22",
    "203.0.113.23",
    "203.0.113.24",
];

/// Addresses of `many.test`, in the order of the zone.
pub const MANY: &[&str] = &[
    "203.0.113.20",
    "203.0.113.21",
    "203.0.113.22",
    "203.0.113.23",
];

/// Fresh names lead here, each to an address of its own.
pub const RACE4: &str = "100.64.0.0/10";
/// Fresh names lead here, each to an address of its own.
pub const RACE6: &str = "2001:db8:64::/64";

/// An address from its text.
pub fn ip(text: &str) -> Result<IpAddr> {
    text.parse()
        .with_context(|| format!("`{text}` is no address"))
}
