//! Where queries go: a workload, a node that steers or forwards them, a resolver outside.
//!
//! In:  the place that the datapath is measured in.
//! Out: [`Arena`], with one subject at a time in the way.
//! Not here: asking (`client`).

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail};
use fqdn_ebpf_loader::{Attach, Attached, Config, Datapath, EndpointSpec, Marks, PolicyId, Sizes};
use identity::{AddressBook, EndpointId, LocalIdentities};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{
    cpu::{self, Cpu},
    ours::{self, Ours},
    relay::Relay,
    server::Server,
};
use crate::parts::datapath::{
    frame::{POD, POD_MAC},
    place::{HOST_SIDE, Place},
};

pub(super) const DIRECT: &str = "no proxy";
pub(super) const RELAY: &str = "relay in C";
pub(super) const OURS: &str = "namegate";

/// The resolver.
pub(super) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(SERVER_IP), 53);
const SERVER_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);
/// How many rules the policy has.
pub(super) const RULES: u32 = 250;
pub(super) const ENDPOINT: EndpointId = EndpointId::new(5);
const POLICY: PolicyId = PolicyId::new(1);
const OUR_PORT: u16 = 8053;
const RELAY_PORT: u16 = 8054;
/// Receive buffers of both ends of the measurement: the default drops bursts.
const BUFFER: usize = 4 << 20;

/// Everything, set up once.
#[derive(Debug)]
pub(super) struct Arena {
    relay: Relay,
    ours: Ours,
    server: Server,
    attached: Option<Attached>,
    datapath: Datapath,
    place: Place,
    _greed: Greed,
}

impl Arena {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let greed = Greed::begin()?;
        let place = Place::new()?;
        let node = &place.node;
        node.ip(&[
            "rule",
            "add",
            "pref",
            "9",
            "fwmark",
            "0x200/0xf00",
            "lookup",
            "2004",
        ])?;
        node.ip(&[
            "route", "add", "local", "default", "dev", "lo", "table", "2004",
        ])?;
        let identities = Arc::new(Mutex::new(LocalIdentities::default()));
        let mut datapath =
            Datapath::load(&Sizes::for_one_workload(), &config(OUR_PORT), identities)?;
        datapath.ipcache(&AddressBook::default())?;
        datapath.set_policy(POLICY, &ours::policy()?)?;
        let spec = EndpointSpec {
            v4: Some(POD),
            enforced: Some(POLICY),
            ..EndpointSpec::new(ENDPOINT, POD_MAC)
        };
        datapath.set_endpoint(place.ifindex, &spec)?;
        let ours = node.run(|| Ours::start(&datapath, POD.into(), OUR_PORT))??;
        let relay = Relay::start(node, RELAY_PORT, &SERVER_IP.to_string())?;
        let socket = place.outside.run(|| -> anyhow::Result<UdpSocket> {
            let socket = UdpSocket::bind(SERVER)?;
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &BUFFER)?;
            Ok(socket)
        })??;
        let server = Server::start(socket)?;
        // Time to bind.
        std::thread::sleep(Duration::from_millis(200));
        Ok(Self {
            relay,
            ours,
            server,
            attached: None,
            datapath,
            place,
            _greed: greed,
        })
    }

    /// Does something with `subject` in the way; hands in whose processor time counts.
    pub(super) fn with<T>(
        &mut self,
        subject: &str,
        work: impl FnOnce(Cpu) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (port, cpu) = match subject {
            DIRECT => (None, Cpu::Nobody),
            RELAY => (Some(RELAY_PORT), Cpu::Process(self.relay.process.pid())),
            OURS => (Some(OUR_PORT), self.ours.cpu),
            other => bail!("nothing is called `{other}`"),
        };
        if let Some(port) = port {
            self.relay.process.check()?;
            self.datapath.configure(config(port))?;
            let attached = self
                .place
                .node
                .run(|| self.datapath.attach(HOST_SIDE, Attach::Tcx))?;
            self.attached = Some(attached.context("attaching")?);
        }
        let done = work(cpu).with_context(|| format!("measuring `{subject}`"));
        if let Some(attached) = self.attached.take() {
            attached.detach();
        }
        done
    }

    /// Does something in the workload's network.
    pub(super) fn in_pod<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.place.pod.run(work)?
    }

    /// Proxies on the last processor, everybody else on the first.
    pub(super) fn spread(&self) -> anyhow::Result<()> {
        self.pin(last()?, 0)
    }

    /// Everybody on the last processor.
    pub(super) fn crowd(&self) -> anyhow::Result<()> {
        self.pin(last()?, last()?)
    }

    fn pin(&self, proxies: usize, others: usize) -> anyhow::Result<()> {
        self.ours.cpu.pin(proxies)?;
        Cpu::Process(self.relay.process.pid()).pin(proxies)?;
        self.server.cpu.pin(others)?;
        cpu::pin_self(others)
    }
}

/// Others of this machine get a processor only when nothing of this session wants it. Sessions share
/// processors first where the kernel groups by them; elsewhere nothing is done.
#[derive(Debug)]
struct Greed {
    before: Option<String>,
}

impl Greed {
    const GROUP: &str = "/proc/self/autogroup";

    fn begin() -> anyhow::Result<Self> {
        let before = match std::fs::read_to_string(Self::GROUP) {
            Ok(group) => group.split_whitespace().last().map(str::to_owned),
            Err(_) => None,
        };
        if before.is_some() {
            std::fs::write(Self::GROUP, "-20").context("raising the priority of this session")?;
        }
        Ok(Self { before })
    }
}

impl Drop for Greed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(Self::GROUP, before);
        }
    }
}

fn config(port: u16) -> Config {
    Config::new(Marks::default(), port, 1)
}

fn last() -> anyhow::Result<usize> {
    // Not `available_parallelism`, which says 1 once this thread has a place of its own.
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)?;
    Ok(usize::try_from(online.unwrap_or(1))?.saturating_sub(1))
}
