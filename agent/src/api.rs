//! What the control socket speaks: JSON over HTTP on a unix socket.
//!
//! In:  questions of the operator's commands.
//! Out: plain values that serialise, the same for tables and for `-o json`.
//! Not here: the server (`control`), rendering (`cli`).

use std::{net::IpAddr, path::PathBuf};

use flows::{AllowedPeer, DeniedPeer, LookupFailure, RefusedLookup};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where the control sockets of running commands are.
pub const SOCKET_DIR: &str = "/run/namegate";

/// The control socket of `namegate agent`.
pub const AGENT_SOCKET: &str = "/run/namegate/agent.sock";

/// The paths the server answers.
pub mod path {
    /// [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// List of [`super::CacheRow`]; with DELETE and [`super::CleanQuery`], [`super::Cleaned`].
    pub const CACHE: &str = "/v1/fqdn/cache";
    /// [`super::FqdnNames`].
    pub const NAMES: &str = "/v1/fqdn/names";
    /// Flow records, one JSON object a line; query [`super::ObserveQuery`].
    pub const OBSERVE: &str = "/v1/observe";
    /// [`super::Rows`] of an agent: `/v1/list/{what}`.
    pub const LIST: &str = "/v1/list/{what}";
}

/// The control socket of the run with this process id, unless `--socket` named another.
pub fn default_socket(pid: u32) -> PathBuf {
    PathBuf::from(SOCKET_DIR).join(format!("run-{pid}.sock"))
}

/// One name that one endpoint resolved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CacheRow {
    /// Endpoint number.
    pub endpoint: u32,
    /// `lookup`: a resolver said so; `connection`: past its time, kept by a live flow.
    pub source: String,
    /// The name, absolute.
    pub fqdn: String,
    /// Seconds, as the resolver gave it.
    pub ttl: u32,
    /// When it was looked up last.
    pub lookup_time: Timestamp,
    /// When new connections stop being allowed.
    pub expiration_time: Timestamp,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// Which names to forget: all that fit everything given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CleanQuery {
    /// Only this endpoint's.
    #[serde(default)]
    pub endpoint: Option<u32>,
    /// Only names that this pattern matches.
    #[serde(default)]
    pub pattern: Option<String>,
}

/// What was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cleaned {
    /// Names.
    pub names: usize,
    /// Addresses that are closed to new connections.
    pub addresses: usize,
}

/// The selectors in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FqdnNames {
    /// One row per distinct selector.
    #[serde(rename = "FQDNPolicySelectors")]
    pub selectors: Vec<FqdnSelector>,
}

/// A `toFQDNs` selector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FqdnSelector {
    /// As the policy writes it.
    pub selector_string: String,
    /// Names in the cache that it matches.
    pub names: Vec<String>,
    /// Their addresses.
    pub ips: Vec<IpAddr>,
}

/// How the enforcer is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of namegate.
    pub version: String,
    /// Process that enforces.
    pub pid: u32,
    /// The command it runs.
    pub command: Vec<String>,
    /// `enforcing` or `audit`.
    pub mode: String,
    /// When it began.
    pub since: Timestamp,
    /// The workload.
    pub endpoint: EndpointInfo,
    /// Policies in force, `kind/namespace/name`.
    pub policies: Vec<String>,
    /// Resolvers that are asked.
    pub resolvers: Vec<String>,
    /// How the programs are attached: `tcx` or `clsact`.
    pub attachment: String,
    /// Names in the cache.
    pub names: usize,
    /// Exact totals since the start.
    pub totals: Totals,
    /// What only `namegate agent` has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
}

/// How an agent is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AgentInfo {
    /// What needs attention; empty when all is well.
    pub problems: Vec<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointRow>,
    /// When policies were put in force last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies_since: Option<Timestamp>,
    /// Bytes the kernel's maps take when all are full.
    pub memory_budget: u64,
    /// What each of them takes.
    #[serde(default)]
    pub maps: Vec<MapBudget>,
}

/// A map of the kernel, when it is full.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MapBudget {
    /// Its name.
    pub map: String,
    /// Its entries.
    pub entries: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// An endpoint of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointRow {
    /// Its number; none while it is not in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The host side of its veth pair.
    pub interface: String,
    /// `enforcing`, `audit`, `absent` (no such interface) or `refused` (everything is dropped).
    pub state: String,
    /// Why it is not enforced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Security identity.
    pub identity: u32,
    /// Labels, `source:key=value`.
    pub labels: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `tcx` or `clsact`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attachment: String,
    /// Policies that select it, `kind/namespace/name`.
    pub policies: Vec<String>,
}

/// The workload that is enforced.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Endpoint number.
    pub id: u32,
    /// Security identity.
    pub identity: u32,
    /// Labels, `source:key=value`.
    pub labels: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Exact counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Packets let through.
    pub forwarded_packets: u64,
    /// Packets refused, for whatever reason.
    pub dropped_packets: u64,
    /// Those of them that policy or the source guard refused.
    pub denied_packets: u64,
    /// Packets let through by audit only.
    pub audited_packets: u64,
    /// DNS queries answered.
    pub lookups_answered: u64,
    /// DNS queries refused by policy.
    pub lookups_refused: u64,
    /// DNS queries that failed.
    pub lookups_failed: u64,
    /// Events that were rate limited or lost on their way to `observe`.
    pub lost_events: u64,
}

/// Rows of one kind: identities, endpoints, entries of a kernel map.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rows {
    /// Names of the columns, in order.
    pub columns: Vec<String>,
    /// A value for each column.
    pub rows: Vec<Vec<serde_json::Value>>,
}

/// What `observe` asks for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObserveQuery {
    /// How many past records.
    #[serde(default)]
    pub last: Option<usize>,
    /// Go on with new ones.
    #[serde(default)]
    pub follow: bool,
    /// Only this verdict, in capitals.
    #[serde(default)]
    pub verdict: Option<flows::Verdict>,
    /// Only this endpoint, by number or interface.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Only where this name, or a name that this pattern matches, plays a part.
    #[serde(default)]
    pub name: Option<String>,
    /// Only to or from this address.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Only to or from this port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Only this direction, in capitals.
    #[serde(default)]
    pub direction: Option<flows::TrafficDirection>,
    /// Only what happened since.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The command.
    pub command: Vec<String>,
    /// Its exit status, as a shell would report it.
    pub exit_status: i32,
    /// Whether refusals were only recorded.
    pub audit: bool,
    /// The workload.
    pub endpoint: EndpointInfo,
    /// Policies in force, `kind/namespace/name`.
    pub policies: Vec<String>,
    /// Names that were learned.
    pub names: Vec<LearnedName>,
    /// Peers that connections were made with.
    pub allowed: Vec<AllowedPeer>,
    /// Peers that were refused.
    pub denied: Vec<DeniedPeer>,
    /// DNS.
    pub lookups: Lookups,
    /// Exact totals.
    pub totals: Totals,
    /// Events that did not find their way into the tables above.
    pub lost_events: u64,
}

/// A name that opened something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LearnedName {
    /// The name, absolute.
    pub fqdn: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Seconds, as the resolver gave it.
    pub ttl: u32,
    /// Selectors of the policy that it matches.
    pub selectors: Vec<String>,
}

/// Lookups by what became of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lookups {
    /// How many were answered.
    pub answered: u64,
    /// Refused by policy.
    pub refused: Vec<RefusedLookup>,
    /// Failed.
    pub failed: Vec<LookupFailure>,
}

impl Report {
    /// Whether anything was refused.
    pub fn anything_denied(&self) -> bool {
        !self.denied.is_empty()
            || !self.lookups.refused.is_empty()
            || self.totals.denied_packets > 0
            || self.totals.lookups_refused > 0
    }
}
