//! `namegate run` before it is started.
//!
//! In:  options as methods, one per option of the command line.
//! Out: a [`Finished`] for a command that runs to its end, a [`Running`] for one that stays, a
//!      [`Shell`] for a test that gives it one line after the other.
//! Not here: the world it runs in (`world`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::{Finished, Running, Shell};
use crate::{Netns, Process, tools};

/// Long enough for any command of a test; a hang ends here.
const LIMIT: Duration = Duration::from_secs(60);

/// A run to be started.
#[derive(Debug)]
pub struct Run<'a> {
    host: &'a Netns,
    options: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
    limit: Duration,
    report: bool,
    socket: bool,
    files: TempDir,
    policies: usize,
}

/// What whoever runs the tests ignores (`nohup`) is inherited, and namegate would keep it ignored.
const DEFAULT_SIGNALS: &str = "--default-signal=HUP,INT,QUIT,TERM";

impl<'a> Run<'a> {
    /// A run on the machine that a namespace stands for.
    pub fn on(host: &'a Netns) -> Result<Self> {
        tools::require_all()?;
        Ok(Self {
            host,
            options: Vec::new(),
            environment: Vec::new(),
            directory: None,
            resolv_conf: None,
            limit: LIMIT,
            report: true,
            socket: true,
            files: tempfile::tempdir()?,
            policies: 0,
        })
    }

    /// `--allow`.
    #[must_use]
    pub fn allow(self, what: &str) -> Self {
        self.option("--allow", what)
    }

    /// `--dns`.
    #[must_use]
    pub fn dns(self, server: &str) -> Self {
        self.option("--dns", server)
    }

    /// `--policy` with a file of the caller.
    #[must_use]
    pub fn policy_file(self, file: &std::path::Path) -> Self {
        self.option("--policy", file)
    }

    /// `--policy` with a text, written to a file `policy-N.yaml`.
    pub fn policy(mut self, text: &str) -> Result<Self> {
        self.policies += 1;
        let file = self
            .files
            .path()
            .join(format!("policy-{}.yaml", self.policies));
        std::fs::write(&file, text)?;
        Ok(self.policy_file(&file))
    }

    /// `--label`.
    #[must_use]
    pub fn label(self, label: &str) -> Self {
        self.option("--label", label)
    }

    /// `--namespace`.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        self.option("--namespace", namespace)
    }

    /// Any option with a value.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.options.push(name.into());
        self.options.push(value.into());
        self
    }

    /// Any option without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.into());
        self
    }

    /// A variable of the environment of namegate, and so of the command.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The folder it is started in.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What the machine has as `/etc/resolv.conf`, through a private mount.
    pub fn resolv_conf(mut self, text: &str) -> Result<Self> {
        let file = self.files.path().join("resolv.conf");
        std::fs::write(&file, text)?;
        self.resolv_conf = Some(file);
        Ok(self)
    }

    /// How long it may take altogether.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Nothing but what the test gave: no report file, no socket of its own.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.report = false;
        self.socket = false;
        self
    }

    /// Runs a command to its end, without standard input.
    pub fn command(self, argv: &[&str]) -> Result<Finished> {
        self.start(argv, Stdio::null())?.finish()
    }

    /// Runs a line of shell to its end.
    pub fn script(self, line: &str) -> Result<Finished> {
        self.command(&["bash", "-c", line])
    }

    /// Starts a command that stays.
    pub fn start(self, argv: &[&str], input: Stdio) -> Result<Running> {
        let (mut command, files, limit) = self.prepare(argv)?;
        let process = Process::with_input("namegate", command.stdin(input))?;
        Ok(Running::new(process, files, limit))
    }

    /// Starts a shell that takes lines from the test, and waits until it answers.
    pub fn shell(self) -> Result<Shell> {
        let (mut command, files, limit) = self.prepare(&["bash", "--noprofile", "--norc"])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = Process::with_streams("namegate", &mut command)?;
        Shell::new(Running::new(process, files, limit))
    }

    /// The command that would be started, for a test that wants to start it in its own way.
    pub fn prepare(mut self, argv: &[&str]) -> Result<(Command, TempDir, Duration)> {
        let binary = tools::namegate()?;
        let mut command = match &self.resolv_conf {
            None => {
                let mut command = self.host.command("env");
                command.arg(DEFAULT_SIGNALS).arg(&binary);
                command
            }
            Some(file) => {
                // Every step is an exec: the process id is namegate's in the end.
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "--", "bash", "-c"]).arg(
                    "mount --bind \"$0\" \"$(readlink -f /etc/resolv.conf)\" && exec nsenter --net=\"$1\" -- env \"$2\" \"${@:3}\"",
                );
                command
                    .arg(file)
                    .arg(self.host.path())
                    .arg(DEFAULT_SIGNALS)
                    .arg(&binary);
                command
            }
        };
        command.arg("run");
        if self.report {
            self.options.push("--report".into());
            self.options
                .push(self.files.path().join("report.json").into());
        }
        if self.socket {
            self.options.push("--socket".into());
            self.options
                .push(self.files.path().join("namegate.sock").into());
        }
        command
            .args(&self.options)
            .arg("--")
            .args(argv)
            .envs(self.environment.iter().cloned());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        Ok((command, self.files, self.limit))
    }
}
