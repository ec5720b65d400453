//! Tables for people.
//!
//! In:  values of `agent::api`.
//! Out: aligned text with the columns people know from `cilium-dbg`.
//! Not here: JSON and YAML (`output`), the report of a run (`explain`).

use std::{fmt::Write, io::IsTerminal};

use agent::api::{AgentInfo, CacheRow, Cleaned, FqdnNames, Status};
use comfy_table::{ContentArrangement, Table, presets};
use policy::fqdn::{Fqdn, NameSelector};

use crate::args::Source;

/// The rows that were asked for.
pub(crate) fn select(
    rows: Vec<CacheRow>,
    endpoint: Option<u32>,
    pattern: Option<&str>,
    source: Option<Source>,
) -> anyhow::Result<Vec<CacheRow>> {
    let selector = pattern.map(NameSelector::pattern).transpose()?;
    let source = source.map(|source| match source {
        Source::Lookup => "lookup",
        Source::Connection => "connection",
    });
    Ok(rows
        .into_iter()
        .filter(|row| endpoint.is_none_or(|id| id == row.endpoint))
        .filter(|row| source.is_none_or(|source| source == row.source))
        .filter(|row| {
            selector.as_ref().is_none_or(|selector| {
                Fqdn::parse(&row.fqdn).is_ok_and(|name| selector.matches(&name))
            })
        })
        .collect())
}

pub(crate) fn cache(rows: &Vec<CacheRow>) -> String {
    let mut table = plain(&["Endpoint", "Source", "FQDN", "TTL", "ExpirationTime", "IPs"]);
    for row in rows {
        table.add_row([
            row.endpoint.to_string(),
            row.source.clone(),
            row.fqdn.clone(),
            row.ttl.to_string(),
            row.expiration_time
                .round(jiff::Unit::Second)
                .unwrap_or(row.expiration_time)
                .to_string(),
            joined(&row.ips),
        ]);
    }
    fitted(table)
}

pub(crate) fn cleaned(cleaned: &Cleaned) -> String {
    format!(
        "{} names forgotten, {} addresses closed",
        cleaned.names, cleaned.addresses
    )
}

pub(crate) fn names(names: &FqdnNames) -> String {
    let mut table = plain(&["Selector", "Names", "IPs"]);
    for row in &names.selectors {
        table.add_row([
            row.selector_string.clone(),
            row.names.join(","),
            joined(&row.ips),
        ]);
    }
    fitted(table)
}

pub(crate) fn status(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{key:<12} {value}");
    };
    line(
        "namegate",
        format!("{}, process {}", status.version, status.pid),
    );
    line("mode", format!("{} since {}", status.mode, status.since));
    if let Some(agent) = &status.agent {
        for problem in &agent.problems {
            line("problem", problem.clone());
        }
        line("endpoints", agent_endpoints(agent));
        line(
            "maps",
            format!("{} MiB when all are full", agent.memory_budget >> 20),
        );
        for map in &agent.maps {
            line(
                "",
                format!(
                    "{:<12} {:>9} entries {:>9} KiB",
                    map.map,
                    map.entries,
                    map.bytes >> 10
                ),
            );
        }
    } else {
        line("command", status.command.join(" "));
        line(
            "endpoint",
            format!(
                "{} (identity {}) {}",
                status.endpoint.id,
                status.endpoint.identity,
                joined(&status.endpoint.addresses)
            ),
        );
        line("labels", status.endpoint.labels.join(", "));
    }
    line("policies", status.policies.join(", "));
    line("resolvers", status.resolvers.join(", "));
    line("attached", status.attachment.clone());
    line("names", status.names.to_string());
    let totals = &status.totals;
    line(
        "packets",
        format!(
            "{} forwarded, {} dropped, {} audited",
            totals.forwarded_packets, totals.dropped_packets, totals.audited_packets
        ),
    );
    line(
        "lookups",
        format!(
            "{} answered, {} refused, {} failed",
            totals.lookups_answered, totals.lookups_refused, totals.lookups_failed
        ),
    );
    line("lost events", totals.lost_events.to_string());
    text
}

/// `3 enforcing, 1 refused`.
fn agent_endpoints(agent: &AgentInfo) -> String {
    let mut states = std::collections::BTreeMap::<&str, usize>::new();
    for endpoint in &agent.endpoints {
        *states.entry(&endpoint.state).or_default() += 1;
    }
    states
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A table without lines, columns three spaces apart.
pub(crate) fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
}

/// The table as text: as wide as the terminal, and as wide as it likes for programs.
pub(crate) fn fitted(table: Table) -> String {
    let terminal = std::io::stdout().is_terminal();
    let width = terminal.then(terminal_size::terminal_size).flatten();
    fitted_to(table, width.map(|(width, _)| width.0))
}

fn fitted_to(mut table: Table, width: Option<u16>) -> String {
    match width {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

fn joined<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_the_terminal_and_loses_nothing() {
        let mut table = plain(&["Endpoint", "Labels"]);
        let labels: Vec<_> = (0..20).map(|n| format!("k8s:label{n}=value")).collect();
        table.add_row(["1".to_owned(), labels.join(", ")]);
        let wide = fitted_to(table.clone(), None);
        assert_eq!(wide.lines().count(), 2, "one row is one line for programs");
        let narrow = fitted_to(table, Some(60));
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 60),
            "{narrow}"
        );
        for label in labels {
            assert!(narrow.contains(&label), "{label} in {narrow}");
        }
    }
}
