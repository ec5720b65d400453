//! `namegate agent`: the daemon's arguments, its logs, its exit status.
//!
//! In:  [`Agent`] arguments.
//! Out: the exit status: 0 after a signal asked it to end, 1 when the node cannot be enforced.
//! Not here: the daemon (`agent::daemon`).

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::Args;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sudo namegate agent --config /etc/namegate/agent.yaml")]
pub(crate) struct Agent {
    /// Endpoints, policy folders, resolvers, limits (docs/operations.md has every field).
    #[arg(long, value_name = "FILE", default_value = "/etc/namegate/agent.yaml")]
    config: PathBuf,

    /// Read and check the configuration, then end.
    #[arg(long)]
    check: bool,

    /// Stop enforcing: take down the programs, maps and rules that outlive an agent.
    #[arg(long, conflicts_with = "check")]
    remove: bool,

    /// Say more about what is being done.
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn agent(args: &Agent) -> ExitCode {
    log(args.verbose);
    let done = if args.check {
        ::agent::daemon::Config::load(&args.config)
            .map(drop)
            .map_err(::agent::daemon::DaemonError::from)
    } else if args.remove {
        ::agent::daemon::remove(&args.config)
    } else {
        ::agent::daemon::run(&args.config)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("namegate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One line per event on stderr, where journald picks them up; `NAMEGATE_LOG` chooses levels.
fn log(verbose: bool) {
    let default = if verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    let filter = EnvFilter::builder()
        .with_default_directive(default.into())
        .with_env_var("NAMEGATE_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
