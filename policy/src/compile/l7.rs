//! Rules about what is inside of connections, and what they bind.
//!
//! In:  port rules with an L7 part or with DNS names, as they are expanded.
//! Out: [`L7Grant`]s; which plain grants do not count; contradictions.
//! Not here: judging messages (`l7`).
//!
//! Rules of one selector and port are one filter (`pkg/policy/l4.go` of Cilium): read by one proxy,
//! and once one of them names servers, all its connections have to name one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{CompileError, Grant, tiers::Say};
use crate::{
    compiled::{Action, Direction, L4, L7Grant, Peer, RuleOrigin},
    l7::L7,
};

/// Number of a peer selector.
pub(super) type GroupIndex = u32;

/// What is gathered.
#[derive(Default)]
pub(super) struct Rules {
    grants: Vec<L7Grant>,
    groups: HashMap<String, GroupIndex>,
    kinds: HashMap<(Direction, GroupIndex, L4), (&'static str, Arc<RuleOrigin>)>,
    bound: BTreeSet<(Direction, GroupIndex, L4)>,
}

impl Rules {
    /// The number of a selector by its text.
    pub(super) fn group(&mut self, what: &str) -> GroupIndex {
        if let Some(known) = self.groups.get(what) {
            return *known;
        }
        // Far fewer than 2^32: every group was a value of a bounded file.
        let next = self.groups.len() as GroupIndex;
        self.groups.insert(what.to_owned(), next);
        next
    }

    /// Notes which proxy reads a port of a group.
    pub(super) fn read_as(
        &mut self,
        kind: &'static str,
        direction: Direction,
        group: GroupIndex,
        l4s: &[L4],
        origin: &Arc<RuleOrigin>,
    ) -> Result<(), CompileError> {
        for l4 in l4s {
            let (known, first) = self
                .kinds
                .entry((direction, group, *l4))
                .or_insert_with(|| (kind, Arc::clone(origin)));
            if *known != kind {
                return Err(CompileError::Conflict {
                    first: Box::new(RuleOrigin::clone(first)),
                    second: Box::new(RuleOrigin::clone(origin)),
                    kinds: [*known, kind],
                });
            }
        }
        Ok(())
    }

    /// An L7 part for some peers.
    pub(super) fn grant(
        &mut self,
        direction: Direction,
        group: GroupIndex,
        peers: &[Peer],
        l4s: &[L4],
        l7: &Arc<L7>,
        origin: &Arc<RuleOrigin>,
    ) -> Result<(), CompileError> {
        self.read_as(l7.proxy().as_str(), direction, group, l4s, origin)?;
        if !l7.server_names.is_empty() {
            self.bound
                .extend(l4s.iter().map(|l4| (direction, group, *l4)));
        }
        for peer in peers {
            self.grants.extend(l4s.iter().map(|l4| L7Grant {
                direction,
                peer: *peer,
                l4: *l4,
                l7: Arc::clone(l7),
                rule: Arc::clone(origin),
            }));
        }
        Ok(())
    }

    /// How many grants there are.
    pub(super) const fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether a plain allow is bound to the server names that stand beside it.
    pub(super) fn is_bound(&self, grant: &Grant) -> bool {
        grant.say == Say::Do(Action::Allow)
            && grant
                .group
                .is_some_and(|group| self.bound.contains(&(grant.direction, group, grant.l4)))
    }

    pub(super) fn finish(self) -> Vec<L7Grant> {
        self.grants
    }
}
