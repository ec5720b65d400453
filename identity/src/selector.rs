//! Opaque selectors and interned sets of them.
//!
//! In:  numbers that `policy` gives to its FQDN selectors.
//! Out: [`SelectorSet`], the content of an ephemeral FQDN identity.
//! Not here: what a selector matches.

use std::{fmt, sync::Arc};

/// One FQDN selector of some policy on this node; opaque to this crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectorId(u32);

impl SelectorId {
    /// A selector by the number `policy` gave it.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number `policy` gave it.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for SelectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// A sorted set of selectors without duplicates. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SelectorSet(Arc<[SelectorId]>);

impl SelectorSet {
    /// The set of these selectors, whatever their order and however often each is named.
    pub fn new(selectors: impl IntoIterator<Item = SelectorId>) -> Self {
        let mut all: Vec<_> = selectors.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Self(all.into())
    }

    /// The selectors, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SelectorId> + '_ {
        self.0.iter().copied()
    }

    /// Whether the set holds `selector`.
    pub fn contains(&self, selector: SelectorId) -> bool {
        self.0.binary_search(&selector).is_ok()
    }

    /// A set nothing matches grants nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many selectors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Everything either set holds.
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.iter().chain(other.iter()))
    }

    /// What remains after `keep` refused some.
    pub fn retain(&self, keep: impl Fn(SelectorId) -> bool) -> Self {
        Self::new(self.iter().filter(|s| keep(*s)))
    }
}

impl fmt::Debug for SelectorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
