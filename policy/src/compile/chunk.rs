//! What all rules come to for one direction and one peer.
//!
//! In:  every grant about them, and what holds for all peers ([`Common`]).
//! Out: [`Settled`]: layers that keep the invariant of `compiled`, and DNS rules.
//! Not here: whose grants they are (`part`), numbers of sets of rules (`compiler`).

use std::{collections::BTreeSet, sync::Arc};

use identity::reserved;

use super::{
    CompileError, dns,
    part::{Grant, RuleIndex},
    tiers::{self, Said, Say},
};
use crate::compiled::{Action, Direction, DnsRule, L4, Layer, Level, Peer, RuleOrigin, resolve};

/// One direction and one peer.
pub(super) type Place = (Direction, Peer);

/// What holds for every peer: where it changes, everything is settled anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) ingress: Way,
    pub(super) egress: Way,
    /// The local node may come in.
    pub(super) host: bool,
    /// Names teach: allowed DNS is steered.
    pub(super) learns: bool,
    /// The levels of the first tier at which names are accepted.
    pub(super) accepted: BTreeSet<Level>,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Nothing passes without a rule.
    pub(super) default_deny: bool,
    /// That is so because of a rule: the last tier is never asked.
    pub(super) shut: bool,
}

impl Common {
    pub(super) const fn of(&self, direction: Direction) -> Way {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// What nobody wrote.
    fn unwritten(&self, (direction, peer): Place) -> Vec<Grant> {
        let grant = |l4, level, action| Grant {
            direction,
            peer,
            l4,
            level,
            say: Say::Do(action),
            reader: None,
            bound: false,
            group: None,
            rule: None,
        };
        match (direction, peer) {
            (Direction::Ingress, Peer::Identity(reserved::HOST)) if self.host => {
                vec![grant(L4::Any, Level::NORMAL, Action::Allow)]
            }
            (Direction::Egress, Peer::Any) if self.learns && !self.egress.default_deny => {
                dns::by_names()
                    .map(|(proto, port)| {
                        let l4 = L4::port(proto, port);
                        grant(l4, Level::DEFAULT, Action::RedirectDns)
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Where something stands that nobody wrote.
    pub(super) const UNWRITTEN: [Place; 2] = [
        (Direction::Ingress, Peer::Identity(reserved::HOST)),
        (Direction::Egress, Peer::Any),
    ];
}

/// What one place comes to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) layers: Vec<Layer<RuleIndex>>,
    pub(super) asked: Vec<DnsRule>,
}

/// Settles one place. `everybody` are the grants about every peer.
pub(super) fn settle<'a>(
    place: Place,
    grants: &[Grant],
    everybody: &[Grant],
    common: &Common,
    origin: impl Fn(RuleIndex) -> Option<&'a Arc<RuleOrigin>> + Copy,
) -> Result<Settled, CompileError> {
    let grants = counting(place, grants, common, origin)?;
    if grants.is_empty() {
        return Ok(Settled::default());
    }
    let (direction, peer) = place;
    let mut layers = layers(place, &grants, everybody, common, origin)?;
    let asked = if common.learns && direction == Direction::Egress {
        dns::steer(peer, &mut layers, origin)
    } else {
        Vec::new()
    };
    layers.sort_by_key(|layer| layer.l4);
    Ok(Settled { layers, asked })
}

/// The grants that count, what nobody wrote among them.
fn counting<'a>(
    place: Place,
    grants: &[Grant],
    common: &Common,
    origin: impl Fn(RuleIndex) -> Option<&'a Arc<RuleOrigin>>,
) -> Result<Vec<Grant>, CompileError> {
    let way = common.of(place.0);
    let asked = |grant: &&Grant| !(way.shut && grant.level < Level::NORMAL);
    let mut all: Vec<Grant> = grants.iter().filter(asked).copied().collect();
    let bound = read_once(&all, origin)?;
    // Without default deny a rule about requests adds a look inside and takes nothing away.
    all.retain(|grant| match grant.say {
        Say::Do(Action::NeedsProxy) => way.default_deny,
        // A plain allow is bound to the server names that stand beside it.
        Say::Do(Action::Allow) => grant
            .group
            .is_none_or(|group| !bound.contains(&(group, grant.l4))),
        _ => true,
    });
    all.extend(common.unwritten(place));
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Rules of one selector and port are one filter (`pkg/policy/l4.go` of Cilium): read by one proxy,
/// and once one of them names servers, all its connections have to name one. Returns those.
fn read_once<'a>(
    grants: &[Grant],
    origin: impl Fn(RuleIndex) -> Option<&'a Arc<RuleOrigin>>,
) -> Result<BTreeSet<(u32, L4)>, CompileError> {
    let mut bound = BTreeSet::new();
    let mut read: Vec<_> = grants
        .iter()
        .filter_map(|grant| {
            Some((
                grant.group?,
                grant.l4,
                grant.reader?,
                grant.rule?,
                grant.bound,
            ))
        })
        .collect();
    read.sort_unstable();
    for pair in read.windows(2) {
        let [first, second] = pair else { continue };
        if (first.0, first.1) == (second.0, second.1) && first.2 != second.2 {
            let told = |rule| origin(rule).map(|origin| Box::new(RuleOrigin::clone(origin)));
            if let (Some(one), Some(other)) = (told(first.3), told(second.3)) {
                let (first, second, kinds) = if one <= other {
                    (one, other, [first.2, second.2])
                } else {
                    (other, one, [second.2, first.2])
                };
                return Err(CompileError::Conflict {
                    first,
                    second,
                    kinds,
                });
            }
        }
    }
    bound.extend(
        read.iter()
            .filter(|(.., bound)| *bound)
            .map(|(group, l4, ..)| (*group, *l4)),
    );
    Ok(bound)
}

/// What all grants of one place come to.
fn layers<'a>(
    place: Place,
    grants: &[Grant],
    everybody: &[Grant],
    common: &Common,
    origin: impl Fn(RuleIndex) -> Option<&'a Arc<RuleOrigin>>,
) -> Result<Vec<Layer<RuleIndex>>, CompileError> {
    let (direction, peer) = place;
    let passes = grants.iter().filter(|grant| grant.say == Say::Pass);
    let Some(highest_pass) = passes.map(|grant| grant.level).max() else {
        return Ok(resolve(
            grants.iter().filter_map(|g| g.said().layer()).collect(),
        ));
    };
    let below = common
        .accepted
        .range(..highest_pass)
        .next_back()
        .copied()
        .filter(|_| direction == Direction::Egress);
    let mut said: Vec<_> = grants.iter().map(Grant::said).collect();
    if below.is_some() && peer != Peer::Any {
        // The decision has to stand by itself: it is stronger than those about everybody.
        let everybody = counting((direction, Peer::Any), everybody, common, origin)?;
        said.extend(everybody.iter().map(Grant::said));
    }
    let otherwise = if common.of(direction).default_deny {
        Action::Refuse
    } else {
        Action::Allow
    };
    Ok(tiers::without_passes(said, otherwise, below))
}

impl Grant {
    fn said(&self) -> Said {
        Said {
            l4: self.l4,
            level: self.level,
            say: self.say,
            rules: self.rule.into_iter().collect(),
        }
    }
}
