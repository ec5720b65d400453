//! What one rule of one policy comes to by itself.
//!
//! In:  a rule that selects the endpoint, expanded (`expand`).
//! Out: [`Part`]: grants, questions, L7 parts; [`Tally`]: what all parts have in common.
//! Not here: what parts come to together (`chunk`).

use std::{collections::BTreeMap, sync::Arc};

use identity::{LabelSet, SelectorId};

use super::{dns::Ask, tiers::Say};
use crate::{
    compiled::{Direction, L4, L7Grant, Level, Peer},
    fqdn::NameSelector,
    model::{Clause, Entity, Peers, Policy, Ports, PrefixRule, Rule, Tier},
};

/// Number of an origin.
pub(super) type RuleIndex = u32;
/// Number of a selector of peers.
pub(super) type GroupIndex = u32;
/// A policy, and which of its rules.
pub(super) type PartKey = (u32, u32);

/// One rule about one peer and one L4, not merged with others yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) direction: Direction,
    pub(super) peer: Peer,
    pub(super) l4: L4,
    pub(super) level: Level,
    pub(super) say: Say,
    /// The proxy that has to read the connections.
    pub(super) reader: Option<&'static str>,
    /// Whether they have to name a server.
    pub(super) bound: bool,
    /// The selector the peer was found by.
    pub(super) group: Option<GroupIndex>,
    pub(super) rule: Option<RuleIndex>,
}

/// One rule of one policy.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) policy: Arc<Policy>,
    pub(super) at: usize,
    /// Sorted.
    pub(super) grants: Vec<Grant>,
    pub(super) asks: Vec<Ask>,
    pub(super) l7: Vec<L7Grant>,
    pub(super) selectors: Vec<(SelectorId, NameSelector)>,
    /// Numbers this part needs.
    pub(super) origins: Vec<RuleIndex>,
    pub(super) groups: Vec<GroupIndex>,
}

impl Part {
    pub(super) fn new(policy: Arc<Policy>, at: usize) -> Self {
        Self {
            policy,
            at,
            grants: Vec::new(),
            asks: Vec::new(),
            l7: Vec::new(),
            selectors: Vec::new(),
            origins: Vec::new(),
            groups: Vec::new(),
        }
    }

    pub(super) fn rule(&self) -> Option<&Rule> {
        self.policy.rules.get(self.at)
    }

    pub(super) fn is_baseline(&self) -> bool {
        self.rule()
            .is_some_and(|rule| matches!(rule.tier, Tier::Baseline(_)))
    }
}

/// What changed around the rules.
#[derive(Clone, Copy, Debug)]
pub(super) enum Around<'a> {
    /// Identities with these labels.
    Labels(&'a LabelSet),
    /// Identities of prefixes, which are parts of worlds with these labels.
    Prefixes(&'a [LabelSet; 2]),
    /// Groups, services, names of ports, addresses.
    Surroundings,
}

impl Around<'_> {
    /// Whether the rule may select others than before.
    pub(super) fn touches(self, rule: &Rule) -> bool {
        let mut clauses = rule.ingress.iter().chain(&rule.egress);
        clauses.any(|clause| self.touches_clause(clause))
    }

    fn touches_clause(self, clause: &Clause) -> bool {
        match self {
            Self::Labels(labels) => match &clause.peers {
                Peers::Endpoints(selectors) | Peers::Nodes(selectors) => {
                    selectors.iter().any(|s| s.value.matches(labels))
                }
                // Entities stand for labels of the cluster or for reserved ones.
                Peers::Entities(entities) => entities
                    .iter()
                    .any(|e| !matches!(e.value, Entity::All | Entity::None)),
                Peers::Networks(_) => true,
                Peers::Any
                | Peers::Nobody
                | Peers::Prefixes(_)
                | Peers::Services(_)
                | Peers::Names(_) => false,
            },
            Self::Prefixes(worlds) => match &clause.peers {
                Peers::Prefixes(_) | Peers::Networks(_) | Peers::Entities(_) => true,
                // Whoever selects the world of a family selects its prefixes.
                Peers::Endpoints(selectors) | Peers::Nodes(selectors) => {
                    let mut all = selectors.iter();
                    all.any(|s| worlds.iter().any(|labels| s.value.matches(labels)))
                }
                Peers::Any | Peers::Nobody | Peers::Services(_) | Peers::Names(_) => false,
            },
            Self::Surroundings => {
                let by_peer = match &clause.peers {
                    Peers::Services(_) | Peers::Networks(_) => true,
                    Peers::Prefixes(rules) => rules
                        .iter()
                        .any(|rule| !matches!(rule.value, PrefixRule::Cidr(_))),
                    _ => false,
                };
                by_peer
                    || matches!(&clause.ports, Ports::Rules(rules) if rules.iter().any(|r| !r.named.is_empty()))
            }
        }
    }
}

/// Counts over all parts: what a change of one rule may change for every other.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    shutting: [usize; 2],
    ingress_rules: usize,
    names: usize,
    baseline_names: usize,
    accepted: BTreeMap<Level, usize>,
    pub(super) grants: usize,
    pub(super) origins: usize,
}

impl Tally {
    /// Counts a part, or takes it out again.
    pub(super) fn count(&mut self, part: &Part, add: bool) {
        let step = |count: &mut usize, by: usize| {
            *count = if add {
                count.saturating_add(by)
            } else {
                count.saturating_sub(by)
            };
        };
        if let Some(rule) = part.rule() {
            for direction in [Direction::Ingress, Direction::Egress] {
                let shuts = usize::from(rule.default_deny(direction));
                if let Some(count) = self.shutting.get_mut(direction as usize) {
                    step(count, shuts);
                }
            }
            let speaks = rule.tier == Tier::Normal && !rule.ingress.is_empty();
            step(&mut self.ingress_rules, usize::from(speaks));
        }
        let names = if part.is_baseline() {
            &mut self.baseline_names
        } else {
            &mut self.names
        };
        step(names, part.selectors.len());
        step(&mut self.grants, part.grants.len() + part.l7.len());
        step(&mut self.origins, part.origins.len());
        for grant in &part.grants {
            if matches!(grant.peer, Peer::Fqdn(_)) && grant.level > Level::NORMAL {
                step(self.accepted.entry(grant.level).or_default(), 1);
            }
        }
        self.accepted.retain(|_, count| *count > 0);
    }

    /// Whether rules put a direction in default deny.
    pub(super) fn shuts(&self, direction: Direction) -> bool {
        self.shutting
            .get(direction as usize)
            .is_some_and(|count| *count > 0)
    }

    /// Whether an ingress rule of the normal tier speaks.
    pub(super) const fn has_ingress_rules(&self) -> bool {
        self.ingress_rules > 0
    }

    /// Whether names teach. Where rules of the normal tier end in a deny, the tier after it is
    /// never asked, nor are its names.
    pub(super) fn has_names(&self) -> bool {
        self.names > 0 || (self.baseline_names > 0 && !self.shuts(Direction::Egress))
    }

    /// The levels of the first tier at which names are accepted.
    pub(super) fn accepted(&self) -> impl Iterator<Item = Level> + '_ {
        self.accepted.keys().copied()
    }
}
