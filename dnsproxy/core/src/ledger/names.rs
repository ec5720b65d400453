//! Names an endpoint resolved, and where they led.
//!
//! In:  answers that were accepted.
//! Out: what `fqdn cache list` shows, and what is matched again when a policy changes.
//! Not here: grants (`entry`): a name that is forgotten closes nothing.

use std::{hash::RandomState, net::IpAddr};

use identity::SelectorSet;
use lru::LruCache;
use policy::fqdn::Fqdn;
use smallvec::SmallVec;

use crate::Moment;

/// What is known about a name.
#[derive(Clone, Debug)]
pub(super) struct NameEntry {
    /// The selectors it matches; empty in the table of those that match none.
    pub(super) set: SelectorSet,
    pub(super) looked_up: Moment,
    /// As in the answer, unclamped.
    pub(super) ttl: u32,
    /// Where it led, and until when that counts.
    pub(super) addresses: SmallVec<[(IpAddr, Moment); 1]>,
    /// Under which moment the entry is queued.
    pub(super) due: Moment,
}

impl NameEntry {
    pub(super) fn new(set: SelectorSet, looked_up: Moment, ttl: u32) -> Self {
        Self {
            set,
            looked_up,
            ttl,
            addresses: SmallVec::new(),
            due: looked_up,
        }
    }

    /// Adds where an answer led; an address that an older answer keeps open longer stays as it is.
    /// Beyond `limit` the addresses that end first are forgotten.
    pub(super) fn lead_to(
        &mut self,
        now: Moment,
        addresses: &[IpAddr],
        expires: Moment,
        limit: usize,
    ) {
        let mut new: SmallVec<[IpAddr; 4]> = addresses.into();
        new.sort_unstable();
        self.addresses.retain(|(address, ends)| {
            *ends > now && (*ends > expires || new.binary_search(address).is_err())
        });
        let mut kept: SmallVec<[IpAddr; 4]> = self.addresses.iter().map(|(a, _)| *a).collect();
        kept.sort_unstable();
        let added = addresses
            .iter()
            .filter(|address| kept.binary_search(address).is_err());
        self.addresses
            .extend(added.map(|address| (*address, expires)));
        if self.addresses.len() > limit {
            self.addresses
                .sort_by_key(|(_, ends)| std::cmp::Reverse(*ends));
            self.addresses.truncate(limit);
        }
        self.addresses.shrink_to_fit();
    }

    /// When its last address ends.
    pub(super) fn expires(&self) -> Moment {
        self.addresses
            .iter()
            .map(|(_, ends)| *ends)
            .max()
            .unwrap_or(Moment::BOOT)
    }
}

/// Names by when they were asked for last; what clients choose is hashed with a secret key.
pub(super) type Names = LruCache<Fqdn, NameEntry, RandomState>;

/// A table that holds what is put in; its owner keeps it small.
pub(super) fn names() -> Names {
    LruCache::unbounded_with_hasher(RandomState::new())
}
