//! Running `namegate policy`, and files to run it on.
//!
//! In:  arguments, texts.
//! Out: what was printed, the exit status.
//! Not here: what should be printed.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `namegate policy …` in the folder of the examples.
pub(crate) fn policy(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_namegate"))
        .arg("policy")
        .args(args)
        .current_dir(root())
        .output()
        .unwrap();
    Ran {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) const WORLD: &str = "endpoints:\n- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1]}\n\
                     - {name: b, namespace: ci, labels: {app: b}, ips: [10.0.0.2]}\n";
pub(crate) const OPEN: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
    metadata: {name: open, namespace: ci}\n\
    spec:\n  endpointSelector: {matchLabels: {app: a}}\n  egress:\n  - toPorts: [{ports: [{port: '80', protocol: TCP}]}]\n";
pub(crate) const FLOW: &str = "- {from: ci/a, to: ci/b, protocol: TCP, port: 80}\n";
