//! `namegate observe`: its arguments.
//!
//! In:  `argv`.
//! Out: [`Observe`].
//! Not here: carrying it out (`crate::observe`).

use std::net::IpAddr;

use clap::{Args, ValueEnum};

use super::Target;

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
    /// How to print each record.
    #[arg(long, short, value_enum, default_value_t = ObserveFormat::Table)]
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
    /// A line, for people.
    #[value(alias = "compact")]
    Table,
    /// An object a line.
    Json,
    /// A document each.
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
