//! The ledger as a list: one row per name and address that was ever taught and is not over.
//!
//! In:  lessons that were written or not, policy changes, time.
//! Out: which selector sets an address is open under, and until when.
//! Not here: slots, batches, what is written when (the real one has to agree on the effect).

use std::net::IpAddr;

use identity::{EndpointId, SelectorSet};

/// A name led to an address. The row of a name that nothing matches has an empty set.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who asked.
    pub endpoint: EndpointId,
    /// For what.
    pub name: String,
    /// Where it led.
    pub address: IpAddr,
    /// What the name matches under the policy in force.
    pub set: SelectorSet,
    /// Until when, in nanoseconds.
    pub expires: u64,
}

/// Everything that was taught.
#[derive(Clone, Debug)]
pub struct Ledger {
    rows: Vec<Row>,
    /// Open addresses, the one that was taught longest ago first.
    order: Vec<(EndpointId, IpAddr)>,
    quota: usize,
}

impl Ledger {
    /// An empty list; an endpoint may have `quota` addresses open.
    pub fn new(quota: usize) -> Self {
        Self {
            rows: Vec::new(),
            order: Vec::new(),
            quota,
        }
    }

    /// A name led to these addresses, and that was written (`written`) or could not be.
    pub fn teach(
        &mut self,
        endpoint: EndpointId,
        name: &str,
        set: &SelectorSet,
        addresses: &[IpAddr],
        expires: u64,
        written: bool,
    ) {
        for address in addresses {
            if !set.is_empty() {
                self.order.retain(|place| *place != (endpoint, *address));
                self.order.push((endpoint, *address));
            }
            if written {
                self.rows.push(Row {
                    endpoint,
                    name: name.to_owned(),
                    address: *address,
                    set: set.clone(),
                    expires,
                });
            }
        }
        self.keep_to_quota(endpoint);
        self.forget_closed();
    }

    /// The endpoint's policy changed: `matches` says what a name matches under the new one.
    pub fn rematch(&mut self, endpoint: EndpointId, matches: impl Fn(&str) -> SelectorSet) {
        let mut opened = Vec::new();
        for row in self.rows.iter_mut().filter(|row| row.endpoint == endpoint) {
            row.set = matches(&row.name);
            if !row.set.is_empty() && !self.order.contains(&(endpoint, row.address)) {
                opened.push(row.address);
            }
        }
        opened.sort_unstable();
        opened.dedup();
        self.order
            .extend(opened.into_iter().map(|address| (endpoint, address)));
        self.forget_closed();
        self.keep_to_quota(endpoint);
    }

    /// Names of the endpoint are forgotten on an operator's word.
    pub fn clean(&mut self, endpoint: EndpointId, gone: impl Fn(&str) -> bool) {
        self.rows
            .retain(|row| row.endpoint != endpoint || !gone(&row.name));
        self.forget_closed();
    }

    /// Time passes.
    pub fn expire(&mut self, now: u64) {
        self.rows.retain(|row| row.expires > now);
        self.forget_closed();
    }

    /// Each set the address is open under, once, with its latest expiry.
    pub fn open(&self, endpoint: EndpointId, address: IpAddr) -> Vec<(SelectorSet, u64)> {
        let mut open: Vec<(SelectorSet, u64)> = Vec::new();
        let rows = self
            .rows
            .iter()
            .filter(|row| (row.endpoint, row.address) == (endpoint, address))
            .filter(|row| !row.set.is_empty());
        for row in rows {
            match open.iter_mut().find(|(set, _)| *set == row.set) {
                Some((_, expires)) => *expires = row.expires.max(*expires),
                None => open.push((row.set.clone(), row.expires)),
            }
        }
        open
    }

    fn keep_to_quota(&mut self, endpoint: EndpointId) {
        while self.order.iter().filter(|(of, _)| *of == endpoint).count() > self.quota {
            let Some(oldest) = self.order.iter().position(|(of, _)| *of == endpoint) else {
                return;
            };
            let (_, address) = self.order.remove(oldest);
            self.rows.retain(|row| {
                (row.endpoint, row.address) != (endpoint, address) || row.set.is_empty()
            });
        }
    }

    fn forget_closed(&mut self) {
        let rows = &self.rows;
        self.order.retain(|(endpoint, address)| {
            rows.iter().any(|row| {
                (row.endpoint, row.address) == (*endpoint, *address) && !row.set.is_empty()
            })
        });
    }
}
