//! Going on with what a predecessor learned.
//!
//! In:  what LEARNED holds, and the names it wrote down.
//! Out: the same ledger as if this process had learned it.
//! Not here: reading maps or files (`fqdn-ebpf/loader`, `agent`).

use std::collections::BTreeMap;

use super::{Due, Ledger, UNMATCHED_ADDRESSES, entry::Entry, names::NameEntry};
use crate::{Learned, Moment, RestoredName, knowledge::Workload};

impl Ledger {
    /// Enters what the kernel holds. It is the truth about what is open.
    pub(crate) fn restore_learned(&mut self, now: Moment, learned: Vec<Learned>) {
        for Learned {
            endpoint,
            address,
            slots,
        } in learned
        {
            let book = self.books.entry(endpoint).or_default();
            if book.addresses.len() >= self.limits.addresses_per_endpoint
                && !book.addresses.contains(&address)
            {
                continue;
            }
            let key = Due::Address(endpoint, address);
            let entry = book
                .addresses
                .get_or_insert_mut(address, || Entry::new(Moment::BOOT));
            self.due.remove(&(entry.due, key.clone()));
            for slot in slots {
                entry.extend(now, &slot.set, slot.expires);
            }
            entry.due = entry.look_again(now);
            self.due.insert((entry.due, key));
        }
    }

    /// Enters a name. One that matches claims no address that is not open, and none for longer than
    /// it is; one that does not is remembered as before.
    pub(crate) fn restore_name(
        &mut self,
        now: Moment,
        workload: &Workload,
        restored: RestoredName,
    ) {
        let RestoredName {
            endpoint,
            name,
            ttl,
            looked_up,
            addresses,
        } = restored;
        let set = workload.selectors_matching(&name);
        let book = self.books.entry(endpoint).or_default();
        if set.is_empty() {
            let mut entry = NameEntry::new(set, looked_up, ttl);
            let live = addresses.into_iter().filter(|(_, ends)| *ends > now);
            entry.addresses.extend(live.take(UNMATCHED_ADDRESSES));
            if !entry.addresses.is_empty() {
                book.unmatched.put(name, entry);
                while book.unmatched.len() > self.limits.unmatched_names {
                    book.unmatched.pop_lru();
                }
            }
            return;
        }
        let mut open = BTreeMap::new();
        for (address, expires) in addresses {
            if let Some(entry) = book.addresses.peek_mut(&address) {
                let ends = entry.rows.iter().map(|row| row.expires).max();
                let expires = expires.min(ends.unwrap_or(now));
                if expires > now {
                    entry.name(&name, self.limits.names_per_address);
                    open.insert(address, expires);
                }
            }
        }
        if open.is_empty() {
            return;
        }
        if let Some(before) = book.names.pop(&name) {
            self.due
                .remove(&(before.due, Due::Name(endpoint, name.clone())));
        }
        let mut entry = NameEntry::new(set, looked_up, ttl);
        entry.addresses.extend(open);
        entry.due = entry.expires();
        self.due
            .insert((entry.due, Due::Name(endpoint, name.clone())));
        book.names.put(name, entry);
        book.trim_names(
            endpoint,
            self.limits.names_per_endpoint,
            self.limits.unmatched_names,
            &mut self.due,
        );
    }
}
