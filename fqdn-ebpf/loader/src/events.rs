//! The consumer's end of the ring buffer.
//!
//! In:  bytes the kernel programs wrote.
//! Out: [`Event`]s; whatever else is in the buffer is counted and skipped.
//! Not here: waiting (poll the descriptor), turning events into flow records (`agent`).

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use fqdn_ebpf_common::event::Event;

/// Events in the order in which they happened on each processor.
pub struct Events {
    ring: RingBuf<MapData>,
    garbled: u64,
}

impl Events {
    /// How long a consumer rests after it has read everything. The kernel wakes it only for the
    /// first event after that, and each time it does costs the packet at hand more than the event.
    pub const REST: Duration = Duration::from_millis(10);

    pub(crate) const fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, garbled: 0 }
    }

    /// The next event, none when the buffer is empty. Readable again when the descriptor polls
    /// readable.
    #[expect(
        clippy::should_implement_trait,
        reason = "an empty buffer is not the end: this is no iterator"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = Event::decode(&item) {
                return Some(event);
            }
            self.garbled = self.garbled.saturating_add(1);
        }
    }

    /// How many records made no sense.
    pub const fn garbled(&self) -> u64 {
        self.garbled
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({})", self.ring.as_raw_fd())
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
