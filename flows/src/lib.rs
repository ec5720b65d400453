//! What happened: flow records, their one-line form, and the summary of a run.
//!
//! In:  verdicts of the datapath and queries of the DNS proxy, as values.
//! Out: [`FlowRecord`]s that carry what Hubble's `Flow` carries, a bounded history of them, and a
//!      [`Summary`] of what was allowed and refused.
//! Not here: where verdicts come from (`fqdn-ebpf`, `dnsproxy`), sockets for readers (`agent`).

#![forbid(unsafe_code)]

mod history;
mod line;
mod record;
mod summary;

pub use history::{Filter, History, NameTest};
pub use record::{
    Dns, Endpoint, FlowKind, FlowRecord, Ip, Layer4, Layer7, Policy, Ports, TrafficDirection,
    Verdict,
};
pub use summary::{
    AllowedPeer, DeniedPeer, LookupFailure, PeerKey, RefusedLookup, RuleRef, Summary,
};
