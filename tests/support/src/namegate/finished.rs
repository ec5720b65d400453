//! A run that ended.
//!
//! In:  its output and the file its report went to.
//! Out: status, output, the report as typed values.
//! Not here: starting it (`run`).

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::Output;
use crate::report::Report;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit status of namegate.
    pub status: i32,
    /// What the command wrote to standard output; empty after a [`Shell`](super::Shell), which hands it out line by line.
    pub stdout: String,
    /// Standard error of both, with namegate's summary.
    pub stderr: String,
    report: Option<String>,
}

impl Finished {
    pub(super) fn new(output: Output, report: &Path) -> Result<Self> {
        let report = report
            .exists()
            .then(|| std::fs::read_to_string(report))
            .transpose()?;
        Ok(Self {
            status: output.status,
            stdout: output.stdout,
            stderr: output.stderr,
            report,
        })
    }

    /// Its report.
    pub fn report(&self) -> Result<Report> {
        let text = self.report_text()?;
        serde_json::from_str(text).with_context(|| format!("reading the report {text}"))
    }

    /// Its report as it was written.
    pub fn report_text(&self) -> Result<&str> {
        self.report
            .as_deref()
            .with_context(|| format!("there is no report; standard error: {}", self.stderr))
    }

    /// Whether there is a report.
    pub fn has_report(&self) -> bool {
        self.report.is_some()
    }

    /// Standard output, if the status is the expected one.
    pub fn expect(&self, status: i32) -> Result<&str> {
        if self.status != status {
            bail!(
                "namegate ended with {} where {status} was expected: {}{}",
                self.status,
                self.stdout,
                self.stderr
            );
        }
        Ok(&self.stdout)
    }

    /// Fails unless standard error holds every one of these.
    pub fn says(&self, parts: &[&str]) -> Result<()> {
        let missing: Vec<&&str> = parts
            .iter()
            .filter(|part| !self.stderr.contains(**part))
            .collect();
        if !missing.is_empty() {
            bail!("standard error lacks {missing:?}:\n{}", self.stderr);
        }
        Ok(())
    }
}
