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

use super::{Action, L4, Level, Precedence};

/// What one or more rules say about one L4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer<R> {
    pub(crate) l4: L4,
    pub(crate) action: Action,
    pub(crate) precedence: Precedence,
    /// Where it was decided. A hole that a `Pass` leaves can be stronger than that.
    pub(crate) decided: Level,
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
    // One bit for each length of prefix that was kept: most are nowhere, and need no look-up.
    let mut lengths = 0_u32;
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
        let mut wider = layer.l4.wider().filter(|l4| lengths & bit(*l4) != 0);
        let cover = wider.find_map(|l4| by_l4.get(&l4));
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
        lengths |= bit(layer.l4);
        by_l4.insert(layer.l4, kept.len());
        kept.push(layer);
    }
    kept
}

/// The bit of its length.
fn bit(l4: L4) -> u32 {
    1_u32.checked_shl(l4.specificity().into()).unwrap_or(0)
}

/// What a longest-prefix look-up finds.
pub(crate) fn lookup<R>(layers: &[Layer<R>], l4: L4) -> Option<&Layer<R>> {
    layers
        .iter()
        .filter(|layer| layer.l4.covers(l4))
        .max_by_key(|layer| layer.l4.specificity())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compiled::{PortPrefix, Protocol};

    fn l4() -> impl Strategy<Value = L4> {
        let proto = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
        prop_oneof![
            Just(L4::Any),
            (proto, 0u16..4, 12u8..=16).prop_map(|(proto, port, len)| {
                let ports = PortPrefix::split(port << 2, (port << 2) + (1 << (16 - len)) - 1);
                L4::new(proto, ports[0])
            }),
        ]
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Allow),
            Just(Action::Deny),
            Just(Action::RedirectDns),
            Just(Action::NeedsProxy)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_longest_prefix_decides_what_all_of_them_decide(
            layers in proptest::collection::vec((l4(), action()), 0..12))
        {
            let layers: Vec<_> = layers.into_iter().enumerate().map(|(rule, (l4, action))| Layer {
                l4, action, precedence: Precedence::of(action), decided: Level::NORMAL, rules: vec![rule],
            }).collect();
            let resolved = resolve(layers.clone());
            for proto in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                for port in 0..40 {
                    let packet = L4::port(proto, port);
                    let strongest = layers.iter().filter(|l| l.l4.covers(packet)).map(|l| l.precedence).max();
                    let rules: Vec<_> = layers.iter()
                        .filter(|l| l.l4.covers(packet) && Some(l.precedence) == strongest)
                        .flat_map(|l| l.rules.clone())
                        .collect();
                    let found = lookup(&resolved, packet);
                    prop_assert_eq!(found.map(|l| l.precedence), strongest);
                    prop_assert_eq!(found.map_or(vec![], |l| l.rules.clone()), rules);
                }
            }
        }
    }
}
