//! What a changed policy means for names that were resolved before.
//!
//! In:  the endpoint's new policy.
//! Out: changes that open what an added rule allows, and close what a removed one allowed, without
//!      a new lookup.
//! Not here: POLICY entries (`fqdn-ebpf/loader`).

use std::{collections::BTreeMap, net::IpAddr};

use identity::{EndpointId, SelectorSet};
use policy::compiled::EndpointPolicy;

use super::{
    Due, Ledger, NameEntry,
    entry::{Entry, SLACK, Slots},
};
use crate::{GrantChange, Learned, Moment};

impl Ledger {
    /// Matches everything the endpoint resolved against its new policy.
    ///
    /// Rows that a remembered name explains become what that name matches. Rows whose name was
    /// forgotten keep those of their selectors that the policy still has.
    pub(crate) fn rematch(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        policy: &EndpointPolicy,
    ) -> Vec<GrantChange> {
        let Some(book) = self.books.get_mut(&endpoint) else {
            return Vec::new();
        };
        let before: BTreeMap<IpAddr, Slots> = book
            .addresses
            .iter()
            .map(|(address, entry)| (*address, entry.slots(now)))
            .collect();

        // What the names say: for each address the old sets they explain and the new ones.
        let mut said: BTreeMap<IpAddr, Vec<(SelectorSet, SelectorSet, Moment)>> = BTreeMap::new();
        let mut matched: Vec<(_, NameEntry)> = Vec::new();
        let mut unmatched: Vec<(_, NameEntry)> = Vec::new();
        while let Some((name, mut entry)) =
            book.unmatched.pop_lru().or_else(|| book.names.pop_lru())
        {
            let set = policy.selectors_matching(&name);
            for (address, expires) in entry.addresses.iter().filter(|(_, ends)| *ends > now) {
                said.entry(*address)
                    .or_default()
                    .push((entry.set.clone(), set.clone(), *expires));
            }
            if !entry.set.is_empty() {
                self.due
                    .remove(&(entry.due, Due::Name(endpoint, name.clone())));
            }
            entry.set = set;
            if entry.set.is_empty() {
                &mut unmatched
            } else {
                &mut matched
            }
            .push((name, entry));
        }
        matched.sort_by_key(|(_, entry)| entry.looked_up);
        unmatched.sort_by_key(|(_, entry)| entry.looked_up);
        for (name, mut entry) in matched {
            entry.due = entry.expires();
            self.due
                .insert((entry.due, Due::Name(endpoint, name.clone())));
            book.names.put(name, entry);
        }
        for (name, entry) in unmatched {
            book.unmatched.put(name, entry);
        }
        while book.names.len() > self.limits.names_per_endpoint {
            let Some((name, entry)) = book.names.pop_lru() else {
                break;
            };
            self.due.remove(&(entry.due, Due::Name(endpoint, name)));
        }
        while book.unmatched.len() > self.limits.unmatched_names {
            book.unmatched.pop_lru();
        }

        for (address, entry) in &mut book.addresses {
            let said = said.get(address).map_or(&[][..], Vec::as_slice);
            let old = std::mem::take(&mut entry.rows);
            for row in old {
                let explained = said
                    .iter()
                    .any(|(was, _, ends)| *was == row.set && ends.after(SLACK) >= row.expires);
                let kept = row
                    .set
                    .retain(|selector| policy.selectors.get(selector).is_some());
                if !explained && !kept.is_empty() {
                    entry.extend(now, &kept, row.expires);
                }
            }
        }
        for (address, said) in said {
            for (_, set, expires) in said.into_iter().filter(|(_, set, _)| !set.is_empty()) {
                book.addresses
                    .get_or_insert_mut(address, || Entry::new(Moment::BOOT))
                    .extend(now, &set, expires);
            }
        }
        self.agree(now, endpoint, &before)
    }

    /// Queues the endpoint's entries anew, holds it to its quota, and finds what differs from
    /// `before`. Removals come first: they make room.
    fn agree(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        before: &BTreeMap<IpAddr, Slots>,
    ) -> Vec<GrantChange> {
        let Some(book) = self.books.get_mut(&endpoint) else {
            return Vec::new();
        };
        let mut puts = Vec::new();
        let mut gone: Vec<IpAddr> = Vec::new();
        for (address, entry) in &mut book.addresses {
            let key = Due::Address(endpoint, *address);
            self.due.remove(&(entry.due, key.clone()));
            let slots = entry.slots(now);
            if slots.is_empty() {
                gone.push(*address);
                continue;
            }
            entry.due = entry.look_again(now);
            self.due.insert((entry.due, key));
            if before.get(address) != Some(&slots) {
                puts.push(Learned {
                    endpoint,
                    address: *address,
                    slots,
                });
            }
        }
        for address in &gone {
            book.addresses.pop(address);
        }
        while book.addresses.len() > self.limits.addresses_per_endpoint {
            let Some((address, entry)) = book.addresses.pop_lru() else {
                break;
            };
            self.due
                .remove(&(entry.due, Due::Address(endpoint, address)));
            puts.retain(|learned| learned.address != address);
            gone.push(address);
        }
        gone.retain(|address| before.contains_key(address));
        gone.into_iter()
            .map(|address| GrantChange::Remove { endpoint, address })
            .chain(puts.into_iter().map(GrantChange::Put))
            .collect()
    }
}
