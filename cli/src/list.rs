//! Lists of an enforcer: `identity`, `endpoint`, `policy get`, `bpf`.
//!
//! In:  rows of the control socket.
//! Out: a table, or objects as JSON and YAML; for `get` one row, a line per column.
//! Not here: what the rows mean (`agent`).

use agent::api::Rows;
use anyhow::bail;
use serde_json::{Map, Value};

use crate::{
    args::{BpfMap, List, Output, Target},
    client, output, tables,
};

pub(crate) fn endpoints(list: &List) -> anyhow::Result<()> {
    rows_of(list, "endpoints")
}

pub(crate) fn identities(list: &List) -> anyhow::Result<()> {
    rows_of(list, "identities")
}

pub(crate) fn bpf(map: BpfMap, target: &Target, out: &Output) -> anyhow::Result<()> {
    let what = match map {
        BpfMap::Learned => "bpf-learned",
        BpfMap::Policy => "bpf-policy",
        BpfMap::Ct => "bpf-ct",
        BpfMap::Ipcache => "bpf-ipcache",
        BpfMap::Metrics => "bpf-metrics",
    };
    print(&client::list(target, what)?, out)
}

pub(crate) fn policy(endpoint: Option<&str>, target: &Target, out: &Output) -> anyhow::Result<()> {
    let mut rows = client::list(target, "policy")?;
    if let Some(endpoint) = endpoint {
        rows.rows.retain(|row| is_named(row, endpoint));
        if rows.rows.is_empty() {
            bail!(
                "there is no endpoint `{endpoint}`; `namegate endpoint list` shows those there are"
            );
        }
    }
    print(&rows, out)
}

fn rows_of(list: &List, what: &str) -> anyhow::Result<()> {
    match list {
        List::List { target, output } => print(&client::list(target, what)?, output),
        List::Get { id, target, output } => {
            let mut rows = client::list(target, what)?;
            rows.rows.retain(|row| is_named(row, id));
            let Some(row) = rows.rows.first() else {
                bail!("there is none by the name of `{id}` among the {what}");
            };
            output::print(output.format, &object(&rows.columns, row), |object| {
                lines(&rows.columns, object)
            })
        }
    }
}

/// The first column is a number, the second may be a name.
fn is_named(row: &[Value], name: &str) -> bool {
    row.iter().take(2).any(|value| text(value) == name)
}

fn print(rows: &Rows, out: &Output) -> anyhow::Result<()> {
    let objects: Vec<_> = rows
        .rows
        .iter()
        .map(|row| object(&rows.columns, row))
        .collect();
    output::print(out.format, &objects, |_| {
        let columns: Vec<_> = rows.columns.iter().map(String::as_str).collect();
        let mut table = tables::plain(&columns);
        for row in &rows.rows {
            table.add_row(row.iter().map(text));
        }
        tables::fitted(table)
    })
}

fn object(columns: &[String], row: &[Value]) -> Map<String, Value> {
    columns.iter().cloned().zip(row.iter().cloned()).collect()
}

fn lines(columns: &[String], object: &Map<String, Value>) -> String {
    columns
        .iter()
        .filter_map(|column| Some(format!("{column:<12} {}", text(object.get(column)?))))
        .collect::<Vec<_>>()
        .join("\n")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
