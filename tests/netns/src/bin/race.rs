//! `race CYCLES`: resolve and connect at once, that many times, under load.
//!
//! In:  root; the `namegate` that NAMEGATE_BIN names; `resolve-connect` beside this program.
//! Out: a table; status 1 when any connect failed or any SYN was repeated.
//! Not here: building either (`cargo xtask race`).

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Context, Result};
use netns::race;
use support::World;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("race: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let cycles: usize = std::env::args()
        .nth(1)
        .context("usage: race CYCLES")?
        .parse()
        .context("how many cycles?")?;
    let helper = std::env::current_exe()?.with_file_name("resolve-connect");
    let world = World::with_fresh(race::names(cycles))?;
    let race = race::run(&world, &helper, cycles)?;
    println!("{race}");
    race.check(cycles)
}
