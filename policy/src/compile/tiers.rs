//! Tiers: who is asked first, and what passing on to the next one leaves.
//!
//! In:  the tier of a rule and the place of a clause in it; all that is said about one peer.
//! Out: [`Level`]s to compare; layers in which nothing passes any more.
//! Not here: the tiers that do not count because rules of the one before shut everything (`mod`).
//!
//! The POLICY map cannot pass: a hole that a `Pass` leaves in a wider rule of its tier becomes an
//! entry with what the tiers after it say.

use std::collections::BTreeMap;

use super::part::RuleIndex;
use crate::{
    compiled::{Action, L4, Layer, Level, Precedence},
    model::Tier,
};

/// Places in a tier: priorities 0 to 1000, 32 clauses each.
const PLACES: u32 = 1001 * 32;

/// How early a clause is asked.
pub(super) fn level(tier: Tier, order: u16) -> Level {
    let place = |priority: u16| {
        let later = u32::from(priority.min(1000)) * 32 + u32::from(order.min(31));
        PLACES.saturating_sub(later)
    };
    match tier {
        Tier::Admin(priority) => Level::NORMAL.above(place(priority)),
        Tier::Normal => Level::NORMAL,
        Tier::Baseline(priority) => Level::DEFAULT.above(place(priority)),
    }
}

/// What is said about some traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Say {
    /// The next tier decides. The weakest of its level.
    Pass,
    /// This happens.
    Do(Action),
}

/// What one rule says about one L4.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) l4: L4,
    pub(super) level: Level,
    pub(super) say: Say,
    pub(super) rules: Vec<RuleIndex>,
}

impl Said {
    fn precedence(&self) -> Precedence {
        match self.say {
            Say::Pass => Precedence::pass(self.level),
            Say::Do(action) => Precedence::at(self.level, action),
        }
    }

    /// A layer, where nothing passes.
    pub(super) fn layer(self) -> Option<Layer<RuleIndex>> {
        let Say::Do(action) = self.say else {
            return None;
        };
        Some(Layer {
            l4: self.l4,
            action,
            precedence: self.precedence(),
            decided: self.level,
            rules: self.rules,
        })
    }
}

/// What is strongest in one tier.
#[derive(Clone)]
struct Top {
    precedence: Precedence,
    say: Say,
    rules: Vec<RuleIndex>,
}

/// Per tier, from the first asked to the last.
type Tops = [Option<Top>; 3];

const fn tier_of(level: Level) -> usize {
    if level.get() > Level::NORMAL.get() {
        0
    } else if level.get() == Level::NORMAL.get() {
        1
    } else {
        2
    }
}

/// Decides every L4 that anything is said about. `otherwise` is what happens where nobody speaks.
///
/// Where a `Pass` comes before something that is learned by name in the same tier (`below`: the
/// strongest level at which a name is accepted), the decision is as strong as the `Pass`.
pub(super) fn without_passes(
    said: Vec<Said>,
    otherwise: Action,
    below: Option<Level>,
) -> Vec<Layer<RuleIndex>> {
    let mut tops: BTreeMap<L4, Tops> = BTreeMap::new();
    for one in said {
        let here = tops.entry(one.l4).or_default();
        if let Some(top) = here.get_mut(tier_of(one.level)) {
            let precedence = one.precedence();
            strongest(
                top,
                Top {
                    precedence,
                    say: one.say,
                    rules: one.rules,
                },
            );
        }
    }
    let mut layers: Vec<_> = tops
        .keys()
        .map(|l4| decide(*l4, &tops, otherwise, below))
        .collect();
    layers.sort_by_key(|layer| (layer.l4.specificity(), layer.l4));
    layers
}

fn strongest(own: &mut Option<Top>, other: Top) {
    match own {
        Some(top) if top.precedence > other.precedence => {}
        Some(top) if top.precedence == other.precedence => top.rules.extend(other.rules),
        _ => *own = Some(other),
    }
}

fn decide(
    l4: L4,
    tops: &BTreeMap<L4, Tops>,
    otherwise: Action,
    below: Option<Level>,
) -> Layer<RuleIndex> {
    let mut all: Tops = Tops::default();
    for at in std::iter::once(l4).chain(l4.wider()) {
        for (own, top) in all.iter_mut().zip(tops.get(&at).into_iter().flatten()) {
            if let Some(top) = top {
                strongest(own, top.clone());
            }
        }
    }
    let mut passed: Option<Level> = None;
    let mut decided = Top {
        precedence: Precedence::otherwise(),
        say: Say::Do(otherwise),
        rules: Vec::new(),
    };
    for top in all.into_iter().flatten() {
        if top.say == Say::Pass {
            passed = passed.max(Some(top.precedence.level()));
        } else {
            decided = top;
            break;
        }
    }
    let action = match decided.say {
        Say::Do(action) => action,
        Say::Pass => otherwise,
    };
    let mut precedence = decided.precedence;
    let at = precedence.level();
    if let (Some(passed), Some(below)) = (passed, below)
        && passed > below
    {
        precedence = precedence.max(Precedence::at(passed, action));
    }
    decided.rules.sort_unstable();
    decided.rules.dedup();
    Layer {
        l4,
        action,
        precedence,
        decided: at,
        rules: decided.rules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiled::{PortPrefix, Protocol, lookup};

    fn said(l4: L4, tier: Tier, order: u16, say: Say) -> Said {
        Said {
            l4,
            level: level(tier, order),
            say,
            rules: vec![u32::from(order)],
        }
    }

    #[test]
    fn earlier_is_stronger_and_tiers_never_mix() {
        let ladder = [
            level(Tier::Admin(0), 0),
            level(Tier::Admin(0), 24),
            level(Tier::Admin(1), 0),
            level(Tier::Admin(1000), 24),
            level(Tier::Normal, 0),
            level(Tier::Baseline(0), 0),
            level(Tier::Baseline(1000), 24),
            Level::DEFAULT,
        ];
        assert!(ladder.is_sorted_by(|a, b| a > b), "{ladder:?}");
    }

    #[test]
    fn a_pass_leaves_a_hole_that_the_next_tier_fills() {
        let http = L4::port(Protocol::Tcp, 80);
        let low = L4::new(Protocol::Tcp, PortPrefix::split(64, 127)[0]);
        let mut layers = without_passes(
            vec![
                said(http, Tier::Admin(0), 0, Say::Pass),
                said(L4::Any, Tier::Admin(0), 1, Say::Do(Action::Deny)),
                said(low, Tier::Normal, 0, Say::Do(Action::Allow)),
            ],
            Action::Deny,
            None,
        );
        layers.reverse();
        let at = |l4| lookup(&layers, l4).map(|l| l.action);
        assert_eq!(at(http), Some(Action::Allow));
        assert_eq!(at(L4::port(Protocol::Tcp, 81)), Some(Action::Deny));
        assert_eq!(at(L4::port(Protocol::Udp, 80)), Some(Action::Deny));
    }

    #[test]
    fn what_nobody_speaks_about_after_a_pass_is_the_weakest_of_all() {
        let http = L4::port(Protocol::Tcp, 80);
        let input = vec![
            said(http, Tier::Admin(0), 0, Say::Pass),
            said(L4::Any, Tier::Admin(0), 1, Say::Do(Action::Deny)),
        ];
        let layers = without_passes(input.clone(), Action::Allow, None);
        let hole = lookup(&layers, http).unwrap();
        assert_eq!((hole.action, hole.precedence.get()), (Action::Allow, 0));
        // Before a name accepted later in the tier it is as strong as the pass.
        let layers = without_passes(input, Action::Deny, Some(level(Tier::Admin(0), 2)));
        let hole = lookup(&layers, http).unwrap();
        assert!(hole.precedence > Precedence::at(level(Tier::Admin(0), 2), Action::Allow));
        assert_eq!(hole.action, Action::Deny);
    }
}
