//! A point in time on the clock that the kernel checks expiry with.
//!
//! In:  nanoseconds of `CLOCK_BOOTTIME` (`bpf_ktime_get_boot_ns`), read by the caller.
//! Out: [`Moment`], ordered, with saturating arithmetic.
//! Not here: reading the clock.

use std::{fmt, time::Duration};

/// Nanoseconds since boot, suspend included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The boot itself.
    pub const BOOT: Self = Self(0);

    /// A moment by its nanoseconds since boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot, as the kernel maps hold it.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// This moment plus `span`, at most the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This moment less `span`, at the least the boot.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long from `earlier` until this moment; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}
