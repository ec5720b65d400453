//! The command line: what can be asked for, with an example on every command.
//!
//! In:  `argv`.
//! Out: [`Cli`], parsed and checked as far as one argument alone can be.
//! Not here: carrying it out.

mod observe;
mod policy;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use observe::{Observe, ObserveFormat};
pub(crate) use policy::{Policy, Verdict};
pub(crate) use run::{AttachBy, Ipv6, Run};

/// Egress by name, enforced in the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "namegate",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Example:\n  sudo namegate run --allow crates.io --allow '*.crates.io' -- cargo fetch"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one command, locked to the names its policy allows.
    Run(Box<Run>),
    /// Enforce every endpoint of this node, as a daemon.
    Agent(crate::agent::Agent),
    /// Names that were resolved.
    #[command(subcommand)]
    Fqdn(Fqdn),
    /// How the running enforcer is.
    #[command(after_help = "Example:\n  sudo namegate status")]
    Status {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Verdicts, one line each, as they happen.
    Observe(Observe),
    /// Who is who: labels, prefixes and name selectors behind the numbers.
    #[command(subcommand)]
    Identity(List),
    /// The workloads that are restricted.
    #[command(subcommand)]
    Endpoint(List),
    /// What is in the kernel's maps.
    #[command(after_help = "Example:\n  sudo namegate bpf learned")]
    Bpf {
        /// Which map.
        #[arg(value_enum)]
        map: BpfMap,
        /// The one thing that can be done with it.
        #[arg(value_parser = ["list"], default_value = "list", hide_possible_values = true)]
        action: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Check, judge and test policies, without enforcing anything.
    #[command(subcommand)]
    Policy(Policy),
    /// Completions for a shell, on stdout.
    #[command(after_help = "\
Examples:
  namegate completions bash | sudo tee /usr/share/bash-completion/completions/namegate > /dev/null
  namegate completions zsh > \"${fpath[1]}/_namegate\"
  namegate completions fish > ~/.config/fish/completions/namegate.fish")]
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual, a page a command, to a folder.
    #[command(after_help = "Example:\n  sudo namegate man /usr/local/share/man/man1")]
    Man {
        /// Folder; made if need be.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fqdn {
    /// The cache of resolved names.
    #[command(subcommand)]
    Cache(Cache),
    /// The selectors in force and what they match.
    #[command(after_help = "Example:\n  sudo namegate fqdn names -o json")]
    Names {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// List names, their addresses and when they end.
    #[command(after_help = "Example:\n  sudo namegate fqdn cache list -p '*.github.com'")]
    List {
        /// Only this endpoint.
        #[arg(long, short, value_name = "ID")]
        endpoint: Option<u32>,
        /// Only names this pattern matches.
        #[arg(long = "matchpattern", short, value_name = "PATTERN")]
        pattern: Option<String>,
        /// Only rows of this source.
        #[arg(long, short, value_enum)]
        source: Option<Source>,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Forget names, and close what only they opened.
    Clean(Clean),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo namegate fqdn cache clean -p '*.github.com'
  sudo namegate fqdn cache clean -e 7

What is forgotten is closed to new connections until it is looked up again; live ones go on.")]
pub(crate) struct Clean {
    /// Only this endpoint's names.
    #[arg(long, short, value_name = "ID")]
    pub(crate) endpoint: Option<u32>,
    /// Only names this pattern matches.
    #[arg(long = "matchpattern", short, value_name = "PATTERN")]
    pub(crate) pattern: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Source {
    /// A resolver said so.
    Lookup,
    /// Kept by a live connection.
    Connection,
}

/// Rows of an enforcer.
#[derive(Debug, Subcommand)]
pub(crate) enum List {
    /// All of them.
    #[command(
        after_help = "Examples:\n  sudo namegate endpoint list\n  sudo namegate identity list -o json"
    )]
    List {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// One of them, everything known about it.
    #[command(
        after_help = "Examples:\n  sudo namegate endpoint get web0\n  sudo namegate identity get 16777217"
    )]
    Get {
        /// Its number, or the interface of an endpoint.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum BpfMap {
    /// What DNS taught each endpoint.
    Learned,
    /// Policy entries.
    Policy,
    /// Flows.
    Ct,
    /// Which identity an address has.
    Ipcache,
    /// Counters.
    Metrics,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Control socket of the enforcer; needed when several run.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// How to print.
    #[arg(
        long = "output",
        short = 'o',
        value_enum,
        default_value_t = Format::Table
    )]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                let help = command
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(help.contains("Example"), "{}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
