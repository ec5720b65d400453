//! What the host's network looks like before the pod joins it.
//!
//! In:  the host namespace's routes and addresses.
//! Out: [`HostNetwork`]: prefixes in use, the uplinks, whether IPv6 leads anywhere, the MTU.
//! Not here: changing any of it.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
};

use super::{
    PodError,
    netlink::{Link, Netlink, refused},
    slots::Used,
};

/// A snapshot of the host's network.
#[derive(Debug, Clone)]
pub(crate) struct HostNetwork {
    /// Everything some route or address covers.
    pub(crate) used: Vec<Used>,
    /// Interfaces the main table sends packets out of, without loopback.
    pub(crate) uplinks: Vec<String>,
    /// Whether a v6 route leads beyond the link.
    pub(crate) ipv6: bool,
    /// The MTU of the default route's interface.
    pub(crate) mtu: u32,
}

impl HostNetwork {
    pub(crate) async fn read(netlink: &Netlink) -> Result<Self, PodError> {
        let links = netlink.links().await?;
        let mut routes = Vec::new();
        routes.extend(
            list(
                netlink,
                RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            )
            .await?,
        );
        routes.extend(
            list(
                netlink,
                RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            )
            .await?,
        );
        let mut used: Vec<_> = routes.iter().map(|route| route.prefix).collect();
        used.extend(addresses(netlink).await?);
        let name_of = |index| links.iter().find(|link: &&Link| link.index == index);
        let mut uplinks: Vec<_> = routes
            .iter()
            .filter(|route| route.leads_out() && !route.multicast())
            .filter_map(|route| name_of(route.output?))
            .filter(|link| link.name != "lo")
            .map(|link| link.name.clone())
            .collect();
        uplinks.sort();
        uplinks.dedup();
        let ipv6 = routes
            .iter()
            .any(|route| route.leads_out() && route.global_v6() && name_of_is_real(route, &links));
        let mtu = routes
            .iter()
            .filter(|route| route.leads_out() && route.prefix.length == 0)
            .filter_map(|route| name_of(route.output?))
            .map(|link| link.mtu)
            .min()
            .unwrap_or(1500);
        Ok(Self {
            used,
            uplinks,
            ipv6,
            mtu: mtu.clamp(1280, 65535),
        })
    }
}

fn name_of_is_real(route: &Route, links: &[Link]) -> bool {
    route.output.is_some_and(|index| {
        links
            .iter()
            .any(|link| link.index == index && link.name != "lo")
    })
}

#[derive(Debug, Clone, Copy)]
struct Route {
    prefix: Used,
    table: u32,
    kind: RouteType,
    output: Option<u32>,
}

impl Route {
    fn leads_out(&self) -> bool {
        self.table == u32::from(RouteHeader::RT_TABLE_MAIN) && self.kind == RouteType::Unicast
    }

    fn multicast(&self) -> bool {
        self.prefix.address.is_multicast() && self.prefix.length > 0
    }

    fn global_v6(&self) -> bool {
        let IpAddr::V6(address) = self.prefix.address else {
            return false;
        };
        self.prefix.length == 0
            || !(address.is_loopback() || address.is_multicast() || address.is_unicast_link_local())
    }
}

async fn list(netlink: &Netlink, filter: RouteMessage) -> Result<Vec<Route>, PodError> {
    let messages: Vec<_> = netlink
        .handle
        .route()
        .get(filter)
        .execute()
        .try_collect()
        .await
        .map_err(|error| refused("list routes", &error))?;
    Ok(messages.iter().map(read_route).collect())
}

fn read_route(message: &RouteMessage) -> Route {
    let v4 = message.header.address_family == rtnetlink::packet_route::AddressFamily::Inet;
    let unspecified = if v4 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let mut route = Route {
        prefix: Used {
            address: unspecified,
            length: message.header.destination_prefix_length,
        },
        table: u32::from(message.header.table),
        kind: message.header.kind,
        output: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.prefix.address = (*address).into();
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                route.prefix.address = (*address).into();
            }
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Oif(index) => route.output = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                route.output = route.output.or(hops.first().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    route
}

async fn addresses(netlink: &Netlink) -> Result<Vec<Used>, PodError> {
    let messages: Vec<_> = netlink
        .handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|error| refused("list addresses", &error))?;
    Ok(messages
        .iter()
        .flat_map(|message| {
            let length = message.header.prefix_len;
            message
                .attributes
                .iter()
                .filter_map(move |attribute| match attribute {
                    AddressAttribute::Address(address) => Some(Used {
                        address: *address,
                        length,
                    }),
                    AddressAttribute::Local(address) => Some(Used {
                        address: *address,
                        length: if address.is_ipv4() { 32 } else { 128 },
                    }),
                    _ => None,
                })
        })
        .collect())
}

/// Every address of the calling thread's namespace. A broadcast address reaches this host's own services, so it is
/// one of its addresses.
pub(crate) fn host_addresses() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .flat_map(|interface| [interface.address, interface.broadcast])
        .flatten()
        .filter_map(|address| {
            if let Some(v4) = address.as_sockaddr_in() {
                return Some(v4.ip().into());
            }
            address.as_sockaddr_in6().map(|v6| v6.ip().into())
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
