//! The `namegate` binary: arguments in, tables and JSON out.
//!
//! In:  `argv`, the terminal.
//! Out: an exit status; what was asked for on stdout, everything else on stderr.
//! Not here: any work (`agent`), any decision (`policy`).

#![forbid(unsafe_code)]

mod agent;
mod args;
mod client;
mod explain;
mod findings;
mod list;
mod manual;
mod observe;
mod output;
mod policy;
mod report_file;
mod run;
mod tables;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cache, Cli, Command, Fqdn};

fn main() -> ExitCode {
    // The pod's own stages re-execute this binary; they never parse a command line.
    if let Some(status) = ::agent::pod::run_hidden_stage() {
        return exit(status);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_run = std::env::args_os().nth(1).is_some_and(|arg| arg == "run");
            let failed = error.use_stderr();
            if error.print().is_err() || failed {
                // `run` keeps 2 free for the command it runs.
                return exit(if is_run { run::FAILED } else { 2 });
            }
            return ExitCode::SUCCESS;
        }
    };
    match cli.command {
        Command::Policy(command) => exit(policy::run(command)),
        Command::Run(args) => exit(run::run(*args)),
        Command::Agent(args) => agent::agent(&args),
        command => match operate(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("namegate: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn operate(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(_) | Command::Agent(_) => Ok(()),
        Command::Fqdn(Fqdn::Cache(Cache::List {
            endpoint,
            pattern,
            source,
            target,
            output,
        })) => {
            let rows = client::cache(&target)?;
            let rows = tables::select(rows, endpoint, pattern.as_deref(), source)?;
            output::print(output.format, &rows, tables::cache)
        }
        Command::Fqdn(Fqdn::Cache(Cache::Clean(args))) => {
            let cleaned = client::clean(&args)?;
            output::print(args.output.format, &cleaned, tables::cleaned)
        }
        Command::Fqdn(Fqdn::Names { target, output }) => {
            output::print(output.format, &client::names(&target)?, tables::names)
        }
        Command::Status { target, output } => {
            output::print(output.format, &client::status(&target)?, tables::status)
        }
        Command::Observe(args) => observe::observe(&args),
        Command::Identity(list) => list::identities(&list),
        Command::Endpoint(list) => list::endpoints(&list),
        Command::Bpf {
            map,
            target,
            output,
            ..
        } => list::bpf(map, &target, &output),
        Command::Policy(_) => Ok(()),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder),
    }
}

fn exit(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status & 0xff).unwrap_or(u8::MAX))
}
