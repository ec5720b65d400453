//! `cargo xtask race`: build what races, and start it.
//!
//! In:  how many cycles.
//! Out: the table of the `race` program of `tests/netns`; true when nothing failed.
//! Not here: the race itself (`tests/netns/src/race.rs`).
//!
//! A release build that is there is brought up to date and used; else the debug build.

use std::{path::Path, process::Command};

use anyhow::Context as _;

use crate::{
    cargo,
    suite::{is_root, metadata},
};

/// Runs it; true when it ended well.
pub(crate) fn run(root: &Path, cycles: usize) -> anyhow::Result<bool> {
    let target = metadata(root)?.target_directory.into_std_path_buf();
    let release = target.join("release").join("namegate");
    let mut build = cargo(root);
    build.args(["build", "--package", "namegate"]);
    let binary = if release.is_file() {
        build.arg("--release");
        release
    } else {
        target.join("debug").join("namegate")
    };
    let mut helpers = cargo(root);
    helpers.args(["build", "--package", "netns", "--bins"]);
    for build in [&mut build, &mut helpers] {
        let status = build.status().context("cannot start cargo build")?;
        if !status.success() {
            return Ok(false);
        }
    }
    let program = target.join("debug").join("race");
    let mut race = if is_root()? {
        Command::new(program)
    } else {
        println!("as root, through sudo");
        let mut sudo = Command::new("sudo");
        sudo.arg("--preserve-env=NAMEGATE_BIN,PATH").arg(program);
        sudo
    };
    println!("{cycles} cycles with {}", binary.display());
    let status = race
        .arg(cycles.to_string())
        .env("NAMEGATE_BIN", &binary)
        .status()
        .context("cannot start the race")?;
    Ok(status.success())
}
