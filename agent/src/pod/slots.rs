//! Which interface name and which addresses a run gets.
//!
//! In:  a slot number (claimed by creating the link of that name) and the prefixes the host already uses.
//! Out: an [`AddressPlan`] that overlaps none of them.
//! Not here: creating links (`links`), reading routes (`routes`).
//!
//! Two runs never share a slot, because a link name exists once per namespace; and blocks of different slots never
//! overlap, whichever pool each of them took.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Slots per host: the number of runs that can live side by side.
pub(crate) const SLOTS: u16 = 1024;
/// The links on the host are called this plus the slot number.
pub(crate) const LINK_PREFIX: &str = "namegate";
/// Addresses per slot: a /30 to the host and a /30 to the pod.
const BLOCK: u32 = 8;

/// Where blocks come from, in order of preference: benchmarking space (RFC 2544), then corners of shared and
/// private space. Each holds SLOTS * BLOCK addresses.
const POOLS: [Ipv4Addr; 6] = [
    Ipv4Addr::new(198, 18, 192, 0),
    Ipv4Addr::new(198, 19, 192, 0),
    Ipv4Addr::new(100, 127, 224, 0),
    Ipv4Addr::new(10, 213, 192, 0),
    Ipv4Addr::new(172, 31, 224, 0),
    Ipv4Addr::new(192, 168, 224, 0),
];
/// `fd6e:616d:6567::/48` and two spares: unique local addresses (RFC 4193), "nameg" in ASCII.
const POOLS_V6: [[u16; 3]; 3] = [
    [0xfd6e, 0x616d, 0x6567],
    [0xfd6e, 0x616d, 0x6568],
    [0xfd6e, 0x616d, 0x6569],
];

/// A prefix some route or address of the host covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) address: IpAddr,
    pub(crate) length: u8,
}

/// The addresses of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressPlan {
    pub(crate) v4: Ends<Ipv4Addr>,
    pub(crate) v6: Option<Ends<Ipv6Addr>>,
}

/// host — gateway, gateway — pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends<A> {
    pub(crate) host: A,
    pub(crate) gateway_up: A,
    pub(crate) gateway: A,
    pub(crate) pod: A,
}

/// Prefix length of both IPv4 links.
pub(crate) const LINK_V4: u8 = 30;
/// Prefix length of both IPv6 links.
pub(crate) const LINK_V6: u8 = 126;

/// The host link of a slot.
pub(crate) fn link_name(slot: u16) -> String {
    format!("{LINK_PREFIX}{slot}")
}

/// Chooses the first pool whose block for `slot` nothing on the host covers. `None` when every pool collides.
///
/// A route as wide as half the address space is a default route (VPNs install two of /1) and no collision.
pub(crate) fn plan(slot: u16, used: &[Used], ipv6: bool) -> Option<AddressPlan> {
    let v4 = POOLS
        .iter()
        .map(|pool| u32::from(*pool) + u32::from(slot) * BLOCK)
        .find(|base| !used.iter().any(|used| collides_v4(*base, used)))
        .map(|base| Ends {
            host: Ipv4Addr::from(base + 1),
            gateway_up: Ipv4Addr::from(base + 2),
            gateway: Ipv4Addr::from(base + 5),
            pod: Ipv4Addr::from(base + 6),
        })?;
    let v6 = if ipv6 {
        let [a, b, c] = *POOLS_V6
            .iter()
            .find(|pool| !used.iter().any(|used| collides_v6(**pool, slot, used)))?;
        let end = |link, host| Ipv6Addr::new(a, b, c, slot, 0, 0, link, host);
        Some(Ends {
            host: end(0, 1),
            gateway_up: end(0, 2),
            gateway: end(1, 1),
            pod: end(1, 2),
        })
    } else {
        None
    };
    Some(AddressPlan { v4, v6 })
}

fn collides_v4(base: u32, used: &Used) -> bool {
    let IpAddr::V4(address) = used.address else {
        return false;
    };
    if used.length <= 1 {
        return false;
    }
    let mask = |length: u8| {
        u32::MAX
            .checked_shl(32 - u32::from(length.min(32)))
            .unwrap_or(0)
    };
    let common = mask(used.length.min(29));
    u32::from(address) & common == base & common
}

fn collides_v6(pool: [u16; 3], slot: u16, used: &Used) -> bool {
    let IpAddr::V6(address) = used.address else {
        return false;
    };
    // fc00::/7 as a whole is what a site that drops or tunnels all private space routes; it is no network of its own.
    if used.length <= 7 {
        return false;
    }
    let [a, b, c] = pool;
    let base = u128::from(Ipv6Addr::new(a, b, c, slot, 0, 0, 0, 0));
    let common = u128::MAX << (128 - u32::from(used.length.min(64)));
    u128::from(address) & common == base & common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(text: &str) -> Used {
        let (address, length) = text.split_once('/').unwrap();
        Used {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    #[test]
    fn first_pool_when_nothing_collides() {
        let plan = plan(0, &[used("0.0.0.0/0"), used("192.0.2.0/24")], true).unwrap();
        assert_eq!(plan.v4.pod, Ipv4Addr::new(198, 18, 192, 6));
        assert_eq!(plan.v4.host, Ipv4Addr::new(198, 18, 192, 1));
        assert_eq!(plan.v6.unwrap().pod.to_string(), "fd6e:616d:6567::1:2");
    }

    #[test]
    fn default_routes_of_vpns_are_no_collision() {
        let plan = plan(3, &[used("0.0.0.0/1"), used("128.0.0.0/1")], false).unwrap();
        assert_eq!(plan.v4.gateway, Ipv4Addr::new(198, 18, 192, 29));
        assert_eq!(plan.v6, None);
    }

    #[test]
    fn a_route_over_or_inside_the_block_moves_it_to_the_next_pool() {
        for route in [
            "198.18.0.0/15",
            "198.18.192.0/24",
            "198.18.192.6/32",
            "198.18.192.4/31",
        ] {
            let plan = plan(0, &[used(route)], false).unwrap();
            assert_ne!(plan.v4.pod.octets()[..2], [198, 18], "{route}");
        }
        // The neighbour slot's addresses are not ours.
        assert_eq!(
            plan(1, &[used("198.18.192.6/32")], false).unwrap().v4.pod,
            Ipv4Addr::new(198, 18, 192, 14)
        );
    }

    #[test]
    fn everything_taken_is_none() {
        let all: Vec<_> = [
            "198.18.0.0/15",
            "100.64.0.0/10",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
        ]
        .map(used)
        .to_vec();
        assert_eq!(plan(0, &all, false), None);
        assert_eq!(plan(0, &[used("fd6e:616d::/32")], true), None);
    }

    #[test]
    fn v6_collision_moves_to_the_next_pool() {
        let plan = plan(9, &[used("fd6e:616d:6567:9::5/128")], true).unwrap();
        assert_eq!(plan.v6.unwrap().host.to_string(), "fd6e:616d:6568:9::1");
    }

    #[test]
    fn no_two_slots_overlap_in_any_pool() {
        for pool in POOLS {
            let end = u32::from(pool) + u32::from(SLOTS) * BLOCK;
            for other in POOLS {
                let other = u32::from(other);
                assert!(other == u32::from(pool) || !(u32::from(pool)..end).contains(&other));
            }
        }
        assert!(
            link_name(SLOTS - 1).len() < 16,
            "longer than IFNAMSIZ allows"
        );
    }
}
