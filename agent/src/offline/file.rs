//! Files with flows.
//!
//! In:  paths of YAML or JSON files.
//! Out: [`Sourced`] flows and scenarios.
//! Not here: how files are read (`facts`), whom flows mean (`judge`).

use std::path::Path;

use serde_saphyr::Spanned;

use super::{
    flow::{Flow, Flows},
    scenario::Scenario,
};
use crate::facts::{Cause, InputError, Sourced, World, read};

/// A flows file.
///
/// # Errors
/// The first mistake in it.
pub fn flows(path: &Path) -> Result<Sourced<Vec<Spanned<Flow>>>, InputError> {
    let file: Sourced<Flows> = read(path)?;
    Ok(Sourced {
        file: file.file,
        value: file.value.0,
    })
}

/// The flows inside a world file.
///
/// # Errors
/// When there are none.
pub fn flows_of(world: &Sourced<World>) -> Result<Sourced<Vec<Spanned<Flow>>>, InputError> {
    if world.value.flows.is_empty() {
        return Err(world.wrong_file(Cause::NoFlows));
    }
    Ok(world.with(world.value.flows.clone()))
}

/// A scenario file.
///
/// # Errors
/// The first mistake in it.
pub(super) fn scenario(path: &Path) -> Result<Sourced<Scenario>, InputError> {
    read(path)
}
