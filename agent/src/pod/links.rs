//! The two veth pairs, their addresses and routes: host — gateway — pod.
//!
//! In:  the three namespaces and the host's network.
//! Out: [`Links`], everything up and routed, the slot claimed.
//! Not here: NAT and foreign firewalls (`firewall`), the host's forwarding (`forwarding`).

use std::{fs, net::IpAddr, path::Path};

use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoVeth},
};

use super::{
    PodError,
    host::HostNetwork,
    netlink::{Link, Netlink, errno, refused, with_netlink},
    netns::NetNs,
    slots::{self, AddressPlan, Ends, LINK_V4, LINK_V6, Used},
};

/// The gateway's interface towards the host.
const UP: &str = "up0";
/// The gateway's interface towards the pod; the programs are attached here.
const DOWN: &str = "pod0";
/// The pod's interface.
const POD: &str = "eth0";

/// The finished links.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(crate) host: Link,
    pub(crate) plan: AddressPlan,
    pub(crate) gateway: Link,
    pub(crate) pod: Link,
}

/// Claims a slot and builds everything. `claimed` hears the link's index as soon as it exists.
pub(crate) fn build(
    host: &NetNs,
    gateway: &NetNs,
    pod: &NetNs,
    network: &HostNetwork,
    ipv6: bool,
    claimed: impl FnOnce(u32) -> Result<(), PodError> + Send,
) -> Result<Links, PodError> {
    let (host_link, plan) = with_netlink(host, async |netlink| {
        let (name, plan) = claim(&netlink, gateway, network, ipv6).await?;
        let link = netlink.existing_link(&name).await?;
        claimed(link.index)?;
        Ok((link, plan))
    })?;
    let mac = |path| with_netlink(path, async |netlink| netlink.existing_link(UP).await);
    let up = mac(gateway)?;
    with_netlink(host, async |netlink| {
        let link = &host_link;
        attach(&netlink, link, &plan, |ends| Hop {
            own: ends.0,
            peer: ends.1,
            peer_mac: up.mac,
        })
        .await?;
        netlink
            .route(link.index, block_v4(&plan), plan.v4.gateway_up.into())
            .await?;
        if let Some(v6) = plan.v6 {
            netlink
                .route(link.index, (v6.pod.into(), 128), v6.gateway_up.into())
                .await?;
        }
        Ok(())
    })?;
    let (gateway_link, pod_link) = gateway_side(gateway, pod, &plan, &host_link, network.mtu)?;
    pod_side(pod, &plan, &pod_link, &gateway_link)?;
    Ok(Links {
        host: host_link,
        plan,
        gateway: gateway_link,
        pod: pod_link,
    })
}

/// The pod link's four addresses, as the host routes them.
fn block_v4(plan: &AddressPlan) -> (IpAddr, u8) {
    (
        IpAddr::from((u32::from(plan.v4.gateway) & !3).to_be_bytes()),
        LINK_V4,
    )
}

/// Tries slots until a link name is free; the kernel makes the choice atomic.
async fn claim(
    netlink: &Netlink,
    gateway: &NetNs,
    network: &HostNetwork,
    ipv6: bool,
) -> Result<(String, AddressPlan), PodError> {
    // A slot whose addresses collide with the host's is passed over like one whose name is taken.
    let mut collided = false;
    for slot in 0..slots::SLOTS {
        let name = slots::link_name(slot);
        let others: Vec<Used> = network.used.clone();
        let Some(plan) = slots::plan(slot, &others, ipv6) else {
            collided = true;
            continue;
        };
        match netlink
            .handle
            .link()
            .add(veth(&name, UP, gateway, network.mtu))
            .execute()
            .await
        {
            Ok(()) => return Ok((name, plan)),
            Err(error) if errno(&error) == Some(nix::errno::Errno::EEXIST as i32) => {}
            Err(error) => return Err(refused(&format!("create link `{name}`"), &error)),
        }
    }
    Err(PodError::NoSlot {
        reason: if collided {
            "the host's routes cover every block namegate knows".to_owned()
        } else {
            format!("{} runs are active", slots::SLOTS)
        },
    })
}

/// A veth whose peer is born in `peer_ns`: it is never visible anywhere else.
fn veth(
    name: &str,
    peer: &str,
    peer_ns: &NetNs,
    mtu: u32,
) -> rtnetlink::packet_route::link::LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(peer.to_owned())
        .mtu(mtu)
        .setns_by_fd(peer_ns.raw_fd())
        .build();
    LinkMessageBuilder::<LinkVeth>::new(name, "")
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

/// One end of a link and what it has to know of the other.
struct Hop {
    own: IpAddr,
    peer: IpAddr,
    peer_mac: [u8; 6],
}

async fn attach(
    netlink: &Netlink,
    link: &Link,
    plan: &AddressPlan,
    hop: impl Fn((IpAddr, IpAddr)) -> Hop,
) -> Result<(), PodError> {
    let up_v4 = hop((plan.v4.host.into(), plan.v4.gateway_up.into()));
    configure(netlink, link, &up_v4, LINK_V4).await?;
    netlink.up(link.index).await?;
    neighbour(netlink, link, &up_v4).await?;
    if let Some(v6) = plan.v6 {
        let up_v6 = hop((v6.host.into(), v6.gateway_up.into()));
        configure(netlink, link, &up_v6, LINK_V6).await?;
        neighbour(netlink, link, &up_v6).await?;
    }
    Ok(())
}

async fn configure(netlink: &Netlink, link: &Link, hop: &Hop, length: u8) -> Result<(), PodError> {
    netlink.address(link.index, hop.own, length).await
}

async fn neighbour(netlink: &Netlink, link: &Link, hop: &Hop) -> Result<(), PodError> {
    netlink.neighbour(link.index, hop.peer, hop.peer_mac).await
}

fn gateway_side(
    gateway: &NetNs,
    pod: &NetNs,
    plan: &AddressPlan,
    host_end: &Link,
    mtu: u32,
) -> Result<(Link, Link), PodError> {
    gateway.run(|| gateway_sysctls(plan.v6.is_some()))??;
    with_netlink(gateway, async |netlink| {
        let lo = netlink.existing_link("lo").await?;
        netlink.up(lo.index).await?;
        let up = netlink.existing_link(UP).await?;
        attach(&netlink, &up, plan, |(host, own)| Hop {
            own,
            peer: host,
            peer_mac: host_end.mac,
        })
        .await?;
        netlink
            .route(up.index, (IpAddr::from([0; 4]), 0), plan.v4.host.into())
            .await?;
        if let Some(v6) = plan.v6 {
            netlink
                .route(up.index, (IpAddr::from([0; 16]), 0), v6.host.into())
                .await?;
        }
        let created = netlink
            .handle
            .link()
            .add(veth(DOWN, POD, pod, mtu))
            .execute()
            .await;
        created.map_err(|error| refused("create the pod's link", &error))
    })?;
    let pod_link = with_netlink(pod, async |netlink| netlink.existing_link(POD).await)?;
    let gateway_link = with_netlink(gateway, async |netlink| {
        let down = netlink.existing_link(DOWN).await?;
        attach(&netlink, &down, &pod_hops(plan), |(own, peer)| Hop {
            own,
            peer,
            peer_mac: pod_link.mac,
        })
        .await?;
        Ok(down)
    })?;
    Ok((gateway_link, pod_link))
}

/// The gateway — pod link in the shape [`attach`] takes: the nearer end first.
fn pod_hops(plan: &AddressPlan) -> AddressPlan {
    AddressPlan {
        v4: Ends {
            host: plan.v4.gateway,
            gateway_up: plan.v4.pod,
            ..plan.v4
        },
        v6: plan.v6.map(|v6| Ends {
            host: v6.gateway,
            gateway_up: v6.pod,
            ..v6
        }),
    }
}

fn pod_side(pod: &NetNs, plan: &AddressPlan, link: &Link, gateway: &Link) -> Result<(), PodError> {
    let ping = read("/proc/sys/net/ipv4/ping_group_range");
    let low_ports = read("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    pod.run(|| -> Result<(), PodError> {
        // What an unprivileged user may do on the host, the command may do in the pod.
        for (path, value) in [
            ("/proc/sys/net/ipv4/ping_group_range", ping),
            ("/proc/sys/net/ipv4/ip_unprivileged_port_start", low_ports),
        ] {
            if let Some(value) = value {
                write(path, value.trim())?;
            }
        }
        ipv6_switch(POD, plan.v6.is_some())
    })??;
    with_netlink(pod, async |netlink| {
        let lo = netlink.existing_link("lo").await?;
        netlink.up(lo.index).await?;
        attach(&netlink, link, &pod_hops(plan), |(peer, own)| Hop {
            own,
            peer,
            peer_mac: gateway.mac,
        })
        .await?;
        netlink
            .route(
                link.index,
                (IpAddr::from([0; 4]), 0),
                plan.v4.gateway.into(),
            )
            .await?;
        if let Some(v6) = plan.v6 {
            netlink
                .route(link.index, (IpAddr::from([0; 16]), 0), v6.gateway.into())
                .await?;
        }
        Ok(())
    })
}

/// The gateway's own sysctls. A new namespace may inherit the host's, so each one that matters is written.
fn gateway_sysctls(ipv6: bool) -> Result<(), PodError> {
    write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // A packet carrying the interception mark must not be judged by where the mark's rule leads.
    for scope in ["all", "default"] {
        write(&format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter"), "0")?;
        write(
            &format!("/proc/sys/net/ipv4/conf/{scope}/src_valid_mark"),
            "0",
        )?;
        write(
            &format!("/proc/sys/net/ipv4/conf/{scope}/send_redirects"),
            "0",
        )?;
    }
    write(&format!("/proc/sys/net/ipv4/conf/{UP}/rp_filter"), "0")?;
    ipv6_switch(UP, ipv6)?;
    if ipv6 {
        write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Turns IPv6 on, or off so that a link has not even a link-local address. Loopback keeps it: in the gateway the
/// proxy's sockets and steering routes live there, and in both it leads nowhere.
fn ipv6_switch(link: &str, on: bool) -> Result<(), PodError> {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    for (scope, enabled) in [("all", true), ("lo", true), ("default", on), (link, on)] {
        write(
            &format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"),
            if enabled { "0" } else { "1" },
        )?;
        write(&format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0")?;
        write(&format!("/proc/sys/net/ipv6/conf/{scope}/accept_ra"), "0")?;
    }
    Ok(())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn write(path: &str, value: &str) -> Result<(), PodError> {
    fs::write(path, value).map_err(|source| PodError::Sysctl {
        action: "write",
        path: path.into(),
        source,
    })
}
