//! Processes: run to the end with their output, or kept in the background and killed on drop.
//!
//! In:  a prepared `Command`.
//! Out: [`Output`] of one that ended, or a [`Process`]; facts about any process from `/proc`.
//! Not here: which namespace it runs in (`netns`).

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use crate::wait::until;

/// What a process said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status as a shell tells it (128 + n for signal n).
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Its output, if it succeeded.
    pub fn ok(self, what: &str) -> Result<String> {
        if self.status != 0 {
            bail!(
                "{what} failed with {}: {}{}",
                self.status,
                self.stdout,
                self.stderr
            );
        }
        Ok(self.stdout)
    }
}

/// Runs a command to its end, without standard input.
pub fn output_of(command: &mut Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {shown}"))?;
    Ok(Output {
        status: status_number(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// An exit status as a shell tells it.
pub fn status_number(status: std::process::ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(127))
}

/// A process in the background; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: Option<NamedTempFile>,
    stderr: NamedTempFile,
}

impl Process {
    /// Starts a server: output goes to files, standard input is empty.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::with_input(name, command)
    }

    /// Starts a process whose standard input the caller has set.
    pub fn with_input(name: &str, command: &mut Command) -> Result<Self> {
        let stdout = NamedTempFile::new()?;
        command.stdout(stdout.reopen()?);
        let mut process = Self::with_streams(name, command)?;
        process.stdout = Some(stdout);
        Ok(process)
    }

    /// Starts a process whose standard input and output the caller has set.
    pub fn with_streams(name: &str, command: &mut Command) -> Result<Self> {
        let stderr = NamedTempFile::new()?;
        command.stderr(stderr.reopen()?);
        let shown = format!("{command:?}");
        let child = command
            .spawn()
            .with_context(|| format!("starting {shown}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            stdout: None,
            stderr,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it wrote to standard output up to here.
    pub fn stdout(&self) -> String {
        self.stdout.as_ref().map(read).unwrap_or_default()
    }

    /// What it wrote to standard error up to here.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Whether it still runs; its output otherwise.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "`{}` ended with {status}: {}{}",
                self.name,
                self.stdout(),
                self.stderr()
            );
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal)
            .with_context(|| format!("signalling `{}`", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<Output> {
        let name = self.name.clone();
        let child = &mut self.child;
        let status = until(limit, &format!("the end of `{name}`"), || {
            child.try_wait().ok().flatten()
        })
        .with_context(|| format!("its stderr: {}", read(&self.stderr)))?;
        Ok(Output {
            status: status_number(status),
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too; nothing it could do delays this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &NamedTempFile) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = file.reopen() {
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Every process id.
pub fn all() -> BTreeSet<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// A process and everything below it.
pub fn family(root: i32) -> BTreeSet<i32> {
    let parents: Vec<(i32, i32)> = all()
        .into_iter()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut family = BTreeSet::from([root]);
    loop {
        let more: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

/// Its command line, arguments separated by spaces.
pub fn command_line(pid: i32) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

/// When it started, in clock ticks: with the id this names a process for good.
pub fn start_time(pid: i32) -> Option<u64> {
    stat_field(pid, 19)?.parse().ok()
}

/// Whether it exists and is not merely waiting to be reaped.
pub fn is_alive(pid: i32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// The network namespaces its threads are in.
pub fn net_namespaces(pid: i32) -> BTreeSet<u64> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return BTreeSet::new();
    };
    tasks
        .flatten()
        .filter_map(|task| Some(task.path().join("ns/net").metadata().ok()?.ino()))
        .collect()
}

fn parent(pid: i32) -> Option<i32> {
    stat_field(pid, 1)?.parse().ok()
}

/// A field of `/proc/PID/stat`, counted after the command in parentheses.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = text.rsplit_once(')')?.1;
    after.split_whitespace().nth(index).map(str::to_owned)
}
