//! How many entries each map holds, and what that costs.
//!
//! In:  how many endpoints, addresses and flows to be ready for.
//! Out: capacities for the loader, and the memory they take when full.
//! Not here: what happens when a map is full (`writer`: the answer is refused, with the map's name).

use fqdn_ebpf_common::metric;

/// Capacities of the maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Workloads on this node.
    pub endpoints: u32,
    /// Exact addresses in IPCACHE.
    pub addresses: u32,
    /// Prefixes in IPCACHE_LPM.
    pub prefixes: u32,
    /// Learned (endpoint, address) pairs in LEARNED.
    pub learned: u32,
    /// Entries of all policies in POLICY.
    pub policy: u32,
    /// Flows of each endpoint.
    pub flows: u32,
    /// Fragmented datagrams of each endpoint.
    pub datagrams: u32,
    /// Bytes of the ring buffer of events; rounded up to a power of two of pages.
    pub event_bytes: u32,
}

impl Default for Sizes {
    /// For one node with up to 250 workloads.
    fn default() -> Self {
        Self {
            endpoints: 256,
            addresses: 65_536,
            prefixes: 16_384,
            learned: 131_072,
            policy: 131_072,
            flows: 8_192,
            datagrams: 256,
            event_bytes: 1 << 20,
        }
    }
}

/// A page of every kernel these programs run on, and the least a ring buffer takes.
const PAGE: u32 = 4096;
/// Bookkeeping of one hash element: bucket, links, LRU node (`struct htab_elem`, `struct bucket`).
const HASH: u64 = 64;
/// Bookkeeping of one trie node, and the inner node that comes with it (`struct lpm_trie_node`).
const TRIE: u64 = 2 * 64;

impl Sizes {
    /// For a single command.
    #[must_use]
    pub const fn for_one_workload() -> Self {
        Self {
            endpoints: 1,
            addresses: 1_024,
            prefixes: 4_096,
            learned: 65_536,
            policy: 65_536,
            flows: 32_768,
            datagrams: 1_024,
            event_bytes: 1 << 20,
        }
    }

    /// Entries of every map whose number of entries is a setting.
    pub(crate) const fn capacities(&self) -> [(&'static str, u32); 10] {
        [
            ("ENDPOINTS", self.endpoints),
            ("IPCACHE", self.addresses),
            ("IPCACHE_LPM", self.prefixes),
            ("LEARNED", self.learned),
            ("POLICY", self.policy),
            // A set of rules has at least one entry.
            ("RULES", self.policy),
            ("CT", self.endpoints),
            ("FRAGS", self.endpoints),
            ("EVENTS", self.ring_bytes()),
            ("TOKENS", self.endpoints.saturating_add(1)),
        ]
    }

    /// The ring buffer's size as the kernel wants it.
    pub(crate) const fn ring_bytes(&self) -> u32 {
        let bytes = if self.event_bytes < PAGE {
            PAGE
        } else {
            self.event_bytes
        };
        match bytes.checked_next_power_of_two() {
            Some(rounded) => rounded,
            None => 1 << 31,
        }
    }

    /// Bytes of kernel memory when every map is full, within a few per cent.
    #[must_use]
    pub fn memory_budget(&self, processors: u32) -> u64 {
        let maps = self.budget(processors);
        maps.iter().map(|(.., bytes)| bytes).sum()
    }

    /// Name, entries and bytes of each map when it is full.
    #[must_use]
    pub fn budget(&self, processors: u32) -> [(&'static str, u64, u64); 10] {
        let hash = |entries: u64, key: u64, value: u64| entries * (key + value + HASH);
        let trie = |entries: u64, key: u64, value: u64| entries * (key + value + TRIE);
        let of = u64::from;
        let endpoints = of(self.endpoints);
        let (flows, datagrams) = (endpoints * of(self.flows), endpoints * of(self.datagrams));
        let counters = of(metric::ENTRIES);
        [
            ("ENDPOINTS", endpoints, hash(endpoints, 8, 88)),
            (
                "IPCACHE",
                of(self.addresses),
                hash(of(self.addresses), 16, 8),
            ),
            (
                "IPCACHE_LPM",
                of(self.prefixes),
                trie(of(self.prefixes), 16, 8),
            ),
            ("LEARNED", of(self.learned), hash(of(self.learned), 24, 64)),
            ("POLICY", of(self.policy), trie(of(self.policy), 12, 12)),
            (
                "RULES",
                of(self.policy),
                hash(of(self.policy), 16, of(processors) * 16),
            ),
            ("CT", flows, hash(flows, 24, 64) + endpoints * 8),
            ("FRAGS", datagrams, hash(datagrams, 40, 16) + endpoints * 8),
            ("EVENTS", 1, of(self.ring_bytes())),
            ("METRICS", counters, of(processors) * counters * 16),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_dominated_by_flows_and_grows_with_each_part() {
        let base = Sizes::default();
        let budget = base.memory_budget(2);
        assert!((300 << 20..400 << 20).contains(&budget), "{budget}");
        for more in [
            Sizes {
                endpoints: 512,
                ..base
            },
            Sizes {
                learned: base.learned * 2,
                ..base
            },
            Sizes {
                policy: base.policy * 2,
                ..base
            },
            Sizes {
                event_bytes: base.event_bytes * 2,
                ..base
            },
        ] {
            assert!(more.memory_budget(2) > budget, "{more:?}");
        }
    }

    #[test]
    fn a_learned_address_costs_less_than_160_bytes() {
        let base = Sizes::default();
        let more = Sizes {
            learned: base.learned + 1000,
            ..base
        };
        assert!((more.memory_budget(1) - base.memory_budget(1)) / 1000 <= 160);
    }

    #[test]
    fn the_ring_is_a_power_of_two_of_pages() {
        let ring = |event_bytes| {
            Sizes {
                event_bytes,
                ..Sizes::default()
            }
            .ring_bytes()
        };
        assert_eq!([ring(0), ring(4097), ring(u32::MAX)], [4096, 8192, 1 << 31]);
    }
}
