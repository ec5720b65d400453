//! The file of a run.
//!
//! In:  the machine, the options, tables part by part.
//! Out: `COMMIT-DATE.json`.
//! Not here: what the tables say (`table`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{machine::Machine, options::Options, table::Table};

#[derive(Debug, Serialize)]
struct Measured {
    part: &'static str,
    tables: Vec<Table>,
}

/// Everything of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    machine: Machine,
    rounds: usize,
    slice_ms: u128,
    parts: Vec<Measured>,
}

impl Record {
    pub(crate) fn new(machine: Machine, options: &Options) -> Self {
        Self {
            machine,
            rounds: options.rounds,
            slice_ms: options.slice.as_millis(),
            parts: Vec::new(),
        }
    }

    pub(crate) fn heading(&self) -> String {
        format!(
            "{}; {} rounds of {} ms",
            self.machine.heading(),
            self.rounds,
            self.slice_ms
        )
    }

    pub(crate) fn add(&mut self, part: &'static str, tables: Vec<Table>) {
        self.parts.push(Measured { part, tables });
    }

    /// The file in this folder; one for each run.
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!(
            "{}-{}.json",
            self.machine.commit,
            self.machine.date.replace(':', "")
        ))
    }

    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = self.path(folder);
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}
