//! What can go wrong with the kernel, in words that say what to do.
//!
//! In:  errors of aya and of the system.
//! Out: [`LoadError`], [`AttachError`], [`MapError`].
//! Not here: what DNS does about a failed write (`dnsproxy_core::WriteError`).

use std::io;

use aya::{EbpfError, programs::ProgramError};

use crate::needs;

/// Why the programs are not in the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Not allowed to.
    #[error(
        "loading eBPF programs needs root (CAP_BPF and CAP_NET_ADMIN in the initial user namespace); \
         run with sudo, not inside a container that lacks them"
    )]
    Privilege,
    /// The kernel lacks something.
    #[error("this kernel ({has}) lacks {missing}; Linux 6.1 and later have it: {detail}")]
    Kernel {
        /// What is missing.
        missing: String,
        /// What is running.
        has: String,
        /// What the kernel said.
        detail: String,
    },
    /// The object does not hold what this loader expects: it was built from other sources.
    #[error("the eBPF object has no {kind} `{name}`; it was built from other sources")]
    Object {
        /// Program or map.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// What is pinned belongs to somebody else.
    #[error(
        "`{path}` is {what}: it belongs to another program and is left alone; pin elsewhere, or \
         remove it if nobody needs it"
    )]
    Foreign {
        /// Where it is pinned.
        path: std::path::PathBuf,
        /// What it is.
        what: String,
    },
    /// This process reads another clock than the programs.
    #[error(
        "this time namespace has a boot clock of its own, and the kernel programs have not: what is \
         learned would end at another time; start namegate outside of it"
    )]
    Clock,
    /// The verifier refused a program.
    #[error("the kernel refused program `{program}`: {reason}")]
    Refused {
        /// Which one.
        program: &'static str,
        /// The end of the verifier's log.
        reason: String,
    },
    /// A map could not be made or written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Anything else.
    #[error("loading the eBPF object failed: {0}")]
    Other(String),
}

/// Why a map was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No room.
    #[error("map {map} is full ({capacity} entries)")]
    Full {
        /// Name of the map as in the ABI.
        map: &'static str,
        /// How many entries it holds.
        capacity: u32,
    },
    /// Every slot for endpoints is taken.
    #[error("all {capacity} endpoint slots are taken")]
    NoSlot {
        /// How many there are.
        capacity: u32,
    },
    /// An endpoint is to get a policy that nobody registered.
    #[error("policy {0} is not in the datapath; set it before an endpoint uses it")]
    NoPolicy(u32),
    /// A policy is to be removed that an endpoint uses.
    #[error("policy {policy} is in force for endpoint {endpoint}")]
    PolicyInUse {
        /// Which policy.
        policy: u32,
        /// Whose.
        endpoint: identity::EndpointId,
    },
    /// Too many addresses for one endpoint.
    #[error("endpoint {endpoint} has {count} IPv6 addresses, at most 2 are supported")]
    Addresses {
        /// Whose.
        endpoint: identity::EndpointId,
        /// How many.
        count: usize,
    },
    /// No endpoint by that number.
    #[error("endpoint {0} is not in the datapath")]
    NoEndpoint(identity::EndpointId),
    /// The system call failed.
    #[error("{doing} map {map} failed: {reason}")]
    Failed {
        /// Reading, writing, …
        doing: &'static str,
        /// Name of the map as in the ABI.
        map: &'static str,
        /// What the system said.
        reason: String,
    },
}

/// Why the programs are not at an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such interface in the calling thread's network namespace.
    #[error("there is no interface `{0}` in this network namespace")]
    NoInterface(String),
    /// The way that was asked for does not work here.
    #[error("attaching `{program}` to `{interface}` by {how} failed: {reason}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// Where.
        interface: String,
        /// `tcx` or `clsact`.
        how: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The network namespace could not be remembered for detaching.
    #[error("cannot open the thread's network namespace: {0}")]
    Namespace(#[source] io::Error),
}

impl LoadError {
    pub(crate) fn from_object(error: EbpfError) -> Self {
        match io_kind(&error) {
            Some(io::ErrorKind::PermissionDenied) => Self::Privilege,
            _ => Self::lacking(chain(&error), Self::Other),
        }
    }

    pub(crate) fn from_program(program: &'static str, error: &ProgramError) -> Self {
        let log = match error {
            ProgramError::LoadError { verifier_log, .. } => verifier_log.to_string(),
            _ => String::new(),
        };
        // The verifier says EACCES for programs it refuses, EPERM for missing privileges.
        if io_kind(error) == Some(io::ErrorKind::PermissionDenied) && log.trim().is_empty() {
            return Self::Privilege;
        }
        let text = match error {
            ProgramError::LoadError { io_error, .. } => {
                let last: Vec<_> = log.lines().rev().take(12).collect();
                let end: Vec<_> = last.into_iter().rev().collect();
                format!("{io_error}\n{}", end.join("\n"))
            }
            other => chain(other),
        };
        Self::lacking(text, |reason| Self::Refused { program, reason })
    }

    /// What is missing, if that is why; else what `otherwise` makes of it.
    fn lacking(detail: String, otherwise: impl FnOnce(String) -> Self) -> Self {
        match needs::missing() {
            Some(missing) => Self::Kernel {
                missing,
                has: running(),
                detail,
            },
            None => otherwise(detail),
        }
    }
}

fn running() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// An error and everything behind it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

/// The kind of the system's error at the end of the chain.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    os_error(error).map(|error| error.kind())
}

/// The system's error at the end of the chain.
pub(crate) fn os_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}
