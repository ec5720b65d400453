//! Checking policy files without a world.
//!
//! In:  files and directories.
//! Out: [`Checked`]: the policies that are fine, advice about them, every mistake in the others.
//! Not here: what is a mistake (`policy::parse`), what is advised (`policy::lint`).

use std::path::PathBuf;

use policy::{
    lint::{self, Severity, Warning},
    model::Policy,
    parse::{Limits, Note},
};

use crate::policies::{self, LoadError};

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The policies that are fine.
    pub policies: Vec<Policy>,
    /// Documents that are not policies.
    pub notes: Vec<Note>,
    /// Advice about the policies.
    pub advice: Vec<Warning>,
    /// Every mistake.
    pub errors: Vec<LoadError>,
}

impl Checked {
    /// 2 when something is wrong, 1 when something will surprise, else 0.
    pub fn status(&self) -> u8 {
        if !self.errors.is_empty() {
            2
        } else if self.advice.iter().any(|w| w.severity == Severity::Warning) {
            1
        } else {
            0
        }
    }
}

/// Checks every file; a broken one hides none of the others.
pub fn validate(paths: &[PathBuf], limits: &Limits) -> Checked {
    let (loaded, errors) = policies::load_all(paths, limits);
    let advice = lint::policies(&loaded.policies);
    Checked {
        policies: loaded.policies,
        notes: loaded.notes,
        advice,
        errors,
    }
}
