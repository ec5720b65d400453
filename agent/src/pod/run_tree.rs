//! /run without sockets and pipes: the directory where the host's daemons listen.
//!
//! In:  the host's /run, the paths to expose.
//! Out: a tmpfs over /run that shows its files and its socket-free directories.
//! Not here: sockets elsewhere (`mounts`).
//!
//! Covering each socket would not do: a daemon that restarts unlinks its socket, the kernel drops a mount with the
//! file under it, and the new socket shows. Here a new socket of the host appears only inside a directory that had
//! none before.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{libc::O_PATH, mount::MsFlags};

use super::{
    mounts::{bind, by_descriptor, directory, step, tmpfs},
    stage::InitSpec,
};

const RUN: &str = "/run";

/// Daemons whose directory is nobody else's business: their sockets come and go, or whole containers are below.
const NEVER: [&str; 16] = [
    "docker",
    "docker.sock",
    "containerd",
    "crio",
    "podman",
    "runc",
    "k3s",
    "kata-containers",
    "dbus",
    "nscd",
    "snapd",
    "snapd.socket",
    "libvirt",
    "lxd",
    "netns",
    "namegate",
];
/// Entries looked at; what lies beyond is not shown.
const BUDGET: usize = 20_000;
const DEPTH: usize = 8;

/// The paths of `--expose`, held open from before anything was covered.
#[derive(Debug)]
pub(crate) struct Exposed {
    paths: Vec<(PathBuf, File)>,
}

impl Exposed {
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, String> {
        let mut held = Vec::new();
        for path in paths {
            let path = step(
                &format!("expose `{}`", path.display()),
                fs::canonicalize(path),
            )?;
            let file = step(&format!("expose `{}`", path.display()), open_path(&path))?;
            held.push((path, file));
        }
        Ok(Self { paths: held })
    }

    /// Whether `path` is exposed itself or lies below something that is.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        self.paths
            .iter()
            .any(|(exposed, _)| path.starts_with(exposed))
    }

    /// Whether something exposed lies in `directory`.
    pub(crate) fn inside(&self, directory: &Path) -> bool {
        self.paths
            .iter()
            .any(|(exposed, _)| exposed.starts_with(directory))
    }
}

fn open_path(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().read(true).custom_flags(O_PATH).open(path)
}

/// Covers /run.
pub(crate) fn replace(exposed: &Exposed, spec: &InitSpec) -> Result<(), String> {
    let run = Path::new(RUN);
    if !run.is_dir() {
        return Ok(());
    }
    let old = step("open /run", directory(run))?;
    step(
        "mount /run",
        tmpfs(run, "mode=755,size=16m", MsFlags::empty()),
    )?;
    let mut tree = Tree { budget: BUDGET };
    tree.copy(&by_descriptor(&old), run, 0)?;
    for (path, file) in exposed
        .paths
        .iter()
        .filter(|(path, _)| path.starts_with(run))
    {
        show(file, path)?;
    }
    // A session directory for programs that insist on one, empty.
    let user = &spec.exec.user;
    let session = run.join("user").join(user.uid.to_string());
    if !session.exists()
        && by_descriptor(&old)
            .join("user")
            .join(user.uid.to_string())
            .exists()
    {
        step(
            "make the session directory",
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&session),
        )?;
        own(&session, user.uid, user.gid, 0o700)?;
    }
    Ok(())
}

/// Binds an exposed thing to where it was.
fn show(file: &File, path: &Path) -> Result<(), String> {
    let parent = path.parent().unwrap_or(Path::new(RUN));
    step(
        "make the way to an exposed path",
        fs::create_dir_all(parent),
    )?;
    let what = || format!("expose `{}`", path.display());
    if step(&what(), file.metadata())?.is_dir() {
        step(&what(), fs::create_dir_all(path))?;
    } else if !path.exists() {
        step(&what(), File::create(path))?;
    }
    bind(&by_descriptor(file), path)
}

struct Tree {
    budget: usize,
}

impl Tree {
    fn copy(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), String> {
        // A directory that cannot be read (FUSE of another user) shows nothing.
        let Ok(entries) = fs::read_dir(from) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let Some(left) = self.budget.checked_sub(1) else {
                return Ok(());
            };
            self.budget = left;
            let name = entry.file_name();
            if depth == 0 && hidden(&name) {
                continue;
            }
            let (from, to) = (from.join(&name), to.join(&name));
            let Ok(meta) = fs::symlink_metadata(&from) else {
                continue;
            };
            let kind = meta.file_type();
            if kind.is_symlink() {
                if let Ok(target) = fs::read_link(&from) {
                    step(
                        "copy a link of /run",
                        std::os::unix::fs::symlink(target, &to),
                    )?;
                }
            } else if kind.is_dir() {
                step("copy a directory of /run", fs::create_dir(&to))?;
                if self.harmless(&from, depth + 1) && !private_to_user(&from, depth) {
                    bind(&from, &to)?;
                } else {
                    own(&to, meta.uid(), meta.gid(), meta.mode() & 0o7777)?;
                    if depth < DEPTH {
                        self.copy(&from, &to, depth + 1)?;
                    }
                }
            } else if kind.is_file() {
                step("copy a file of /run", File::create(&to))?;
                bind(&from, &to)?;
            }
        }
        Ok(())
    }

    /// No socket, pipe or device below, as far as the budget reaches. A full budget answers no.
    fn harmless(&mut self, path: &Path, depth: usize) -> bool {
        let Ok(entries) = fs::read_dir(path) else {
            return false;
        };
        for entry in entries {
            let (Ok(entry), Some(left)) = (entry, self.budget.checked_sub(1)) else {
                return false;
            };
            self.budget = left;
            let Ok(kind) = entry.file_type() else {
                return false;
            };
            if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device()
            {
                return false;
            }
            if kind.is_dir() && (depth >= DEPTH || !self.harmless(&entry.path(), depth + 1)) {
                return false;
            }
        }
        true
    }
}

/// Session directories are where a user's daemons put new sockets at any time: never bound as a whole.
fn private_to_user(path: &Path, depth: usize) -> bool {
    depth <= 1
        && (path.ends_with("user") || path.parent().is_some_and(|parent| parent.ends_with("user")))
}

fn hidden(name: &OsStr) -> bool {
    NEVER.iter().any(|never| name == OsStr::new(never))
}

fn own(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), String> {
    step(
        "copy an owner in /run",
        std::os::unix::fs::chown(path, Some(uid), Some(gid)),
    )?;
    step(
        "copy a mode in /run",
        fs::set_permissions(path, Permissions::from_mode(mode)),
    )
}
