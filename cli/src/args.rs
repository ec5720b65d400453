//! The command line: what can be asked for, with an example on every command.
//!
//! In:  `argv`.
//! Out: [`Cli`], parsed and checked as far as one argument alone can be.
//! Not here: carrying it out.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// The workloads of an agent.
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
}

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

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo namegate run --allow example.test -- curl https://example.test/
  sudo namegate run --policy ci-runner.yaml --label app=ci-runner -- make release
  sudo namegate run --policy p.yaml --audit --report report.json -- ./job.sh

Exit status: the command's own; 77 with --fail-on-deny when it succeeded although something was
denied; 125 when namegate itself failed; 126 or 127 when the command cannot be run or found;
128+N when signal N ended it.")]
pub(crate) struct Run {
    /// Policy file or directory (CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy). Repeatable.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Vec<PathBuf>,

    /// Allow a name or pattern: NAME[:PORT[/PROTOCOL]], default port 443/TCP. Repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) allow: Vec<String>,

    /// Label of the command, as policies select it. Repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,

    /// Namespace of the command, as policies select it.
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,

    /// Resolver to ask instead of the host's. Repeatable; asked in order.
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = resolver)]
    pub(crate) dns: Vec<SocketAddr>,

    /// Record what policy would refuse, and let it through.
    #[arg(long)]
    pub(crate) audit: bool,

    /// Exit with 77 when the command succeeded but something was denied.
    #[arg(long)]
    pub(crate) fail_on_deny: bool,

    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Control socket for `namegate status`, `fqdn`, `observe`.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Leave this path of the host reachable although it is a way out. Weakens the boundary.
    #[arg(long, value_name = "PATH")]
    pub(crate) expose: Vec<PathBuf>,

    /// Let the command gain privileges (sudo, setuid programs). Weakens the boundary.
    #[arg(long)]
    pub(crate) allow_sudo: bool,

    /// IPv6 in the pod.
    #[arg(long, value_enum, default_value_t = Ipv6::Auto)]
    pub(crate) ipv6: Ipv6,

    /// Shortest time a resolved address stays allowed, in seconds, whatever its TTL.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) min_ttl: u64,

    /// How long past its TTL a resolved address stays allowed, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) ttl_grace: u64,

    /// Most addresses the command may learn at a time.
    #[arg(long, value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_addresses: u32,

    /// Most names the command may learn at a time.
    #[arg(long, value_name = "N", default_value_t = 8_192,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_names: u32,

    /// Say what is being done.
    #[arg(long, short)]
    pub(crate) verbose: bool,

    /// The command and its arguments.
    #[arg(required = true, last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Ipv6 {
    /// When the host has a route to the IPv6 world.
    Auto,
    /// Never.
    Off,
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
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Source {
    /// A resolver said so.
    Lookup,
    /// Kept by a live connection.
    Connection,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sudo namegate observe -f --verdict DROPPED")]
pub(crate) struct Observe {
    /// Go on with what happens next.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many past records to begin with.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) last: usize,
    /// Only this verdict.
    #[arg(long, value_name = "VERDICT", ignore_case = true)]
    pub(crate) verdict: Option<VerdictArg>,
    /// Only this endpoint, by number or interface.
    #[arg(long, short, value_name = "ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Only names this pattern matches.
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Only to or from this address.
    #[arg(long, value_name = "ADDR")]
    pub(crate) address: Option<IpAddr>,
    /// Only to or from this port.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Only this direction, seen from the workload.
    #[arg(long, value_name = "DIRECTION", ignore_case = true)]
    pub(crate) direction: Option<DirectionArg>,
    /// Only what happened since: 30s, 10m, 2h, or a time like 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<jiff::Timestamp>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// One line per record, or one JSON object per line.
    #[arg(long, short, value_enum, default_value_t = ObserveFormat::Compact)]
    pub(crate) output: ObserveFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum DirectionArg {
    Ingress,
    Egress,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum VerdictArg {
    Forwarded,
    Dropped,
    Error,
    Audit,
    Redirected,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ObserveFormat {
    Compact,
    Json,
}

/// Rows of an agent.
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

/// A time, or how long ago.
fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|ago| jiff::Timestamp::now().checked_sub(ago).ok())
        .ok_or_else(|| format!("`{text}` is neither a time nor a span like 30s, 10m or 2h"))
}

/// `ADDR`, `ADDR:PORT` or `[ADDR]:PORT`; port 53 when none is given.
fn resolver(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, 53))
        .map_err(|_| {
            format!(
                "`{text}` is not an address; write 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53"
            )
        })
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

    #[test]
    fn a_resolver_is_an_address_with_or_without_a_port() {
        assert_eq!(resolver("192.0.2.53"), Ok(([192, 0, 2, 53], 53).into()));
        assert_eq!(
            resolver("192.0.2.53:5353"),
            Ok(([192, 0, 2, 53], 5353).into())
        );
        assert_eq!(
            resolver("2001:db8::53").map(|a| a.to_string()),
            Ok("[2001:db8::53]:53".into())
        );
        assert_eq!(
            resolver("[2001:db8::53]:5353").map(|a| a.to_string()),
            Ok("[2001:db8::53]:5353".into())
        );
        assert!(resolver("dns.example").is_err());
    }
}
