//! `cargo xtask bench`: builds what is measured with optimisation, and measures it.
//!
//! In:  which parts, and what the bench program itself takes.
//! Out: its tables, and its JSON file under `target/bench`.
//! Not here: measuring (`tests/bench`).

use std::{ffi::OsString, path::Path};

use anyhow::Context as _;

use crate::cargo;

/// What is to be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Request {
    /// Parts, and options such as `--rounds 9` (`--help` lists them); everything when empty
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Runs the request; true when everything was measured.
pub(crate) fn run(root: &Path, request: &Request) -> anyhow::Result<bool> {
    let status = cargo(root)
        .args(["run", "--release", "--quiet", "--package", "bench", "--"])
        .args(&request.rest)
        .status()
        .context("cannot start cargo")?;
    Ok(status.success())
}
