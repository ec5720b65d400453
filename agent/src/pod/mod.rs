//! The pod of `namegate run`: namespaces, links, confinement, and leaving no trace.
//!
//! In:  a [`PodSpec`] and a command.
//! Out: a [`Pod`] whose only way out is the gateway's interface, the [`Running`] command, its exit code.
//! Not here: programs and proxy on that interface (`agent::run` puts them there), policy.
//!
//! ```text
//!   host netns                gateway netns (unnamed)        pod netns
//!   namegateN  ------------->  up0        pod0  ------------->  eth0
//!   nft table namegateN        forwarding, DNS proxy,           the command: own pid,
//!   (owner flag)               tc programs on pod0              mount and ipc namespaces
//! ```

mod confine;
mod error;
mod exec;
mod firewall;
mod foreign;
mod forwarding;
mod host;
mod init;
mod janitor;
mod links;
mod mounts;
mod netlink;
mod netns;
mod owner;
mod resolv;
mod run_tree;
mod running;
mod signals;
mod slots;
mod spawner;
mod stage;
mod tools;
mod trial;
mod user;
mod xtables;

use std::{
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};

pub use self::{
    error::PodError,
    running::Running,
    signals::SignalForwarder,
    stage::run_hidden_stage,
    user::{InvokingUser, ROOT_CAVEAT},
};
use self::{
    firewall::OwnTable,
    host::HostNetwork,
    janitor::{Janitor, Note},
    links::Links,
    netlink::{Link, Netlink, with_netlink},
    netns::NetNs,
    spawner::Spawner,
    stage::{ExecSpec, InitSpec},
};
pub(crate) use self::{
    foreign::{Passage, close as close_firewalls, open as open_firewalls},
    owner::Owner,
    tools::find as find_program,
    trial::Trial,
};

/// Whether the pod speaks IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// When the host has a v6 route beyond its links.
    Auto,
    /// Never.
    Off,
}

/// What kind of pod.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// IPv6 or not.
    pub ipv6: Ipv6,
    /// Upstream resolvers, whose replies the host's own firewall has to let in.
    pub resolvers: Vec<SocketAddr>,
    /// Paths shown although they would be masked.
    pub expose: Vec<PathBuf>,
    /// Lets setuid programs work: no no_new_privs, no seccomp filter.
    pub allow_sudo: bool,
    /// Who the command runs as.
    pub user: InvokingUser,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    /// Program and arguments; the program is looked up on PATH.
    pub argv: Vec<OsString>,
    /// Working directory, as the command sees it.
    pub cwd: PathBuf,
    /// The whole environment; `None` passes ours on.
    pub env: Option<Vec<(OsString, OsString)>>,
    /// The soft limit on descriptors it shall have; `None` passes ours on.
    pub descriptors: Option<u64>,
}

/// The addresses of the pod and of its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddresses {
    /// The pod's IPv4 address.
    pub v4: Ipv4Addr,
    /// The pod's IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The pod's MAC address.
    pub mac: [u8; 6],
    /// The gateway's address towards the pod: its router and nameserver.
    pub gateway_v4: Ipv4Addr,
    /// The same for IPv6.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The gateway's MAC address towards the pod.
    pub gateway_mac: [u8; 6],
    /// The host's address on its link to the gateway.
    pub host_v4: Ipv4Addr,
    /// The same for IPv6.
    pub host_v6: Option<Ipv6Addr>,
}

/// A network of its own for one command. Dropping it cleans up; [`Pod::destroy`] also reports.
///
/// Fields are dropped in order: the command before the network, the network before the janitor is let go.
#[derive(Debug)]
pub struct Pod {
    spec: PodSpec,
    links: Links,
    spawner: Option<Spawner>,
    table: Option<OwnTable>,
    gateway: NetNs,
    host: NetNs,
    janitor: Janitor,
}

impl Pod {
    /// Builds the pod. On failure everything done so far is undone.
    pub fn create(spec: PodSpec) -> Result<Self, PodError> {
        check_privileges()?;
        tools::nft()?;
        resolv::check()?;
        check_exposed(&spec.expose)?;
        let owner = Owner::current();
        let host = NetNs::current()?;
        let network = with_netlink(&host, async |netlink| HostNetwork::read(&netlink).await)?;
        let ipv6 = spec.ipv6 == Ipv6::Auto && network.ipv6;
        let mut janitor = Janitor::start()?;
        // Rules of runs that died together with their janitor. They open nothing for anybody: a failure is no reason
        // not to run.
        if let Err(error) = foreign::close(&|tagged| !tagged.may_live()) {
            tracing::warn!("{error}");
        }
        let gateway = NetNs::create()?;
        let pod = NetNs::create()?;
        let links = links::build(&host, &gateway, &pod, &network, ipv6, |index| {
            janitor.note(&Note::Link(index))
        })?;
        janitor.note(&Note::Forwarding(owner))?;
        let turned_on = forwarding::acquire(&links.host.name, &network.uplinks, ipv6, owner)?;
        let table = OwnTable::install(&links.host.name, &links.plan, &turned_on)?;
        janitor.note(&Note::Rules(owner))?;
        let passage = Passage::Pod {
            link: &links.host.name,
            resolvers: &spec.resolvers,
            ipv6,
        };
        foreign::open(&passage, &owner)?;
        let spawner = Spawner::start(pod)?;
        Ok(Self {
            spec,
            links,
            spawner: Some(spawner),
            table: Some(table),
            gateway,
            host,
            janitor,
        })
    }

    /// The gateway's interface towards the pod, in the gateway's namespace: programs go on its tc hooks.
    #[must_use]
    pub fn gateway_ifindex(&self) -> u32 {
        self.links.gateway.index
    }

    /// The pod's interface index in its own namespace.
    #[must_use]
    pub fn pod_ifindex(&self) -> u32 {
        self.links.pod.index
    }

    /// Addresses of the pod and its gateway.
    #[must_use]
    pub fn addresses(&self) -> PodAddresses {
        let plan = &self.links.plan;
        PodAddresses {
            v4: plan.v4.pod,
            v6: plan.v6.map(|v6| v6.pod),
            mac: self.links.pod.mac,
            gateway_v4: plan.v4.gateway,
            gateway_v6: plan.v6.map(|v6| v6.gateway),
            gateway_mac: self.links.gateway.mac,
            host_v4: plan.v4.host,
            host_v6: plan.v6.map(|v6| v6.host),
        }
    }

    /// Every address that is the host's at this moment: of its interfaces, broadcast addresses and the end of our own
    /// link included, and of the gateway towards it. Has to be called in the host's namespace.
    #[must_use]
    pub fn host_addresses(&self) -> Vec<IpAddr> {
        let plan = &self.links.plan;
        let mut all = host::host_addresses();
        all.push(plan.v4.gateway_up.into());
        all.extend(plan.v6.map(|v6| IpAddr::from(v6.gateway_up)));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Runs `work` on a thread inside the gateway namespace and waits for it.
    pub fn in_gateway<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, PodError> {
        self.gateway.run(work)
    }

    /// Starts a long-lived thread inside the gateway namespace. It has to end before [`Pod::destroy`].
    pub fn gateway_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<io::Result<T>>, PodError> {
        self.gateway.spawn(name, work)
    }

    /// Has the socket file at `path` removed when nobody listens there any more, also after a `kill -9`.
    ///
    /// # Errors
    /// When the janitor is gone.
    pub fn clean_up_socket(&mut self, path: &Path) -> Result<(), PodError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.janitor.note(&Note::Socket(path))
    }

    /// Starts the command. A pod runs one.
    pub fn spawn(&mut self, command: CommandSpec) -> Result<Running, PodError> {
        let spawner = self.spawner.as_mut().ok_or(PodError::AlreadySpawned)?;
        let spec = InitSpec {
            control: -1,
            events: -1,
            nameserver: self.links.plan.v4.gateway,
            expose: self.spec.expose.clone(),
            namegate: std::process::id(),
            exec: ExecSpec {
                user: self.spec.user.clone(),
                allow_sudo: self.spec.allow_sudo,
                cwd: command.cwd.clone(),
                descriptors: command.descriptors,
            },
        };
        spawner.spawn(spec, command)
    }

    /// Takes everything down, waits until it is gone, and says if something is not.
    pub fn destroy(mut self) -> Result<(), PodError> {
        drop(self.spawner.take());
        drop(self.table.take());
        self.janitor.finish()?;
        let Link { index, name, .. } = self.links.host.clone();
        let began = Instant::now();
        let there = async |netlink: Netlink| {
            let links = netlink.links().await?;
            Ok(links.iter().any(|link| link.index == index))
        };
        while with_netlink(&self.host, there)? {
            if began.elapsed() > Duration::from_secs(5) {
                return Err(PodError::Leftover(format!("link `{name}` is still there")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn check_privileges() -> Result<(), PodError> {
    for (capability, missing) in [
        (Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
        (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (Capability::CAP_SETUID, "CAP_SETUID"),
        (Capability::CAP_SETGID, "CAP_SETGID"),
        (Capability::CAP_SETPCAP, "CAP_SETPCAP"),
    ] {
        if !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false) {
            return Err(PodError::Privilege { missing });
        }
    }
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(PodError::Privilege {
            missing: "user id 0",
        })
    }
}

fn check_exposed(paths: &[PathBuf]) -> Result<(), PodError> {
    for path in paths {
        let refuse = |reason| {
            Err(PodError::Expose {
                path: path.clone(),
                reason,
            })
        };
        if path.to_str().is_none() {
            return refuse("the path is not UTF-8");
        }
        if !path.is_absolute() {
            return refuse("the path is not absolute");
        }
        if !path.exists() {
            return refuse("it does not exist");
        }
    }
    Ok(())
}
