//! A network namespace that lives as long as its value.
//!
//! In:  a role ("host", "world").
//! Out: a named namespace, commands and closures that run inside it; on drop its processes are
//!      killed and it is deleted, also when a test panics.
//! Not here: links between namespaces (`link`).
//!
//! Names carry the process id of the test, so that what a killed test left behind is recognised
//! and swept by the next one.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Output, output_of};

const PREFIX: &str = "ngt";
const DIRECTORY: &str = "/run/netns";

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// One network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with `lo` up.
    pub fn new(role: &str) -> Result<Self> {
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        output_of(Command::new("ip").args(["netns", "add", &name]))?.ok("ip netns add")?;
        let made = Self { name };
        made.ip(&["link", "set", "lo", "up"])?;
        Ok(made)
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// The number by which the kernel knows it.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.path().metadata()?.ino())
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command inside to its end.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<Output> {
        output_of(self.command(program).args(args))
    }

    /// Runs `ip` inside; anything but success is an error.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.output("ip", args)?
            .ok(&format!("ip {}", args.join(" ")))
    }

    /// Feeds a rule set to `nft` inside.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, rules.as_bytes())?;
        let path = file.path().to_string_lossy().into_owned();
        self.output("nft", &["-f", &path])?.ok("nft -f").map(drop)
    }

    /// Sets a sysctl inside.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.output("sysctl", &["-q", "-w", &format!("{key}={value}")])?
            .ok("sysctl -w")
            .map(drop)
    }

    /// Runs a closure on a thread inside; sockets it makes stay there.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.file()?;
        std::thread::scope(|scope| {
            scope
                .spawn(move || -> Result<T> {
                    setns(file, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
                    Ok(inside())
                })
                .join()
                .map_err(|_| anyhow!("a thread inside the namespace panicked"))?
        })
    }

    /// Starts a thread inside that outlives the call.
    pub fn thread<T: Send + 'static>(
        &self,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> Result<std::thread::JoinHandle<Result<T>>> {
        let file = self.file()?;
        Ok(std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
            Ok(inside())
        }))
    }

    /// Processes with a thread inside.
    pub fn processes(&self) -> Result<BTreeSet<i32>> {
        let inode = self.inode()?;
        Ok(crate::process::all()
            .into_iter()
            .filter(|pid| crate::process::net_namespaces(*pid).contains(&inode))
            .collect())
    }

    fn file(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("opening `{}`", path.display()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Deletes what tests that were killed left behind.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<i32>().ok());
        let Some(owner) = owner else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            delete(&name);
        }
    }
}

fn delete(name: &str) {
    let own = std::process::id().cast_signed();
    if let Ok(inside) = output_of(Command::new("ip").args(["netns", "pids", name])) {
        for pid in inside
            .stdout
            .split_whitespace()
            .filter_map(|text| text.parse::<i32>().ok())
        {
            if pid != own && pid > 1 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let _ = output_of(Command::new("ip").args(["netns", "del", name]));
}

/// Joins a thread made by [`Netns::thread`].
pub fn join<T>(handle: std::thread::JoinHandle<Result<T>>) -> Result<T> {
    match handle.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread inside the namespace panicked"),
    }
}
