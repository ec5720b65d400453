//! Waiting for something to become true, with a bound and a name for what was awaited.
//!
//! In:  a condition.
//! Out: its value as soon as there is one, or an error that says what did not happen.
//! Not here: what is awaited.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// Polls `check` until it yields a value.
pub fn until<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("gave up after {limit:?} waiting for {what}");
        }
        std::thread::sleep(POLL);
    }
}

/// Polls until `check` is true.
pub fn until_true(limit: Duration, what: &str, mut check: impl FnMut() -> bool) -> Result<()> {
    until(limit, what, || check().then_some(()))
}
