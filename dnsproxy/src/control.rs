//! What the control side says to a running shard, and what it may ask.
//!
//! In:  [`ControlMsg`]s through a [`Control`].
//! Out: answers over channels of their own; plain values only.
//! Not here: acting on them (`shard`).
//!
//! A shard waits for its sockets only, so whoever sends it a message rings a bell that is one of
//! them: once for each message, and once more when the sender goes.

use std::{io, net::IpAddr, os::fd::AsFd, sync::Arc};

use dnsproxy_core::{CacheRow, Cleaned, Counters, Restored, Snapshot, Usage};
use identity::EndpointId;
use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};
use policy::fqdn::{Fqdn, Pattern};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

/// Messages that may wait for a shard.
const CAPACITY: usize = 64;

/// The way to a running shard. When the last one is dropped the shard stops.
#[derive(Clone, Debug)]
pub struct Control {
    messages: mpsc::Sender<ControlMsg>,
    // Dropped last: its ring is heard after the channel lost this sender.
    bell: Ring,
}

impl Control {
    /// Hands a message over; waits while too many others do.
    ///
    /// # Errors
    /// When the shard has ended.
    pub async fn send(&self, message: ControlMsg) -> Result<(), Ended> {
        self.messages.send(message).await.map_err(|_| Ended)?;
        self.bell.ring();
        Ok(())
    }

    /// The same for callers outside of any runtime.
    ///
    /// # Errors
    /// When the shard has ended.
    pub fn blocking_send(&self, message: ControlMsg) -> Result<(), Ended> {
        self.messages.blocking_send(message).map_err(|_| Ended)?;
        self.bell.ring();
        Ok(())
    }
}

/// The shard has ended: nobody takes messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the DNS proxy has ended")]
pub struct Ended;

/// The shard's end.
#[derive(Debug)]
pub(crate) struct Orders {
    messages: mpsc::Receiver<ControlMsg>,
    bell: Arc<EventFd>,
}

impl Orders {
    /// What to watch: readable once for every message.
    pub(crate) fn bell(&self) -> impl AsFd {
        &*self.bell
    }

    /// The message behind one ring; [`ControlMsg::Stop`] when nobody can send any more.
    pub(crate) fn next(&mut self) -> Option<ControlMsg> {
        match self.bell.read() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => tracing::warn!(%error, "reading the control bell failed"),
        }
        match self.messages.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(ControlMsg::Stop),
        }
    }
}

/// Both ends of a control channel.
///
/// # Errors
/// When the system has no descriptor left.
pub(crate) fn control() -> io::Result<(Control, Orders)> {
    // As a semaphore, a read takes one ring.
    let flags = EfdFlags::EFD_SEMAPHORE | EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let bell = Arc::new(EventFd::from_flags(flags)?);
    let (sender, messages) = mpsc::channel(CAPACITY);
    let control = Control {
        messages: sender,
        bell: Ring(Arc::clone(&bell)),
    };
    Ok((control, Orders { messages, bell }))
}

/// A bell that rings when it is dropped.
#[derive(Clone, Debug)]
struct Ring(Arc<EventFd>);

impl Ring {
    fn ring(&self) {
        if let Err(error) = self.0.write(1) {
            tracing::warn!(%error, "ringing for a shard failed");
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.ring();
    }
}

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
