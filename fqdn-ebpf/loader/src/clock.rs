//! Whether user space reads the clock that the programs read.
//!
//! In:  the offsets of this process's time namespace.
//! Out: an error where its boot clock is shifted: what is written would end too early or too late.
//! Not here: reading the clock (`dnsproxy`).

use std::io;

use crate::LoadError;

const OFFSETS: &str = "/proc/self/timens_offsets";

/// Fails in a time namespace with another boot clock.
pub(crate) fn check() -> Result<(), LoadError> {
    match std::fs::read_to_string(OFFSETS) {
        Ok(offsets) if is_shifted(&offsets) => Err(LoadError::Clock),
        Ok(_) => Ok(()),
        // A kernel without time namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(LoadError::Other(format!("reading `{OFFSETS}`: {error}"))),
    }
}

/// Lines are a clock, seconds and nanoseconds.
fn is_shifted(offsets: &str) -> bool {
    offsets.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("boottime") && words.any(|word| word != "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_boot_clock_counts() {
        assert!(!is_shifted(""));
        assert!(!is_shifted(
            "monotonic           0         0\nboottime            0         0\n"
        ));
        assert!(!is_shifted(
            "monotonic          -5         0\nboottime            0         0\n"
        ));
        assert!(is_shifted(
            "monotonic           0         0\nboottime        86400         0\n"
        ));
        assert!(is_shifted(
            "monotonic           0         0\nboottime           -1 999999999\n"
        ));
    }
}
