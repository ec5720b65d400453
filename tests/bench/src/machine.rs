//! What the numbers were measured on.
//!
//! In:  git, `/proc`, the clock.
//! Out: [`Machine`], the head of the JSON file.
//! Not here: the numbers.

use std::{fs, process::Command, thread::available_parallelism};

use anyhow::Context as _;
use serde::Serialize;

/// The machine and the moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The commit, with `+` when the checkout differs from it.
    pub(crate) commit: String,
    kernel: String,
    cpu: String,
    processors: usize,
    /// Runnable tasks of others over the last minute: noise.
    load: f64,
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn look() -> anyhow::Result<Self> {
        let cpus = read("/proc/cpuinfo")?;
        let load = read("/proc/loadavg")?;
        Ok(Self {
            commit: commit(),
            kernel: read("/proc/sys/kernel/osrelease")?,
            cpu: cpus
                .lines()
                .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
                .unwrap_or("unknown")
                .to_owned(),
            processors: available_parallelism()?.get(),
            load: load
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .context("reading the load")?,
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
        })
    }

    pub(crate) fn heading(&self) -> String {
        format!(
            "commit {}, Linux {}, {} × {}, load {}, {}",
            self.commit, self.kernel, self.processors, self.cpu, self.load, self.date
        )
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    Ok(fs::read_to_string(path)
        .with_context(|| format!("reading {path}"))?
        .trim()
        .to_owned())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let done = Command::new("git").args(arguments).output().ok()?;
        done.status
            .success()
            .then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}+"),
    }
}
