//! `cargo xtask vm`: a command, or the suites that need a kernel, on one of Debian's kernels.
//!
//! In:  which kernel; a command, or nothing for the suites that load programs and make namespaces.
//! Out: what the command printed, its exit status; for the suites `N passed, N failed`.
//! Not here: the tests; what runs inside before the command (`tests/vm/init`).
//!
//! The guest sees the files of this machine at their own paths, read only below a tmpfs, so what was
//! built here runs there. Without /dev/kvm the processor is emulated: slow, and just as exact.

mod guest;
mod kernel;
mod qemu;
mod suites;
mod tool;

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use guest::Run;
use kernel::Kernel;

/// What the guest is to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Request {
    /// Debian's kernel of this series
    #[arg(long, value_enum)]
    kernel: Kernel,
    /// The guest's memory
    #[arg(long, default_value = "3G")]
    memory: String,
    /// Seconds after which the guest is ended
    #[arg(long, default_value_t = 14_400)]
    timeout: u64,
    /// The suites of these packages (default: fqdn-ebpf-loader and netns)
    #[arg(short, long = "package", conflicts_with = "command")]
    packages: Vec<String>,
    /// Only tests whose name contains this
    #[arg(long, conflicts_with = "command")]
    filter: Option<String>,
    /// Run this instead of the suites
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Runs the request; the guest's command decides the status.
pub(crate) fn run(root: &Path, request: &Request) -> anyhow::Result<ExitCode> {
    if request.command.is_empty() {
        return suites::run(root, request);
    }
    let script = guest::script_of(&std::env::current_dir()?, &request.command);
    let run = Run::new(&folder(root))?;
    let status = start(root, request, &run, &script, |_| {})?;
    Ok(ExitCode::from(status))
}

/// Where kernels and the files of a start lie.
fn folder(root: &Path) -> PathBuf {
    root.join("build").join("vm")
}

/// Runs a shell script in a guest, everything it prints on the screen; its status.
fn start(
    root: &Path,
    request: &Request,
    run: &Run,
    script: &str,
    mut on_line: impl FnMut(&[u8]) + Send,
) -> anyhow::Result<u8> {
    let kernel = request.kernel.unpacked(&folder(root))?;
    guest::prepare(run, &kernel, script, request.timeout)?;
    let mut screen = std::io::stdout();
    let status = qemu::run(&kernel, run, &request.memory, request.timeout, |line| {
        on_line(line);
        // A screen that went away must not keep the guest from being heard to its end.
        let _ = screen.write_all(line).and_then(|()| screen.flush());
    })?;
    run.remove();
    Ok(status)
}
