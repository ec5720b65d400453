//! IPCACHE and IPCACHE_LPM: the kernel's copy of the address book.
//!
//! In:  an `AddressBook`.
//! Out: both maps hold exactly its content.
//! Not here: the epoch that makes flows be judged again (`datapath`).

use std::collections::BTreeMap;

use fqdn_ebpf_common::{
    address::Addr,
    ipcache::{Entry, V4_BITS},
};
use identity::AddressBook;
use ipnet::IpNet;

use crate::{
    MapError,
    table::{Table, Trie},
};

pub(crate) type Addresses = Table<Addr, Entry, { size_of::<Addr>() }, { size_of::<Entry>() }>;
pub(crate) type Prefixes = Trie<Addr, Entry, { size_of::<Addr>() }, { size_of::<Entry>() }>;

/// Both maps and what they hold.
#[derive(Debug)]
pub(crate) struct IpCache {
    addresses: Addresses,
    prefixes: Prefixes,
    held_addresses: BTreeMap<Addr, u32>,
    held_prefixes: BTreeMap<(u32, Addr), u32>,
}

impl IpCache {
    pub(crate) const fn new(addresses: Addresses, prefixes: Prefixes) -> Self {
        Self {
            addresses,
            prefixes,
            held_addresses: BTreeMap::new(),
            held_prefixes: BTreeMap::new(),
        }
    }

    /// Writes what other maps hold, as it is.
    pub(crate) fn carry(
        &mut self,
        addresses: &[(Addr, Entry)],
        prefixes: &[(u32, Addr, Entry)],
    ) -> Result<(), MapError> {
        for (address, entry) in addresses {
            self.addresses.put(address, entry)?;
        }
        for (len, address, entry) in prefixes {
            self.prefixes.put(*len, address, entry)?;
        }
        Ok(())
    }

    /// Remembers what a predecessor wrote.
    pub(crate) fn take_over(&mut self) -> Result<(), MapError> {
        self.held_addresses = self
            .addresses
            .rows()?
            .into_iter()
            .map(|(address, entry)| (address, entry.identity()))
            .collect();
        self.held_prefixes = self
            .prefixes
            .rows()?
            .into_iter()
            .map(|(len, address, entry)| ((len, address), entry.identity()))
            .collect();
        Ok(())
    }

    /// Makes the maps hold what the book says, and nothing else. Writes before it removes, so
    /// that no address is without its identity on the way. True when anything changed.
    pub(crate) fn write(&mut self, book: &AddressBook) -> Result<bool, MapError> {
        let addresses: BTreeMap<_, _> = book
            .addresses()
            .map(|(address, identity)| (Addr::from(address), identity.get()))
            .collect();
        let prefixes: BTreeMap<_, _> = book
            .prefixes()
            .filter_map(|(prefix, identity)| Some((key(prefix)?, identity.get())))
            .collect();
        let mut changed = false;
        for (address, identity) in &addresses {
            if self.held_addresses.get(address) != Some(identity) {
                self.addresses.put(address, &Entry::new(*identity, 128))?;
                self.held_addresses.insert(*address, *identity);
                changed = true;
            }
        }
        for ((len, address), identity) in &prefixes {
            if self.held_prefixes.get(&(*len, *address)) != Some(identity) {
                self.prefixes
                    .put(*len, address, &Entry::new(*identity, *len))?;
                self.held_prefixes.insert((*len, *address), *identity);
                changed = true;
            }
        }
        let gone: Vec<_> = self
            .held_addresses
            .keys()
            .filter(|address| !addresses.contains_key(*address))
            .copied()
            .collect();
        for address in gone {
            self.addresses.remove(&address)?;
            self.held_addresses.remove(&address);
            changed = true;
        }
        let gone: Vec<_> = self
            .held_prefixes
            .keys()
            .filter(|prefix| !prefixes.contains_key(*prefix))
            .copied()
            .collect();
        for (len, address) in gone {
            self.prefixes.remove(len, &address)?;
            self.held_prefixes.remove(&(len, address));
            changed = true;
        }
        Ok(changed)
    }

    pub(crate) fn rows(&self) -> Result<Vec<(IpNet, u32)>, MapError> {
        let mut rows = Vec::new();
        for (address, entry) in self.addresses.rows()? {
            rows.push((IpNet::from(address.ip()), entry.identity()));
        }
        for (len, address, entry) in self.prefixes.rows()? {
            let ip = address.ip();
            let bits = if ip.is_ipv4() {
                len.saturating_sub(V4_BITS)
            } else {
                len
            };
            if let Some(net) = u8::try_from(bits)
                .ok()
                .and_then(|bits| IpNet::new(ip, bits).ok())
            {
                rows.push((net, entry.identity()));
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }
}

/// A prefix as the map holds it. One inside the IPv4-mapped block is none: no such packet passes.
fn key(prefix: IpNet) -> Option<(u32, Addr)> {
    let prefix = prefix.trunc();
    let address = Addr::from(prefix.network());
    let bits = u32::from(prefix.prefix_len());
    match prefix {
        IpNet::V4(_) => Some((bits.saturating_add(V4_BITS), address)),
        IpNet::V6(_) if address.is_v4() && bits >= V4_BITS => None,
        IpNet::V6(_) => Some((bits, address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_both_families_and_none_of_the_mapped_block() {
        let key = |text: &str| key(text.parse().unwrap()).map(|(len, _)| len);
        assert_eq!(key("0.0.0.0/0"), Some(96));
        assert_eq!(key("10.0.0.0/8"), Some(104));
        assert_eq!(key("::/0"), Some(0));
        assert_eq!(key("::ffff:10.0.0.0/104"), None);
        assert_eq!(key("2001:db8::/32"), Some(32));
    }
}
