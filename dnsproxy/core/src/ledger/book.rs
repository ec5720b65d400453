//! What one endpoint learned, within its limits.
//!
//! In:  entries and names as they come.
//! Out: the oldest of them when there are too many; moments to look at the others again.
//! Not here: what a change means for the kernel (`ledger`).

use std::{collections::BTreeSet, hash::RandomState, net::IpAddr};

use identity::EndpointId;
use lru::LruCache;
use policy::fqdn::Fqdn;

use super::{
    entry::Entry,
    names::{self, Names},
};
use crate::Moment;

/// What is looked at when its time comes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Address(EndpointId, IpAddr),
    Name(EndpointId, Fqdn),
}

/// Everything that has a time, by when it comes. Each entry and each name is queued once, under
/// the moment it carries; one that is extended stays where it is until that moment finds it out.
pub(super) type Queue = BTreeSet<(Moment, Due)>;

/// What one endpoint learned.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) addresses: LruCache<IpAddr, Entry, RandomState>,
    /// Names that match a selector.
    pub(super) names: Names,
    /// Names that match none. They are not queued: the table is small, and time is asked for when
    /// it is read.
    pub(super) unmatched: Names,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            addresses: LruCache::unbounded_with_hasher(RandomState::new()),
            names: names::names(),
            unmatched: names::names(),
        }
    }
}

impl Book {
    /// Takes out what was taught longest ago until `limit` addresses are left. Names forget that
    /// they led there, so that no policy change brings it back.
    pub(super) fn evict(
        &mut self,
        endpoint: EndpointId,
        limit: usize,
        queue: &mut Queue,
    ) -> Vec<IpAddr> {
        let mut evicted = Vec::new();
        while self.addresses.len() > limit {
            let Some((address, entry)) = self.addresses.pop_lru() else {
                break;
            };
            queue.remove(&(entry.due, Due::Address(endpoint, address)));
            for name in &entry.names {
                if let Some(name) = self.names.peek_mut(name) {
                    name.addresses.retain(|(led_to, _)| *led_to != address);
                }
            }
            evicted.push(address);
        }
        evicted
    }

    /// Forgets the names asked for longest ago until the limits are kept.
    pub(super) fn trim_names(
        &mut self,
        endpoint: EndpointId,
        matched: usize,
        unmatched: usize,
        queue: &mut Queue,
    ) {
        while self.names.len() > matched {
            let Some((name, entry)) = self.names.pop_lru() else {
                break;
            };
            queue.remove(&(entry.due, Due::Name(endpoint, name)));
        }
        while self.unmatched.len() > unmatched {
            self.unmatched.pop_lru();
        }
    }
}
