//! What one address opens for one endpoint.
//!
//! In:  selector sets with an expiry each.
//! Out: the slots that LEARNED shall hold, and when they have to be looked at again.
//! Not here: which addresses there are (`ledger`), names beyond a few to explain the address.
//!
//! A row is one selector set that a name on the address matches, with its own expiry: two names
//! on one address end separately. The kernel has [`MAX_SLOTS`] slots; if there are more rows, those
//! that last longest get slots of their own and the others share one, with the union of their
//! sets and the earliest of their expiries. A shared slot is written anew shortly before it ends,
//! so sharing costs nobody time.

use std::time::Duration;

use identity::SelectorSet;
use policy::fqdn::Fqdn;
use smallvec::SmallVec;

use crate::{BatchId, LearnedSlot, MAX_SLOTS, Moment};

/// Distinct selector sets one address can have for one endpoint.
pub(super) const MAX_ROWS: usize = 16;

/// An entry that ends this little before a new answer is not written again.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// How long before its end a shared slot is written anew. Less than the grace, so that whoever
/// shared it and ends within this time loses grace only.
const REFRESH_AHEAD: Duration = Duration::from_secs(2);

/// One selector set, until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) set: SelectorSet,
    pub(super) expires: Moment,
}

/// The slots of one entry of LEARNED.
pub(super) type Slots = SmallVec<[LearnedSlot; MAX_SLOTS]>;

/// One (endpoint, address).
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) rows: SmallVec<[Row; 1]>,
    /// Names that led here, newest last.
    pub(super) names: SmallVec<[Fqdn; 1]>,
    /// A write failed: what the kernel holds is not known until a batch that is not older than
    /// this one wrote the entry.
    pub(super) doubt: Option<BatchId>,
    /// Under which moment the entry is queued.
    pub(super) due: Moment,
}

impl Entry {
    pub(super) fn new(due: Moment) -> Self {
        Self {
            rows: SmallVec::new(),
            names: SmallVec::new(),
            doubt: None,
            due,
        }
    }

    /// When `set` ends, if there is such a row.
    pub(super) fn ends(&self, set: &SelectorSet) -> Option<Moment> {
        self.rows
            .iter()
            .find(|row| row.set == *set)
            .map(|row| row.expires)
    }

    /// Whether `set` is open until `expires`, give or take the slack.
    pub(super) fn covers(&self, set: &SelectorSet, expires: Moment) -> bool {
        self.ends(set)
            .is_some_and(|ends| ends.after(SLACK) >= expires)
    }

    /// Opens `set` until `expires` at least.
    pub(super) fn extend(&mut self, now: Moment, set: &SelectorSet, expires: Moment) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.set == *set) {
            row.expires = row.expires.max(expires);
            return;
        }
        self.rows.retain(|row| row.expires > now);
        if self.rows.len() >= MAX_ROWS {
            self.fold();
        }
        self.rows.push(Row {
            set: set.clone(),
            expires,
        });
    }

    /// Remembers a name that led here, in place of the oldest when there are `limit`.
    pub(super) fn name(&mut self, name: &Fqdn, limit: usize) {
        if limit == 0 || self.names.contains(name) {
            return;
        }
        if self.names.len() >= limit {
            self.names.remove(0);
        }
        self.names.push(name.clone());
    }

    /// Makes one row of the two that end first, with the earlier end. Sixteen different sets on
    /// one address take a policy written for the purpose.
    fn fold(&mut self) {
        self.rows.sort_by_key(|row| std::cmp::Reverse(row.expires));
        if let (Some(first), Some(second)) = (self.rows.pop(), self.rows.pop()) {
            let folded = first.set.union(&second.set);
            match self.rows.iter_mut().find(|row| row.set == folded) {
                Some(row) => row.expires = row.expires.max(first.expires),
                None => self.rows.push(Row {
                    set: folded,
                    expires: first.expires,
                }),
            }
        }
    }

    /// Puts a row back to what it was before a write that failed.
    pub(super) fn restore(&mut self, set: &SelectorSet, failed: Moment, prior: Option<Moment>) {
        let Some(at) = self
            .rows
            .iter()
            .position(|row| row.set == *set && row.expires == failed)
        else {
            // A later answer went on from there; its own write tells.
            return;
        };
        match (prior, self.rows.get_mut(at)) {
            (Some(prior), Some(row)) => row.expires = prior,
            _ => {
                self.rows.remove(at);
            }
        }
    }

    /// What LEARNED shall hold; empty when nothing is open.
    pub(super) fn slots(&self, now: Moment) -> Slots {
        let Share { own, shared } = self.share(now);
        let slot = |set: SelectorSet, expires| LearnedSlot { set, expires };
        let mut slots: Slots = own
            .iter()
            .map(|row| slot(row.set.clone(), row.expires))
            .collect();
        if let Some(expires) = shared.iter().map(|row| row.expires).min() {
            let set = SelectorSet::new(shared.iter().flat_map(|row| row.set.iter()));
            // If the union is a set of its own already, that one lasts longer.
            if slots.iter().all(|slot| slot.set != set) {
                slots.push(slot(set, expires));
            }
        }
        slots
    }

    /// When the entry has to be looked at again: when its last row ends, or shortly before a
    /// shared slot does.
    pub(super) fn look_again(&self, now: Moment) -> Moment {
        let last = self.rows.iter().map(|row| row.expires).max().unwrap_or(now);
        let shared = self.share(now).shared;
        let ends = shared.iter().map(|row| row.expires).min();
        ends.map_or(last, |ends| ends.before(REFRESH_AHEAD).min(last))
    }

    /// Which rows have a slot of their own and which share one. Every row that shares lasts
    /// longer than `REFRESH_AHEAD`.
    fn share(&self, now: Moment) -> Share<'_> {
        let mut own: SmallVec<[&Row; MAX_SLOTS]> =
            self.rows.iter().filter(|row| row.expires > now).collect();
        let mut shared = SmallVec::new();
        if own.len() > MAX_SLOTS {
            // The set breaks ties, so that equal entries have equal slots.
            own.sort_by(|a, b| b.expires.cmp(&a.expires).then_with(|| a.set.cmp(&b.set)));
            let enough = now.after(REFRESH_AHEAD);
            while own.len() > MAX_SLOTS && own.last().is_some_and(|row| row.expires <= enough) {
                own.pop();
            }
            if own.len() > MAX_SLOTS {
                shared = own.drain(MAX_SLOTS - 1..).collect();
            }
        }
        Share { own, shared }
    }
}

/// The rows of an entry, by how they are written.
struct Share<'a> {
    own: SmallVec<[&'a Row; MAX_SLOTS]>,
    shared: SmallVec<[&'a Row; MAX_SLOTS]>,
}
