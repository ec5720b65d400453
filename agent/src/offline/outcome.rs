//! What comes out: a verdict per flow and direction, as JSON has it.
//!
//! In:  judgements.
//! Out: [`Outcome`], serialisable.
//! Not here: deciding (`judge`), tables (`cli`).

use std::fmt;

use fqdn_ebpf_common::policy::MatchType;
use policy::l7::Proxy;
use serde::{Deserialize, Serialize};

/// What happens to a flow. In the order in which one direction's verdict becomes the flow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It passes.
    Forwarded,
    /// It passes through a proxy.
    Redirected,
    /// It passes only because of audit.
    Audit,
    /// It does not pass.
    Dropped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Forwarded => "FORWARDED",
            Self::Redirected => "REDIRECTED",
            Self::Audit => "AUDIT",
            Self::Dropped => "DROPPED",
        })
    }
}

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum L7 {
    /// The DNS proxy.
    Dns,
    /// The proxy for HTTP and gRPC.
    Http,
    /// The proxy for Kafka.
    Kafka,
    /// The proxy that looks at TLS greetings.
    Sni,
}

impl From<Proxy> for L7 {
    fn from(proxy: Proxy) -> Self {
        match proxy {
            Proxy::Http => Self::Http,
            Proxy::Kafka => Self::Kafka,
            Proxy::Tls => Self::Sni,
        }
    }
}

impl fmt::Display for L7 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Kafka => "kafka",
            Self::Sni => "sni",
        })
    }
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Number of the drop reason; 0 when the datapath drops nothing.
    pub reason: u8,
    /// How the deciding entry matched.
    #[serde(rename = "match")]
    pub match_type: &'static str,
    /// The proxy it is handed to.
    pub l7: Option<L7>,
    /// The policies that decided, sorted.
    pub rules: Vec<String>,
    /// The reason in words; empty when there is none.
    pub reason_text: String,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What happens to it.
    pub verdict: Verdict,
    /// At the pod that opens it.
    pub egress: Option<Decision>,
    /// At the pod it goes to.
    pub ingress: Option<Decision>,
}

impl Outcome {
    /// The outcome of both directions.
    pub(super) fn of(egress: Option<Decision>, ingress: Option<Decision>) -> Self {
        let verdict = [&egress, &ingress]
            .into_iter()
            .flatten()
            .map(|decision| decision.verdict)
            .max()
            .unwrap_or(Verdict::Forwarded);
        Self {
            verdict,
            egress,
            ingress,
        }
    }
}

/// The name of a match as people know it from Hubble.
pub(super) const fn match_name(match_type: MatchType) -> &'static str {
    match match_type {
        MatchType::None => "none",
        MatchType::L3Only => "L3-only",
        MatchType::L3L4 => "L3-L4",
        MatchType::L4Only => "L4-only",
        MatchType::All => "all",
        MatchType::L3Proto => "L3-proto",
        MatchType::ProtoOnly => "proto-only",
    }
}
