//! The operator's commands against a run: `fqdn cache list`, `status`, `observe`, …
//!
//! In:  the machine it runs on and its control socket.
//! Out: output as text or JSON.
//! Not here: the run (`running`).

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::output_of;
use crate::{Netns, Output, tools};

/// Operator's commands through one socket.
#[derive(Debug)]
pub struct Client<'a> {
    host: &'a Netns,
    socket: PathBuf,
}

impl<'a> Client<'a> {
    /// A client of the socket.
    pub fn new(host: &'a Netns, socket: PathBuf) -> Self {
        Self { host, socket }
    }

    /// Runs `namegate WORDS… --socket PATH`.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        output_of(
            self.host
                .command(tools::namegate()?)
                .args(words)
                .arg("--socket")
                .arg(&self.socket),
        )
    }

    /// Its standard output; anything but success is an error.
    pub fn text(&self, words: &[&str]) -> Result<String> {
        self.output(words)?
            .ok(&format!("namegate {}", words.join(" ")))
    }

    /// Its standard output as one JSON value.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.text(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("reading `{text}`"))
    }

    /// Its standard output as JSON, one value per line.
    pub fn json_lines(&self, words: &[&str]) -> Result<Vec<Value>> {
        let text = self.text(&[words, &["-o", "json"]].concat())?;
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).with_context(|| format!("reading `{line}`")))
            .collect()
    }
}
