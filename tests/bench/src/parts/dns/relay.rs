//! The relay that parses nothing, compiled and started.
//!
//! In:  a namespace, a port, a server; a C compiler.
//! Out: a process.
//! Not here: what it does (`relay.c`).

use std::process::Command;

use anyhow::Context as _;
use support::{Netns, Process, process::output_of};
use tempfile::TempDir;

const SOURCE: &str = include_str!("relay.c");

/// The relay at work; killed on drop.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) process: Process,
    _files: TempDir,
}

impl Relay {
    pub(super) fn start(netns: &Netns, port: u16, server: &str) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let source = files.path().join("relay.c");
        let program = files.path().join("relay");
        std::fs::write(&source, SOURCE)?;
        output_of(
            Command::new("cc")
                .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
                .arg(&program)
                .arg(&source),
        )
        .context("a C compiler is missing: run `scripts/setup --for bench`")?
        .ok("cc relay.c")?;
        let mut command = netns.command(&program);
        command.args([&port.to_string(), server]);
        let process = Process::spawn("relay", &mut command)?;
        Ok(Self {
            process,
            _files: files,
        })
    }
}
