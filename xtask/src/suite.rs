//! `cargo xtask test`: every test of the workspace, one total.
//!
//! In:  the packages of the workspace.
//! Out: the tests' own output as it comes, then `N passed, N failed` as the last line.
//! Not here: the tests; counting (`totals`).
//!
//! Tests that make namespaces and load programs need root. Without it they run through `sudo`, and
//! when that is refused they fail: a suite that was left out must not look like one that passed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::{cargo, totals::Totals};

/// Packages whose tests make namespaces, sockets with capabilities, or load programs.
const PRIVILEGED: &[&str] = &[
    "agent",
    "dnsproxy",
    "escape",
    "fqdn-ebpf-loader",
    "namegate",
    "netns",
];

/// Packages whose tests start the program, as NAMEGATE_BIN.
const WITH_BINARY: &[&str] = &["agent", "escape", "namegate", "netns"];

/// Built for another target only; its logic is tested in `fqdn-ebpf-common` and through the loader.
const KERNEL: &str = "fqdn-ebpf";

/// Runs the tests of `packages` (all when empty); true when all passed.
pub(crate) fn run(root: &Path, packages: &[String], rest: &[String]) -> anyhow::Result<bool> {
    let members = members(root)?;
    if let Some(unknown) = packages.iter().find(|p| !members.contains(p)) {
        anyhow::bail!("no package is called `{unknown}`");
    }
    let chosen: Vec<&str> = members
        .iter()
        .map(String::as_str)
        .filter(|m| packages.is_empty() || packages.iter().any(|p| p == m))
        .collect();

    let mut binary = None;
    if chosen.iter().any(|package| WITH_BINARY.contains(package)) {
        binary = build_namegate(root)?;
        if binary.is_none() {
            println!("namegate does not build; no test was run");
            println!("{}", failure());
            return Ok(false);
        }
    }

    let is_root = is_root()?;
    let (privileged, plain): (Vec<&str>, Vec<&str>) = chosen
        .into_iter()
        .partition(|m| !is_root && PRIVILEGED.contains(m));

    let mut sum = Totals::default();
    for (group, through_sudo) in [(plain, false), (privileged, true)] {
        if !group.is_empty() {
            sum += run_group(root, &group, through_sudo, binary.as_deref(), rest)?;
        }
    }
    if sum.ignored > 0 {
        println!(
            "{} ignored: a test that does not run proves nothing",
            sum.ignored
        );
    }
    if sum.passed + sum.failed == 0 {
        println!("no test ran");
    }
    println!("{sum}");
    Ok(sum.good())
}

fn run_group(
    root: &Path,
    packages: &[&str],
    through_sudo: bool,
    binary: Option<&Path>,
    rest: &[String],
) -> anyhow::Result<Totals> {
    let mut command = cargo(root);
    command.args(["test", "--no-fail-fast"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if !rest.is_empty() {
        command.arg("--").args(rest);
    }
    if let Some(binary) = binary {
        command.env("NAMEGATE_BIN", binary);
    }
    if through_sudo {
        println!("as root, through sudo: {}", packages.join(" "));
        command.env(runner_variable(root)?, sudo_runner());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let output = child.stdout.take().context("no output to read")?;
    let mut totals = Totals::default();
    let mut line = Vec::new();
    let mut reader = BufReader::new(output);
    let mut screen = std::io::stdout().lock();
    // Bytes, not text: a test may print anything.
    while reader.read_until(b'\n', &mut line)? > 0 {
        screen.write_all(&line)?;
        screen.flush()?;
        totals += Totals::of_line(&String::from_utf8_lossy(&line)).unwrap_or_default();
        line.clear();
    }
    drop(screen);
    let status = child.wait()?;
    if !status.success() && totals.failed == 0 {
        println!(
            "cargo test ended with {status} without naming a failed test (it did not build, or a test program died)"
        );
        totals += failure();
    }
    Ok(totals)
}

/// What counts for a run that ended badly before it could count.
fn failure() -> Totals {
    Totals {
        failed: 1,
        ..Totals::default()
    }
}

/// Builds the program the suites start; its path, or nothing when it does not build.
fn build_namegate(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let status = cargo(root)
        .args(["build", "--package", "namegate"])
        .status()
        .context("cannot start cargo build")?;
    if !status.success() {
        return Ok(None);
    }
    let target = metadata(root)?.target_directory;
    let binary = target.join("debug").join("namegate").into_std_path_buf();
    anyhow::ensure!(binary.is_file(), "{} was not built", binary.display());
    Ok(Some(binary))
}

fn members(root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(metadata(root)?
        .workspace_packages()
        .iter()
        .map(|p| p.name.to_string())
        .filter(|name| name != KERNEL)
        .collect())
}

pub(crate) fn metadata(root: &Path) -> anyhow::Result<cargo_metadata::Metadata> {
    cargo_metadata::MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .context("cargo metadata")
}

pub(crate) fn is_root() -> anyhow::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc")?;
    Ok(effective_uid(&status) == Some(0))
}

/// The second number of `Uid:` is the effective one.
fn effective_uid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn sudo_runner() -> &'static str {
    "sudo --preserve-env=NAMEGATE_BIN,PATH,RUST_BACKTRACE,CARGO_MANIFEST_DIR,CARGO_TARGET_TMPDIR"
}

/// `CARGO_TARGET_<HOST>_RUNNER`.
fn runner_variable(root: &Path) -> anyhow::Result<String> {
    let about = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .current_dir(root)
        .arg("-vV")
        .output()
        .context("cannot start rustc")?;
    let about = String::from_utf8(about.stdout)?;
    let host = about
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not name its host")?;
    let host = host.to_uppercase().replace('-', "_");
    Ok(format!("CARGO_TARGET_{host}_RUNNER"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(
            effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\n"),
            Some(0)
        );
        assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn privileged_packages_exist() {
        let members = members(&crate::root().unwrap()).unwrap();
        for name in PRIVILEGED.iter().chain(WITH_BINARY) {
            assert!(members.iter().any(|m| m == name), "{name}");
        }
    }
}
