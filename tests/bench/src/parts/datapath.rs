//! The kernel programs: what a packet costs, next to the least that could be done about it.
//!
//! In:  root, a kernel that runs programs, clang, ethtool, nft.
//! Out: nanoseconds per program run; a stream, connections and round trips through a node.
//! Not here: DNS, policies (parts of their own).

mod engine;
pub(super) mod frame;
mod minimal;
mod network;
pub(super) mod place;
mod run;
mod subject;
mod traffic;

use anyhow::ensure;

use crate::{options::Options, table::Table};

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "loading programs needs root: `sudo cargo xtask bench`"
    );
    let mut tables = vec![run::nanoseconds(options)?];
    tables.extend(network::through_a_node(options)?);
    Ok(tables)
}
