//! No race between an answer and the entry that it needs: resolve, connect at once, a thousand times.
//!
//! Alone in its file: other tests on the same two cores would be load that nobody asked for. More of
//! the same, with a table: `cargo xtask race`.

use std::path::Path;

use anyhow::Result;
use netns::race;
use support::{World, rounds};

const CYCLES: u32 = 1000;

#[test]
fn a_thousand_fresh_names_resolved_and_connected_at_once_under_load() -> Result<()> {
    let helper = Path::new(env!("CARGO_BIN_EXE_resolve-connect"));
    let cycles = usize::try_from(rounds(CYCLES))?;
    let race = race::run(&World::new()?, helper, cycles)?;
    println!("{race}");
    race.check(cycles)
}
