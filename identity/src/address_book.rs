//! Which identity an address has, for every endpoint alike: the user-space twin of IPCACHE.
//!
//! In:  exact addresses (pods, nodes, resolvers) and prefixes (CIDR rules).
//! Out: the identity of an address: exact match first, then the longest prefix, then world.
//! Not here: what DNS taught one endpoint (LEARNED; `dnsproxy/core`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{IdentityId, reserved};

/// Address → identity. A value: plain data that snapshots carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressBook {
    exact: BTreeMap<IpAddr, IdentityId>,
    /// Keyed by (prefix length, network), so that look-ups walk from long to short.
    prefixes: BTreeMap<(u8, IpAddr), IdentityId>,
}

impl AddressBook {
    /// Names the identity of one address; an IPv4-mapped IPv6 address is its IPv4 address.
    pub fn insert_address(&mut self, address: IpAddr, id: IdentityId) {
        self.exact.insert(address.to_canonical(), id);
    }

    /// Names the identity of a prefix. A /32 or /128 prefix is kept apart from exact addresses,
    /// which win over it: a managed workload is never reached through a CIDR rule.
    pub fn insert_prefix(&mut self, prefix: IpNet, id: IdentityId) {
        let prefix = prefix.trunc();
        self.prefixes
            .insert((prefix.prefix_len(), prefix.network()), id);
    }

    /// The identity of `address`; world of its family when nothing is known about it.
    pub fn lookup(&self, address: IpAddr) -> IdentityId {
        let address = address.to_canonical();
        if let Some(id) = self.exact.get(&address) {
            return *id;
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (0..=longest)
            .rev()
            .filter_map(|len| truncated(address, len))
            .find_map(|key| self.prefixes.get(&key).copied())
            .unwrap_or(if address.is_ipv4() {
                reserved::WORLD_IPV4
            } else {
                reserved::WORLD_IPV6
            })
    }

    /// Exact addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, IdentityId)> + '_ {
        self.exact.iter().map(|(a, id)| (*a, *id))
    }

    /// Prefixes, shortest first.
    pub fn prefixes(&self) -> impl Iterator<Item = (IpNet, IdentityId)> + '_ {
        self.prefixes
            .iter()
            .filter_map(|((len, network), id)| Some((IpNet::new(*network, *len).ok()?, *id)))
    }
}

fn truncated(address: IpAddr, len: u8) -> Option<(u8, IpAddr)> {
    let network = match address {
        IpAddr::V4(a) => IpAddr::from(Ipv4Addr::from(
            u32::from(a) & u32::from(Ipv4Net::new(a, len).ok()?.netmask()),
        )),
        IpAddr::V6(a) => IpAddr::from(Ipv6Addr::from(
            u128::from(a) & u128::from(Ipv6Net::new(a, len).ok()?.netmask()),
        )),
    };
    Some((len, network))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: IdentityId = IdentityId::from_raw(0x0100_0001);
    const WIDE: IdentityId = IdentityId::from_raw(0x0100_0002);
    const POD: IdentityId = IdentityId::from_raw(256);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn exact_wins_over_long_wins_over_short_wins_over_world() {
        let mut book = AddressBook::default();
        book.insert_prefix("10.0.0.0/8".parse().unwrap(), WIDE);
        book.insert_prefix("10.1.0.0/16".parse().unwrap(), NARROW);
        book.insert_address(ip("10.1.2.3"), POD);
        assert_eq!(book.lookup(ip("10.1.2.3")), POD);
        assert_eq!(book.lookup(ip("::ffff:10.1.2.3")), POD);
        assert_eq!(book.lookup(ip("10.1.2.4")), NARROW);
        assert_eq!(book.lookup(ip("10.2.0.1")), WIDE);
        assert_eq!(book.lookup(ip("192.0.2.1")), reserved::WORLD_IPV4);
        assert_eq!(book.lookup(ip("2001:db8::1")), reserved::WORLD_IPV6);
    }

    #[test]
    fn a_default_route_of_one_family_says_nothing_about_the_other() {
        let mut book = AddressBook::default();
        book.insert_prefix("0.0.0.0/0".parse().unwrap(), WIDE);
        assert_eq!(book.lookup(ip("192.0.2.1")), WIDE);
        assert_eq!(book.lookup(ip("2001:db8::1")), reserved::WORLD_IPV6);
    }
}
