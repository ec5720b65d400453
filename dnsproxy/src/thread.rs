//! A thread of its own for a shard.
//!
//! In:  what [`Shard::run`] takes.
//! Out: [`ShardThread`]: the channel to control it, and its end.
//! Not here: the loop itself (`shard`).

use std::{io, thread};

use dnsproxy_core::{Core, LearnedWriter, QueryRecord};
use tokio::{runtime, sync::mpsc};

use crate::{ControlMsg, Listeners, Shard, Upstreams};

/// Control messages that may wait for a shard.
const CONTROL: usize = 64;

/// A running shard.
#[derive(Debug)]
pub struct ShardThread {
    /// What it is told. When every sender is gone it stops.
    pub control: mpsc::Sender<ControlMsg>,
    /// How it ended.
    pub end: thread::JoinHandle<io::Result<()>>,
}

/// Starts a shard on a thread with a current-thread runtime of its own, in the network namespace of
/// the calling thread.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn<W, R>(
    name: &str,
    core: Core,
    listeners: Listeners,
    upstreams: Upstreams,
    writer: W,
    records: R,
) -> io::Result<ShardThread>
where
    W: LearnedWriter + Send + 'static,
    R: FnMut(QueryRecord) + Send + 'static,
{
    let (control, messages) = mpsc::channel(CONTROL);
    let end = thread::Builder::new().name(name.into()).spawn(move || {
        runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?
            .block_on(Shard::run(
                core, listeners, upstreams, writer, messages, records,
            ))
    })?;
    Ok(ShardThread { control, end })
}
