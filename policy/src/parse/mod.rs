//! Policy files: text in, policies or every mistake out.
//!
//! In:  bytes of YAML or JSON files, several documents or a `List` each.
//! Out: [`ParsedFile`], or [`PolicyError`]s with file, line, column and field path.
//! Not here: what the policies mean for an endpoint (`compile`), advice about them (`lint`).
//!
//! A file is held to what the CRD schema *and* the parser of Cilium 1.20 accept, and to what this
//! version supports: a field that would be ignored is a mistake. One mistake fails the file.

mod cidr_group;
mod cilium;
mod clause;
mod cluster_policy;
mod document;
mod error;
mod fields;
mod icmp;
mod l7;
mod labels;
mod network_policy;
mod peers;
mod ports;
mod tree;

use std::sync::Arc;

pub use error::{PolicyError, Problem};
use fields::Reader;

use crate::{
    model::{CidrGroup, Policy},
    selector::DEFAULT_CLUSTER,
};

/// What a file may cost, and what it does not say itself.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub max_bytes: usize,
    /// Levels of nesting.
    pub max_depth: usize,
    /// Values in one file, every use of an alias counted.
    pub max_nodes: usize,
    /// The namespace of namespaced policies that name none, as with `kubectl -n`.
    pub default_namespace: String,
    /// The cluster that peers are in unless a policy says otherwise.
    pub cluster: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            max_depth: 64,
            max_nodes: 100_000,
            default_namespace: "default".into(),
            cluster: DEFAULT_CLUSTER.into(),
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedFile {
    /// The policies, in order.
    pub policies: Vec<Policy>,
    /// The groups of prefixes, in order.
    pub groups: Vec<CidrGroup>,
    /// Documents that are not policies and were passed over.
    pub notes: Vec<Note>,
}

/// A document that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub file: Arc<str>,
    /// The line it starts on.
    pub line: u32,
    /// What it is: `v1 ConfigMap`.
    pub what: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}: {} is not a policy and was passed over",
            self.file, self.line, self.what
        )
    }
}

/// The policies in `text`.
///
/// # Errors
/// Every mistake in the file, up to 20.
pub fn documents(file_name: &str, text: &str) -> Result<ParsedFile, Vec<PolicyError>> {
    bytes(file_name, text.as_bytes(), &Limits::default())
}

/// The policies in the bytes of a file.
///
/// # Errors
/// Every mistake in the file, up to 20.
pub fn bytes(
    file_name: &str,
    bytes: &[u8],
    limits: &Limits,
) -> Result<ParsedFile, Vec<PolicyError>> {
    let mut reader = Reader {
        file: file_name.into(),
        document: None,
        errors: Vec::new(),
        regexes: 0,
    };
    let parsed = read(&mut reader, bytes, limits);
    if reader.errors.is_empty() {
        Ok(parsed)
    } else {
        Err(reader.errors)
    }
}

fn read(reader: &mut Reader, bytes: &[u8], limits: &Limits) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    let start = tree::Mark::START;
    if bytes.len() > limits.max_bytes {
        let problem = Problem::TooLarge {
            len: bytes.len(),
            limit: limits.max_bytes,
        };
        reader.report(start, String::new(), problem);
        return parsed;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            let before = bytes.get(..at).unwrap_or_default();
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            let column = 1 + before.iter().rev().take_while(|b| **b != b'\n').count();
            let mark = tree::Mark {
                line: u32::try_from(line).unwrap_or(u32::MAX),
                column: u32::try_from(column).unwrap_or(u32::MAX),
            };
            reader.report(mark, String::new(), Problem::NotUtf8 { at });
            return parsed;
        }
    };
    match tree::read(text, limits) {
        Ok(documents) => {
            for (node, nth) in documents.iter().zip(1..) {
                reader.document = (documents.len() > 1).then_some(nth);
                document::read(reader, &fields::Cursor::root(node), limits, &mut parsed);
            }
        }
        Err(problems) => {
            for (at, problem) in problems {
                reader.report(at, String::new(), problem);
            }
        }
    }
    parsed
}
