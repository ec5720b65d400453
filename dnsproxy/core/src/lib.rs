//! The DNS proxy without its sockets: what to forward, what to refuse, what a reply teaches.
//!
//! In:  `handle_*` calls with bytes from clients and resolvers, proofs from the map writer,
//!      policy snapshots, and always the time.
//! Out: [`Effect`]s from `poll_effect`, the next deadline from `poll_timeout`.
//! Not here: sockets (`dnsproxy`), the maps (`fqdn-ebpf/loader`), what a rule means (`policy`).
//!
//! An answer that teaches something leaves only as [`Effect::Release`], and that takes an
//! [`Installed`], which only [`Batch::install`] can make, after the map writer confirmed every
//! change of the batch.

#![forbid(unsafe_code)]

mod answer;
mod cache;
mod config;
mod core;
mod counters;
mod effect;
mod exchange;
mod framing;
mod grant;
mod install;
mod knowledge;
mod ledger;
mod moment;
mod peer;
mod query;
mod rebinding;
mod refusal;
mod reply;
mod snapshot;
mod wire;

pub use cache::{CacheRow, Cleaned, Source};
pub use config::{Config, Limits, Rebinding, RefuseWith, TtlBounds};
pub use core::{Core, Usage};
pub use counters::Counters;
pub use effect::{Effect, QueryRecord, QueryVerdict, UNMATCHED};
pub use framing::{Framer, MAX_MESSAGE};
pub use grant::{
    Batch, BatchId, GrantChange, InstallFailed, Installed, Learned, LearnedSlot, LearnedWriter,
    MAX_SLOTS, WriteError,
};
pub use moment::Moment;
pub use peer::{Client, ConnectionId, ExchangeId, PortSlot, Transport, Via};
pub use snapshot::{EndpointSnapshot, Restored, RestoredName, Snapshot};
