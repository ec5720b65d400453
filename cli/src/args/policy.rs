//! `namegate policy`: its arguments.
//!
//! In:  `argv`.
//! Out: [`Policy`].
//! Not here: carrying it out (`crate::policy`).

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Output, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Check policy files and say what will surprise.
    #[command(after_help = "\
Example:
  namegate policy validate policies/

Exit status: 0 when every policy is valid; 1 with --deny-warnings when something will probably
surprise; 2 when a policy is invalid or cannot be read.")]
    Validate {
        /// Fail when something will probably surprise.
        #[arg(long)]
        deny_warnings: bool,
        /// Policy file or directory.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Judge flows in a world described by a file.
    Verdict(Verdict),
    /// Judge the flows of scenarios and compare with what they expect.
    #[command(after_help = "\
Example:
  namegate policy test examples/world/scenario.yaml

Exit status: 0 when every flow came out as expected; 1 when one did not; 2 when a file is invalid.")]
    Test {
        /// Scenario: world, policies, and flows with `expect`.
        #[arg(required = true, value_name = "SCENARIO")]
        scenarios: Vec<PathBuf>,
        /// World of scenarios that name none.
        #[arg(long, value_name = "FILE")]
        world: Option<PathBuf>,
        /// Policy files or directories of scenarios that name none.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        policy: Vec<PathBuf>,
        /// Judge as the datapath does where the L7 proxy is not there.
        #[arg(long)]
        datapath_only: bool,
        #[command(flatten)]
        output: Output,
    },
    /// What a running agent enforces, entry by entry, with the lines of policy behind each.
    #[command(after_help = "Example:\n  sudo namegate policy get web0")]
    Get {
        /// Only this endpoint, by number or interface.
        #[arg(value_name = "ENDPOINT")]
        endpoint: Option<String>,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  namegate policy verdict --world examples/world/world.yaml --policy examples/world/policies -o json

Exit status: 0 when every flow was judged, whatever the verdict; 2 when a file is invalid.")]
pub(crate) struct Verdict {
    /// World file: endpoints, nodes, services, names.
    #[arg(long, value_name = "FILE")]
    pub(crate) world: PathBuf,
    /// Policy files or directories. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) policy: Vec<PathBuf>,
    /// Flows file; the world's own `flows` when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) flows: Option<PathBuf>,
    /// Judge as the datapath does where the L7 proxy is not there.
    #[arg(long)]
    pub(crate) datapath_only: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
