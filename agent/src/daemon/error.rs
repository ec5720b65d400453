//! Why the agent does not run.
//!
//! In:  errors of everything it wires.
//! Out: [`DaemonError`], which says what to do.
//! Not here: what goes wrong with one endpoint or one policy file; those are states, not ends.

use std::{io, path::PathBuf};

use crate::{pod::PodError, steering::SteeringError, world::WorldError};

use super::config::ConfigError;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] fqdn_ebpf_loader::LoadError),
    /// A map cannot be read or written.
    #[error(transparent)]
    Map(#[from] fqdn_ebpf_loader::MapError),
    /// Policies cannot be compiled, or there are no numbers left.
    #[error(transparent)]
    World(#[from] WorldError),
    /// DNS cannot be steered.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// Firewalls of others, or the trial, cannot be handled.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// Services are translated where queries cannot be steered any more.
    #[error(
        "IPVS is in use here ({seen}): queries to its services cannot be steered, so names would not be \
         learned and rules by name would stay shut; run kube-proxy in its nftables or iptables mode"
    )]
    Ipvs {
        /// How that is known.
        seen: String,
    },
    /// A steered query was not answered.
    #[error("{0}")]
    Trial(String),
    /// Links cannot be listed.
    #[error("cannot {action}: {reason}")]
    Netlink {
        /// What was asked of the kernel.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// The firewall program refused.
    #[error("`{command}` failed: {reason}")]
    Firewall {
        /// What was run.
        command: &'static str,
        /// What it said.
        reason: String,
    },
    /// A number is used by somebody else.
    #[error("{what} is taken: {by}; choose another with `{setting}`")]
    Taken {
        /// Mark, table, priority.
        what: String,
        /// By whom.
        by: String,
        /// Which field of the configuration to change.
        setting: &'static str,
    },
    /// A file cannot be read or written.
    #[error("cannot use `{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A socket, thread or runtime cannot be had.
    #[error("cannot set up {what}: {source}")]
    System {
        /// What for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl DaemonError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    pub(crate) fn netlink(action: &'static str) -> impl FnOnce(rtnetlink::Error) -> Self {
        move |error| Self::Netlink {
            action,
            reason: error.to_string(),
        }
    }
}
