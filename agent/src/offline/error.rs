//! Why flows cannot be judged.
//!
//! In:  mistakes of files, policies, worlds.
//! Out: [`OfflineError`].
//! Not here: the mistakes themselves (`facts`, `policy::parse`).

use crate::{WorldError, facts::InputError, policies::LoadError};

/// Why nothing was judged.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A mistake in a world, flows or scenario file.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A mistake in a policy file, or one that cannot be read.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// The policies cannot be compiled for this world.
    #[error(transparent)]
    World(#[from] WorldError),
}
