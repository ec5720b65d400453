//! The house's own checks and the test run, as `cargo xtask COMMAND`.
//!
//! In:  the checkout: `cargo metadata`, `cargo tree`, the files git knows.
//! Out: findings and totals on standard output; exit status 1 when anything is wrong.
//! Not here: installing tools (`scripts/setup`), the checks of a product at run time.

#![forbid(unsafe_code)]

mod acceptance;
mod bench;
mod ci;
mod deps;
mod lint;
mod race;
mod sources;
mod suite;
mod tidy;
mod totals;
mod vm;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Tasks of this checkout.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build namegate, run every test, add up the results (netns and escape suites as root)
    Test {
        /// Only these packages
        #[arg(short, long = "package")]
        packages: Vec<String>,
        /// Passed on to the test programs: a filter, `--nocapture`, …
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Check which crate uses which
    Deps,
    /// Check headers, unsafe code, placeholders, machine paths and the acceptance table
    Tidy,
    /// Formatting, clippy, documentation, deps and tidy
    Lint,
    /// What a machine runs on every change: lint, then test
    Ci,
    /// Measure side by side: tables, and a JSON file (as root; `scripts/setup --for bench`)
    #[command(disable_help_flag = true)]
    Bench(bench::Request),
    /// Resolve fresh names and connect at once, with every core loaded; fails on any failed connect or
    /// repeated SYN (root)
    Race {
        /// How many names
        #[arg(long, default_value_t = 10_000)]
        cycles: usize,
    },
    /// Run the suites that need a kernel, or a command, on one of Debian's kernels (qemu)
    Vm(vm::Request),
}

fn main() -> ExitCode {
    let done = root().and_then(|root| perform(&root, Arguments::parse().task));
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(root: &Path, task: Task) -> anyhow::Result<ExitCode> {
    let good = match task {
        Task::Test { packages, rest } => suite::run(root, &packages, &rest)?,
        Task::Deps => deps::run(root)?,
        Task::Tidy => tidy::run(root)?,
        Task::Lint => lint::run(root)?,
        Task::Ci => ci::run(root)?,
        Task::Bench(request) => bench::run(root, &request)?,
        Task::Race { cycles } => race::run(root, cycles)?,
        // The status is that of the guest's command.
        Task::Vm(request) => return vm::run(root, &request),
    };
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The folder of the workspace.
fn root() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .context("xtask has no parent folder")
}

/// The cargo that runs this program, started in the workspace.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Prints findings; true when there are none.
fn report(check: &str, findings: &[String]) -> bool {
    for finding in findings {
        println!("{check}: {finding}");
    }
    if findings.is_empty() {
        println!("{check}: ok");
    } else {
        println!("{check}: {} found", findings.len());
    }
    findings.is_empty()
}
