//! Files of facts and flows: bounded, strict, with the place of every mistake.
//!
//! In:  paths of YAML or JSON files.
//! Out: [`Sourced`] values that know their file.
//! Not here: cross-checks between parts of a file (`universe`, `offline`).

use std::{fs, io::Read, path::Path, sync::Arc};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use serde_saphyr::{Location, Spanned};

use super::{Cause, InputError, written::World};

/// Bytes of one file.
const MAX_BYTES: u64 = 8 << 20;
/// Levels of nesting.
const MAX_DEPTH: usize = 32;
/// Values in one file, every use of an alias counted.
const MAX_NODES: usize = 200_000;
/// What is said beyond that.
const TOO_MUCH: &str = "more values than are read, counting every use of an alias; split the file";
/// The field of [`Spanned`] that holds the value; no file here has one of that name.
const SPANNED: &str = "value";

/// A value and the file it was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The file, as named on the command line.
    pub file: Arc<str>,
    /// What it holds.
    pub value: T,
}

impl<T> Sourced<T> {
    /// A mistake at a value of this file.
    pub(crate) fn wrong<V>(&self, at: &Spanned<V>, field: String, cause: Cause) -> InputError {
        let at = at.referenced;
        self.wrong_at(at, field, cause)
    }

    pub(crate) fn wrong_at(&self, at: Location, field: String, cause: Cause) -> InputError {
        InputError {
            file: Arc::clone(&self.file),
            line: at.line(),
            column: at.column(),
            field,
            cause,
        }
    }

    /// A mistake of the file as a whole.
    pub(crate) fn wrong_file(&self, cause: Cause) -> InputError {
        self.wrong_at(Location::UNKNOWN, String::new(), cause)
    }

    /// Another value of the same file.
    pub(crate) fn with<U>(&self, value: U) -> Sourced<U> {
        Sourced {
            file: Arc::clone(&self.file),
            value,
        }
    }
}

/// A world file.
///
/// # Errors
/// The first mistake in it.
pub fn world(path: &Path) -> Result<Sourced<World>, InputError> {
    read(path)
}

/// A file with one value.
///
/// # Errors
/// The first mistake in it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Sourced<T>, InputError> {
    let file: Arc<str> = path.display().to_string().into();
    let nothing = Sourced {
        file: Arc::clone(&file),
        value: (),
    };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| nothing.wrong_file(Cause::Read(error)))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(nothing.wrong_file(Cause::TooLarge { limit: MAX_BYTES }));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        nothing.wrong_file(Cause::NotUtf8 {
            at: error.valid_up_to(),
        })
    })?;
    Ok(Sourced {
        value: parse(&nothing, text)?,
        file,
    })
}

/// The value of a text, as if it stood in this file.
#[cfg(test)]
pub(crate) fn text<T: DeserializeOwned>(name: &str, text: &str) -> Result<Sourced<T>, InputError> {
    let file = Sourced {
        file: name.into(),
        value: (),
    };
    Ok(file.with(parse(&file, text)?))
}

/// The value of a text. A key twice, a key nobody knows and an alias bomb are mistakes.
fn parse<T: DeserializeOwned>(file: &Sourced<()>, text: &str) -> Result<T, InputError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            // A value begins and ends, and a mapping has keys.
            max_events: 2 * MAX_NODES,
            max_documents: 1,
        },
        with_snippet: false,
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
    };
    let mut field = String::new();
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            field = field_of(error.path());
            error.into_inner()
        })
    })
    .map_err(|error| {
        let at = error.location().unwrap_or(Location::UNKNOWN);
        file.wrong_at(at, field, Cause::Syntax(message(&error)))
    })
}

/// The path as people write it, without the level that keeping lines adds.
fn field_of(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } if key == SPANNED => {}
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Segment::Unknown => {}
        }
    }
    text
}

/// The message without the place, which is told apart.
fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{Error, budget::BudgetBreach};
    let text = match error.without_snippet() {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Documents { .. } => return "a second document; a file holds one".into(),
            BudgetBreach::Depth { .. } => return format!("nested deeper than {MAX_DEPTH} levels"),
            _ => return TOO_MUCH.into(),
        },
        other => other.to_string(),
    };
    // What is replayed for an alias breaches the budget in an error of its own.
    if text.contains("budget breached") {
        return TOO_MUCH.into();
    }
    let end = text.find(" at line ").unwrap_or(text.len());
    text.get(..end).unwrap_or(&text).to_owned()
}
