//! The kernel programs: what a packet costs, next to the least that could be done about it.
//!
//! In:  root, and a kernel that runs programs.
//! Out: nanoseconds per program run.
//! Not here: DNS, policies (parts of their own).

mod engine;
mod frame;
mod run;

use anyhow::ensure;

use crate::{options::Options, table::Table};

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "loading programs needs root: `sudo cargo xtask bench`"
    );
    Ok(vec![run::nanoseconds(options)?])
}
