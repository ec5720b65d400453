//! The last stage before the command: becomes the invoking user, confined, and executes it.
//!
//! In:  an [`ExecSpec`] and the command's arguments.
//! Out: the command, in this process; or 125, 126, 127 with a line on standard error.
//! Not here: which capabilities and system calls are left (`confine`).

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use super::{
    confine,
    stage::{ExecSpec, FAILED, NOT_EXECUTABLE, NOT_FOUND},
};

pub(crate) fn main(spec: ExecSpec, argv: Vec<OsString>) -> i32 {
    let Some((program, arguments)) = argv.split_first() else {
        eprintln!("namegate: no command given");
        return FAILED;
    };
    if let Err(reason) = become_user(&spec) {
        eprintln!("namegate: cannot confine the command: {reason}");
        return FAILED;
    }
    if let Err(error) = std::env::set_current_dir(&spec.cwd) {
        eprintln!("namegate: cannot enter `{}`: {error}", spec.cwd.display());
        return FAILED;
    }
    if let Some(soft) = spec.descriptors
        && let Err(errno) = restore_descriptor_limit(soft)
    {
        eprintln!("namegate: cannot restore the limit on descriptors: {errno}");
        return FAILED;
    }
    let mut command = Command::new(program);
    command.args(arguments);
    home_of(&spec, &mut command);
    // Last, because it forbids what the lines above may need.
    if let Err(reason) = confine::filter_system_calls(spec.allow_sudo) {
        eprintln!("namegate: cannot confine the command: {reason}");
        return FAILED;
    }
    let error = command.exec();
    complain(program, &error)
}

/// namegate raises its own limit; the command gets the one it would have had without.
fn restore_descriptor_limit(soft: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
}

fn become_user(spec: &ExecSpec) -> Result<(), String> {
    close_descriptors().map_err(|error| format!("descriptors: {error}"))?;
    confine::cut_bounding_set(&spec.user, spec.allow_sudo)?;
    let groups: Vec<_> = spec
        .user
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    setgroups(&groups).map_err(|errno| format!("setgroups: {errno}"))?;
    setgid(Gid::from_raw(spec.user.gid)).map_err(|errno| format!("setgid: {errno}"))?;
    setuid(Uid::from_raw(spec.user.uid)).map_err(|errno| format!("setuid: {errno}"))?;
    confine::drop_capabilities(&spec.user)?;
    if !spec.allow_sudo {
        nix::sys::prctl::set_no_new_privs().map_err(|errno| format!("no_new_privs: {errno}"))?;
    }
    Ok(())
}

/// Closes everything but the standard streams: an inherited connection, namespace or directory is a way out.
fn close_descriptors() -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The directory's own descriptor is in the list and closed by now.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// Under sudo HOME and USER still name root: the command would trip over files it may not read.
fn home_of(spec: &ExecSpec, command: &mut Command) {
    if spec.user.is_root() {
        return;
    }
    let is = |key: &str, value: &str| {
        std::env::var_os(key).is_some_and(|found| found == OsStr::new(value))
    };
    if let Some(home) = &spec.user.home
        && is("HOME", "/root")
    {
        command.env("HOME", home);
    }
    if let Some(name) = &spec.user.name {
        for key in ["USER", "LOGNAME"] {
            if is(key, "root") {
                command.env(key, name);
            }
        }
    }
}

/// The words and codes of a shell. A PATH with directories the user may not enter makes the system call answer
/// "permission denied" for a name that is nowhere; only a file that is really there counts as found.
fn complain(program: &OsStr, error: &io::Error) -> i32 {
    let name = program.to_string_lossy();
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    if !name.contains('/')
        && (error.kind() == io::ErrorKind::NotFound || denied && !on_path(program))
    {
        eprintln!("namegate: {name}: command not found");
        NOT_FOUND
    } else if error.kind() == io::ErrorKind::NotFound && !Path::new(program).exists() {
        eprintln!("namegate: {name}: no such file or directory");
        NOT_FOUND
    } else {
        eprintln!("namegate: {name}: cannot be executed: {error}");
        NOT_EXECUTABLE
    }
}

fn on_path(program: &OsStr) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
