//! How the agent works: attachment, steering, sizes, limits.
//!
//! In:  YAML; what is left out has a default.
//! Out: one value a section, and what it means to the crates that do the work.
//! Not here: whether the numbers fit together (`check`).

use std::path::PathBuf;

use dnsproxy_core::Config as DnsConfig;
use fqdn_ebpf_loader::{Attach, Marks, Sizes};
use policy::compile::EnforcementMode;
use serde::Deserialize;

/// `enable-policy` of Cilium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Enforcement {
    #[default]
    Default,
    Always,
    Never,
}

impl From<Enforcement> for EnforcementMode {
    fn from(mode: Enforcement) -> Self {
        match mode {
            Enforcement::Default => Self::Default,
            Enforcement::Always => Self::Always,
            Enforcement::Never => Self::Never,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AttachHow {
    #[default]
    Auto,
    Tcx,
    Clsact,
}

impl From<AttachHow> for Attach {
    fn from(how: AttachHow) -> Self {
        match how {
            AttachHow::Auto => Self::Auto,
            AttachHow::Tcx => Self::Tcx,
            AttachHow::Clsact => Self::Clsact,
        }
    }
}

/// What must survive a restart.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct StateConfig {
    /// Numbers and names.
    pub(crate) directory: PathBuf,
    /// Maps and links, on a bpf file system.
    pub(crate) pins: PathBuf,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            directory: "/var/lib/namegate".into(),
            pins: "/sys/fs/bpf/namegate".into(),
        }
    }
}

/// How DNS gets to the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct SteeringConfig {
    pub(crate) mark: u32,
    pub(crate) reply_mark: u32,
    pub(crate) mask: u32,
    pub(crate) table: u32,
    pub(crate) priority: u32,
    /// The first listener's port on loopback; the others follow.
    pub(crate) port: u16,
    /// Threads of the DNS proxy.
    pub(crate) shards: u16,
    /// Ports of the listeners. An endpoint's queries wait in those of one of them.
    lanes: u16,
}

impl Default for SteeringConfig {
    fn default() -> Self {
        let marks = Marks::default();
        Self {
            mark: marks.to_proxy,
            reply_mark: marks.from_proxy,
            mask: marks.mask,
            table: 2004,
            priority: 9,
            port: 61_053,
            shards: std::thread::available_parallelism()
                .ok()
                .and_then(|count| u16::try_from(count.get()).ok())
                .unwrap_or(1)
                .min(4),
            lanes: 64,
        }
    }
}

impl SteeringConfig {
    /// Every shard has as many ports.
    pub(crate) const fn lanes(&self) -> u16 {
        let shards = if self.shards == 0 { 1 } else { self.shards };
        let rounds = self.lanes.div_ceil(shards);
        let rounds = if rounds == 0 { 1 } else { rounds };
        rounds.saturating_mul(shards)
    }

    /// The ports of a shard: those to which the kernel programs steer its endpoints.
    pub(crate) fn ports(&self, shard: u16) -> impl Iterator<Item = u16> + use<> {
        let base = self.port;
        (shard..self.lanes())
            .step_by(usize::from(self.shards.max(1)))
            .map(move |lane| base.saturating_add(lane))
    }

    pub(crate) const fn marks(&self) -> Marks {
        Marks {
            mask: self.mask,
            to_proxy: self.mark,
            from_proxy: self.reply_mark,
        }
    }
}

/// Capacities of the kernel maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct SizesConfig {
    pub(crate) endpoints: u32,
    pub(crate) addresses: u32,
    pub(crate) prefixes: u32,
    pub(crate) learned: u32,
    pub(crate) policy: u32,
    pub(crate) flows: u32,
    pub(crate) datagrams: u32,
    pub(crate) event_bytes: u32,
}

impl Default for SizesConfig {
    fn default() -> Self {
        let sizes = Sizes::default();
        Self {
            endpoints: sizes.endpoints,
            addresses: sizes.addresses,
            prefixes: sizes.prefixes,
            learned: sizes.learned,
            policy: sizes.policy,
            flows: sizes.flows,
            datagrams: sizes.datagrams,
            event_bytes: sizes.event_bytes,
        }
    }
}

impl From<SizesConfig> for Sizes {
    fn from(sizes: SizesConfig) -> Self {
        Self {
            endpoints: sizes.endpoints,
            addresses: sizes.addresses,
            prefixes: sizes.prefixes,
            learned: sizes.learned,
            policy: sizes.policy,
            flows: sizes.flows,
            datagrams: sizes.datagrams,
            event_bytes: sizes.event_bytes,
        }
    }
}

/// What one endpoint may cost, and how long answers count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct LimitsConfig {
    /// Seconds; shorter TTLs count as this.
    pub(crate) min_ttl: u64,
    /// Seconds; longer TTLs count as this.
    pub(crate) max_ttl: u64,
    /// Seconds past the TTL in which connections may still be opened.
    pub(crate) ttl_grace: u64,
    /// Queries of an endpoint without an answer yet.
    pub(crate) in_flight: usize,
    /// Names of an endpoint that match a rule.
    pub(crate) names: usize,
    /// Addresses an endpoint may learn; none for its share of `sizes.learned`.
    pub(crate) addresses: Option<u32>,
    /// Events a second and endpoint.
    pub(crate) events_per_second: u32,
    /// Events of an endpoint at once; none for those of two seconds.
    pub(crate) event_burst: Option<u32>,
    /// Refuse private addresses from DNS too.
    pub(crate) withhold_private: bool,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let dns = DnsConfig::default();
        Self {
            min_ttl: dns.ttl.min.as_secs(),
            max_ttl: dns.ttl.max.as_secs(),
            ttl_grace: dns.ttl.grace.as_secs(),
            in_flight: dns.limits.in_flight_per_endpoint,
            names: dns.limits.names_per_endpoint,
            addresses: None,
            events_per_second: 1000,
            event_burst: None,
            withhold_private: false,
        }
    }
}
