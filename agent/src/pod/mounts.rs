//! The pod's view of the file system: the host's, without the ways to ask somebody outside for help.
//!
//! In:  an [`InitSpec`], inside a fresh mount namespace.
//! Out: private /proc and /sys, a filtered /run, our resolv.conf, masked sockets.
//! Not here: how /run is filtered (`run_tree`), what files the command may write (all its user may).

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::{
    resolv,
    run_tree::{self, Exposed},
    stage::InitSpec,
};

/// Sockets of daemons that would run, resolve or connect on the command's behalf, outside of /run.
const SOCKETS: [&str; 6] = [
    "/var/lib/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/snap/lxd/common/lxd-user/unix.socket",
    "/var/lib/sss/pipes/nss",
    "/var/cache/nscd/socket",
];
/// The same, below the user's home.
const HOME_SOCKETS: [&str; 4] = [
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".rd/docker.sock",
];
/// Directories full of sockets of the user's other programs: tmux, X11 and session managers run what they are told.
const SOCKET_DIRECTORIES: [&str; 3] = ["/tmp/.X11-unix", "/tmp/.ICE-unix", "/tmp/tmux-"];

/// Parts of /proc that are the kernel's rather than a process's; root owns them whatever its capabilities.
const PROC_READ_ONLY: [&str; 5] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
];
const PROC_HIDDEN: [&str; 4] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/acpi",
];

/// The bound on socket masks; a host with more listening sockets than this is refused rather than half masked.
const MASKS: usize = 4096;

/// Does everything, or says what failed.
pub(crate) fn prepare(spec: &InitSpec) -> Result<(), String> {
    // Private, not slave: a mount made on the host later could cover a mask.
    step(
        "make mounts private",
        mount_at(
            None,
            Path::new("/"),
            None,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None,
        ),
    )?;
    let exposed = Exposed::open(&spec.expose)?;
    let files = resolv::Files::read(spec.nameserver)?;
    let sockets = sockets(spec)?;
    run_tree::replace(&exposed, spec)?;
    resolv::install(&files)?;
    for socket in &sockets {
        mask(socket, &exposed)?;
    }
    mask_directories(&exposed)?;
    sys()?;
    // Last: everything above finds descriptors through the host's /proc.
    proc()
}

/// Every socket file a process of the host listens on, and the known ones, outside of /run.
fn sockets(spec: &InitSpec) -> Result<BTreeSet<PathBuf>, String> {
    let mut found: BTreeSet<PathBuf> = SOCKETS.iter().map(PathBuf::from).collect();
    if let Some(home) = &spec.exec.user.home {
        found.extend(HOME_SOCKETS.iter().map(|path| Path::new(home).join(path)));
    }
    found.extend(listening_sockets(spec.namegate)?);
    // namegate may itself run in a namespace of its own; the machine's daemons are where its init is.
    found.extend(listening_sockets(1)?);
    // Paths that lead into /run are gone with it; resolving them keeps a symlink from hiding one.
    let resolved: BTreeSet<PathBuf> = found
        .iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .filter(|path| !path.starts_with("/run"))
        .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket()))
        .collect();
    if resolved.len() > MASKS {
        return Err(format!("more than {MASKS} sockets would have to be masked"));
    }
    Ok(resolved)
}

/// The socket files of the namespace that process `pid` is in.
fn listening_sockets(pid: u32) -> Result<Vec<PathBuf>, String> {
    // Not every name is UTF-8; one that is not must not hide the others.
    let table = step(
        "list the host's sockets",
        fs::read(format!("/proc/{pid}/net/unix")),
    )?;
    Ok(String::from_utf8_lossy(&table)
        .lines()
        .skip(1)
        .filter_map(socket_path)
        .collect())
}

/// `Num RefCount Protocol Flags Type St Inode Path`; abstract names start with `@` and belong to the namespace.
fn socket_path(line: &str) -> Option<PathBuf> {
    let mut rest = line;
    for _ in 0..7 {
        rest = rest.trim_start().split_once(' ')?.1;
    }
    let path = rest.trim_start();
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// Covers a socket with a file nobody listens on.
fn mask(path: &Path, exposed: &Exposed) -> Result<(), String> {
    if exposed.covers(path) || fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    step(
        &format!("mask `{}`", path.display()),
        mount_at(
            Some(Path::new("/dev/null")),
            path,
            None,
            MsFlags::MS_BIND,
            None,
        ),
    )
}

fn mask_directories(exposed: &Exposed) -> Result<(), String> {
    let entries = fs::read_dir("/tmp").into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let known = SOCKET_DIRECTORIES
            .iter()
            .any(|prefix| path.to_str().is_some_and(|path| path.starts_with(prefix)));
        if known && !exposed.inside(&path) && !path.is_symlink() && path.is_dir() {
            step(
                &format!("mask `{}`", path.display()),
                tmpfs(&path, "mode=755,size=4k", MsFlags::MS_RDONLY),
            )?;
        }
    }
    Ok(())
}

/// The pod's devices and nothing to write to; cgroup limits stay readable.
fn sys() -> Result<(), String> {
    let cgroup = Path::new("/sys/fs/cgroup");
    let old = directory(cgroup).ok();
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step(
        "mount /sys",
        mount_at(
            Some(Path::new("sysfs")),
            Path::new("/sys"),
            Some("sysfs"),
            flags,
            None,
        ),
    )?;
    let Some(old) = old else { return Ok(()) };
    if !cgroup.is_dir() {
        return Ok(());
    }
    bind(&by_descriptor(&old), cgroup)?;
    for mounted in mounts()?
        .iter()
        .filter(|mounted| mounted.target.starts_with(cgroup))
    {
        read_only(&mounted.target)?;
    }
    Ok(())
}

/// A /proc that shows the pod's processes only, and no second one anywhere: another instance would show the host's,
/// and through their `root` links everything masked here.
fn proc() -> Result<(), String> {
    let others: Vec<PathBuf> = mounts()?
        .into_iter()
        .filter(|mounted| mounted.kind == "proc" && !mounted.target.starts_with("/proc"))
        .map(|mounted| mounted.target)
        .collect();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step(
        "mount /proc",
        mount_at(
            Some(Path::new("proc")),
            Path::new("/proc"),
            Some("proc"),
            flags,
            None,
        ),
    )?;
    for other in others {
        step(
            &format!("unmount `{}`", other.display()),
            umount2(&other, MntFlags::MNT_DETACH),
        )?;
    }
    for path in PROC_READ_ONLY.map(Path::new) {
        if path.exists() {
            bind(path, path)?;
            read_only(path)?;
        }
    }
    for path in PROC_HIDDEN.map(Path::new) {
        if path.is_dir() {
            step(
                "hide a part of /proc",
                tmpfs(path, "mode=555,size=4k", MsFlags::MS_RDONLY),
            )?;
        } else if path.exists() {
            step(
                "hide a part of /proc",
                mount_at(
                    Some(Path::new("/dev/null")),
                    path,
                    None,
                    MsFlags::MS_BIND,
                    None,
                ),
            )?;
        }
    }
    Ok(())
}

/// A mount as `/proc/self/mountinfo` lists it.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    target: PathBuf,
    kind: String,
}

fn mounts() -> Result<Vec<Mounted>, String> {
    let text = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("read mountinfo: {error}"))?;
    Ok(text.lines().filter_map(mounted).collect())
}

fn mounted(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    Some(Mounted {
        target: PathBuf::from(unescape(before.split(' ').nth(4)?)),
        kind: after.split(' ').next()?.to_owned(),
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

/// A descriptor that names a directory without opening it for reading.
pub(crate) fn directory(path: &Path) -> std::io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
}

/// A path to what `file` names even after something was mounted over it.
pub(crate) fn by_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Shows `from`, with everything mounted below, at `to`.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<(), String> {
    step(
        &format!("show `{}`", to.display()),
        mount_at(
            Some(from),
            to,
            None,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None,
        ),
    )
}

/// Flags the mount already has must be repeated, or the remount would try to clear them.
fn read_only(path: &Path) -> Result<(), String> {
    let kept = nix::sys::statvfs::statvfs(path)
        .map_err(|errno| format!("`{}`: {errno}", path.display()))?;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    use nix::sys::statvfs::FsFlags;
    for (has, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if kept.flags().contains(has) {
            flags |= flag;
        }
    }
    step(
        &format!("make `{}` read-only", path.display()),
        mount_at(None, path, None, flags, None),
    )
}

pub(crate) fn tmpfs(path: &Path, options: &str, extra: MsFlags) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | extra;
    mount_at(
        Some(Path::new("tmpfs")),
        path,
        Some("tmpfs"),
        flags,
        Some(options),
    )
}

fn mount_at(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> nix::Result<()> {
    mount(source, target, kind, flags, options)
}

pub(crate) fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_table_lines() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /tmp/a b.sock";
        assert_eq!(socket_path(line), Some(PathBuf::from("/tmp/a b.sock")));
        assert_eq!(socket_path("0: 2 0 10000 0001 01 12345 @abstract"), None);
        assert_eq!(socket_path("0: 2 0 10000 0001 01 12345"), None);
        assert_eq!(socket_path(""), None);
    }

    #[test]
    fn mountinfo_lines() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - proc proc rw,errors=continue";
        assert_eq!(
            mounted(line),
            Some(Mounted {
                target: PathBuf::from("/mnt 2"),
                kind: "proc".to_owned()
            })
        );
        assert_eq!(mounted("36 35"), None);
    }
}
