//! Programs of the machine that the guest is made with.
//!
//! In:  a name and the Debian package that holds it.
//! Out: a [`Command`]; its output, or an error that names what is missing or what it said.
//! Not here: installing anything (`scripts/setup`).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// Folders that the search path of an ordinary user often lacks.
const SBIN: &[&str] = &["/usr/sbin", "/sbin"];

/// A command for `name`, or an error that says which package holds it.
pub(super) fn tool(name: &str, package: &str) -> anyhow::Result<Command> {
    find(name).map(Command::new).with_context(|| {
        format!(
            "`{name}` is missing: `scripts/setup --for vm` installs it (on Debian with the \
                 package {package})"
        )
    })
}

/// Runs to the end; what it printed, or an error with what it complained about.
pub(super) fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().display().to_string();
    let done = command
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    anyhow::ensure!(
        done.status.success(),
        "{name} ended with {}: {}",
        done.status,
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(done.stdout)
}

/// The same as text.
pub(super) fn text(command: &mut Command) -> anyhow::Result<String> {
    Ok(String::from_utf8(output(command)?)?)
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SBIN.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = tool("no-such-program", "some-package").unwrap_err();
        assert!(error.to_string().contains("some-package"), "{error}");
    }

    #[test]
    fn a_failing_program_is_quoted() {
        let mut command = tool("sh", "dash").unwrap();
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("because"),
            "{error}"
        );
    }
}
