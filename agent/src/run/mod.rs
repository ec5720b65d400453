//! `namegate run`: one command in a pod of its own, locked to its policy.
//!
//! In:  [`RunSpec`]: the command, policies, labels, resolvers, limits.
//! Out: the command's exit status inside a [`Report`] of what it reached and was refused.
//! Not here: arguments and rendering (`cli`), the pod's namespaces (`pod`).
//!
//! Order of things: compile (nothing exists yet) → pod → programs, maps, DNS proxy → control
//! socket → the command. Whatever fails on the way is undone and nothing was ever open.

mod enforcement;
mod inspector;
mod session;
mod surroundings;

use std::{ffi::OsString, io, net::SocketAddr, path::PathBuf, time::Duration};

pub use fqdn_ebpf_loader::Attach;
use identity::{Label, LocalIdentities};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use policy::select;

use crate::{
    api::Report,
    pod::{InvokingUser, Ipv6, Pod, PodError, PodSpec},
    resolvers,
    steering::SteeringError,
    world::{self, Given, World, WorldError},
};

/// What to run, and how.
#[derive(Debug)]
pub struct RunSpec {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// What it may reach.
    pub given: Given,
    /// Its labels, as policies select it.
    pub labels: Vec<Label>,
    /// Its namespace, as policies select it.
    pub namespace: String,
    /// Resolvers to ask; empty for the host's.
    pub resolvers: Vec<SocketAddr>,
    /// Record what would be refused and let it through.
    pub audit: bool,
    /// Where the control socket goes; none for the usual place.
    pub socket: Option<PathBuf>,
    /// Paths of the host that stay reachable although they are a way out.
    pub expose: Vec<PathBuf>,
    /// Lets setuid programs gain privileges.
    pub allow_sudo: bool,
    /// IPv6 in the pod.
    pub ipv6: Ipv6,
    /// How the programs are attached.
    pub attach: Attach,
    /// How long and how many.
    pub limits: RunLimits,
    /// The soft limit on descriptors for the command; none for namegate's own.
    pub descriptors: Option<u64>,
}

/// How long an answer counts and how much may be learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunLimits {
    /// Shorter TTLs count as this.
    pub min_ttl: Duration,
    /// How long past its TTL an address stays allowed.
    pub ttl_grace: Duration,
    /// Addresses at a time.
    pub addresses: u32,
    /// Names at a time.
    pub names: u32,
}

/// Why a command was not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No policy is about this command.
    #[error("no policy selects this command, so nothing would be restricted\n{0}")]
    SelectsNothing(String),
    /// The policies cannot be compiled.
    #[error(transparent)]
    World(#[from] WorldError),
    /// No resolver.
    #[error(transparent)]
    Resolvers(#[from] resolvers::ResolversError),
    /// The pod cannot be made.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] fqdn_ebpf_loader::LoadError),
    /// The programs cannot be attached.
    #[error(transparent)]
    Attach(#[from] fqdn_ebpf_loader::AttachError),
    /// A map cannot be read or written.
    #[error(transparent)]
    Map(#[from] fqdn_ebpf_loader::MapError),
    /// DNS cannot be steered.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// A socket, thread or runtime cannot be had.
    #[error("cannot set up {what}: {source}")]
    System {
        /// What for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The control socket.
    #[error("cannot open the control socket `{path}`: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Runs the command to its end.
///
/// # Errors
/// When namegate itself fails. A command that cannot be found or executed is no error: its status
/// is 127 or 126, as shells have it.
pub fn run(mut spec: RunSpec) -> Result<Report, RunError> {
    spec.descriptors = spec.descriptors.or_else(raise_descriptor_limit);
    let Given {
        policies, facts, ..
    } = &spec.given;
    let of_namespace = facts.value.labels_of_namespace(&spec.namespace);
    let labels = world::pod_labels(
        &spec.namespace,
        spec.labels.iter().cloned().chain(of_namespace),
    );
    let cluster = &facts.value.config.cluster;
    if select::selecting(policies, &labels, cluster).is_empty() {
        return Err(RunError::SelectsNothing(select::explain_unselected(
            policies, &labels, cluster,
        )));
    }
    let mut locals = LocalIdentities::default();
    let world = World::compile(&spec.given, labels, &mut locals)?;
    for warning in policy::lint::policies(policies)
        .into_iter()
        .chain(policy::lint::endpoint(policies, &world.policies.whole))
    {
        match warning.severity {
            policy::lint::Severity::Warning => tracing::warn!("{warning}"),
            policy::lint::Severity::Info => tracing::info!("{warning}"),
        }
    }
    if !world.policies.in_force().default_deny_egress {
        tracing::warn!(
            "no policy restricts what this command may reach: everything is allowed; \
             add an `egress` rule (`egress: [{{}}]` denies all)"
        );
    }
    let resolvers = if spec.resolvers.is_empty() {
        resolvers::of_host()?
    } else {
        spec.resolvers.clone()
    };
    let pod = Pod::create(PodSpec {
        ipv6: spec.ipv6,
        resolvers: resolvers.clone(),
        expose: spec.expose.clone(),
        allow_sudo: spec.allow_sudo,
        user: InvokingUser::detect(),
    })?;
    let enforcement = enforcement::Enforcement::start(&pod, &world, locals, resolvers, &spec)?;
    session::session(pod, enforcement, world, spec)
}

/// Upstream sockets and clients' connections may be more than the usual soft limit of 1024. Returns
/// the limit there was; none when nothing changed.
fn raise_descriptor_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft >= hard {
        return None;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(soft),
        Err(error) => {
            tracing::info!(%error, "the limit on descriptors stays at {soft}");
            None
        }
    }
}
