//! A shell inside the pod that a test talks to.
//!
//! In:  one line of shell at a time.
//! Out: its output (both streams) and status; the end of the run as a [`Finished`].
//! Not here: how the run was started (`run`).

use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Finished, Running};
use crate::{Output, patience};

const START_LIMIT: Duration = Duration::from_secs(30);
const LINE_LIMIT: Duration = Duration::from_secs(60);
const END: &str = "__end_of_line_of_test__";

/// A shell under `namegate run`.
#[derive(Debug)]
pub struct Shell {
    running: Running,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    pub(super) fn new(mut running: Running) -> Result<Self> {
        let child = running.process().child();
        let input = child
            .stdin
            .take()
            .context("the shell has no standard input")?;
        let output = child
            .stdout
            .take()
            .context("the shell has no standard output")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if send
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        let mut shell = Self {
            running,
            input,
            lines,
        };
        shell
            .line("true", START_LIMIT)
            .context("the shell inside the pod did not answer")?;
        Ok(shell)
    }

    /// Runs a line and returns what it said and its status.
    pub fn sh(&mut self, line: &str) -> Result<Output> {
        self.line(line, LINE_LIMIT)
    }

    /// Runs a line that must succeed.
    pub fn ok(&mut self, line: &str) -> Result<String> {
        let output = self.sh(line)?;
        if output.status != 0 {
            bail!(
                "`{line}` ended with {}: {}\n{}",
                output.status,
                output.stdout,
                self.running.stderr()
            );
        }
        Ok(output.stdout)
    }

    /// Starts a line without waiting; its output is lost.
    pub fn background(&mut self, line: &str) -> Result<()> {
        self.send(&format!("{{ {line}; }} </dev/null >/dev/null 2>&1 &"))
    }

    /// Ends the shell and waits for namegate.
    pub fn finish(mut self) -> Result<Finished> {
        self.send("exit 0")?;
        self.running.finish()
    }

    /// Gives up the shell, keeps the run: its standard input is at its end from here on.
    pub fn into_running(self) -> Running {
        self.running
    }

    fn line(&mut self, line: &str, limit: Duration) -> Result<Output> {
        // The line may end in a comment or a here-document, so the end of the group is on its own line.
        self.send(&format!(
            "{{ {line}\n}} </dev/null 2>&1; printf '\\n{END} %d\\n' $?"
        ))?;
        let deadline = Instant::now() + patience(limit);
        let mut said = Vec::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(text) => match text.strip_prefix(END) {
                    Some(status) => {
                        let status = status.trim().parse()?;
                        return Ok(Output {
                            status,
                            stdout: said.join("\n").trim_end().to_owned(),
                            stderr: String::new(),
                        });
                    }
                    None => said.push(text),
                },
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "`{line}` took longer than {limit:?}: {said:?}\n{}",
                        self.running.stderr()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "the shell ended during `{line}`: {said:?}\n{}",
                        self.running.stderr()
                    )
                }
            }
        }
    }

    fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}")
            .and_then(|()| self.input.flush())
            .with_context(|| format!("the shell is gone: {}", self.running.stderr()))
    }
}

impl Deref for Shell {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}
