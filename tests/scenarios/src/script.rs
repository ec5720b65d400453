//! A script: its steps, and whether each causes what is written below it.
//!
//! In:  the text of a script.
//! Out: an error that shows the line, what was expected and what happened.
//! Not here: carrying a step out (`conversation`).

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Result, bail, ensure};

use crate::conversation::Conversation;

/// Runs a script to its end.
///
/// # Errors
/// The first line that cannot be read or whose effects are not those written below it.
pub fn run(script: &str) -> Result<()> {
    let mut conversation = Conversation::default();
    for step in steps(script)? {
        let happened = conversation.step(&step)?;
        if happened != step.expected {
            bail!(
                "line {}: {}\nexpected:{}\nhappened:{}",
                step.line,
                step.text,
                show(&step.expected),
                show(&happened)
            );
        }
    }
    Ok(())
}

/// The script with the effects that happen written below each command, for whoever writes a new
/// one; what it says has to be read and agreed with.
///
/// # Errors
/// The first line that cannot be read.
pub fn rewrite(script: &str) -> Result<String> {
    let mut conversation = Conversation::default();
    let mut effects = BTreeMap::new();
    for step in steps(script)? {
        effects.insert(step.line + step.records.len(), conversation.step(&step)?);
    }
    let mut rewritten = String::new();
    for (at, line) in script.lines().enumerate() {
        if !line.starts_with('>') {
            rewritten += line;
            rewritten += "\n";
        }
        for effect in effects.remove(&(at + 1)).unwrap_or_default() {
            let _ = writeln!(rewritten, "> {effect}");
        }
    }
    Ok(rewritten)
}

/// One command, its records, and what it must cause.
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) records: Vec<Vec<String>>,
    expected: Vec<String>,
}

fn steps(script: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = script.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let text = line.split('#').next().unwrap_or_default().trim_end();
        if text.trim().is_empty() {
            continue;
        }
        ensure!(
            !text.starts_with('>'),
            "line {}: an effect without a command",
            at + 1
        );
        let mut records = Vec::new();
        while let Some((_, record)) = lines.next_if(|(_, next)| next.starts_with("  ")) {
            records.push(record.split_whitespace().map(str::to_owned).collect());
        }
        let mut expected = Vec::new();
        while let Some((_, effect)) = lines.next_if(|(_, next)| next.starts_with('>')) {
            expected.push(effect.trim_start_matches('>').trim().to_owned());
        }
        steps.push(Step {
            line: at + 1,
            text: text.to_owned(),
            records,
            expected,
        });
    }
    Ok(steps)
}

fn show(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  > {line}")).collect()
}
