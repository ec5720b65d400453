//! Many selectors, one name: which of them match.
//!
//! In:  selectors with a value each.
//! Out: the values whose selector matches a name, at the cost of one look-up per label of the
//!      name, however many selectors there are.
//! Not here: what the values mean.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Fqdn, NameSelector, Pattern};

/// Selectors found by the part of them that every match must end in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameIndex<T> {
    names: HashMap<Fqdn, Vec<T>>,
    /// By the longest suffix of whole labels without wildcard.
    patterns: HashMap<Arc<str>, Vec<(Pattern, T)>>,
    /// How long those suffixes are: no other is looked for.
    lengths: BTreeSet<usize>,
}

impl<T> Default for NameIndex<T> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            patterns: HashMap::new(),
            lengths: BTreeSet::new(),
        }
    }
}

impl<T> NameIndex<T> {
    /// Adds one selector.
    pub fn insert(&mut self, selector: &NameSelector, value: T) {
        match selector {
            NameSelector::Name(name) => self.names.entry(name.clone()).or_default().push(value),
            NameSelector::Pattern(pattern) => {
                let suffix = pattern.literal_suffix();
                self.lengths.insert(suffix.len());
                self.patterns
                    .entry(suffix.into())
                    .or_default()
                    .push((pattern.clone(), value));
            }
        }
    }

    /// The values of every selector that matches `name`; exact names first.
    pub fn matching<'a>(&'a self, name: &'a Fqdn) -> impl Iterator<Item = &'a T> + 'a {
        let text = name.as_str();
        let dots = text.bytes().zip(1..).filter(|(byte, _)| *byte == b'.');
        let suffixes = std::iter::once(0)
            .chain(dots.map(|(_, behind)| behind))
            .filter_map(move |from| text.get(from..));
        let exact = self.names.get(name).into_iter().flatten();
        // Without any pattern the suffixes need not be walked at all.
        let by_pattern = (!self.patterns.is_empty())
            .then(|| {
                suffixes
                    .filter(|suffix| self.lengths.contains(&suffix.len()))
                    .filter_map(|suffix| self.patterns.get(suffix))
                    .flatten()
                    .filter(|(pattern, _)| pattern.matches(name))
                    .map(|(_, value)| value)
            })
            .into_iter()
            .flatten();
        exact.chain(by_pattern)
    }
}

/// A set of selectors that answers whether any of them matches. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet(Arc<Indexed>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Indexed {
    selectors: Vec<NameSelector>,
    index: NameIndex<()>,
}

impl NameSet {
    /// Whether any selector matches.
    pub fn matches(&self, name: &Fqdn) -> bool {
        self.0.index.matching(name).next().is_some()
    }

    /// The selectors in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = &NameSelector> + '_ {
        self.0.selectors.iter()
    }

    /// Whether no name matches.
    pub fn is_empty(&self) -> bool {
        self.0.selectors.is_empty()
    }
}

impl FromIterator<NameSelector> for NameSet {
    fn from_iter<I: IntoIterator<Item = NameSelector>>(selectors: I) -> Self {
        let mut selectors: Vec<_> = selectors.into_iter().collect();
        selectors.sort_unstable();
        selectors.dedup();
        let mut index = NameIndex::default();
        for selector in &selectors {
            index.insert(selector, ());
        }
        Self(Arc::new(Indexed { selectors, index }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_index_finds_what_asking_every_selector_finds(
            patterns in proptest::collection::vec("(\\*\\*?\\.)?[ab*]{1,2}(\\.[ab*]{1,2}){0,2}\\.?", 1..12),
            name in "([ab]{1,2}\\.){0,4}")
        {
            let name = if name.is_empty() { Fqdn::root() } else { Fqdn::parse(&name).unwrap() };
            let selectors: Vec<_> = patterns.iter().map(|p| NameSelector::pattern(p).unwrap()).collect();
            let mut index = NameIndex::default();
            for (i, selector) in selectors.iter().enumerate() {
                index.insert(selector, i);
            }
            let mut found: Vec<_> = index.matching(&name).copied().collect();
            found.sort_unstable();
            let expected: Vec<_> = (0..selectors.len()).filter(|i| selectors[*i].matches(&name)).collect();
            prop_assert_eq!(found, expected);
            let set: NameSet = selectors.iter().cloned().collect();
            prop_assert_eq!(set.matches(&name), selectors.iter().any(|s| s.matches(&name)));
        }
    }
}
