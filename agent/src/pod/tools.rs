//! Running the host's firewall programs.
//!
//! In:  a program name, arguments, an optional script for its standard input.
//! Out: its output, or [`PodError`] with its own words.
//! Not here: what the rules say (`firewall`, `foreign`, `xtables`).

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::PodError;

/// Finds a program on PATH or where system programs live (a user's PATH often lacks sbin).
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

pub(crate) fn nft() -> Result<PathBuf, PodError> {
    find("nft").ok_or(PodError::MissingProgram {
        program: "nft",
        package: "nftables",
    })
}

/// A command out of reach of the terminal's Ctrl-C and of our own standard streams.
pub(crate) fn detached(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end and returns standard output.
pub(crate) fn output(program: &PathBuf, arguments: &[&str]) -> Result<String, PodError> {
    let mut command = detached(program);
    command.args(arguments).stdout(Stdio::piped());
    let failed = |reason: String| PodError::Firewall {
        command: format!("{} {}", program.display(), arguments.join(" ")),
        reason,
    };
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

/// Feeds nft some commands as JSON: one transaction.
pub(crate) fn nft_json(commands: &[serde_json::Value]) -> Result<(), PodError> {
    let program = nft()?;
    let script = serde_json::json!({ "nftables": commands }).to_string();
    let failed = |reason: String| PodError::Firewall {
        command: format!("nft -j -f - <<< '{script}'"),
        reason,
    };
    let mut child = detached(&program)
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft that stops reading has something to say on standard error.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}
