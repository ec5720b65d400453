//! What a test needs before it can start: root, and programs nobody here wrote.
//!
//! In:  names of programs.
//! Out: nothing, or an error that names what is missing and the script that installs it.
//! Not here: installing them (`scripts/setup`).

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The programs the world is made of.
const PROGRAMS: &[&str] = &[
    "bash", "bpftool", "curl", "dig", "dnsmasq", "ip", "nft", "nginx", "nsenter", "openssl",
    "script", "setpriv", "socat", "sysctl", "tc", "tcpdump", "unbound", "unshare",
];

/// Fails unless the tests can run here.
pub fn require_all() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("these tests need root: run them with sudo, or `make test`");
    }
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .copied()
        .filter(|name| find(name).is_none())
        .collect();
    if !missing.is_empty() {
        bail!(
            "missing programs: {}; run `scripts/setup --for test`",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Where a program lies; `/usr/sbin` counts even where `PATH` leaves it out.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(
            ["/usr/sbin", "/sbin", "/usr/local/sbin"]
                .iter()
                .map(PathBuf::from),
        )
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// The `namegate` under test: `NAMEGATE_BIN`, else the debug build.
pub fn namegate() -> Result<PathBuf> {
    let file = match std::env::var_os("NAMEGATE_BIN") {
        Some(file) => PathBuf::from(file),
        None => workspace().join("target/debug/namegate"),
    };
    if !is_executable(&file) {
        bail!(
            "there is no namegate at `{}`: run `cargo build -p namegate`, or set NAMEGATE_BIN",
            file.display()
        );
    }
    Ok(file.canonicalize()?)
}

/// The top folder of the repository.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .components()
        .collect()
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
