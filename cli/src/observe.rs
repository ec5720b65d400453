//! `namegate observe`: verdicts as lines.
//!
//! In:  the stream of records of a running enforcer.
//! Out: one line each for people, or JSON, or YAML.
//! Not here: the line itself (`flows`).

use agent::api::path;
use anstyle::{AnsiColor, Style};
use anyhow::Context;
use clap::ValueEnum;
use flows::{FlowRecord, Verdict};

use crate::{
    args::{Observe, ObserveFormat},
    client, output,
};

pub(crate) fn observe(args: &Observe) -> anyhow::Result<()> {
    let query = client::with_query(
        path::OBSERVE,
        [
            ("last", Some(args.last.to_string())),
            ("follow", Some(args.follow.to_string())),
            ("verdict", args.verdict.map(word)),
            ("endpoint", args.endpoint.clone()),
            ("name", args.name.clone()),
            ("address", args.address.map(|address| address.to_string())),
            ("port", args.port.map(|port| port.to_string())),
            ("direction", args.direction.map(word)),
            ("since", args.since.map(|since| since.to_string())),
        ],
    );
    client::lines(&args.target, &query, |line| {
        let record = || {
            serde_json::from_str::<FlowRecord>(line).context("the enforcer speaks another version")
        };
        match args.output {
            ObserveFormat::Json => output::line(line),
            ObserveFormat::Yaml => {
                let text = serde_saphyr::to_string(&record()?)?;
                output::line(&format!("---\n{}", text.trim_end()))
            }
            ObserveFormat::Table => {
                let record = record()?;
                output::styled(style(record.verdict), &record.to_string())
            }
        }
    })
}

/// As the argument spells it.
fn word(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What was refused stands out on a terminal.
fn style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Forwarded | Verdict::Redirected => return Style::new(),
        Verdict::Dropped => AnsiColor::Red,
        Verdict::Audit => AnsiColor::Yellow,
        Verdict::Error => AnsiColor::Magenta,
    };
    Style::new().fg_color(Some(colour.into()))
}
