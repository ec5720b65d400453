//! The hidden stages of the namegate binary.
//!
//! In:  this process's arguments.
//! Out: the stage's exit code, or `None` when the process is an ordinary `namegate`.
//! Not here: what the stages do (`init`, `exec`, `janitor`).
//!
//! A stage is the same binary started again rather than a fork: between fork and exec only unsafe code could run.

use std::{ffi::OsString, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{exec, init, janitor, user::InvokingUser};

pub(crate) const INIT: &str = "__pod-init";
pub(crate) const EXEC: &str = "__pod-exec";
pub(crate) const JANITOR: &str = "__janitor";

/// namegate itself failed.
pub(crate) const FAILED: i32 = 125;
/// The command was found but cannot be run.
pub(crate) const NOT_EXECUTABLE: i32 = 126;
/// The command was not found.
pub(crate) const NOT_FOUND: i32 = 127;

/// What namegate tells the pod's init.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InitSpec {
    /// Descriptor of the pipe that carries signals and ends with namegate.
    pub(crate) control: i32,
    /// Descriptor of the pipe that carries [`init::Event`]s back.
    pub(crate) events: i32,
    pub(crate) nameserver: std::net::Ipv4Addr,
    pub(crate) expose: Vec<PathBuf>,
    /// namegate's process id: through it init, in another network namespace, sees the host's socket table.
    pub(crate) namegate: u32,
    pub(crate) exec: ExecSpec,
}

/// What init tells the last stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    pub(crate) user: InvokingUser,
    pub(crate) allow_sudo: bool,
    /// Set when CMD should start somewhere: entered as the user, after the mounts.
    pub(crate) cwd: PathBuf,
    /// The soft limit on descriptors that namegate was started with, if it raised its own.
    pub(crate) descriptors: Option<u64>,
}

/// Runs the stage this process was started for. Call it first thing in `main`.
#[must_use]
pub fn run_hidden_stage() -> Option<i32> {
    let mut arguments = std::env::args_os().skip(1);
    let stage = arguments.next()?;
    match stage.to_str()? {
        JANITOR => Some(janitor::main()),
        INIT => Some(with_spec("pod-init", arguments, init::main)),
        EXEC => Some(with_spec("pod-exec", arguments, exec::main)),
        _ => None,
    }
}

fn with_spec<S: DeserializeOwned>(
    stage: &str,
    mut arguments: impl Iterator<Item = OsString>,
    main: impl FnOnce(S, Vec<OsString>) -> i32,
) -> i32 {
    let spec = arguments
        .next()
        .and_then(|json| serde_json::from_str(json.to_str()?).ok());
    match spec {
        Some(spec) => main(spec, arguments.collect()),
        None => {
            eprintln!(
                "namegate: {stage} is a part of `namegate run` and cannot be started by hand"
            );
            FAILED
        }
    }
}
