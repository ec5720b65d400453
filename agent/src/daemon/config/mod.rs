//! The configuration file of `namegate agent`.
//!
//! In:  YAML; a field that is not known is an error that names its line.
//! Out: [`Config`], checked as a whole: one address, one interface, one endpoint.
//! Not here: policies (`policies`), acting on any of it (`engine`).

mod check;
mod endpoint;
mod error;
mod settings;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use dnsproxy_core::Config as DnsConfig;
use fqdn_ebpf_loader::{Config as DatapathConfig, Sizes};
use serde::Deserialize;

pub(crate) use endpoint::{EndpointConfig, ResolverConfig};
pub use error::ConfigError;
pub(crate) use settings::{
    AttachHow, Enforcement, LimitsConfig, SizesConfig, StateConfig, SteeringConfig,
};

/// Everything the agent is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Workloads. Their interfaces may come and go.
    #[serde(default)]
    pub(crate) endpoints: Vec<EndpointConfig>,
    /// Files and folders of policies; watched.
    pub(crate) policies: Vec<PathBuf>,
    /// What is known about the world around the workloads; watched.
    #[serde(default)]
    pub(crate) world: Option<PathBuf>,
    /// Resolvers whose answers teach.
    #[serde(default)]
    pub(crate) resolvers: Vec<ResolverConfig>,
    /// When endpoints are restricted.
    #[serde(default)]
    pub(crate) enforcement: Enforcement,
    /// Nothing is refused anybody; what would be is told.
    #[serde(default)]
    pub(crate) audit: bool,
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

fn default_socket() -> PathBuf {
    PathBuf::from(crate::api::AGENT_SOCKET)
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn default_metrics() -> Option<SocketAddr> {
    Some((Ipv4Addr::LOCALHOST, 9963).into())
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
        let mut config: Self =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax {
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
        for endpoint in &mut config.endpoints {
            endpoint.audit |= config.audit;
        }
        Ok(config)
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

    /// The settings that differ and are only looked at when the agent starts.
    pub(crate) fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        [
            ("enforcement", self.enforcement != running.enforcement),
            ("attach", self.attach != running.attach),
            ("socket", self.socket != running.socket),
            ("metrics", self.metrics != running.metrics),
            ("state", self.state != running.state),
            ("steering", self.steering != running.steering),
            ("sizes", self.sizes != running.sizes),
            ("limits", self.limits != running.limits),
        ]
        .into_iter()
        .filter_map(|(setting, differs)| differs.then_some(setting))
        .collect()
    }

    /// Capacities of the maps: one endpoint more than configured, for trials.
    pub(crate) fn map_sizes(&self) -> Sizes {
        let sizes = Sizes::from(self.sizes);
        Sizes {
            endpoints: sizes.endpoints.saturating_add(1),
            ..sizes
        }
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
        let per_second = self.limits.events_per_second;
        let burst = self
            .limits
            .event_burst
            .unwrap_or_else(|| per_second.saturating_mul(2));
        DatapathConfig::new(
            self.steering.marks(),
            self.steering.port,
            self.steering.lanes(),
        )
        .with_events(self.limits.events_per_second, burst)
    }
}

#[cfg(test)]
mod tests;
