//! The file of `--report`: opened before the command runs, written after it ended.
//!
//! In:  a path of the invoking user's.
//! Out: a regular file that belongs to that user, holding the report.
//! Not here: the report itself.
//!
//! namegate is root and the command is not trusted: between start and end it could put a link or a
//! pipe where the file will be. So the file is opened first, no link is followed, and only its
//! descriptor is used from then on.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use agent::{api::Report, pod::InvokingUser};

/// `open(2)` flags of Linux: no links, no waiting for a reader of a pipe.
const NO_FOLLOW: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;

#[derive(Debug)]
pub(crate) struct ReportFile {
    file: File,
    path: PathBuf,
}

impl ReportFile {
    /// Makes or empties the file.
    pub(crate) fn create(path: &Path, owner: &InvokingUser) -> Result<Self, String> {
        let cannot = |why: &dyn std::fmt::Display| {
            format!("cannot write the report to `{}`: {why}", path.display())
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .mode(0o644)
            .custom_flags(NO_FOLLOW)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(nix::libc::ELOOP) => cannot(&"it is a link, and links are not followed"),
                _ => cannot(&error),
            })?;
        let meta = file.metadata().map_err(|error| cannot(&error))?;
        if !meta.is_file() {
            return Err(cannot(&"it is not a regular file"));
        }
        file.set_len(0).map_err(|error| cannot(&error))?;
        fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(|error| cannot(&error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Writes the report.
    pub(crate) fn write(mut self, report: &Report) -> Result<(), String> {
        serde_json::to_vec_pretty(report)
            .map_err(io::Error::from)
            .and_then(|mut json| {
                json.push(b'\n');
                self.file.write_all(&json)
            })
            .map_err(|error| {
                format!(
                    "cannot write the report to `{}`: {error}",
                    self.path.display()
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> InvokingUser {
        InvokingUser::from_ids(
            nix::unistd::getuid().as_raw(),
            Some(nix::unistd::getgid().as_raw()),
        )
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        assert!(
            ReportFile::create(&link, &me())
                .unwrap_err()
                .contains("link")
        );
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        let pipe = dir.path().join("pipe.json");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(ReportFile::create(&pipe, &me()).is_err());
    }

    #[test]
    fn what_replaces_the_path_later_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let mut report = ReportFile::create(&path, &me()).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        report.file.write_all(b"{}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
