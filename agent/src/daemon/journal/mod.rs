//! What pinned maps cannot say: which labels, prefixes, selectors and names are behind numbers.
//!
//! In:  numbers as they are given out, names as they are learned.
//! Out: an append-only file; on start [`Past`], what a predecessor of the same boot wrote down.
//! Not here: grants (the pinned LEARNED map is the truth), when to compact (`mod`).
//!
//! One line is one `write` to a file opened for appending, without fsync: it must survive the end
//! of the process, and a reboot clears the maps that the file explains. A line that was cut off, or
//! that is not ours, ends the reading; what it would have explained is closed, never opened.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dnsproxy_core::CacheRow;
use serde::{Deserialize, Serialize};

/// Bytes that are read at the most: far beyond where the file is compacted.
const MOST: u64 = 256 << 20;
/// Bytes after which the file is written anew.
const COMPACT: u64 = 16 << 20;
/// Bytes of a line.
const LINE: u64 = 1 << 20;
/// Version of the lines.
const FORMAT: u32 = 1;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Entry {
    /// First in every file.
    Namegate { format: u32, boot: String },
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
        of: u32,
        name: String,
        ttl: u32,
        at: u64,
        ips: Vec<IpAddr>,
        until: u64,
    },
}

/// What a predecessor wrote down.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Past {
    pub(crate) labels: BTreeMap<u32, Vec<String>>,
    pub(crate) prefixes: BTreeMap<u32, String>,
    pub(crate) selectors: BTreeMap<u32, String>,
    pub(crate) sets: BTreeMap<u32, Vec<u32>>,
    pub(crate) last_endpoint: u32,
    /// The newest line of each name, oldest first.
    pub(crate) names: Vec<Entry>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<Option<File>>,
    written: AtomicU64,
    failing: AtomicBool,
}

impl Journal {
    /// Opens the journal of a folder and reads what is in it.
    pub(crate) fn open(folder: &Path, boot: &str) -> (Self, Past) {
        let path = folder.join("journal");
        let past = match fs::create_dir_all(folder).and_then(|()| read(&path, boot)) {
            Ok(past) => past,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "the journal cannot be read");
                }
                None
            }
        };
        let journal = Self {
            path,
            file: Mutex::new(None),
            written: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        };
        let past = past.unwrap_or_default();
        journal.rewrite(boot, &entries(&past));
        (journal, past)
    }

    /// Adds a line. What cannot be written is said once: enforcement goes on without it, and after
    /// a restart what it would have explained is closed.
    pub(crate) fn append(&self, entry: &Entry) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = file.as_mut() else { return };
        let result = line(entry).and_then(|line| {
            open.write_all(&line)?;
            Ok(line.len())
        });
        match result {
            Ok(len) => {
                self.written
                    .fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the journal can be written again");
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Why a restart would forget names, if it would.
    pub(crate) fn problem(&self) -> Option<String> {
        self.failing.load(Ordering::Relaxed).then(|| {
            format!(
                "`{}` cannot be written: a restart would close what was learned meanwhile",
                self.path.display()
            )
        })
    }

    /// Whether the file has grown enough to be written anew.
    pub(crate) fn is_long(&self) -> bool {
        self.written.load(Ordering::Relaxed) > COMPACT
    }

    /// Writes the file anew with these lines, in one step for readers.
    pub(crate) fn rewrite(&self, boot: &str, entries: &[Entry]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match self.try_rewrite(boot, entries) {
            Ok((open, len)) => {
                *file = Some(open);
                self.written.store(len, Ordering::Relaxed);
                self.failing.store(false, Ordering::Relaxed);
            }
            Err(error) => self.fail(&error),
        }
    }

    fn try_rewrite(&self, boot: &str, entries: &[Entry]) -> io::Result<(File, u64)> {
        let draft = self.path.with_extension("new");
        let mut text = line(&Entry::Namegate {
            format: FORMAT,
            boot: boot.to_owned(),
        })?;
        for entry in entries {
            text.append(&mut line(entry)?);
        }
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&text)?;
        fs::rename(&draft, &self.path)?;
        Ok((file, u64::try_from(text.len()).unwrap_or(0)))
    }

    fn fail(&self, error: &io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(path = %self.path.display(), %error, "the journal cannot be written");
        }
    }
}

/// The line of a name that the ledger still has.
pub(crate) fn name_line(row: CacheRow) -> Entry {
    Entry::Name {
        of: row.endpoint.get(),
        name: row.name.as_str().to_owned(),
        ttl: row.ttl,
        at: row.looked_up.nanos(),
        ips: row.addresses,
        until: row.expires.nanos(),
    }
}

fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(line)
}

/// What is in the file; none when it is of another boot or not a journal.
fn read(path: &Path, boot: &str) -> io::Result<Option<Past>> {
    let mut lines = BufReader::new(File::open(path)?.take(MOST));
    let first = next(&mut lines)?;
    match first {
        Some(Entry::Namegate {
            format: FORMAT,
            boot: of,
        }) if of == boot => {}
        Some(Entry::Namegate { .. }) => return Ok(None),
        _ => {
            tracing::warn!(path = %path.display(), "this is no journal of ours; it is put aside");
            fs::rename(path, path.with_extension("foreign"))?;
            return Ok(None);
        }
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
    Ok(Some(past))
}

/// An A and an AAAA answer of one name are two lines that both count.
fn family(entry: &Entry) -> bool {
    matches!(entry, Entry::Name { ips, .. } if ips.first().is_some_and(IpAddr::is_ipv6))
}

/// The next line; none at the end, or where it can no longer be understood.
fn next(lines: &mut impl BufRead) -> io::Result<Option<Entry>> {
    let mut text = Vec::new();
    lines.take(LINE).read_until(b'\n', &mut text)?;
    if text.last() != Some(&b'\n') {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&text).ok())
}

fn entries(past: &Past) -> Vec<Entry> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Entry {
        Entry::Name {
            of: 7,
            name: name.to_owned(),
            ttl: 60,
            at: 1,
            ips: vec!["192.0.2.1".parse().unwrap()],
            until: 2,
        }
    }

    #[test]
    fn what_was_written_is_read_again_in_the_same_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, past) = Journal::open(dir.path(), "one");
        assert_eq!(past, Past::default());
        for entry in [
            Entry::Selector(1, "a.test.".to_owned()),
            Entry::Set(16_777_217, vec![1]),
            Entry::Endpoint(7),
            name("a.test."),
            name("b.test."),
            name("a.test."),
        ] {
            journal.append(&entry);
        }
        let (_, past) = Journal::open(dir.path(), "one");
        assert_eq!(past.sets[&16_777_217], [1]);
        assert_eq!(past.last_endpoint, 7);
        assert_eq!(past.names, [name("b.test."), name("a.test.")]);
        let (_, past) = Journal::open(dir.path(), "two");
        assert_eq!(past, Past::default());
    }

    #[test]
    fn a_line_that_was_cut_off_or_made_up_ends_the_reading() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), "one");
        journal.append(&Entry::Endpoint(3));
        let path = dir.path().join("journal");
        for tail in [
            "{\"endpoint\":9",
            "garbage\n{\"endpoint\":9}\n",
            "\u{0}\u{0}\u{0}\n",
        ] {
            let whole = fs::read(&path).unwrap();
            fs::write(&path, [&whole, tail.as_bytes()].concat()).unwrap();
            let (_, past) = Journal::open(dir.path(), "one");
            assert_eq!(past.last_endpoint, 3, "{tail:?}");
        }
    }

    #[test]
    fn a_foreign_file_is_put_aside_and_a_folder_that_cannot_be_written_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal"), "not ours\n").unwrap();
        let (journal, past) = Journal::open(dir.path(), "one");
        assert_eq!((past, journal.problem()), (Past::default(), None));
        assert!(dir.path().join("journal.foreign").exists());
        let blocked = dir.path().join("journal").join("below a file");
        let (journal, _) = Journal::open(&blocked, "one");
        journal.append(&Entry::Endpoint(1));
        assert!(journal.problem().is_some());
    }
}
