//! What is asked of a run.
//!
//! In:  the command line.
//! Out: [`Options`], which every part gets.
//! Not here: which parts there are (`parts`).

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Parser;

/// Measurements side by side, printed as ratios.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Arguments {
    /// Parts to measure (default: all)
    pub(crate) parts: Vec<String>,
    /// How often each subject is measured, taking turns; at least 3
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one measurement lasts, in milliseconds
    #[arg(long, default_value_t = 500)]
    slice: u64,
    /// Where the JSON file goes
    #[arg(long, default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How often each subject is measured.
    pub(crate) rounds: usize,
    /// How long one measurement lasts.
    pub(crate) slice: Duration,
}

impl Arguments {
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        ensure!(self.rounds >= 3, "a median needs at least 3 rounds");
        ensure!(self.slice >= 1, "a measurement takes some time");
        Ok(Options {
            rounds: self.rounds,
            slice: Duration::from_millis(self.slice),
        })
    }
}
