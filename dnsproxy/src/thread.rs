//! A thread of its own for a shard.
//!
//! In:  what [`Shard::run`] takes.
//! Out: [`ShardThread`]: the channel to control it, and its end.
//! Not here: the loop itself (`shard`).

use std::{io, thread};

use dnsproxy_core::{Core, LearnedWriter, QueryRecord};

use crate::{Control, Listeners, Shard, Upstreams, control::control};

/// A running shard.
#[derive(Debug)]
pub struct ShardThread {
    /// How it is told anything. When every copy is gone it stops.
    pub control: Control,
    /// How it ended.
    pub end: thread::JoinHandle<io::Result<()>>,
}

/// Starts a shard on a thread of its own, in the network namespace of the calling thread.
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
    let (control, orders) = control()?;
    let end = thread::Builder::new()
        .name(name.into())
        .spawn(move || Shard::run(core, listeners, upstreams, writer, orders, records))?;
    Ok(ShardThread { control, end })
}
