//! Why a pod could not be made or a command not be run, in words that say what to do.
//!
//! In:  failures of the modules of `pod`.
//! Out: [`PodError`]; the caller prints it and exits with 125.
//! Not here: exit codes of CMD (`running`).

use std::{io, path::PathBuf};

/// A failure of namegate itself, before or around the command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PodError {
    /// Not enough privilege to make namespaces, links and rules.
    #[error("`namegate run` needs root (missing {missing}); try `sudo namegate run …`")]
    Privilege {
        /// The missing capability or user.
        missing: &'static str,
    },
    /// The kernel or a container around us refuses a namespace.
    #[error(
        "the kernel refused a new {kind} namespace: {source}; inside a container run it privileged, \
         elsewhere enable CONFIG_{config}"
    )]
    Namespace {
        /// Which kind, as a person says it.
        kind: &'static str,
        /// The kernel option behind it.
        config: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program namegate depends on is not installed.
    #[error("`{program}` was not found; install it (Debian, Ubuntu: `apt-get install {package}`)")]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// No `/etc/resolv.conf` to replace.
    #[error(
        "`/etc/resolv.conf` {problem}; create it (an empty file is enough) so that the command's copy can be put over it"
    )]
    NoResolvConf {
        /// Missing, or a dangling symlink to where.
        problem: String,
    },
    /// All slots are taken or all address blocks collide with the host's routes.
    #[error("no free address block for the pod: {reason}")]
    NoSlot {
        /// Which of the two.
        reason: String,
    },
    /// A network object could not be set up.
    #[error("cannot {action}: {reason}")]
    Link {
        /// What was attempted.
        action: String,
        /// What the kernel said.
        reason: String,
    },
    /// nft or iptables refused a rule.
    #[error("firewall: `{command}` failed: {reason}")]
    Firewall {
        /// The command.
        command: String,
        /// Its message.
        reason: String,
    },
    /// A sysctl could not be read or written.
    #[error("cannot {action} `{}`: {source}; inside a container /proc/sys has to be writable", path.display())]
    Sysctl {
        /// Read or write.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of ours could not be used.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A stage of namegate could not be started.
    #[error("cannot start {what}: {source}")]
    Start {
        /// The stage.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pod's init could not prepare the command's surroundings.
    #[error("inside the pod: {0}")]
    Init(String),
    /// A pod runs one command.
    #[error("the pod already runs a command")]
    AlreadySpawned,
    /// A thread of ours ended when it should not have.
    #[error("the {0} thread ended unexpectedly")]
    Thread(&'static str),
    /// What a `--expose` path needs.
    #[error("cannot expose `{}`: {reason}", path.display())]
    Expose {
        /// The path given.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// Something was still there after clean-up.
    #[error("clean-up is incomplete: {0}")]
    Leftover(String),
}
