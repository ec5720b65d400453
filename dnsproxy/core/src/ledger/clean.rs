//! Forgetting on an operator's word.
//!
//! In:  whose names, and which.
//! Out: changes that close what those names opened, and how much that was.
//! Not here: endpoints that go (`ledger`), rules that go (`rematch`).
//!
//! An address stays open as far as a name that is left explains it. What is open without any name
//! (the name was pushed out) goes with the first of its address that is cleaned: closing too much
//! costs a lookup, closing too little would be a lie.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use identity::{EndpointId, SelectorSet};
use policy::fqdn::{Fqdn, Pattern};

use super::{
    Due, Ledger,
    book::{Book, Queue},
};
use crate::{Cleaned, GrantChange, Moment};

impl Ledger {
    /// Forgets the names of an endpoint (or of all) that match a pattern, or everything; what only
    /// they opened is closed.
    pub(crate) fn clean(
        &mut self,
        now: Moment,
        endpoint: Option<EndpointId>,
        pattern: Option<&Pattern>,
    ) -> (Vec<GrantChange>, Cleaned) {
        let wanted: Vec<EndpointId> = match endpoint {
            Some(endpoint) => vec![endpoint],
            None => self.books.keys().copied().collect(),
        };
        let mut changes = Vec::new();
        let mut cleaned = Cleaned::default();
        for endpoint in wanted {
            match pattern {
                None => {
                    let book = self.books.get(&endpoint);
                    cleaned.names += book.map_or(0, |book| book.names.len() + book.unmatched.len());
                    changes.append(&mut self.forget(endpoint));
                }
                Some(pattern) => {
                    let Some(book) = self.books.get_mut(&endpoint) else {
                        continue;
                    };
                    let before = book.slots(now);
                    let names = book.drop_names(endpoint, pattern, &mut self.due);
                    cleaned.names += names.count;
                    book.close_unexplained(now, &names.led_to, pattern);
                    changes.append(&mut book.agree(
                        now,
                        endpoint,
                        &before,
                        &self.limits,
                        &mut self.due,
                    ));
                }
            }
        }
        cleaned.addresses = changes
            .iter()
            .filter(|change| matches!(change, GrantChange::Remove { .. }))
            .count();
        (changes, cleaned)
    }
}

/// What was dropped from the tables of names.
struct Dropped {
    count: usize,
    led_to: BTreeSet<IpAddr>,
}

impl Book {
    fn drop_names(
        &mut self,
        endpoint: EndpointId,
        pattern: &Pattern,
        queue: &mut Queue,
    ) -> Dropped {
        let matching = |names: &super::names::Names| -> Vec<Fqdn> {
            let names = names.iter().map(|(name, _)| name);
            names
                .filter(|name| pattern.matches(name))
                .cloned()
                .collect()
        };
        let (matched, unmatched) = (matching(&self.names), matching(&self.unmatched));
        let count = matched.len() + unmatched.len();
        let mut led_to = BTreeSet::new();
        for name in matched {
            if let Some(entry) = self.names.pop(&name) {
                led_to.extend(entry.addresses.iter().map(|(address, _)| *address));
                queue.remove(&(entry.due, Due::Name(endpoint, name)));
            }
        }
        for name in unmatched {
            self.unmatched.pop(&name);
        }
        Dropped { count, led_to }
    }

    /// Holds the rows of these addresses to what the names that are left claim.
    fn close_unexplained(&mut self, now: Moment, addresses: &BTreeSet<IpAddr>, gone: &Pattern) {
        let mut claims: BTreeMap<(IpAddr, &SelectorSet), Moment> = BTreeMap::new();
        for (_, name) in &self.names {
            for (address, ends) in &name.addresses {
                if *ends > now && addresses.contains(address) {
                    let latest = claims.entry((*address, &name.set)).or_insert(*ends);
                    *latest = (*latest).max(*ends);
                }
            }
        }
        for address in addresses {
            let Some(entry) = self.addresses.peek_mut(address) else {
                continue;
            };
            entry.names.retain(|name| !gone.matches(name));
            entry.rows.retain_mut(|row| {
                let claim = claims.get(&(*address, &row.set));
                row.expires = claim.map_or(Moment::BOOT, |ends| row.expires.min(*ends));
                row.expires > now
            });
        }
    }
}
