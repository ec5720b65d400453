//! Waiting for the kernel's events, many at a time.
//!
//! In:  the ring buffer's descriptor.
//! Out: when to read, and not too often.
//! Not here: reading, or what the events say.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use fqdn_ebpf_loader::Events;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

/// The ring buffer as something to wait for.
#[derive(Debug)]
pub(crate) struct Arrivals {
    ring: AsyncFd<OwnedFd>,
    rest: Instant,
    left: bool,
}

impl Arrivals {
    /// Watched by the current runtime.
    #[expect(
        deprecated,
        reason = "the successor is unsafe, which this crate forbids; it is sound for a descriptor \
                  that the watcher owns"
    )]
    pub(crate) fn of(events: &Events) -> io::Result<Self> {
        let ring = events.as_fd().try_clone_to_owned()?;
        Ok(Self {
            ring: AsyncFd::with_interest(ring, Interest::READABLE)?,
            rest: Instant::now(),
            left: false,
        })
    }

    /// Waits until there is something to read. Cancelling loses nothing.
    pub(crate) async fn some(&mut self) -> io::Result<()> {
        if self.left {
            return Ok(());
        }
        sleep_until(self.rest).await;
        // Before the events are read: whatever comes afterwards is announced again.
        self.ring.readable().await?.clear_ready();
        Ok(())
    }

    /// Events were read; `left` if not all of them, of which nobody would be told again.
    pub(crate) fn taken(&mut self, left: bool) {
        self.left = left;
        self.rest = Instant::now() + Events::REST;
    }
}
