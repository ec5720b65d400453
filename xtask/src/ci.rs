//! `cargo xtask ci`: what `.ci/run` runs once the tools are installed.
//!
//! In:  the checkout.
//! Out: the lints' findings, then the tests and their total as the last line.
//! Not here: any check of its own.

use std::path::Path;

use crate::{lint, suite};

/// Lints, then tests; both run even when the first finds something.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let clean = lint::run(root)?;
    let passed = suite::run(root, &[], &[])?;
    if !clean {
        // The last line on standard output stays the total.
        eprintln!("the lints above found something");
    }
    Ok(clean && passed)
}
