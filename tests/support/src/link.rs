//! A wire between two namespaces.
//!
//! In:  two namespaces, interface names, addresses.
//! Out: a veth pair that is up, with addresses usable at once (no duplicate address detection).
//! Not here: routes beyond the wire (`world`).

use anyhow::Result;

use crate::Netns;

/// One end of a wire.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where it lies.
    pub netns: &'a Netns,
    /// What it is called there.
    pub name: &'a str,
    /// Its addresses with prefix length.
    pub addresses: &'a [&'a str],
}

/// Connects two namespaces.
pub fn wire(a: End<'_>, b: End<'_>) -> Result<()> {
    a.netns.ip(&[
        "link",
        "add",
        a.name,
        "type",
        "veth",
        "peer",
        "name",
        b.name,
        "netns",
        b.netns.name(),
    ])?;
    for end in [a, b] {
        // The kernel's own link-local address is usable at once too.
        end.netns
            .sysctl(&format!("net.ipv6.conf.{}.dad_transmits", end.name), "0")?;
        for address in end.addresses {
            add_address(end.netns, end.name, address)?;
        }
        end.netns.ip(&["link", "set", end.name, "up"])?;
    }
    Ok(())
}

/// Adds an address that is usable at once.
pub fn add_address(netns: &Netns, link: &str, address: &str) -> Result<()> {
    let mut args = vec!["address", "add", address, "dev", link];
    if address.contains(':') {
        args.push("nodad");
    }
    netns.ip(&args).map(drop)
}
