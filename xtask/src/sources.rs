//! The files of the checkout, as git lists them.
//!
//! In:  `git ls-files`: tracked files, and new ones that are not ignored.
//! Out: paths relative to the root, with their text where it is text.
//! Not here: what is looked for in them (`tidy`, `acceptance`).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// One text file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Whether this is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "rs")
    }
}

/// Every text file git knows or would take.
pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<Source>> {
    let list = Command::new("git")
        .current_dir(root)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .context("cannot start git")?;
    anyhow::ensure!(
        list.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&list.stderr).trim()
    );
    let names = String::from_utf8(list.stdout).context("a file name is not UTF-8")?;
    let mut sources = Vec::new();
    for name in names.split_terminator('\0') {
        // A file removed from the tree but not yet from the index has nothing to check.
        let Ok(bytes) = std::fs::read(root.join(name)) else {
            continue;
        };
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source {
                path: PathBuf::from(name),
                text,
            });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources.dedup_by(|a, b| a.path == b.path);
    Ok(sources)
}
