//! What pinned maps cannot say: which labels, prefixes, selectors and names are behind numbers.
//!
//! In:  numbers as they are given out, names as they are learned.
//! Out: an append-only file; on start [`Past`], what a predecessor of the same boot wrote down.
//! Not here: grants (the pinned LEARNED map is the truth), when to compact (`mod`).
//!
//! One line is one `write` to a file opened for appending, without fsync: it must survive the end
//! of the process, and a reboot clears the maps that the file explains. A line that was cut off, or
//! that is not ours, ends the reading; what it would have explained is closed, never opened.

pub mod lines;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dnsproxy_core::CacheRow;

pub(crate) use lines::{Entry, Past};
use lines::{Found, entries, line};

/// Bytes after which the file is written anew.
const COMPACT: u64 = 16 << 20;

/// The file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    lines: Mutex<Lines>,
    written: AtomicU64,
    failing: AtomicBool,
}

/// Where lines go.
#[derive(Debug, Default)]
struct Lines {
    /// None after a failure: behind half a line no other one could be read.
    file: Option<File>,
    /// What came since [`Journal::gather`].
    since: Option<Vec<Entry>>,
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
            lines: Mutex::default(),
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
        let mut lines = self.lines();
        if let Some(since) = lines.since.as_mut() {
            since.push(entry.clone());
        }
        let Some(open) = lines.file.as_mut() else {
            return;
        };
        let result = line(entry).and_then(|line| {
            open.write_all(&line)?;
            Ok(line.len())
        });
        match result {
            Ok(len) => {
                self.written
                    .fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
            }
            Err(error) => {
                lines.file = None;
                self.fail(&error);
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether the file has to be written anew: it has grown, or lacks what could not be written.
    pub(crate) fn wants_rewriting(&self) -> bool {
        self.failing.load(Ordering::Relaxed) || self.written.load(Ordering::Relaxed) > COMPACT
    }

    /// Somebody begins to collect what [`Self::rewrite`] is to write: what is added from here on
    /// will be behind it.
    pub(crate) fn gather(&self) {
        self.lines().since = Some(Vec::new());
    }

    /// Writes the file anew with these lines, in one step for readers.
    pub(crate) fn rewrite(&self, boot: &str, entries: &[Entry]) {
        let mut lines = self.lines();
        let since = lines.since.take().unwrap_or_default();
        match self.try_rewrite(boot, entries.iter().chain(&since)) {
            Ok((open, len)) => {
                lines.file = Some(open);
                self.written.store(len, Ordering::Relaxed);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the journal can be written again");
                }
            }
            // What is there stays as it is; lines can still be added to it.
            Err(error) => self.fail(&error),
        }
    }

    fn try_rewrite<'e>(
        &self,
        boot: &str,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> io::Result<(File, u64)> {
        let draft = self.path.with_extension("new");
        let mut text = line(&lines::head(boot))?;
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

/// What is in the file; none when it is of another boot or not a journal.
fn read(path: &Path, boot: &str) -> io::Result<Option<Past>> {
    match lines::read(BufReader::new(File::open(path)?), boot)? {
        Found::Ours(past) => Ok(Some(past)),
        Found::Other => Ok(None),
        Found::Foreign => {
            tracing::warn!(path = %path.display(), "this is no journal of ours; it is put aside");
            fs::rename(path, path.with_extension("foreign"))?;
            Ok(None)
        }
    }
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
