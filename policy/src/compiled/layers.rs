//! Keeping the invariant: no entry hidden behind a longer prefix with lower precedence.
//!
//! In:  for one direction and one peer, any number of layers: (ports, precedence, rules).
//! Out: at most one layer per distinct L4, each as strong as the strongest that covers it.
//! Not here: peers; how the results are stored.
//!
//! The POLICY map answers with its longest matching prefix only. A weak layer inside a stronger,
//! wider one is therefore left out, and one of equal strength also speaks for the rules of the
//! wider one.

use std::collections::HashMap;

use super::{Action, L4, Precedence};

/// What one or more rules say about one L4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer<R> {
    pub(crate) l4: L4,
    pub(crate) action: Action,
    pub(crate) precedence: Precedence,
    /// The rules, sorted.
    pub(crate) rules: Vec<R>,
}

/// Merges the layers of one direction and peer; shorter prefixes come first in the result.
pub(crate) fn resolve<R: Ord + Copy>(mut layers: Vec<Layer<R>>) -> Vec<Layer<R>> {
    let key = |layer: &Layer<R>| (layer.l4.specificity(), layer.l4);
    layers.sort_by(|a, b| {
        key(a)
            .cmp(&key(b))
            .then_with(|| b.precedence.cmp(&a.precedence))
    });
    let mut kept: Vec<Layer<R>> = Vec::with_capacity(layers.len());
    let mut by_l4: HashMap<L4, usize> = HashMap::with_capacity(layers.len());
    let mut layers = layers.into_iter().peekable();
    while let Some(mut layer) = layers.next() {
        while let Some(same) = layers.next_if(|next| next.l4 == layer.l4) {
            // Sorted by precedence: what comes later is at most as strong.
            if same.precedence == layer.precedence {
                layer.rules.extend(same.rules);
            }
        }
        // Whatever covers this layer was settled before it and is as strong as all that cover it
        // in turn, so the nearest one is enough.
        let cover = layer.l4.wider().find_map(|l4| by_l4.get(&l4));
        if let Some(cover) = cover.and_then(|at| kept.get(*at)) {
            if cover.precedence > layer.precedence {
                continue;
            }
            if cover.precedence == layer.precedence {
                layer.rules.extend_from_slice(&cover.rules);
            }
        }
        layer.rules.sort_unstable();
        layer.rules.dedup();
        by_l4.insert(layer.l4, kept.len());
        kept.push(layer);
    }
    kept
}

/// What a longest-prefix look-up finds.
pub(crate) fn lookup<R>(layers: &[Layer<R>], l4: L4) -> Option<&Layer<R>> {
    layers
        .iter()
        .filter(|layer| layer.l4.covers(l4))
        .max_by_key(|layer| layer.l4.specificity())
}
