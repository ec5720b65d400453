//! The lines of the journal, as text and as values.
//!
//! In:  bytes, whoever wrote them; or entries.
//! Out: [`Past`], what the readable lines say; or lines.
//! Not here: files (`journal`), what the entries mean (`catalog`, `heritage`).

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

/// Bytes that are read at the most: far beyond where the file is compacted.
const MOST: u64 = 256 << 20;
/// Bytes of a line.
const LINE: u64 = 1 << 20;
/// Version of the lines.
const FORMAT: u32 = 1;

/// The line every file begins with.
pub fn head(boot: &str) -> Entry {
    Entry::Namegate {
        format: FORMAT,
        boot: boot.to_owned(),
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// First in every file.
    Namegate {
        /// Version of the lines.
        format: u32,
        /// Which boot the maps are of.
        boot: String,
    },
    /// A label set and its number.
    Labels(u32, Vec<String>),
    /// A prefix and its number.
    Prefix(u32, String),
    /// A selector and its number.
    Selector(u32, String),
    /// An ephemeral identity and its selectors.
    Set(u32, Vec<u32>),
    /// The number of the newest endpoint.
    Endpoint(u32),
    /// A name that was learned.
    Name {
        /// The endpoint.
        of: u32,
        /// The name, with its final dot.
        name: String,
        /// Seconds, as the answer said.
        ttl: u32,
        /// When, in nanoseconds since boot.
        at: u64,
        /// What it led to.
        ips: Vec<IpAddr>,
        /// When that ends, in nanoseconds since boot.
        until: u64,
    },
}

/// What a predecessor wrote down.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// Label sets by number.
    pub labels: BTreeMap<u32, Vec<String>>,
    /// Prefixes by number.
    pub prefixes: BTreeMap<u32, String>,
    /// Selectors by number.
    pub selectors: BTreeMap<u32, String>,
    /// Selectors of ephemeral identities.
    pub sets: BTreeMap<u32, Vec<u32>>,
    /// The highest number of an endpoint.
    pub last_endpoint: u32,
    /// The newest line of each name, oldest first.
    pub names: Vec<Entry>,
}

/// The bytes of a line.
///
/// # Errors
/// Never, for entries that can be made; the signature is the serializer's.
pub fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(line)
}

/// What was found in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A journal of this boot.
    Ours(Past),
    /// A journal, of another boot or format.
    Other,
    /// No journal.
    Foreign,
}

/// Reads a file up to its end, or to where it can no longer be understood.
///
/// # Errors
/// When the file cannot be read.
pub fn read(text: impl BufRead, boot: &str) -> io::Result<Found> {
    let mut lines = text.take(MOST);
    match next(&mut lines)? {
        Some(Entry::Namegate {
            format: FORMAT,
            boot: of,
        }) if of == boot => {}
        Some(Entry::Namegate { .. }) => return Ok(Found::Other),
        _ => return Ok(Found::Foreign),
    }
    let mut past = Past::default();
    let mut names = BTreeMap::new();
    let mut order = 0_u64;
    while let Some(entry) = next(&mut lines)? {
        match entry {
            Entry::Namegate { .. } => {}
            Entry::Labels(id, labels) => {
                past.labels.insert(id, labels);
            }
            Entry::Prefix(id, prefix) => {
                past.prefixes.insert(id, prefix);
            }
            Entry::Selector(id, selector) => {
                past.selectors.insert(id, selector);
            }
            Entry::Set(id, selectors) => {
                past.sets.insert(id, selectors);
            }
            Entry::Endpoint(id) => past.last_endpoint = past.last_endpoint.max(id),
            Entry::Name { of, ref name, .. } => {
                order += 1;
                names.insert((of, name.clone(), family(&entry)), (order, entry));
            }
        }
    }
    let mut names: Vec<_> = names.into_values().collect();
    names.sort_by_key(|(order, _)| *order);
    past.names = names.into_iter().map(|(_, entry)| entry).collect();
    Ok(Found::Ours(past))
}

/// An A and an AAAA answer of one name are two lines that both count.
fn family(entry: &Entry) -> bool {
    matches!(entry, Entry::Name { ips, .. } if ips.first().is_some_and(IpAddr::is_ipv6))
}

/// The next line; none at the end, or where it can no longer be understood.
fn next(lines: &mut impl BufRead) -> io::Result<Option<Entry>> {
    let mut text = Vec::new();
    lines.by_ref().take(LINE).read_until(b'\n', &mut text)?;
    if text.last() != Some(&b'\n') {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&text).ok())
}

/// What to write so that the same is read again.
pub fn entries(past: &Past) -> Vec<Entry> {
    let labels = past
        .labels
        .iter()
        .map(|(id, what)| Entry::Labels(*id, what.clone()));
    let prefixes = past
        .prefixes
        .iter()
        .map(|(id, what)| Entry::Prefix(*id, what.clone()));
    let selectors = past
        .selectors
        .iter()
        .map(|(id, what)| Entry::Selector(*id, what.clone()));
    let sets = past
        .sets
        .iter()
        .map(|(id, what)| Entry::Set(*id, what.clone()));
    labels
        .chain(prefixes)
        .chain(selectors)
        .chain(sets)
        .chain([Entry::Endpoint(past.last_endpoint)])
        .chain(past.names.iter().cloned())
        .collect()
}
