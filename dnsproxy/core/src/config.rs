//! The settings of the proxy core.
//!
//! In:  values from the command line or the agent's configuration.
//! Out: [`Config`], plain data; its default is what production uses.
//! Not here: sockets and ports of the shell (`dnsproxy`).

use std::time::Duration;

use ipnet::IpNet;

/// Everything that can be set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bounds of everything that grows.
    pub limits: Limits,
    /// How long an answer counts.
    pub ttl: TtlBounds,
    /// After this long without a reply from any resolver a query is given up.
    pub upstream_timeout: Duration,
    /// After this long without a reply the next upstream of a redirect is asked.
    pub attempt_timeout: Duration,
    /// How long an upstream that failed is asked last.
    pub upstream_rest: Duration,
    /// How many source ports the shell has per resolver family.
    pub port_slots: u16,
    /// How a name that policy does not allow is refused.
    pub refuse_with: RefuseWith,
    /// Which addresses no name may open.
    pub rebinding: Rebinding,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            ttl: TtlBounds::default(),
            upstream_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(2),
            upstream_rest: Duration::from_secs(30),
            port_slots: 256,
            refuse_with: RefuseWith::Refused,
            rebinding: Rebinding::default(),
        }
    }
}

/// Bounds of everything that grows. Reaching one costs only the endpoint that reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Queries without an answer yet.
    pub in_flight_per_endpoint: usize,
    /// Names that match a selector.
    pub names_per_endpoint: usize,
    /// Addresses one answer may teach, and a name keeps.
    pub addresses_per_name: usize,
    /// Entries in LEARNED; these quotas must sum to no more than its capacity.
    pub addresses_per_endpoint: usize,
    /// Names that match nothing.
    pub unmatched_names: usize,
    /// Names remembered with an address. They explain it; its grants do not depend on them.
    pub names_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_per_endpoint: 1024,
            names_per_endpoint: 16_384,
            addresses_per_name: 1024,
            addresses_per_endpoint: 16_384,
            unmatched_names: 1024,
            names_per_address: 8,
        }
    }
}

/// How long an answer counts: `clamp(TTL, min, max) + grace`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TtlBounds {
    /// Shorter TTLs count as this.
    pub min: Duration,
    /// Longer TTLs count as this, and are released as this.
    pub max: Duration,
    /// For the time between the reply and the connection.
    pub grace: Duration,
}

impl Default for TtlBounds {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(60),
            max: Duration::from_secs(86_400),
            grace: Duration::from_secs(10),
        }
    }
}

impl TtlBounds {
    /// Whole seconds an answer with this TTL counts, without the grace.
    pub(crate) fn granted(self, ttl: u32) -> u32 {
        let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        ttl.max(seconds(self.min)).min(seconds(self.max))
    }

    /// How long an answer with this TTL opens what it teaches.
    pub(crate) fn lifetime(self, ttl: u32) -> Duration {
        Duration::from_secs(u64::from(self.granted(ttl))).saturating_add(self.grace)
    }
}

/// The response code for names that policy does not allow. REFUSED ends the search list of some
/// resolvers (musl), NXDOMAIN does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefuseWith {
    /// REFUSED (5).
    Refused,
    /// NXDOMAIN (3).
    NxDomain,
}

/// Which addresses an answer teaches nothing about, because reaching them is not what a name in
/// public DNS should be able to grant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rebinding {
    /// Also hold back private addresses (RFC 1918, RFC 4193, RFC 6598).
    pub withhold_private: bool,
    /// Prefixes that names may open all the same. Workloads and nodes stay closed.
    pub allow: Vec<IpNet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_never_shorter_than_a_released_ttl() {
        let bounds = TtlBounds::default();
        for (ttl, granted, lifetime) in [
            (0, 60, 70),
            (60, 60, 70),
            (300, 300, 310),
            (86_400, 86_400, 86_410),
            (u32::MAX, 86_400, 86_410),
        ] {
            assert_eq!(bounds.granted(ttl), granted);
            assert_eq!(bounds.lifetime(ttl), Duration::from_secs(lifetime));
        }
    }
}
