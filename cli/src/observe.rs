//! `namegate observe`: verdicts as lines.
//!
//! In:  the stream of records of a running enforcer.
//! Out: one line each, for people or as JSON.
//! Not here: the line itself (`flows`).

use agent::api::path;
use anyhow::Context;
use flows::FlowRecord;

use crate::{
    args::{DirectionArg, Observe, ObserveFormat, VerdictArg},
    client, output,
};

pub(crate) fn observe(args: &Observe) -> anyhow::Result<()> {
    let mut query = format!(
        "{}?last={}&follow={}",
        path::OBSERVE,
        args.last,
        args.follow
    );
    if let Some(verdict) = args.verdict {
        query.push_str("&verdict=");
        query.push_str(name(verdict));
    }
    for (key, value) in [
        ("endpoint", args.endpoint.clone()),
        ("name", args.name.clone()),
        ("address", args.address.map(|a| a.to_string())),
        ("port", args.port.map(|p| p.to_string())),
        ("direction", args.direction.map(|d| direction(d).to_owned())),
        ("since", args.since.map(|t| t.to_string())),
    ] {
        if let Some(value) = value {
            query.push_str(&format!("&{key}={}", client::escaped(&value)));
        }
    }
    client::lines(&args.target, &query, |line| match args.output {
        ObserveFormat::Json => output::line(line),
        ObserveFormat::Compact => {
            let record: FlowRecord =
                serde_json::from_str(line).context("the enforcer speaks another version")?;
            output::line(&record.to_string())
        }
    })
}

fn direction(direction: DirectionArg) -> &'static str {
    match direction {
        DirectionArg::Ingress => "INGRESS",
        DirectionArg::Egress => "EGRESS",
    }
}

fn name(verdict: VerdictArg) -> &'static str {
    match verdict {
        VerdictArg::Forwarded => "FORWARDED",
        VerdictArg::Dropped => "DROPPED",
        VerdictArg::Error => "ERROR",
        VerdictArg::Audit => "AUDIT",
        VerdictArg::Redirected => "REDIRECTED",
    }
}
