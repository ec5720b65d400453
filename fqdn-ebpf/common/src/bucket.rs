//! TOKENS: how many events an endpoint may still cause.
//!
//! In:  the time, a rate and a burst.
//! Out: yes or no.
//! Not here: counting what was suppressed (`metric`): that is always exact.
//!
//! Two processors may take the same token; the bucket bounds a rate, it does not count.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Tokens of one endpoint, in billionths, so that a nanosecond earns `rate` of them.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Bucket {
    tokens: u64,
    filled: u64,
}

const _: () = assert!(size_of::<Bucket>() == 16);

const TOKEN: u64 = 1_000_000_000;

impl Bucket {
    /// Takes one token if there is one at `now`.
    #[inline(always)]
    pub const fn take(&mut self, now: u64, per_second: u32, burst: u32) -> bool {
        let full = (burst as u64).wrapping_mul(TOKEN);
        // The time that fills the bucket from empty to full bounds what can be earned, and keeps
        // the product below 2^64 whatever the clock says.
        let elapsed = now.wrapping_sub(self.filled);
        let earned = if per_second == 0 {
            0
        } else if elapsed >= full / (per_second as u64) {
            full
        } else {
            elapsed.wrapping_mul(per_second as u64)
        };
        let filled = self.tokens.wrapping_add(earned);
        let tokens = if filled > full || filled < earned {
            full
        } else {
            filled
        };
        self.filled = now;
        if tokens < TOKEN {
            self.tokens = tokens;
            return false;
        }
        self.tokens = tokens.wrapping_sub(TOKEN);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::default();
        let taken = (0..50)
            .filter(|_| bucket.take(100 * SECOND, 10, 20))
            .count();
        assert_eq!(taken, 20);
        let taken = (0..1000)
            .filter(|ms| bucket.take(100 * SECOND + ms * 1_000_000, 10, 20))
            .count();
        assert_eq!(taken, 9);
    }

    #[test]
    fn nothing_ever_comes_out_of_a_bucket_without_size_and_little_without_rate() {
        let mut bucket = Bucket::default();
        assert!(!(1..100).any(|s| bucket.take(s * SECOND, 10, 0)));
        assert!(!(100..200).any(|s| bucket.take(s * SECOND, 0, 10)));
        assert!(!bucket.take(0, u32::MAX, 0));
        assert!(bucket.take(u64::MAX, u32::MAX, u32::MAX));
    }
}
