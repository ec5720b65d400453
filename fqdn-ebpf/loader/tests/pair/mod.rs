//! A node and a pod with a veth pair between them, for tests that need real packets.
//!
//! In:  a name that no other test uses.
//! Out: [`Wire`]: work done in either namespace, packets sent through it.
//! Not here: what is attached to it (`wire.rs`, `attach.rs`).

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

pub(crate) const POD4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const POD6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const POD_MAC: &str = "02:00:00:00:77:02";

pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A node and a pod, each a network namespace, with a veth pair between them.
pub(crate) struct Wire {
    pub(crate) node: String,
    pub(crate) pod: String,
}

impl Wire {
    pub(crate) fn new(name: &str) -> Self {
        let wire = Self {
            node: format!("fqdn-ebpf-{name}-{}-node", std::process::id()),
            pod: format!("fqdn-ebpf-{name}-{}-pod", std::process::id()),
        };
        let Self { node, pod } = &wire;
        for namespace in [node, pod] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!(
            "-n {node} link add pod0 type veth peer name eth0 address {POD_MAC} netns {pod}"
        ));
        ip(&format!("-n {node} addr add {NODE4}/24 dev pod0"));
        ip(&format!("-n {node} addr add {NODE6}/64 dev pod0 nodad"));
        ip(&format!("-n {pod} addr add {POD4}/24 dev eth0"));
        ip(&format!("-n {pod} addr add {POD6}/64 dev eth0 nodad"));
        ip(&format!("-n {node} link set pod0 up"));
        ip(&format!("-n {pod} link set eth0 up"));
        wire
    }

    fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
                    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    pub(crate) fn in_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Self::within(&self.node, work)
    }

    pub(crate) fn in_pod<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Self::within(&self.pod, work)
    }

    /// The node's end.
    pub(crate) fn ifindex(&self) -> u32 {
        let output = Command::new("ip")
            .args(["-n", &self.node, "-o", "link", "show", "pod0"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(':').next().unwrap().trim().parse().unwrap()
    }

    /// One echo request from a raw socket, and whether its reply comes.
    pub(crate) fn pings(&self, target: IpAddr) -> bool {
        self.in_pod(|| {
            let (domain, protocol, request, reply) = match target {
                IpAddr::V4(_) => (Domain::IPV4, SocketProtocol::ICMPV4, 8, 0),
                IpAddr::V6(_) => (Domain::IPV6, SocketProtocol::ICMPV6, 128, 129),
            };
            let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            let mut message = [request, 0, 0, 0, 0x77, 0x77, 0, 1];
            // The kernel fills in the checksum for ICMPv6 only.
            let checksum = !(u16::from(request) * 256 + 0x7777 + 1);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            let start = std::time::Instant::now();
            socket
                .send_to(&message, &SocketAddr::new(target, 0).into())
                .unwrap();
            let mut buffer = [0; 256];
            while start.elapsed() < Duration::from_secs(1) {
                let Ok(read) = std::io::Read::read(&mut socket, &mut buffer) else {
                    continue;
                };
                // An IPv4 raw socket gives the header as well.
                let at = if target.is_ipv4() { 20 } else { 0 };
                if read > at && buffer[at] == reply {
                    return true;
                }
            }
            false
        })
    }

    pub(crate) fn connects(&self, target: SocketAddr) -> bool {
        self.in_pod(|| TcpStream::connect_timeout(&target, Duration::from_millis(700)).is_ok())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.node, &self.pod] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

/// Whether the kernel knows tcx (Linux 6.6).
pub(crate) fn knows_tcx() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 6)
}
