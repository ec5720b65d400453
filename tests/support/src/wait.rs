//! Waiting for something to become true, with a bound and a name for what was awaited.
//!
//! In:  a condition.
//! Out: its value as soon as there is one, or an error that says what did not happen.
//! Not here: what is awaited.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// How much slower than an ordinary machine this one is: an emulated processor says so.
pub fn slowness() -> u32 {
    static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
        let said = std::env::var("NAMEGATE_SLOWNESS").ok();
        said.and_then(|said| said.parse().ok()).unwrap_or(1).max(1)
    });
    *SLOWNESS
}

/// As long as this takes on an ordinary machine, here.
pub fn patience(limit: Duration) -> Duration {
    limit.saturating_mul(slowness())
}

/// As many rounds of what an ordinary machine does this often, here.
pub fn rounds(usual: u32) -> u32 {
    // Two at the least: what remains of one shows in the next.
    (usual / slowness()).max(2)
}

/// Polls `check` until it yields a value.
pub fn until<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> Result<T> {
    let (start, limit) = (Instant::now(), patience(limit));
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("gave up after {limit:?} waiting for {what}");
        }
        std::thread::sleep(patience(POLL));
    }
}

/// Polls until `check` is true.
pub fn until_true(limit: Duration, what: &str, mut check: impl FnMut() -> bool) -> Result<()> {
    until(limit, what, || check().then_some(()))
}
