//! Numbers for `toFQDNs` selectors, one table per node.
//!
//! In:  selectors of policies.
//! Out: a [`SelectorId`] each, the same for the same meaning as long as the table lives.
//! Not here: sets of selectors (`identity`).

use std::collections::BTreeMap;

use identity::SelectorId;

use crate::fqdn::NameSelector;

/// Selector → number. Numbers are never reused, so a set minted under an older policy can at
/// worst name a selector that is gone.
#[derive(Debug, Default, Clone)]
pub struct SelectorTable {
    ids: BTreeMap<NameSelector, SelectorId>,
    by_id: BTreeMap<SelectorId, NameSelector>,
}

impl SelectorTable {
    /// The number of a selector, a new one when it was not seen before.
    pub fn intern(&mut self, selector: &NameSelector) -> SelectorId {
        if let Some(id) = self.ids.get(selector) {
            return *id;
        }
        let next = self
            .by_id
            .last_key_value()
            .map_or(1, |(last, _)| last.get().saturating_add(1));
        let id = SelectorId::new(next);
        self.ids.insert(selector.clone(), id);
        self.by_id.insert(id, selector.clone());
        id
    }

    /// The selector behind a number.
    pub fn get(&self, id: SelectorId) -> Option<&NameSelector> {
        self.by_id.get(&id)
    }

    /// Every selector, by number.
    pub fn iter(&self) -> impl Iterator<Item = (SelectorId, &NameSelector)> + '_ {
        self.by_id.iter().map(|(id, selector)| (*id, selector))
    }
}
