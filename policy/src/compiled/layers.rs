//! Keeping the invariant: no entry hidden behind a longer prefix with lower precedence.
//!
//! In:  for one direction and one peer, any number of layers: (ports, precedence, rules).
//! Out: at most one layer per distinct L4, each as strong as the strongest that covers it.
//! Not here: peers; how the results are stored.
//!
//! The POLICY map answers with its longest matching prefix only. A short deny must therefore be
//! repeated on every longer allow below it; a longer and weaker one is left out where the
//! shorter one already says everything.

use super::{Action, L4, Precedence};

/// What one or more rules say about one L4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer<R> {
    pub(crate) l4: L4,
    pub(crate) action: Action,
    pub(crate) precedence: Precedence,
    /// Indexes of the rules, sorted.
    pub(crate) rules: Vec<R>,
}

/// Merges the layers of one direction and peer.
pub(crate) fn resolve<R: Ord + Copy>(mut layers: Vec<Layer<R>>) -> Vec<Layer<R>> {
    // Shorter prefixes first, so that whatever covers a layer is settled before it.
    layers.sort_unstable_by(|a, b| {
        (a.l4.specificity(), a.l4)
            .cmp(&(b.l4.specificity(), b.l4))
            .then_with(|| b.precedence.cmp(&a.precedence))
    });
    let mut out: Vec<Layer<R>> = Vec::with_capacity(layers.len());
    for layer in layers {
        if let Some(same) = out.last_mut().filter(|last| last.l4 == layer.l4) {
            // Sorted by precedence: what comes later is at most as strong.
            if same.precedence == layer.precedence {
                unite(&mut same.rules, &layer.rules);
            }
            continue;
        }
        out.push(layer);
    }
    // Every covering layer stands before the covered one, and already holds the strongest of all
    // that cover it in turn, so the nearest one is enough.
    let mut kept: Vec<Layer<R>> = Vec::with_capacity(out.len());
    for mut layer in out {
        if let Some(cover) = kept.iter().rev().find(|k| k.l4.covers(layer.l4)) {
            if cover.precedence > layer.precedence {
                continue;
            }
            if cover.precedence == layer.precedence {
                unite(&mut layer.rules, &cover.rules);
            }
        }
        kept.push(layer);
    }
    kept
}

fn unite<R: Ord + Copy>(into: &mut Vec<R>, from: &[R]) {
    into.extend_from_slice(from);
    into.sort_unstable();
    into.dedup();
}
