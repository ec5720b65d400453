//! Addresses that no name opens.
//!
//! In:  an address of an answer, the setting, what is known about addresses.
//! Out: whether a name may open it, and if not, why.
//! Not here: what happens to the answer (`reply`): it passes, the address stays closed.
//!
//! A name under foreign control may carry any address (DNS rebinding). Whoever allowed the name
//! meant a place outside; loopback, link-local and metadata services are never that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{config::Rebinding, knowledge::Knowledge};

/// Metadata services outside of link-local: Alibaba Cloud, Azure wire server, AWS over IPv6.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Why a name does not open `address`; none when it does.
pub(crate) fn withheld(
    setting: &Rebinding,
    knowledge: &Knowledge,
    address: IpAddr,
) -> Option<&'static str> {
    // Workloads, nodes and services have identities of their own; the kernel does not look at
    // what names say about them, so learning them could only mislead.
    let inner = embedded(address);
    for candidate in [Some(address), inner].into_iter().flatten() {
        if knowledge.is_node(candidate) {
            return Some("the address of a node");
        }
        if !knowledge.is_outside(candidate) {
            return Some("the address of a workload or service");
        }
    }
    if setting.allow.iter().any(|prefix| prefix.contains(&address)) {
        return None;
    }
    reserved(address)
        .or_else(|| inner.and_then(reserved))
        .or_else(|| {
            let is_private = private(address) || inner.is_some_and(private);
            (setting.withhold_private && is_private).then_some("a private address")
        })
}

fn reserved(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => reserved_v4(v4),
        IpAddr::V6(v6) => reserved_v6(v6),
    }
}

fn reserved_v4(address: Ipv4Addr) -> Option<&'static str> {
    if METADATA_V4.contains(&address) {
        return Some("a metadata service");
    }
    match address.octets() {
        [0, ..] => Some("an address of this host"),
        [127, ..] => Some("a loopback address"),
        [169, 254, ..] => Some("a link-local address"),
        [224..=239, ..] => Some("a multicast address"),
        [255, 255, 255, 255] => Some("the broadcast address"),
        _ => None,
    }
}

fn reserved_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address == METADATA_V6 {
        return Some("a metadata service");
    }
    if address.is_unspecified() {
        return Some("an address of this host");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_unicast_link_local() {
        return Some("a link-local address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    None
}

fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// The IPv4 address that packets to an IPv6 address end up at: IPv4-mapped and -compatible
/// (RFC 4291 §2.5.5), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380).
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let v4 =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // A network picks its own /96 of this /48.
        [0x64, 0xff9b, 1, _, _, _, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // Teredo hides the client's address by inverting its bits.
        [0x2001, 0, .., high, low] => Some(v4(!high, !low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use identity::{AddressBook, IdentityId};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn knowledge() -> Knowledge {
        let mut book = AddressBook::default();
        book.insert_address(ip("10.0.0.7"), IdentityId::from_raw(300));
        book.insert_prefix(
            "10.9.0.0/16".parse().unwrap(),
            IdentityId::from_raw(0x0100_0001),
        );
        Knowledge {
            book: Arc::new(book),
            node_addresses: [ip("192.0.2.10")].into(),
            ..Knowledge::default()
        }
    }

    #[track_caller]
    fn check(setting: &Rebinding, address: &str, open: bool) {
        let found = withheld(setting, &knowledge(), ip(address));
        assert_eq!(found.is_none(), open, "{address}: {found:?}");
    }

    #[test]
    fn places_outside_open_and_special_places_do_not() {
        let default = Rebinding::default();
        for address in [
            "1.1.1.1",
            "10.1.2.3",
            "10.9.0.1",
            "192.168.0.1",
            "172.16.0.1",
            "100.64.0.1",
            "2606:4700::1",
            "fd12::1",
            "64:ff9b::101:101",
            "64:ff9b:0:1::a9fe:a9fe",
            "2002:101:101::1",
        ] {
            check(&default, address, true);
        }
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "192.0.2.10",
            "10.0.0.7",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:10.0.0.7",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1:2:3:4:7f00:1",
            "2002:7f00:1::1",
            "2001:0:4136:e378:8000:63bf:80ff:fffe",
            "64:ff9b::c000:20a",
        ] {
            check(&default, address, false);
        }
    }

    #[test]
    fn private_addresses_close_by_setting() {
        let strict = Rebinding {
            withhold_private: true,
            ..Rebinding::default()
        };
        for address in [
            "10.1.2.3",
            "192.168.0.1",
            "172.31.0.1",
            "100.64.0.1",
            "fd12::1",
            "64:ff9b::a00:1",
        ] {
            check(&strict, address, false);
        }
        check(&strict, "1.1.1.1", true);
    }

    #[test]
    fn an_allowed_prefix_opens_but_never_a_workload_or_node() {
        let lax = Rebinding {
            allow: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            withhold_private: true,
        };
        for address in ["127.0.0.1", "169.254.169.254", "10.1.2.3", "fe80::1"] {
            check(&lax, address, true);
        }
        check(&lax, "10.0.0.7", false);
        check(&lax, "192.0.2.10", false);
    }
}
