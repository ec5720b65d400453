//! Numbers for label sets, CIDR prefixes and FQDN selector sets.
//!
//! In:  label sets of workloads; prefixes of policies; selector sets of names that were resolved.
//! Out: one number per distinct thing, the same one as long as this process or its maps live.
//! Not here: POLICY entries of a number (`policy`), when a number may be forgotten (`agent`).
//!
//! Invariant: a number is never reused, so a stale kernel entry can at worst name a thing that is
//! gone, never another thing.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use crate::{IdentityId, LabelSet, SelectorSet, reserved};

/// Default cap on live FQDN selector sets; beyond it new sets are refused, never merged silently.
pub const MAX_FQDN_SETS_PER_NODE: usize = 65_536;

/// No number is left, or a cap is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentitiesExhausted {
    /// The range for label sets of workloads is used up.
    #[error("no identity number is left for another label set on this node")]
    LabelSets,
    /// The node-local range is used up.
    #[error("no node-local identity number is left")]
    Local,
    /// The cap on FQDN selector sets is reached.
    #[error("the limit of {limit} live FQDN identities is reached")]
    FqdnSets {
        /// The cap in force.
        limit: usize,
    },
}

/// Label sets of workloads, numbered from 256 on.
#[derive(Debug, Default)]
pub struct LabelIdentities {
    by_labels: BTreeMap<LabelSet, IdentityId>,
    by_id: BTreeMap<IdentityId, LabelSet>,
}

impl LabelIdentities {
    /// The number of `labels`, a new one when they were not seen before.
    ///
    /// # Errors
    /// When the range for label sets is used up.
    pub fn intern(&mut self, labels: &LabelSet) -> Result<IdentityId, IdentitiesExhausted> {
        if let Some(id) = self.by_labels.get(labels) {
            return Ok(*id);
        }
        let next = match self.by_id.last_key_value() {
            None => reserved::FIRST_LABEL_SET,
            Some((last, _)) if *last < reserved::LAST_LABEL_SET => {
                IdentityId::from_raw(last.get() + 1)
            }
            Some(_) => return Err(IdentitiesExhausted::LabelSets),
        };
        self.by_labels.insert(labels.clone(), next);
        self.by_id.insert(next, labels.clone());
        Ok(next)
    }

    /// The labels behind a number.
    pub fn get(&self, id: IdentityId) -> Option<&LabelSet> {
        self.by_id.get(&id)
    }

    /// Every number and its labels, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (IdentityId, &LabelSet)> + '_ {
        self.by_id.iter().map(|(id, labels)| (*id, labels))
    }
}

/// What a node-local number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalIdentity {
    /// A prefix some policy names.
    Cidr(IpNet),
    /// A set of FQDN selectors some name matches: an *ephemeral* identity.
    Fqdn(SelectorSet),
}

/// Node-local numbers, from `0x0100_0001` on.
#[derive(Debug)]
pub struct LocalIdentities {
    next: u32,
    cidrs: HashMap<IpNet, IdentityId>,
    sets: HashMap<SelectorSet, IdentityId>,
    by_id: BTreeMap<IdentityId, LocalIdentity>,
    max_sets: usize,
}

impl Default for LocalIdentities {
    fn default() -> Self {
        Self::new(MAX_FQDN_SETS_PER_NODE)
    }
}

impl LocalIdentities {
    /// An empty table that holds at most `max_sets` live FQDN selector sets.
    pub fn new(max_sets: usize) -> Self {
        Self {
            next: IdentityId::first_local().get(),
            cidrs: HashMap::new(),
            sets: HashMap::new(),
            by_id: BTreeMap::new(),
            max_sets,
        }
    }

    /// The number of a prefix; host bits are ignored.
    ///
    /// # Errors
    /// When the node-local range is used up.
    pub fn cidr(&mut self, prefix: IpNet) -> Result<IdentityId, IdentitiesExhausted> {
        let prefix = prefix.trunc();
        if let Some(id) = self.cidrs.get(&prefix) {
            return Ok(*id);
        }
        let id = self.allocate(LocalIdentity::Cidr(prefix))?;
        self.cidrs.insert(prefix, id);
        Ok(id)
    }

    /// The ephemeral identity of a selector set, and whether it was minted by this call (then its
    /// POLICY entries must be written before anything points at it).
    ///
    /// # Errors
    /// When the node-local range or the cap on live sets is used up.
    pub fn fqdn(&mut self, set: &SelectorSet) -> Result<(IdentityId, bool), IdentitiesExhausted> {
        if let Some(id) = self.sets.get(set) {
            return Ok((*id, false));
        }
        if self.sets.len() >= self.max_sets {
            return Err(IdentitiesExhausted::FqdnSets {
                limit: self.max_sets,
            });
        }
        let id = self.allocate(LocalIdentity::Fqdn(set.clone()))?;
        self.sets.insert(set.clone(), id);
        Ok((id, true))
    }

    /// Enters a number that maps of a predecessor still hold. Numbers beyond it come next.
    pub fn restore(&mut self, id: IdentityId, what: LocalIdentity) {
        if !id.is_local_scope() {
            return;
        }
        self.next = self.next.max(id.get().saturating_add(1));
        match &what {
            LocalIdentity::Cidr(prefix) => {
                self.cidrs.insert(*prefix, id);
            }
            LocalIdentity::Fqdn(set) => {
                self.sets.insert(set.clone(), id);
            }
        }
        self.by_id.insert(id, what);
    }

    /// Hands out no number up to this one.
    pub fn skip(&mut self, id: IdentityId) {
        if id.is_local_scope() {
            self.next = self.next.max(id.get().saturating_add(1));
        }
    }

    /// Forgets a number; it is not handed out again.
    pub fn forget(&mut self, id: IdentityId) {
        match self.by_id.remove(&id) {
            Some(LocalIdentity::Cidr(prefix)) => {
                self.cidrs.remove(&prefix);
            }
            Some(LocalIdentity::Fqdn(set)) => {
                self.sets.remove(&set);
            }
            None => {}
        }
    }

    /// What a number stands for.
    pub fn get(&self, id: IdentityId) -> Option<&LocalIdentity> {
        self.by_id.get(&id)
    }

    /// Every live number, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (IdentityId, &LocalIdentity)> + '_ {
        self.by_id.iter().map(|(id, what)| (*id, what))
    }

    fn allocate(&mut self, what: LocalIdentity) -> Result<IdentityId, IdentitiesExhausted> {
        if self.next >= IdentityId::local_end() {
            return Err(IdentitiesExhausted::Local);
        }
        let id = IdentityId::from_raw(self.next);
        self.next += 1;
        self.by_id.insert(id, what);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Label, SelectorId};

    fn set(ids: &[u32]) -> SelectorSet {
        SelectorSet::new(ids.iter().copied().map(SelectorId::new))
    }

    #[test]
    fn the_first_label_set_is_256_and_local_scope_starts_at_16777217() {
        let mut labels = LabelIdentities::default();
        let one: LabelSet = [Label::k8s("app", "a")].into_iter().collect();
        assert_eq!(labels.intern(&one), Ok(reserved::FIRST_LABEL_SET));
        assert_eq!(labels.intern(&one), Ok(reserved::FIRST_LABEL_SET));
        let mut local = LocalIdentities::default();
        assert_eq!(
            local.cidr("10.0.0.1/8".parse().unwrap()).unwrap().get(),
            16_777_217
        );
        assert_eq!(
            local.cidr("10.0.0.0/8".parse().unwrap()).unwrap().get(),
            16_777_217
        );
    }

    #[test]
    fn a_set_beyond_the_cap_is_refused_and_a_known_one_is_not() {
        let mut local = LocalIdentities::new(1);
        let (id, minted) = local.fqdn(&set(&[1])).unwrap();
        assert!(minted);
        assert_eq!(
            local.fqdn(&set(&[2])),
            Err(IdentitiesExhausted::FqdnSets { limit: 1 })
        );
        assert_eq!(local.fqdn(&set(&[1])), Ok((id, false)));
    }

    proptest! {
        #[test]
        fn numbers_are_never_reused(steps in proptest::collection::vec((0u32..6, any::<bool>()), 1..60)) {
            let mut local = LocalIdentities::default();
            let mut handed_out = std::collections::HashSet::new();
            for (selector, forget) in steps {
                let (id, minted) = local.fqdn(&set(&[selector])).unwrap();
                if minted {
                    prop_assert!(handed_out.insert(id));
                }
                prop_assert!(id.is_local_scope());
                if forget {
                    local.forget(id);
                }
            }
        }
    }
}
