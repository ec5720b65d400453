//! The report of `namegate run --report FILE`, and the lines of `observe -o json`.
//!
//! In:  JSON text.
//! Out: typed values; a field that is missing or of another kind is an error.
//! Not here: what a report should say (`tests/netns`).

use serde::Deserialize;
use serde_json::Value;

/// The whole report.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// The command as it was given.
    pub command: Vec<String>,
    /// Its exit status.
    pub exit_status: i32,
    /// Whether everything was only watched.
    pub audit: bool,
    /// Who was enforced.
    pub endpoint: Endpoint,
    /// Policies in force.
    pub policies: Vec<String>,
    /// What DNS taught.
    pub names: Vec<Name>,
    /// Connections that passed.
    pub allowed: Vec<Allowed>,
    /// Connections that did not.
    pub denied: Vec<Denied>,
    /// Questions.
    pub lookups: Lookups,
    /// Events that did not fit.
    pub lost_events: u64,
}

/// The enforced workload.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoint {
    /// Its labels.
    pub labels: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// A learned name.
#[derive(Debug, Clone, Deserialize)]
pub struct Name {
    /// The name with its final dot.
    pub fqdn: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Seconds.
    pub ttl: u64,
    /// Selectors it matched.
    pub selectors: Vec<String>,
}

/// A place in a policy.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// The policy.
    pub policy: String,
    /// The file.
    pub file: String,
    /// The line.
    pub line: u64,
    /// The rule in short.
    pub text: String,
}

/// Connections that passed.
#[derive(Debug, Clone, Deserialize)]
pub struct Allowed {
    /// EGRESS or INGRESS.
    pub direction: String,
    /// TCP, UDP, …
    pub protocol: String,
    /// The other side.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Names behind the address.
    pub names: Vec<String>,
    /// How many.
    pub connections: u64,
    /// Rules that let them pass.
    pub rules: Vec<Rule>,
}

/// Connections that did not pass.
#[derive(Debug, Clone, Deserialize)]
pub struct Denied {
    /// TCP, UDP, …
    pub protocol: String,
    /// The other side.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Names behind the address.
    pub names: Vec<String>,
    /// How many packets.
    pub packets: u64,
    /// Number of the reason.
    pub reason: u32,
    /// The reason in words.
    pub reason_text: String,
    /// The rule that comes closest.
    pub would_allow: Option<Rule>,
}

/// Questions and what became of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Lookups {
    /// Answered.
    pub answered: u64,
    /// Refused.
    pub refused: Vec<Refused>,
    /// Failed for other reasons.
    pub failed: Vec<Value>,
}

/// A refused question.
#[derive(Debug, Clone, Deserialize)]
pub struct Refused {
    /// The name with its final dot.
    pub name: String,
    /// How often.
    pub count: u64,
    /// Why.
    pub reason: String,
}

impl Report {
    /// The denied entry towards an address and port.
    pub fn denied_to(&self, address: &str, port: u16) -> Option<&Denied> {
        self.denied
            .iter()
            .find(|entry| entry.address == address && entry.port == port)
    }

    /// The allowed entry towards an address and port.
    pub fn allowed_to(&self, address: &str, port: u16) -> Option<&Allowed> {
        self.allowed
            .iter()
            .find(|entry| entry.address == address && entry.port == port)
    }

    /// The learned entry of a name.
    pub fn name(&self, fqdn: &str) -> Option<&Name> {
        self.names.iter().find(|entry| entry.fqdn == fqdn)
    }
}
