//! Moments since boot as times of day.
//!
//! In:  what two clocks showed at the same time, again and again.
//! Out: [`WallClock`].
//! Not here: reading either clock; deciding anything by it. What counts is measured since boot,
//! whatever the time of day does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use dnsproxy_core::Moment;
use jiff::{SignedDuration, Timestamp};

/// Differences below this are between readings of two clocks; above it, one of them was set.
const SET: Duration = Duration::from_secs(1);

/// Turns moments since boot into times of day. Clones are the same clock.
#[derive(Clone, Debug)]
pub(crate) struct WallClock {
    /// Nanoseconds from the epoch to boot.
    boot: Arc<AtomicI64>,
}

impl WallClock {
    /// A clock by what two clocks showed at the same time.
    pub(crate) fn new(wall: Timestamp, since_boot: Moment) -> Self {
        Self {
            boot: Arc::new(AtomicI64::new(boot(wall, since_boot))),
        }
    }

    /// Goes by what they show now, if the time of day was set meanwhile. Returns by how much.
    pub(crate) fn follow(&self, wall: Timestamp, since_boot: Moment) -> Option<SignedDuration> {
        let boot = boot(wall, since_boot);
        let difference =
            SignedDuration::from_nanos(boot.saturating_sub(self.boot.load(Ordering::Relaxed)));
        if difference.unsigned_abs() < SET {
            return None;
        }
        self.boot.store(boot, Ordering::Relaxed);
        Some(difference)
    }

    /// The time of day of a moment.
    pub(crate) fn time(&self, moment: Moment) -> Timestamp {
        let boot = i128::from(self.boot.load(Ordering::Relaxed));
        let since = i128::from(moment.nanos());
        Timestamp::from_nanosecond(boot.saturating_add(since)).unwrap_or(Timestamp::MAX)
    }
}

fn boot(wall: Timestamp, since_boot: Moment) -> i64 {
    let boot = wall
        .as_nanosecond()
        .saturating_sub(i128::from(since_boot.nanos()));
    i64::try_from(boot).unwrap_or(if boot < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn up(seconds: u64) -> Moment {
        Moment::BOOT.after(Duration::from_secs(seconds))
    }

    #[test]
    fn times_follow_a_clock_that_is_set_and_nothing_else_moves() {
        let clock = WallClock::new(at("1970-01-01T00:10:00Z"), up(600));
        let same = clock.clone();
        assert_eq!(same.time(up(60)), at("1970-01-01T00:01:00Z"));
        // Read one after the other, they never agree to the nanosecond.
        let later = at("1970-01-01T00:20:00.000400Z");
        assert_eq!(clock.follow(later, up(1200)), None);
        assert_eq!(same.time(up(60)), at("1970-01-01T00:01:00Z"));
        // Set forward for decades, then back by an hour.
        let jump = clock.follow(at("2026-11-21T00:30:00Z"), up(1800));
        assert!(jump.is_some_and(|by| by.is_positive()));
        assert_eq!(same.time(up(1860)), at("2026-11-21T00:31:00Z"));
        let jump = clock.follow(at("2026-11-20T23:30:10Z"), up(1810));
        assert_eq!(jump, Some(SignedDuration::from_hours(-1)));
        assert_eq!(same.time(up(1860)), at("2026-11-20T23:31:00Z"));
    }

    #[test]
    fn no_time_is_out_of_range() {
        let clock = WallClock::new(Timestamp::MAX, up(0));
        clock.time(Moment::from_nanos(u64::MAX));
        let clock = WallClock::new(Timestamp::MIN, Moment::from_nanos(u64::MAX));
        clock.time(up(0));
    }
}
