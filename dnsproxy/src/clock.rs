//! The clock of the shard: the one that the kernel checks expiry with.
//!
//! In:  `CLOCK_BOOTTIME`.
//! Out: [`Moment`].
//! Not here: what happens when (`dnsproxy-core`).

use std::time::Duration;

use dnsproxy_core::Moment;
use nix::time::{ClockId, clock_gettime};

/// The current moment. A clock that cannot be read would be the boot itself, which is before every
/// expiry, so that nothing is granted for longer than the kernel allows.
pub fn now() -> Moment {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    Moment::BOOT.after(since_boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_forward_from_boot() {
        let first = now();
        assert!(first > Moment::BOOT);
        assert!(now() >= first);
    }
}
