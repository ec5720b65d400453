//! Adds up what test programs print.
//!
//! In:  lines of `cargo test`.
//! Out: [`Totals`], and the closing line `N passed, N failed`.
//! Not here: running anything (`suite`).

use std::{fmt, ops::AddAssign};

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Totals {
    /// The numbers of one `test result:` line; nothing for any other line.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        // A test that prints without a newline can push the line away from the left edge.
        let (_, rest) = line.split_once("test result: ")?;
        let (_, counts) = rest.split_once(". ")?;
        let mut totals = Self::default();
        let mut known = 0;
        for part in counts.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            let field = match what {
                "passed" => &mut totals.passed,
                "failed" => &mut totals.failed,
                "ignored" => &mut totals.ignored,
                _ => continue,
            };
            *field = number;
            known += 1;
        }
        (known == 3).then_some(totals)
    }

    /// Whether this is a good end: something ran, nothing failed, nothing was left out.
    pub(crate) fn good(self) -> bool {
        self.passed > 0 && self.failed == 0 && self.ignored == 0
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.ignored = self.ignored.saturating_add(other.ignored);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s";
    const BAD: &str = "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s";

    #[test]
    fn result_lines_add_up() {
        let mut sum = Totals::default();
        for line in [
            "running 12 tests",
            OK,
            "test a::b ... ok",
            BAD,
            "test result: who knows",
        ] {
            sum += Totals::of_line(line).unwrap_or_default();
        }
        assert_eq!(
            sum,
            Totals {
                passed: 16,
                failed: 2,
                ignored: 1
            }
        );
        assert_eq!(sum.to_string(), "16 passed, 2 failed");
        assert!(!sum.good());
    }

    #[test]
    fn a_result_pushed_right_by_output_counts() {
        let line = format!("some output without newline {OK}");
        assert_eq!(Totals::of_line(&line).map(|t| t.passed), Some(12));
    }

    #[test]
    fn no_test_at_all_is_not_good() {
        assert!(!Totals::default().good());
        assert!(Totals::of_line(OK).unwrap().good());
    }

    #[test]
    fn an_ignored_test_is_not_good() {
        let totals = Totals {
            passed: 5,
            failed: 0,
            ignored: 1,
        };
        assert!(!totals.good());
    }
}
