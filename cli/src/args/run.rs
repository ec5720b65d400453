//! `namegate run`: its arguments.
//!
//! In:  `argv`.
//! Out: [`Run`].
//! Not here: carrying it out (`crate::run`).

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

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

    /// World file: nodes, services, other workloads, groups of prefixes that policies speak of.
    #[arg(long, value_name = "FILE")]
    pub(crate) world: Option<PathBuf>,

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

    /// How the kernel programs are attached.
    #[arg(long, value_enum, default_value_t = AttachBy::Auto)]
    pub(crate) attach: AttachBy,

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
pub(crate) enum AttachBy {
    /// tcx where the kernel has it (Linux 6.6), else clsact.
    Auto,
    /// tcx only.
    Tcx,
    /// clsact only.
    Clsact,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Ipv6 {
    /// When the host has a route to the IPv6 world.
    Auto,
    /// Never.
    Off,
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
    use super::*;

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
