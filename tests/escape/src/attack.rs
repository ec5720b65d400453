//! One attack: a script inside a pod.
//!
//! In:  a script, the options of the run.
//! Out: its [`Outcome`].
//! Not here: what the outcome should be (`tests/`).

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Result, bail, ensure};
use support::{Finished, Netns, Run, World, tools};

/// The unprivileged user who invoked `namegate` through sudo.
pub const NOBODY: u32 = 65534;

/// An attack to be started.
#[derive(Debug)]
pub struct Attack {
    script: String,
    user: Option<u32>,
    options: Vec<(String, OsString)>,
    flags: Vec<String>,
    directory: PathBuf,
}

impl Attack {
    /// A line of bash, run as `nobody`.
    pub fn new(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            user: Some(NOBODY),
            options: Vec::new(),
            flags: Vec::new(),
            directory: PathBuf::from("/"),
        }
    }

    /// A perl program, run as `nobody`; `$!` has the refusal.
    pub fn perl(program: &str) -> Self {
        Self::new(&format!("perl -e '{program}'"))
    }

    /// Root itself invoked namegate.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.user = None;
        self
    }

    /// An option of the run.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.options.push((name.to_owned(), value.into()));
        self
    }

    /// A flag of the run.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.flags.push(name.to_owned());
        self
    }

    /// Where it is started.
    #[must_use]
    pub fn from(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Runs it on a machine without any network but the pod's.
    pub fn alone(self) -> Result<Outcome> {
        let host = Netns::new("host")?;
        self.on(&host)
    }

    /// Runs it on the machine that `host` stands for.
    pub fn on(self, host: &Netns) -> Result<Outcome> {
        let run = Run::on(host)?.dns("192.0.2.53").bare();
        self.finish(run)
    }

    /// Runs it where names and servers exist.
    pub fn in_world(self, world: &World) -> Result<Outcome> {
        let run = world.run_with_dns()?;
        self.finish(run)
    }

    /// The run that would be started and its script, for a test that starts it in its own way.
    pub fn run_on(self, host: &Netns) -> Result<(Run<'_>, String)> {
        let script = self.script.clone();
        let run = Run::on(host)?.dns("192.0.2.53").bare();
        Ok((self.dress(run)?, script))
    }

    fn finish(self, run: Run<'_>) -> Result<Outcome> {
        let script = self.script.clone();
        Ok(Outcome {
            finished: self.dress(run)?.script(&script)?,
            script,
        })
    }

    fn dress(self, run: Run<'_>) -> Result<Run<'_>> {
        ensure!(
            tools::find("perl").is_some(),
            "missing program: perl; run `scripts/setup --for test`"
        );
        let mut run = run
            .allow("example.test")
            .current_dir(self.directory)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if let Some(user) = self.user {
            run = run
                .env("SUDO_UID", user.to_string())
                .env("SUDO_GID", user.to_string())
                .env("SUDO_USER", "nobody");
        }
        for (name, value) in self.options {
            run = run.option(&name, value);
        }
        for flag in self.flags {
            run = run.flag(&flag);
        }
        Ok(run)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    script: String,
    finished: Finished,
}

impl Outcome {
    /// The attack failed, and for the reason named.
    pub fn refused(&self, reason: &str) -> Result<()> {
        let everything = self.everything();
        if everything.contains("ESCAPED") {
            bail!("`{}` got out: {everything}", self.script);
        }
        if !everything.contains(reason) {
            bail!(
                "`{}` did not fail for `{reason}`: {everything}",
                self.script
            );
        }
        Ok(())
    }

    /// The script wrote exactly this.
    pub fn wrote(&self, expected: &str) -> Result<()> {
        let wrote = self.finished.stdout.trim();
        ensure!(
            wrote == expected,
            "`{}` wrote `{wrote}`, not `{expected}`: {}",
            self.script,
            self.finished.stderr
        );
        Ok(())
    }

    /// Everything it and namegate wrote.
    pub fn everything(&self) -> String {
        format!("{}{}", self.finished.stdout, self.finished.stderr)
    }

    /// The exit status of namegate.
    pub fn status(&self) -> i32 {
        self.finished.status
    }
}
