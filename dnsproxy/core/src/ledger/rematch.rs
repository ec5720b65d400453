//! What a changed policy means for names that were resolved before.
//!
//! In:  the endpoint's new policy, or the two that a change is between.
//! Out: changes that open what an added rule allows, and close what a removed one allowed, without
//!      a new lookup.
//! Not here: POLICY entries (`fqdn-ebpf/loader`).

use std::{collections::BTreeMap, net::IpAddr};

use identity::{EndpointId, SelectorSet};
use policy::fqdn::Fqdn;

use super::{
    Due, Ledger,
    book::{Book, Queue},
    entry::{Entry, SLACK, Slots},
    names::NameEntry,
};
use crate::{GrantChange, Learned, Limits, Moment, knowledge::Workload};

/// A name leads to an address until `expires`; it matched `was`, and matches `set` from here on.
struct Claim {
    name: Fqdn,
    was: SelectorSet,
    set: SelectorSet,
    expires: Moment,
}

type Claims = BTreeMap<IpAddr, Vec<Claim>>;

impl Ledger {
    /// Matches everything the endpoint resolved against its new policy.
    pub(crate) fn rematch(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        workload: &Workload,
    ) -> Vec<GrantChange> {
        let Some(book) = self.books.get_mut(&endpoint) else {
            return Vec::new();
        };
        let before = book.slots(now);
        let claims = book.sort_names(now, endpoint, workload, &self.limits, &mut self.due);
        book.rewrite_rows(now, workload, claims, self.limits.names_per_address);
        book.agree(now, endpoint, &before, &self.limits, &mut self.due)
    }
}

impl Book {
    /// What LEARNED shall hold at this moment.
    pub(super) fn slots(&self, now: Moment) -> BTreeMap<IpAddr, Slots> {
        self.addresses
            .iter()
            .map(|(address, entry)| (*address, entry.slots(now)))
            .collect()
    }

    /// Puts every name into the table it belongs to; hands out what the names claim.
    fn sort_names(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        workload: &Workload,
        limits: &Limits,
        queue: &mut Queue,
    ) -> Claims {
        let mut claims = Claims::new();
        let mut matched: Vec<(Fqdn, NameEntry)> = Vec::new();
        let mut unmatched: Vec<(Fqdn, NameEntry)> = Vec::new();
        while let Some((name, mut entry)) =
            self.unmatched.pop_lru().or_else(|| self.names.pop_lru())
        {
            if !entry.set.is_empty() {
                queue.remove(&(entry.due, Due::Name(endpoint, name.clone())));
            }
            entry.addresses.retain(|(_, ends)| *ends > now);
            if entry.addresses.is_empty() {
                continue;
            }
            let was = std::mem::replace(&mut entry.set, workload.selectors_matching(&name));
            for (address, expires) in &entry.addresses {
                claims.entry(*address).or_default().push(Claim {
                    name: name.clone(),
                    was: was.clone(),
                    set: entry.set.clone(),
                    expires: *expires,
                });
            }
            if entry.set.is_empty() {
                unmatched.push((name, entry));
            } else {
                matched.push((name, entry));
            }
        }
        matched.sort_by_key(|(_, entry)| entry.looked_up);
        unmatched.sort_by_key(|(_, entry)| entry.looked_up);
        for (name, mut entry) in matched {
            entry.due = entry.expires();
            queue.insert((entry.due, Due::Name(endpoint, name.clone())));
            self.names.put(name, entry);
        }
        for (name, entry) in unmatched {
            self.unmatched.put(name, entry);
        }
        self.trim_names(
            endpoint,
            limits.names_per_endpoint,
            limits.unmatched_names,
            queue,
        );
        claims
    }

    /// Rows that a remembered name explains become what that name matches. Rows whose name was
    /// forgotten keep those of their selectors that the policy still has.
    fn rewrite_rows(
        &mut self,
        now: Moment,
        workload: &Workload,
        claims: Claims,
        names_per_address: usize,
    ) {
        for (address, entry) in &mut self.addresses {
            let claims = claims.get(address).map_or(&[][..], Vec::as_slice);
            for row in std::mem::take(&mut entry.rows) {
                let explained = claims
                    .iter()
                    .any(|claim| claim.was == row.set && claim.expires.after(SLACK) >= row.expires);
                let kept = row.set.retain(|selector| workload.has(selector));
                if !explained && !kept.is_empty() {
                    entry.extend(now, &kept, row.expires);
                }
            }
        }
        for (address, claims) in claims {
            for claim in claims.into_iter().filter(|claim| !claim.set.is_empty()) {
                // Looking again must not make an entry look recently taught.
                if !self.addresses.contains(&address) {
                    self.addresses.put(address, Entry::new(Moment::BOOT));
                }
                if let Some(entry) = self.addresses.peek_mut(&address) {
                    entry.extend(now, &claim.set, claim.expires);
                    entry.name(&claim.name, names_per_address);
                }
            }
        }
    }

    /// Queues the entries anew, holds them to the quota, and finds what differs from `before`.
    /// Removals come first: they make room.
    pub(super) fn agree(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        before: &BTreeMap<IpAddr, Slots>,
        limits: &Limits,
        queue: &mut Queue,
    ) -> Vec<GrantChange> {
        let mut puts = Vec::new();
        let mut gone: Vec<IpAddr> = Vec::new();
        for (address, entry) in &mut self.addresses {
            let key = Due::Address(endpoint, *address);
            queue.remove(&(entry.due, key.clone()));
            let slots = entry.slots(now);
            if slots.is_empty() {
                gone.push(*address);
                continue;
            }
            entry.due = entry.look_again(now);
            queue.insert((entry.due, key));
            if before.get(address) != Some(&slots) {
                puts.push(Learned {
                    endpoint,
                    address: *address,
                    slots,
                });
            }
        }
        for address in &gone {
            self.addresses.pop(address);
        }
        gone.extend(self.evict(endpoint, limits.addresses_per_endpoint, queue));
        puts.retain(|learned| self.addresses.contains(&learned.address));
        gone.retain(|address| before.contains_key(address));
        gone.into_iter()
            .map(|address| GrantChange::Remove { endpoint, address })
            .chain(puts.into_iter().map(GrantChange::Put))
            .collect()
    }
}
