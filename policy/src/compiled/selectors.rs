//! The `toFQDNs` selectors of one endpoint.
//!
//! In:  selectors and their node-wide numbers.
//! Out: the numbers a name matches, at the cost of a few look-ups.
//! Not here: handing out numbers (`compile::SelectorTable`).

use std::collections::BTreeMap;

use identity::{SelectorId, SelectorSet};

use crate::fqdn::{Fqdn, NameIndex, NameSelector};

/// Selectors by number, indexed by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    by_id: BTreeMap<SelectorId, NameSelector>,
    index: NameIndex<SelectorId>,
}

impl Selectors {
    /// The selector behind a number.
    pub fn get(&self, id: SelectorId) -> Option<&NameSelector> {
        self.by_id.get(&id)
    }

    /// Every selector, by number.
    pub fn iter(&self) -> impl Iterator<Item = (SelectorId, &NameSelector)> + '_ {
        self.by_id.iter().map(|(id, selector)| (*id, selector))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether names teach nothing.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The selectors `name` matches.
    pub fn matching(&self, name: &Fqdn) -> SelectorSet {
        SelectorSet::new(self.index.matching(name).copied())
    }
}

impl FromIterator<(SelectorId, NameSelector)> for Selectors {
    fn from_iter<I: IntoIterator<Item = (SelectorId, NameSelector)>>(selectors: I) -> Self {
        let by_id: BTreeMap<_, _> = selectors.into_iter().collect();
        let mut index = NameIndex::default();
        for (id, selector) in &by_id {
            index.insert(selector, *id);
        }
        Self { by_id, index }
    }
}
