//! The ledger: what every endpoint learned from DNS, and until when.
//!
//! In:  accepted answers, policy changes, time.
//! Out: the smallest [`GrantChange`]s that make the kernel maps agree.
//! Not here: writing maps (`fqdn-ebpf/loader`), which answers are accepted (`reply`).
//!
//! Invariants: a grant outlives neither its TTL contract nor the rule behind it. Nothing one
//! endpoint does changes what another one holds. Every table is bounded per endpoint; at a bound
//! the entry of that endpoint that was taught longest ago goes.

mod book;
mod clean;
mod entry;
mod names;
mod rematch;
mod restore;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use identity::{EndpointId, SelectorSet};
use policy::fqdn::Fqdn;
use smallvec::SmallVec;

use crate::{BatchId, CacheRow, GrantChange, Learned, Limits, Moment, cache::Source};
use book::{Book, Due, Queue};
use entry::Entry;
use names::NameEntry;

/// How many entries one run of the sweep looks at: a bound on the time it takes.
const SWEEP: usize = 256;

/// An accepted answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lesson {
    pub(crate) endpoint: EndpointId,
    pub(crate) name: Fqdn,
    /// The selectors it matches; not empty.
    pub(crate) set: SelectorSet,
    /// Each once.
    pub(crate) addresses: SmallVec<[IpAddr; 4]>,
    /// As in the answer.
    pub(crate) ttl: u32,
    pub(crate) looked_up: Moment,
    pub(crate) expires: Moment,
}

/// What a lesson changed, for the case that it cannot be written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Undo {
    rows: SmallVec<[UndoRow; 2]>,
    evicted: Vec<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct UndoRow {
    address: IpAddr,
    prior: Option<Moment>,
    wrote: bool,
}

/// Why an answer cannot be learned from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// One answer, too many addresses.
    #[error("the answer has {found} addresses, more than the {limit} a name may have")]
    Addresses { found: usize, limit: usize },
}

/// Everything learned.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    books: BTreeMap<EndpointId, Book>,
    due: Queue,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            books: BTreeMap::new(),
            due: Queue::new(),
        }
    }

    /// Enters a lesson; hands out what has to be written before it counts. What the kernel
    /// already holds long enough is not written again.
    pub(crate) fn teach(
        &mut self,
        now: Moment,
        lesson: &Lesson,
    ) -> Result<(Vec<GrantChange>, Undo), LedgerError> {
        let limit = self
            .limits
            .addresses_per_name
            .min(self.limits.addresses_per_endpoint);
        let found = lesson.addresses.len();
        if found > limit {
            return Err(LedgerError::Addresses { found, limit });
        }
        let book = self.books.entry(lesson.endpoint).or_default();
        let mut undo = Undo::default();
        let mut puts = Vec::new();
        for address in &lesson.addresses {
            let key = Due::Address(lesson.endpoint, *address);
            let entry = book.addresses.get_or_insert_mut(*address, || {
                self.due.insert((lesson.expires, key.clone()));
                Entry::new(lesson.expires)
            });
            let prior = entry.ends(&lesson.set);
            let wrote = entry.doubt.is_some() || !entry.covers(&lesson.set, lesson.expires);
            if wrote {
                entry.extend(now, &lesson.set, lesson.expires);
                requeue_earlier(&mut self.due, entry, key, now);
                puts.push(GrantChange::Put(Learned {
                    endpoint: lesson.endpoint,
                    address: *address,
                    slots: entry.slots(now),
                }));
            }
            undo.rows.push(UndoRow {
                address: *address,
                prior,
                wrote,
            });
        }
        // The lesson's own addresses were touched just now, so it is never them that go.
        let mut changes = Vec::with_capacity(puts.len());
        undo.evicted = book.evict(
            lesson.endpoint,
            self.limits.addresses_per_endpoint,
            &mut self.due,
        );
        let endpoint = lesson.endpoint;
        let removals = undo.evicted.iter().map(|address| GrantChange::Remove {
            endpoint,
            address: *address,
        });
        changes.extend(removals);
        changes.append(&mut puts);
        Ok((changes, undo))
    }

    /// The lesson's batch was written.
    pub(crate) fn written(&mut self, batch: BatchId, lesson: &Lesson, undo: &Undo) {
        for row in undo.rows.iter().filter(|row| row.wrote) {
            self.settled(batch, lesson.endpoint, row.address);
        }
    }

    /// Whether everything the lesson opens is in the kernel, now that its batch is written; if
    /// so, its name is remembered. What the batch did not write itself may have failed or gone
    /// meanwhile.
    pub(crate) fn confirm(&mut self, now: Moment, lesson: &Lesson) -> bool {
        let Some(book) = self.books.get(&lesson.endpoint) else {
            return false;
        };
        let mut explained = true;
        let complete = lesson.addresses.iter().all(|address| {
            book.addresses.peek(address).is_some_and(|entry| {
                explained &= entry.names.contains(&lesson.name);
                entry.doubt.is_none() && entry.covers(&lesson.set, lesson.expires)
            })
        });
        if complete {
            self.annotate(now, lesson, explained);
        }
        complete
    }

    /// The lesson's batch was not written. Takes back what it would have opened; hands out what
    /// makes the kernel agree again, however far the batch came.
    pub(crate) fn undo(
        &mut self,
        now: Moment,
        batch: BatchId,
        lesson: &Lesson,
        undo: &Undo,
    ) -> Vec<GrantChange> {
        if let Some(book) = self.books.get_mut(&lesson.endpoint) {
            for row in undo.rows.iter().filter(|row| row.wrote) {
                if let Some(entry) = book.addresses.peek_mut(&row.address) {
                    entry.restore(&lesson.set, lesson.expires, row.prior);
                    entry.doubt = Some(batch);
                }
            }
        }
        let written = undo
            .rows
            .iter()
            .filter(|row| row.wrote)
            .map(|row| &row.address);
        let endpoint = lesson.endpoint;
        written
            .chain(&undo.evicted)
            .map(|address| self.reconcile(now, endpoint, *address))
            .collect()
    }

    /// What the kernel shall hold for an address, whatever it holds.
    pub(crate) fn reconcile(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        address: IpAddr,
    ) -> GrantChange {
        let slots = self
            .books
            .get(&endpoint)
            .and_then(|book| book.addresses.peek(&address))
            .map(|entry| entry.slots(now))
            .unwrap_or_default();
        if slots.is_empty() {
            self.drop_address(endpoint, address);
            return GrantChange::Remove { endpoint, address };
        }
        GrantChange::Put(Learned {
            endpoint,
            address,
            slots,
        })
    }

    /// A batch without a lesson was written.
    pub(crate) fn settled(&mut self, batch: BatchId, endpoint: EndpointId, address: IpAddr) {
        if let Some(entry) = self.entry(endpoint, address)
            && entry.doubt.is_some_and(|doubt| doubt <= batch)
        {
            entry.doubt = None;
        }
    }

    /// A batch without a lesson was not written.
    pub(crate) fn doubt(&mut self, batch: BatchId, endpoint: EndpointId, address: IpAddr) {
        if let Some(entry) = self.entry(endpoint, address) {
            entry.doubt = Some(batch);
        }
    }

    /// Remembers where a name led that nothing matches, for the day a rule does.
    pub(crate) fn note_unmatched(&mut self, now: Moment, lesson: &Lesson) {
        let book = self.books.entry(lesson.endpoint).or_default();
        let limit = self.limits.unmatched_names;
        let entry = book.unmatched.get_or_insert_mut_ref(&lesson.name, || {
            NameEntry::new(SelectorSet::default(), now, lesson.ttl)
        });
        entry.looked_up = lesson.looked_up;
        entry.ttl = lesson.ttl;
        entry.lead_to(now, &lesson.addresses, lesson.expires, UNMATCHED_ADDRESSES);
        while book.unmatched.len() > limit {
            book.unmatched.pop_lru();
        }
    }

    /// Does what time asks for, up to a bound; what is left has a deadline in the past.
    pub(crate) fn sweep(&mut self, now: Moment) -> Vec<GrantChange> {
        let mut changes = Vec::new();
        for _ in 0..SWEEP {
            let Some((moment, due)) = self.due.pop_first() else {
                break;
            };
            if moment > now {
                self.due.insert((moment, due));
                break;
            }
            match due {
                Due::Address(endpoint, address) => {
                    changes.extend(self.look_at_address(now, endpoint, address))
                }
                Due::Name(endpoint, name) => self.look_at_name(now, endpoint, name),
            }
        }
        changes
    }

    /// When `sweep` has something to do.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.due.first().map(|(moment, _)| *moment)
    }

    /// Forgets an endpoint.
    pub(crate) fn forget(&mut self, endpoint: EndpointId) -> Vec<GrantChange> {
        let Some(book) = self.books.remove(&endpoint) else {
            return Vec::new();
        };
        for (name, entry) in &book.names {
            self.due
                .remove(&(entry.due, Due::Name(endpoint, name.clone())));
        }
        book.addresses
            .iter()
            .map(|(address, entry)| {
                let address = *address;
                self.due
                    .remove(&(entry.due, Due::Address(endpoint, address)));
                GrantChange::Remove { endpoint, address }
            })
            .collect()
    }

    /// The selectors an address is open under.
    pub(crate) fn selectors(
        &self,
        now: Moment,
        endpoint: EndpointId,
        address: IpAddr,
    ) -> SelectorSet {
        let entry = self
            .books
            .get(&endpoint)
            .and_then(|book| book.addresses.peek(&address));
        let Some(entry) = entry else {
            return SelectorSet::default();
        };
        let rows = entry.rows.iter();
        SelectorSet::new(
            rows.filter(|row| row.expires > now)
                .flat_map(|row| row.set.iter()),
        )
    }

    /// The names that led an endpoint to an address, newest last.
    pub(crate) fn names_of(&self, endpoint: EndpointId, address: IpAddr) -> &[Fqdn] {
        self.books
            .get(&endpoint)
            .and_then(|book| book.addresses.peek(&address))
            .map_or(&[], |entry| &entry.names)
    }

    /// Everything learned, by endpoint and name.
    pub(crate) fn rows(&self, now: Moment, endpoint: Option<EndpointId>) -> Vec<CacheRow> {
        let mut rows = Vec::new();
        let wanted = self
            .books
            .iter()
            .filter(|(id, _)| endpoint.is_none_or(|only| only == **id));
        for (id, book) in wanted {
            for (name, entry) in &book.names {
                let open = |address: &IpAddr| book.addresses.contains(address);
                let addresses: Vec<_> = entry
                    .addresses
                    .iter()
                    .filter(|(address, ends)| *ends > now && open(address))
                    .map(|(address, _)| *address)
                    .collect();
                if !addresses.is_empty() {
                    rows.push(CacheRow {
                        endpoint: *id,
                        source: Source::Lookup,
                        name: name.clone(),
                        ttl: entry.ttl,
                        looked_up: entry.looked_up,
                        expires: entry.expires(),
                        addresses,
                    });
                }
            }
        }
        rows.sort_by(|a, b| (a.endpoint, &a.name).cmp(&(b.endpoint, &b.name)));
        rows
    }

    /// Every name, the one that was asked for longest ago first.
    pub(crate) fn remembered(&self, now: Moment) -> Vec<CacheRow> {
        let mut rows = self.rows(now, None);
        for (id, book) in &self.books {
            let live = book.unmatched.iter().filter_map(|(name, entry)| {
                let ends = |(_, ends): &(IpAddr, Moment)| *ends;
                let live = entry.addresses.iter().filter(|address| ends(address) > now);
                Some(CacheRow {
                    endpoint: *id,
                    source: Source::Lookup,
                    name: name.clone(),
                    ttl: entry.ttl,
                    looked_up: entry.looked_up,
                    expires: live.clone().map(ends).min()?,
                    addresses: live.map(|(address, _)| *address).collect(),
                })
            });
            rows.extend(live);
        }
        rows.sort_by_key(|row| row.looked_up);
        rows
    }

    /// How many names and addresses an endpoint holds.
    pub(crate) fn usage(&self, endpoint: EndpointId) -> (usize, usize) {
        self.books
            .get(&endpoint)
            .map_or((0, 0), |book| (book.names.len(), book.addresses.len()))
    }

    fn entry(&mut self, endpoint: EndpointId, address: IpAddr) -> Option<&mut Entry> {
        self.books.get_mut(&endpoint)?.addresses.peek_mut(&address)
    }

    fn drop_address(&mut self, endpoint: EndpointId, address: IpAddr) {
        let entry = self
            .books
            .get_mut(&endpoint)
            .and_then(|book| book.addresses.pop(&address));
        if let Some(entry) = entry {
            self.due
                .remove(&(entry.due, Due::Address(endpoint, address)));
        }
    }

    /// `explained`: the addresses know the name already.
    fn annotate(&mut self, now: Moment, lesson: &Lesson, explained: bool) {
        let Some(book) = self.books.get_mut(&lesson.endpoint) else {
            return;
        };
        if !explained {
            for address in &lesson.addresses {
                if let Some(entry) = book.addresses.peek_mut(address) {
                    entry.name(&lesson.name, self.limits.names_per_address);
                }
            }
        }
        let mut is_new = false;
        let entry = book.names.get_or_insert_mut_ref(&lesson.name, || {
            is_new = true;
            NameEntry::new(lesson.set.clone(), lesson.looked_up, lesson.ttl)
        });
        entry.set = lesson.set.clone();
        entry.looked_up = lesson.looked_up;
        entry.ttl = lesson.ttl;
        entry.lead_to(
            now,
            &lesson.addresses,
            lesson.expires,
            self.limits.addresses_per_name,
        );
        if !is_new {
            return;
        }
        entry.due = entry.expires();
        self.due
            .insert((entry.due, Due::Name(lesson.endpoint, lesson.name.clone())));
        book.unmatched.pop(&lesson.name);
        let limits = self.limits;
        book.trim_names(
            lesson.endpoint,
            limits.names_per_endpoint,
            limits.unmatched_names,
            &mut self.due,
        );
    }

    /// An entry's time has come: it is gone, or a shared slot needs to be written anew, or it
    /// was extended since it was queued.
    fn look_at_address(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        address: IpAddr,
    ) -> Option<GrantChange> {
        let book = self.books.get_mut(&endpoint)?;
        let entry = book.addresses.peek_mut(&address)?;
        let shares = entry.rows.len() > crate::MAX_SLOTS;
        entry.rows.retain(|row| row.expires > now);
        if entry.rows.is_empty() {
            book.addresses.pop(&address);
            return Some(GrantChange::Remove { endpoint, address });
        }
        // Strictly later, or an entry due at this moment would be looked at for ever.
        entry.due = entry
            .look_again(now)
            .max(Moment::from_nanos(now.nanos().saturating_add(1)));
        self.due
            .insert((entry.due, Due::Address(endpoint, address)));
        shares.then(|| {
            GrantChange::Put(Learned {
                endpoint,
                address,
                slots: entry.slots(now),
            })
        })
    }

    fn look_at_name(&mut self, now: Moment, endpoint: EndpointId, name: Fqdn) {
        let Some(book) = self.books.get_mut(&endpoint) else {
            return;
        };
        let Some(entry) = book.names.peek_mut(&name) else {
            return;
        };
        entry.due = entry.expires();
        if entry.due > now {
            self.due.insert((entry.due, Due::Name(endpoint, name)));
        } else {
            book.names.pop(&name);
        }
    }
}

/// Addresses kept of a name that matches nothing.
const UNMATCHED_ADDRESSES: usize = 16;

/// Queues an entry under an earlier moment if a shared slot asks for it. A later moment is found
/// out when the earlier one comes.
fn requeue_earlier(due: &mut Queue, entry: &mut Entry, key: Due, now: Moment) {
    let wanted = entry.look_again(now);
    if wanted < entry.due {
        due.remove(&(entry.due, key.clone()));
        due.insert((wanted, key));
        entry.due = wanted;
    }
}
