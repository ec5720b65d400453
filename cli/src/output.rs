//! One value, three ways to print it.
//!
//! In:  a value that serialises and a function that makes a table of it.
//! Out: text on stdout.
//! Not here: what the columns are (`tables`).

use std::io::Write;

use anstyle::Style;
use serde::Serialize;

use crate::args::Format;

pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => serde_json::to_string_pretty(value)?,
        Format::Yaml => serde_saphyr::to_string(value)?,
    };
    line(text.trim_end())
}

/// Prints a line; a reader that went away (`| head`) is no error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    styled(Style::new(), text)
}

/// The same in a style, which only a terminal sees, and not where `NO_COLOR` is set.
pub(crate) fn styled(style: Style, text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{style}{text}{style:#}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}
