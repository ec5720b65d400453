//! A `namegate run` that runs.
//!
//! In:  its process.
//! Out: facts about it (process ids, the pod's network), its end as a [`Finished`].
//! Not here: giving it work line by line (`shell`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Client, Finished};
use crate::leftovers::Held;
use crate::process::{command_line, family, net_namespaces};
use crate::{Netns, Process, until};

/// A run under way; killed on drop.
#[derive(Debug)]
pub struct Running {
    process: Process,
    files: TempDir,
    limit: Duration,
}

impl Running {
    pub(super) fn new(process: Process, files: TempDir, limit: Duration) -> Self {
        Self {
            process,
            files,
            limit,
        }
    }

    /// namegate's process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The process, for its pipes.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends namegate a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// The process id, as this test sees it, of the command: the first process below namegate whose
    /// command line starts like this.
    pub fn command_pid(&self, starts_with: &str) -> Result<i32> {
        until(
            Duration::from_secs(20),
            &format!("a process `{starts_with}` below namegate"),
            || {
                let pid = self.pid();
                family(pid)
                    .into_iter()
                    .find(|member| *member != pid && command_line(*member).starts_with(starts_with))
            },
        )
    }

    /// What it holds: processes, namespaces, kernel objects.
    pub fn held(&self, host: &Netns) -> Result<Held> {
        Held::by(self.pid(), host)
    }

    /// The operator's commands against this run.
    pub fn client<'a>(&self, host: &'a Netns) -> Client<'a> {
        Client::new(host, self.socket())
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.files.path().join("namegate.sock")
    }

    /// Where its report goes.
    pub fn report_path(&self) -> PathBuf {
        self.files.path().join("report.json")
    }

    /// A place for files of the test that lives as long as the run.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Standard error of namegate and the command up to here.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Standard output of the command up to here.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Result<Finished> {
        let output = self.process.wait(self.limit)?;
        Finished::new(output, &self.report_path())
    }
}

/// A number of the kernel's for the network of a process, such as `TcpExt TCPSynRetrans`.
pub fn counter(pid: i32, file: &str, group: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/{file}"))?;
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with(&format!("{group}:")))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let [names, values] = lines.as_slice() else {
        anyhow::bail!("no two lines of `{group}` in {file}")
    };
    let position = names.iter().position(|word| *word == name);
    let value = position
        .and_then(|position| values.get(position))
        .and_then(|value| value.parse().ok());
    value.ok_or_else(|| anyhow::anyhow!("no `{group} {name}` in {file}"))
}

/// Whether two processes share a network.
pub fn share_network(a: i32, b: i32) -> bool {
    !net_namespaces(a).is_disjoint(&net_namespaces(b))
}
