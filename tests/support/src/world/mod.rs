//! A machine and the internet it reaches, in two namespaces.
//!
//! In:  root, and servers nobody here wrote: unbound, dnsmasq, nginx, socat.
//! Out: a [`World`]: `host` (where namegate runs) and `world` (where names and servers live), joined
//!      by a routed wire, IPv4 and IPv6; a capture of everything that crosses it.
//! Not here: namegate (`namegate`).
//!
//! The host has one address towards the world and a default route, and the world knows no route to
//! anything behind the host. What gets out of a pod has been translated by the host.

pub mod address;
mod dns;
mod web;
mod zone;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

pub use dns::{Stub, liar_answers};
pub use zone::race_name;

use crate::capture::{Capture, Packet};
use crate::link::{End, add_address, wire};
use crate::wait::until_true;
use crate::{Netns, Process, Run, tools};

/// Both namespaces and everything that runs in them.
#[derive(Debug)]
pub struct World {
    /// Servers; first, so that they end before their namespace does.
    servers: Vec<Process>,
    capture: Capture,
    /// The machine.
    pub host: Netns,
    /// Everything else.
    pub world: Netns,
    files: TempDir,
    /// Flows of the world's own making, and how many packets were captured by then. A server may close
    /// such a connection late, so a packet of theirs can still come.
    own: (usize, BTreeSet<Flow>),
}

impl World {
    /// Builds it and waits until every server answers.
    pub fn new() -> Result<Self> {
        Self::with_fresh(zone::FRESH)
    }

    /// The same with this many fresh names.
    pub fn with_fresh(names: u32) -> Result<Self> {
        tools::require_all()?;
        let (host, world) = (Netns::new("host")?, Netns::new("world")?);
        connect(&host, &world)?;
        let files = tempfile::tempdir()?;
        readable_by_all(files.path())?;
        // The capture leaves out the answers' bodies: what matters is who wanted to reach whom.
        let capture = Capture::start(&world, "uplink", "ip or ip6")?;
        let mut servers = vec![
            dns::unbound(&world, files.path(), names)?,
            dns::liar(&world, files.path())?,
        ];
        servers.extend(web::start(&world, files.path())?);
        let mut built = Self {
            servers,
            capture,
            host,
            world,
            files,
            own: (0, BTreeSet::new()),
        };
        built.wait_ready()?;
        let packets = built.crossed()?;
        built.own = (packets.len(), packets.iter().map(flow).collect());
        Ok(built)
    }

    /// A run of namegate on the host, with this world's certificates known to curl.
    pub fn run(&self) -> Result<Run<'_>> {
        Ok(Run::on(&self.host)?.env("CURL_CA_BUNDLE", self.certificate()))
    }

    /// A run that asks this world's resolver.
    pub fn run_with_dns(&self) -> Result<Run<'_>> {
        Ok(self.run()?.dns(address::RESOLVER))
    }

    /// The certificate of the authority behind every web server here.
    pub fn certificate(&self) -> PathBuf {
        web::authority(self.files.path())
    }

    /// A folder for files of the test.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Every packet that crossed the wire since the world was ready.
    pub fn crossed(&self) -> Result<Vec<Packet>> {
        let mut packets = self
            .capture
            .settled(&self.host, address::ip(address::MARKER)?)?;
        let (count, flows) = &self.own;
        let mut later = packets.split_off((*count).min(packets.len()));
        later
            .retain(|packet| !packet.is_tcp() || packet.is_syn() || !flows.contains(&flow(packet)));
        Ok(later)
    }

    /// Packets that reached an address and port in the world.
    pub fn arrived(&self, to: &str, port: u16) -> Result<usize> {
        let to = address::ip(to)?;
        Ok(self
            .crossed()?
            .iter()
            .filter(|packet| packet.to == to && packet.to_port == port)
            .count())
    }

    /// Packets that reached an address in the world, whatever the port.
    pub fn arrived_at(&self, to: &str) -> Result<usize> {
        let to: IpAddr = address::ip(to)?;
        Ok(self
            .crossed()?
            .iter()
            .filter(|packet| packet.to == to)
            .count())
    }

    /// Keeps a server until the world ends.
    pub fn keep(&mut self, server: Process) {
        self.servers.push(server);
    }

    fn wait_ready(&mut self) -> Result<()> {
        dns::wait_ready(&self.host, &mut self.servers)?;
        web::wait_ready(&self.host, &mut self.servers)
    }
}

/// Both ends of a flow, in either direction.
type Flow = BTreeSet<(IpAddr, u16)>;

fn flow(packet: &Packet) -> Flow {
    BTreeSet::from([(packet.from, packet.from_port), (packet.to, packet.to_port)])
}

/// The wire, the world's addresses, the host's default routes.
fn connect(host: &Netns, world: &Netns) -> Result<()> {
    use address::{HOST4, HOST6, UPLINK4, UPLINK6};
    wire(
        End {
            netns: world,
            name: "uplink",
            addresses: &[&format!("{UPLINK4}/24"), &format!("{UPLINK6}/64")],
        },
        End {
            netns: host,
            name: "eth0",
            addresses: &[&format!("{HOST4}/24"), &format!("{HOST6}/64")],
        },
    )?;
    for (netns, link) in [(world, "uplink"), (host, "eth0")] {
        link_local_settled(netns, link)?;
    }
    for address in address::ALL {
        let length = if address.contains(':') { 128 } else { 32 };
        add_address(world, "lo", &format!("{address}/{length}"))?;
    }
    for (family, range) in [("-4", address::RACE4), ("-6", address::RACE6)] {
        world.ip(&[family, "route", "add", "local", range, "dev", "lo"])?;
    }
    host.ip(&["route", "add", "default", "via", UPLINK4])?;
    host.ip(&["-6", "route", "add", "default", "via", UPLINK6])?;
    Ok(())
}

/// Waits until the kernel has given a link its own IPv6 address and is done with it: what a test
/// compares later must not be still moving.
fn link_local_settled(netns: &Netns, link: &str) -> Result<()> {
    until_true(
        Duration::from_secs(30),
        &format!("the link-local address of {link}"),
        || {
            netns
                .ip(&["-6", "-o", "address", "show", "dev", link, "scope", "link"])
                .is_ok_and(|text| text.contains("fe80:") && !text.contains("tentative"))
        },
    )
}

fn readable_by_all(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(
        directory,
        std::fs::Permissions::from_mode(0o755),
    )?)
}
