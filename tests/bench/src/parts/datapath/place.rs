//! Where traffic runs: a workload, a node that forwards, and an outside.
//!
//! In:  nothing.
//! Out: three namespaces and the wires between them; segments are as long as on a real wire.
//! Not here: what is attached (`subject`), what is sent (`traffic`).

use std::net::Ipv4Addr;

use anyhow::Context as _;
use support::{
    Netns,
    link::{End, wire},
};

/// The interface of the node that leads to the workload.
pub(in crate::parts) const HOST_SIDE: &str = "pod0";

/// Everything at these addresses is the outside.
const OUTSIDE: &str = "198.18.0.0/15";

/// The namespaces.
#[derive(Debug)]
pub(in crate::parts) struct Place {
    pub(in crate::parts) pod: Netns,
    pub(in crate::parts) node: Netns,
    pub(in crate::parts) outside: Netns,
    /// The number of [`HOST_SIDE`].
    pub(in crate::parts) ifindex: u32,
}

impl Place {
    pub(in crate::parts) fn new() -> anyhow::Result<Self> {
        let pod = Netns::new("pod")?;
        let node = Netns::new("node")?;
        let outside = Netns::new("outside")?;
        let end = |netns, name, addresses| End {
            netns,
            name,
            addresses,
        };
        wire(
            end(&pod, "eth0", &["10.201.0.2/24"]),
            end(&node, HOST_SIDE, &["10.201.0.1/24"]),
        )?;
        wire(
            end(&node, "up0", &["192.0.2.1/24"]),
            end(&outside, "eth0", &["192.0.2.2/24"]),
        )?;
        pod.ip(&["link", "set", "eth0", "address", "02:00:00:00:00:02"])?;
        pod.ip(&["route", "add", "default", "via", "10.201.0.1"])?;
        node.ip(&["route", "add", OUTSIDE, "via", "192.0.2.2"])?;
        node.sysctl("net.ipv4.ip_forward", "1")?;
        outside.ip(&["route", "add", "local", OUTSIDE, "dev", "lo"])?;
        outside.ip(&["route", "add", "default", "via", "192.0.2.1"])?;
        for (netns, name) in [
            (&pod, "eth0"),
            (&node, HOST_SIDE),
            (&node, "up0"),
            (&outside, "eth0"),
        ] {
            netns
                .output(
                    "ethtool",
                    &["-K", name, "gso", "off", "tso", "off", "gro", "off"],
                )
                .context("ethtool is missing: run `scripts/setup --for bench`")?
                .ok("ethtool -K")?;
        }
        for netns in [&pod, &outside] {
            // Thousands of connections a second would otherwise fill memory with what is over.
            netns.sysctl("net.ipv4.tcp_max_tw_buckets", "0")?;
            netns.sysctl("net.ipv4.ip_local_port_range", "10000 65000")?;
        }
        let ifindex = node.run(|| nix::net::if_::if_nametoindex(HOST_SIDE))??;
        Ok(Self {
            pod,
            node,
            outside,
            ifindex,
        })
    }

    /// One more address of the outside that nothing was sent to yet, within this prefix.
    pub(in crate::parts) fn fresh(prefix: Ipv4Addr, nth: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(prefix.to_bits() + 1 + nth % 60_000)
    }
}
