//! The configuration file of `namegate agent`.
//!
//! In:  YAML; a field that is not known is an error that names its line.
//! Out: [`Config`], checked as a whole: one address, one interface, one endpoint.
//! Not here: policies (`policies`), acting on any of it (`engine`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use dnsproxy_core::Config as DnsConfig;
use fqdn_ebpf_loader::{Attach, Config as DatapathConfig, Marks, Sizes};
use identity::{Label, LabelSet};
use policy::compile::EnforcementMode;
use serde::Deserialize;

use crate::world;

/// Endpoints one agent takes on, whatever the maps could hold.
const MOST_ENDPOINTS: usize = 10_000;

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no YAML, or holds a field that is unknown or of another type.
    #[error("`{path}`: {reason}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, column and what was expected.
        reason: String,
    },
    /// Its fields contradict each other.
    #[error("`{path}`: {field}: {reason}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Path of the field.
        field: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// Everything the agent is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Workloads. Their interfaces may come and go.
    #[serde(default)]
    pub(crate) endpoints: Vec<EndpointConfig>,
    /// Files and folders of policies; watched.
    pub(crate) policies: Vec<PathBuf>,
    /// Resolvers whose answers teach.
    #[serde(default)]
    pub(crate) resolvers: Vec<ResolverConfig>,
    /// When endpoints are restricted.
    #[serde(default)]
    pub(crate) enforcement: Enforcement,
    /// How programs are attached.
    #[serde(default)]
    pub(crate) attach: AttachHow,
    /// Where the operator's commands ask.
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
    /// Where metrics and health are served; none switches them off.
    #[serde(default = "default_metrics")]
    pub(crate) metrics: Option<SocketAddr>,
    /// What must survive a restart.
    #[serde(default)]
    pub(crate) state: StateConfig,
    #[serde(default)]
    pub(crate) steering: SteeringConfig,
    #[serde(default)]
    pub(crate) sizes: SizesConfig,
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
}

/// One workload.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EndpointConfig {
    /// The host side of its veth pair.
    pub(crate) interface: String,
    /// What it may use as source: at most one IPv4 and two IPv6 addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// As policies select it, `key=value` or a map.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// As policies select it.
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
    /// Its hardware address; by default the other end of the veth pair is asked.
    #[serde(default)]
    pub(crate) mac: Option<MacText>,
    /// Nothing is refused, everything is recorded.
    #[serde(default)]
    pub(crate) audit: bool,
}

impl EndpointConfig {
    /// Its labels as policies see them, namespace included.
    pub(crate) fn label_set(&self) -> LabelSet {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(key, value)| label(key, value))
            .collect();
        world::pod_labels(&self.namespace, &labels)
    }
}

/// A resolver whose answers teach. Without labels it counts as kube-dns in kube-system, so that
/// policies written for a cluster allow it without a change.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ResolverConfig {
    Address(IpAddr),
    Labelled(LabelledResolver),
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LabelledResolver {
    pub(crate) address: IpAddr,
    /// None: the resolver is what its address is, the world or the node.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
}

impl ResolverConfig {
    pub(crate) const fn address(&self) -> IpAddr {
        match self {
            Self::Address(address) => *address,
            Self::Labelled(resolver) => resolver.address,
        }
    }

    /// Its labels; none when it is to be judged by its address.
    pub(crate) fn label_set(&self) -> Option<LabelSet> {
        match self {
            Self::Address(_) => Some(world::resolver_labels()),
            Self::Labelled(resolver) if resolver.labels.is_empty() => None,
            Self::Labelled(resolver) => {
                let labels: Vec<_> = resolver.labels.iter().map(|(k, v)| label(k, v)).collect();
                Some(world::pod_labels(&resolver.namespace, &labels))
            }
        }
    }
}

fn label(key: &str, value: &str) -> Label {
    match key.split_once(':') {
        Some((source, key)) => Label::new(source, key, value),
        None => Label::k8s(key, value),
    }
}

/// A hardware address as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MacText(pub(crate) [u8; 6]);

impl TryFrom<String> for MacText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?)
            .collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no hardware address like 02:00:5e:10:00:01"))
    }
}

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
            port: 8053,
            shards: std::thread::available_parallelism()
                .ok()
                .and_then(|count| u16::try_from(count.get()).ok())
                .unwrap_or(1)
                .min(4),
        }
    }
}

impl SteeringConfig {
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
            withhold_private: false,
        }
    }
}

fn default_socket() -> PathBuf {
    PathBuf::from(crate::api::AGENT_SOCKET)
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn default_metrics() -> Option<SocketAddr> {
    Some((Ipv4Addr::LOCALHOST, 9963).into())
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        config
            .check()
            .map_err(|(field, reason)| ConfigError::Value {
                path: path.to_owned(),
                field,
                reason,
            })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, reason: String| Err((field.to_owned(), reason));
        if self.policies.is_empty() {
            return wrong("policies", "name at least one file or folder".to_owned());
        }
        self.check_endpoints()?;
        let steering = &self.steering;
        if steering.shards == 0 || steering.shards > 64 {
            return wrong("steering.shards", "must be 1 to 64".to_owned());
        }
        if steering.port == 0 || steering.port.checked_add(steering.shards).is_none() {
            return wrong(
                "steering.port",
                "the listeners' ports must be 1 to 65535".to_owned(),
            );
        }
        let (mark, reply, mask) = (steering.mark, steering.reply_mark, steering.mask);
        if mark & !mask != 0 || reply & !mask != 0 || mark == reply || mark == 0 || reply == 0 {
            return wrong(
                "steering.mark",
                format!(
                    "{mark:#x} and {reply:#x} must differ, be within the mask {mask:#x}, and not be 0"
                ),
            );
        }
        if matches!(steering.table, 0 | 253..=255) {
            return wrong(
                "steering.table",
                "must not be one of the kernel's own".to_owned(),
            );
        }
        for (field, value) in [
            ("sizes.endpoints", self.sizes.endpoints),
            ("sizes.addresses", self.sizes.addresses),
            ("sizes.prefixes", self.sizes.prefixes),
            ("sizes.learned", self.sizes.learned),
            ("sizes.policy", self.sizes.policy),
            ("sizes.flows", self.sizes.flows),
            ("sizes.datagrams", self.sizes.datagrams),
        ] {
            if value == 0 || value > 1 << 24 {
                return wrong(field, "must be 1 to 16777216".to_owned());
            }
        }
        if self.addresses_per_endpoint() == 0 {
            return wrong(
                "sizes.learned",
                "must be at least sizes.endpoints".to_owned(),
            );
        }
        let quotas = u64::from(self.addresses_per_endpoint()) * u64::from(self.sizes.endpoints);
        if quotas > u64::from(self.sizes.learned) {
            return wrong(
                "limits.addresses",
                format!(
                    "{} endpoints with {} addresses each do not fit sizes.learned, {}",
                    self.sizes.endpoints,
                    self.addresses_per_endpoint(),
                    self.sizes.learned
                ),
            );
        }
        Ok(())
    }

    fn check_endpoints(&self) -> Result<(), (String, String)> {
        let most = usize::try_from(self.sizes.endpoints)
            .unwrap_or(usize::MAX)
            .min(MOST_ENDPOINTS);
        if self.endpoints.len() > most {
            return Err((
                "endpoints".to_owned(),
                format!(
                    "{} of them, but sizes.endpoints allows {most}",
                    self.endpoints.len()
                ),
            ));
        }
        let mut interfaces = BTreeSet::new();
        let mut addresses: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let field = |name: &str| format!("endpoints[{at}].{name}");
            let name = &endpoint.interface;
            if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
                return Err((field("interface"), format!("`{name}` is no interface name")));
            }
            if !interfaces.insert(name) {
                return Err((
                    field("interface"),
                    format!("`{name}` belongs to another endpoint"),
                ));
            }
            let (v4, v6): (Vec<_>, Vec<_>) = endpoint
                .addresses
                .iter()
                .map(IpAddr::to_canonical)
                .partition(IpAddr::is_ipv4);
            if v4.len() > 1 || v6.len() > 2 || endpoint.addresses.is_empty() {
                return Err((
                    field("addresses"),
                    "an endpoint has one IPv4 address, or up to two IPv6 addresses, or both"
                        .to_owned(),
                ));
            }
            for address in v4.into_iter().chain(v6) {
                if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                    return Err((
                        field("addresses"),
                        format!("{address} cannot be a workload's"),
                    ));
                }
                if let Some(other) = addresses.insert(address, name) {
                    return Err((
                        field("addresses"),
                        format!(
                            "{address} belongs to `{other}`; two endpoints cannot share an address"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The most addresses one endpoint may learn.
    pub(crate) fn addresses_per_endpoint(&self) -> u32 {
        self.limits.addresses.unwrap_or_else(|| {
            self.sizes
                .learned
                .checked_div(self.sizes.endpoints)
                .unwrap_or(0)
        })
    }

    /// The DNS proxy's settings.
    pub(crate) fn dns(&self) -> DnsConfig {
        let mut config = DnsConfig::default();
        config.ttl.min = Duration::from_secs(self.limits.min_ttl);
        config.ttl.max = Duration::from_secs(self.limits.max_ttl.max(self.limits.min_ttl));
        config.ttl.grace = Duration::from_secs(self.limits.ttl_grace);
        config.limits.in_flight_per_endpoint = self.limits.in_flight;
        config.limits.names_per_endpoint = self.limits.names;
        config.limits.addresses_per_endpoint =
            usize::try_from(self.addresses_per_endpoint()).unwrap_or(usize::MAX);
        config.rebinding.withhold_private = self.limits.withhold_private;
        config
    }

    /// The programs' settings.
    pub(crate) fn datapath(&self) -> DatapathConfig {
        let burst = self.limits.events_per_second.saturating_mul(2);
        DatapathConfig::new(
            self.steering.marks(),
            self.steering.port,
            self.steering.shards,
        )
        .with_events(self.limits.events_per_second, burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
endpoints:
- interface: web0
  addresses: [10.1.0.2, 'fd00::2']
  labels: {app: web}
  namespace: shop
- interface: db0
  addresses: [10.1.0.3]
  mac: 02:00:5e:10:00:01
policies: [/etc/namegate/policies]
resolvers: [10.1.0.53, {address: 192.0.2.53}]
";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("agent.yaml"), text)
    }

    #[test]
    fn a_file_with_defaults() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.endpoints.len(), 2);
        assert_eq!(config.endpoints[1].mac.unwrap().0[5], 1);
        assert_eq!(config.addresses_per_endpoint(), 512);
        let labels = config.endpoints[0].label_set().to_string();
        assert!(
            labels.contains("k8s:app=web") && labels.contains("shop"),
            "{labels}"
        );
        assert!(config.resolvers[0].label_set().is_some());
        assert!(config.resolvers[1].label_set().is_none());
        assert_eq!(config.metrics.unwrap().port(), 9963);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, said) in [
            (GOOD.replace("policies:", "polices:"), "polices"),
            (
                GOOD.replace("10.1.0.3", "10.1.0.2"),
                "two endpoints cannot share",
            ),
            (GOOD.replace("db0", "web0"), "another endpoint"),
            (
                GOOD.replace("10.1.0.3", "127.0.0.1"),
                "cannot be a workload's",
            ),
            (
                GOOD.replace("02:00:5e:10:00:01", "02:00"),
                "hardware address",
            ),
            (format!("{GOOD}sizes: {{learned: 10}}\n"), "sizes.learned"),
            (
                format!("{GOOD}limits: {{addresses: 100000}}\n"),
                "limits.addresses",
            ),
            (
                format!("{GOOD}steering: {{mark: 0x1000}}\n"),
                "steering.mark",
            ),
            (format!("{GOOD}metrics: here\n"), "metrics"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains("agent.yaml"), "{error}");
            assert!(error.contains(said), "`{said}` is missing in: {error}");
        }
    }

    #[test]
    fn metrics_can_be_switched_off() {
        assert_eq!(
            parse(&format!("{GOOD}metrics: null\n")).unwrap().metrics,
            None
        );
    }
}
