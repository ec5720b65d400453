//! What is wrong with a configuration file.
//!
//! In:  a file that cannot be used.
//! Out: [`ConfigError`], which names the place.
//! Not here: finding out (`check`).

use std::{io, path::PathBuf};

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no YAML, or holds a field that is unknown or of another type.
    #[error("`{path}`: {reason}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, column and what was expected.
        reason: String,
    },
    /// Its fields contradict each other.
    #[error("`{path}`: {field}: {reason}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Path of the field.
        field: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}
