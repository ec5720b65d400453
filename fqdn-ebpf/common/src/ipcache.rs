//! IPCACHE and IPCACHE_LPM: which identity an address has, for every endpoint alike.
//!
//! In:  exact addresses and prefixes with their identities.
//! Out: record types, and the rules for reading them that the map types cannot express.
//! Not here: what DNS taught one endpoint (`learned`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Addr;

/// Reserved identity: the local node.
pub const HOST: u32 = 1;
/// Reserved identity: outside, whatever the family.
pub const WORLD: u32 = 2;
/// Reserved identity: outside, IPv4.
pub const WORLD_IPV4: u32 = 9;
/// Reserved identity: outside, IPv6.
pub const WORLD_IPV6: u32 = 10;
/// First number of node-local scope (CIDR prefixes and FQDN sets).
const LOCAL_FIRST: u32 = 0x0100_0001;
/// First number past node-local scope.
const LOCAL_END: u32 = 0x0200_0000;

/// Bits of an IPv4 prefix that stand for `::ffff:0:0/96` in front of it.
pub const V4_BITS: u32 = 96;

/// The record of an address or prefix.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Entry {
    identity: u32,
    /// Length of the prefix the record was written for, 128 for an exact address.
    prefix_len: u32,
}

const _: () = assert!(size_of::<Entry>() == 8);

impl Entry {
    /// A record of a prefix of this length (IPv4: plus [`V4_BITS`]).
    pub const fn new(identity: u32, prefix_len: u32) -> Self {
        Self {
            identity,
            prefix_len,
        }
    }

    /// The identity.
    #[inline(always)]
    pub const fn identity(&self) -> u32 {
        self.identity
    }

    /// The prefix length.
    pub const fn prefix_len(&self) -> u32 {
        self.prefix_len
    }

    /// The identity this prefix gives to `address`. An IPv6 prefix so short that it covers the
    /// IPv4-mapped block says nothing about IPv4.
    #[inline(always)]
    pub const fn speaks_for(&self, address: Addr) -> Option<u32> {
        if address.is_v4() && self.prefix_len < V4_BITS {
            return None;
        }
        Some(self.identity)
    }
}

/// The identity of an address nobody knows anything about.
#[inline(always)]
pub const fn world_of(address: Addr) -> u32 {
    if address.is_v4() {
        WORLD_IPV4
    } else {
        WORLD_IPV6
    }
}

/// Whether what DNS taught may count for an address of this identity: only the world and its
/// prefixes; a managed workload, node or service is never opened by a name.
#[inline(always)]
pub const fn names_count_for(identity: u32) -> bool {
    matches!(identity, WORLD | WORLD_IPV4 | WORLD_IPV6)
        || (identity >= LOCAL_FIRST && identity < LOCAL_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_v6_prefix_says_nothing_about_v4() {
        let v4 = Addr::v4([192, 0, 2, 1]);
        assert_eq!(Entry::new(7, 0).speaks_for(v4), None);
        assert_eq!(Entry::new(7, V4_BITS).speaks_for(v4), Some(7));
        assert_eq!(Entry::new(7, 0).speaks_for(Addr::v6([0x20; 16])), Some(7));
    }

    #[test]
    fn names_open_only_the_world() {
        for identity in [WORLD, WORLD_IPV4, WORLD_IPV6, LOCAL_FIRST, LOCAL_END - 1] {
            assert!(names_count_for(identity), "{identity}");
        }
        for identity in [0, HOST, 3, 6, 7, 256, 65535, 0x0100_0000, LOCAL_END] {
            assert!(!names_count_for(identity), "{identity}");
        }
    }
}
