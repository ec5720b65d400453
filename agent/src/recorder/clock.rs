//! Moments since boot as times of day.
//!
//! In:  what two clocks showed at the same time.
//! Out: [`WallClock`].
//! Not here: reading either clock.

use dnsproxy_core::Moment;
use jiff::{SignedDuration, Timestamp};

/// Turns moments since boot into times of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    boot: Timestamp,
}

impl WallClock {
    /// A clock by what two clocks showed at the same time.
    pub(crate) fn new(wall: Timestamp, since_boot: Moment) -> Self {
        let uptime =
            SignedDuration::try_from(since_boot.since(Moment::BOOT)).unwrap_or(SignedDuration::MAX);
        Self {
            boot: wall.saturating_sub(uptime).unwrap_or(Timestamp::MIN),
        }
    }

    /// The time of day of a moment.
    pub(crate) fn time(self, moment: Moment) -> Timestamp {
        let uptime =
            SignedDuration::try_from(moment.since(Moment::BOOT)).unwrap_or(SignedDuration::MAX);
        self.boot.saturating_add(uptime).unwrap_or(Timestamp::MAX)
    }
}
