//! The host's forwarding sysctls: turned on for the first run, put back after the last.
//!
//! In:  the pod's link and the host's uplinks.
//! Out: forwarding between them; a state file under /run/namegate that counts the runs using it.
//! Not here: forwarding inside the gateway (`links`).
//!
//! IPv4 forwards per incoming interface, and so does IPv6 where the kernel has `force_forwarding` (6.17). Older
//! kernels know only the global IPv6 switch, which also makes interfaces ignore router advertisements unless
//! `accept_ra` is 2; those are set first, or the host would lose its default route.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{PodError, owner::Owner, slots::LINK_PREFIX};

const DIRECTORY: &str = "/run/namegate";
/// The state file of a network namespace is called this and the namespace's number.
const PREFIX: &str = "forwarding-";
const V4: &str = "/proc/sys/net/ipv4";
const V6: &str = "/proc/sys/net/ipv6";

/// What the state file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    users: Vec<Owner>,
    changes: Vec<Change>,
}

/// One sysctl we changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    path: PathBuf,
    interface: Option<String>,
    old: String,
    new: String,
    /// Put back even if the value is no longer the one we wrote: restoring the global switch changes it.
    always: bool,
    /// Somebody turned this on meanwhile: then the change is theirs too and stays.
    unless_on: Option<PathBuf>,
}

/// Makes the host forward for `link`. Returns the interfaces that forward only because of namegate.
pub(crate) fn acquire(
    link: &str,
    uplinks: &[String],
    ipv6: bool,
    owner: Owner,
) -> Result<Vec<String>, PodError> {
    write(&conf(V4, link, "forwarding"), "1")?;
    sweep();
    let mut book = Book::open()?;
    book.state.users.retain(Owner::may_live);
    if book.state.users.is_empty() {
        book.restore();
    }
    book.state.users.push(owner);
    book.save()?;
    let uplinks = || uplinks.iter().filter(|name| !name.starts_with(LINK_PREFIX));
    for uplink in uplinks() {
        book.turn_on(
            conf(V4, uplink, "forwarding"),
            uplink,
            &Path::new(V4).join("ip_forward"),
        )?;
    }
    if ipv6 {
        let global = conf(V6, "all", "forwarding");
        if conf(V6, link, "force_forwarding").exists() {
            write(&conf(V6, link, "force_forwarding"), "1")?;
            if read(&global).as_deref() != Some("1") {
                for uplink in uplinks() {
                    book.turn_on(conf(V6, uplink, "force_forwarding"), uplink, &global)?;
                }
            }
        } else if read(&global).as_deref() != Some("1") {
            book.turn_on_global_v6(&global)?;
        }
    }
    Ok(book.interfaces())
}

/// Forgets `owner`, and puts everything back when it was the last one.
pub(crate) fn release(owner: Owner) -> Result<(), PodError> {
    if !Path::new(DIRECTORY).exists() {
        return Ok(());
    }
    let mut book = Book::open()?;
    book.state
        .users
        .retain(|user| *user != owner && user.may_live());
    if book.state.users.is_empty() {
        book.restore();
        book.remove();
        return Ok(());
    }
    book.save()
}

/// Removes the state files of namespaces that ended before their last run could: there is nothing left to put back,
/// and the number may come again for another namespace.
fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    let noted: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(PREFIX)?.parse().ok()?, entry.path()))
        })
        .collect();
    if noted.is_empty() {
        return;
    }
    let alive = namespaces();
    for (inode, path) in noted {
        if alive.contains(&inode) {
            continue;
        }
        let opened = File::options().read(true).write(true).open(&path);
        // Whoever holds the lock is in that namespace.
        let Some(file) = opened
            .ok()
            .and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
        else {
            continue;
        };
        // A run that we cannot see may have a namespace that we cannot see.
        if state_in(&file).is_ok_and(|state| !state.users.iter().any(Owner::may_live)) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The network namespaces that a process is in or that are mounted somewhere.
fn namespaces() -> BTreeSet<u64> {
    let of_processes = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(fs::metadata(entry.path().join("ns/net")).ok()?.ino()));
    let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let root = line.split(' ').nth(3)?;
        root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
    });
    of_processes.chain(mounted).collect()
}

/// What a state file holds. Only the first value counts: a crash may leave the tail of a longer one behind it.
fn state_in(mut file: &File) -> io::Result<State> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let first = serde_json::Deserializer::from_str(&text).into_iter().next();
    Ok(first.and_then(Result::ok).unwrap_or_default())
}

/// The state file of this network namespace, locked.
#[derive(Debug)]
struct Book {
    file: Flock<File>,
    path: PathBuf,
    state: State,
}

impl Book {
    fn open() -> Result<Self, PodError> {
        let inode = fs::metadata("/proc/thread-self/ns/net").map_or(0, |meta| meta.ino());
        let path = Path::new(DIRECTORY).join(format!("{PREFIX}{inode}"));
        loop {
            let failed = |action, source| PodError::File {
                action,
                path: path.clone(),
                source,
            };
            fs::create_dir_all(DIRECTORY)
                .map_err(|source| failed("create the directory of", source))?;
            let opened = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let file = match opened {
                // The last run of somebody else removed the directory between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|source| failed("open", source))?,
            };
            let file = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| failed("lock", errno.into()))?;
            // The holder before us may have removed the file: then this is a lock on nothing.
            let same =
                |meta: fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == meta.ino());
            if !fs::metadata(&path).is_ok_and(same) {
                continue;
            }
            let state = state_in(&file).map_err(|source| failed("read", source))?;
            return Ok(Self { file, path, state });
        }
    }

    fn save(&mut self) -> Result<(), PodError> {
        let text = serde_json::to_vec(&self.state).unwrap_or_default();
        let mut write = || {
            self.file.rewind()?;
            self.file.write_all(&text)?;
            self.file.set_len(text.len() as u64)
        };
        write().map_err(|source| PodError::File {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }

    fn turn_on(&mut self, path: PathBuf, interface: &str, global: &Path) -> Result<(), PodError> {
        match read(&path) {
            Some(old) if old != "1" => self.change(Change {
                path,
                interface: Some(interface.to_owned()),
                old,
                new: "1".to_owned(),
                always: false,
                unless_on: Some(global.to_owned()),
            }),
            // On already, or the interface is gone.
            _ => Ok(()),
        }
    }

    fn turn_on_global_v6(&mut self, global: &Path) -> Result<(), PodError> {
        let interfaces: Vec<String> = fs::read_dir(Path::new(V6).join("conf"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != "all")
            .collect();
        for name in &interfaces {
            let path = conf(V6, name, "accept_ra");
            if read(&path).as_deref() == Some("1") {
                self.change(Change {
                    path,
                    interface: None,
                    old: "1".to_owned(),
                    new: "2".to_owned(),
                    always: false,
                    unless_on: None,
                })?;
            }
        }
        for name in interfaces {
            let path = conf(V6, &name, "forwarding");
            let Some(old) = read(&path) else { continue };
            // The host's links are kept from routing between each other. Our own routes between the
            // pod and all of them, which is what it is for.
            let is_host_link = name != "default" && name != "lo" && !name.starts_with(LINK_PREFIX);
            let interface = (old != "1" && is_host_link).then_some(name);
            self.state.changes.push(Change {
                path,
                interface,
                old,
                new: "1".to_owned(),
                always: true,
                unless_on: None,
            });
        }
        self.change(Change {
            path: global.to_owned(),
            interface: None,
            old: "0".to_owned(),
            new: "1".to_owned(),
            always: false,
            unless_on: None,
        })
    }

    /// Written down first: a crash in between leaves a note without a change, never a change without a note.
    fn change(&mut self, change: Change) -> Result<(), PodError> {
        let (path, new) = (change.path.clone(), change.new.clone());
        self.state.changes.push(change);
        self.save()?;
        write(&path, &new)
    }

    /// Undoes in reverse order. A value somebody else changed since is theirs.
    fn restore(&mut self) {
        for change in std::mem::take(&mut self.state.changes).iter().rev() {
            let taken_over = change
                .unless_on
                .as_ref()
                .is_some_and(|path| read(path).as_deref() == Some("1"));
            let untouched =
                change.always || read(&change.path).as_deref() == Some(change.new.as_str());
            if untouched
                && !taken_over
                && read(&change.path).as_deref() != Some(change.old.as_str())
            {
                // The interface may be gone; there is nobody left to tell.
                let _ = fs::write(&change.path, &change.old);
            }
        }
    }

    fn remove(self) {
        let _ = fs::remove_file(&self.path);
        // Fails while another namespace has a file there.
        let _ = fs::remove_dir(DIRECTORY);
        drop(self.file);
    }

    fn interfaces(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .state
            .changes
            .iter()
            .filter_map(|change| change.interface.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn conf(family: &str, interface: &str, name: &str) -> PathBuf {
    Path::new(family).join("conf").join(interface).join(name)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn write(path: &Path, value: &str) -> Result<(), PodError> {
    fs::write(path, value).map_err(|source| PodError::Sysctl {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
#[path = "forwarding_tests.rs"]
mod tests;
