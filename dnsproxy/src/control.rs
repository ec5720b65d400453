//! What the control side says to a running shard, and what it may ask.
//!
//! In:  [`ControlMsg`]s over a channel.
//! Out: answers over channels of their own; plain values only.
//! Not here: acting on them (`shard`).

use std::net::IpAddr;

use dnsproxy_core::{CacheRow, Cleaned, Counters, Restored, Snapshot, Usage};
use identity::EndpointId;
use policy::fqdn::{Fqdn, Pattern};
use tokio::sync::oneshot;

/// One message to a shard. They are taken in order: an answer to one shows that those before it
/// are in force.
#[derive(Debug)]
pub enum ControlMsg {
    /// The state of the world has changed.
    Snapshot(Box<Snapshot>),
    /// What a predecessor learned; after the snapshot that names its endpoints.
    Restore(Box<Restored>),
    /// What is in the ledger, of one endpoint or of all?
    CacheRows {
        /// Only this one's.
        endpoint: Option<EndpointId>,
        /// Where to answer.
        answer: oneshot::Sender<Vec<CacheRow>>,
    },
    /// Which names would a successor have to know, the one asked for longest ago first?
    Remembered(oneshot::Sender<Vec<CacheRow>>),
    /// Forget names, and what only they opened: by then it is closed, unless a write failed, and
    /// that is tried again.
    Clean {
        /// Only this one's.
        endpoint: Option<EndpointId>,
        /// Only those that match.
        pattern: Option<Pattern>,
        /// Where to say how much it was.
        answer: oneshot::Sender<Cleaned>,
    },
    /// What has been counted so far, by the sockets and by the core?
    Counters(oneshot::Sender<(ShardCounters, Counters)>),
    /// How full are an endpoint's tables?
    Usage {
        /// Whose.
        endpoint: EndpointId,
        /// Where to answer.
        answer: oneshot::Sender<Usage>,
    },
    /// Which names led an endpoint to an address, the newest last?
    NamesOf {
        /// Who went there.
        endpoint: EndpointId,
        /// Where to.
        address: IpAddr,
        /// Where to answer.
        answer: oneshot::Sender<Vec<Fqdn>>,
    },
    /// Close everything and return.
    Stop,
}

/// What a shard's sockets have seen since it started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ShardCounters {
    /// Datagrams of known clients.
    pub udp_queries: u64,
    /// Whole messages on clients' connections.
    pub tcp_queries: u64,
    /// Datagrams and connections from an address that is no endpoint's: dropped.
    pub unknown_source: u64,
    /// Datagrams that were not steered here, so whom they ask is unknown: dropped.
    pub not_steered: u64,
    /// Datagrams longer than any query: dropped.
    pub oversized: u64,
    /// Datagrams that came from resolvers, whatever they say.
    pub udp_upstream: u64,
    /// Messages that came on connections to resolvers, whatever they say.
    pub tcp_upstream: u64,
    /// Queries that could not be sent to a resolver.
    pub unreachable: u64,
    /// Replies sent.
    pub replies: u64,
    /// Replies that the system did not take or whose client was gone.
    pub replies_lost: u64,
    /// Clients' connections accepted.
    pub connections: u64,
    /// Clients' connections closed at once because of a limit.
    pub connections_refused: u64,
    /// Clients' connections closed because they made no progress.
    pub connections_idle: u64,
    /// Clients' connections open at this moment.
    pub connections_open: u64,
    /// Batches of map changes that failed.
    pub installs_failed: u64,
}
