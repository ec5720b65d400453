//! The committed inputs of a target.
//!
//! In:  `fuzz/corpus/<target>/`.
//! Out: file names and contents, in order.
//! Not here: running them.

use std::path::PathBuf;

/// Where the inputs of a target are.
pub(crate) fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// Every input of a target; none when it has no folder.
pub(crate) fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder(target)) else {
        return Vec::new();
    };
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}
