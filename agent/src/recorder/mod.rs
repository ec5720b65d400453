//! What happened, for `observe`, `status` and the report.
//!
//! In:  events of the kernel, query records of the DNS proxy.
//! Out: [`FlowRecord`]s to a bounded history and to followers, and a bounded [`Summary`].
//! Not here: exact packet counts (the kernel's METRICS), who listens (`control`).
//!
//! Names are annotations: an address is given the names its last answers carried, at most
//! [`NAMES_PER_ADDRESS`] each for the [`ADDRESSES`] used last. No verdict depends on them.

mod arrivals;
mod clock;
mod packet;
mod query;
mod tail;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dnsproxy_core::{Moment, QueryRecord, QueryVerdict};
use flows::{Endpoint, Filter, FlowRecord, Summary};
use fqdn_ebpf_common::event::Event;
use identity::AddressBook;
use lru::LruCache;
use policy::{compiled::Layered, fqdn::Fqdn};
use tokio::sync::mpsc;

pub(crate) use arrivals::Arrivals;
pub(crate) use clock::WallClock;
pub(crate) use tail::Tail;

use crate::{hint, qtype};

/// Addresses whose names are remembered.
const ADDRESSES: usize = 8192;
/// Names remembered per address.
const NAMES_PER_ADDRESS: usize = 8;

/// What the records are told with.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The workload as it appears in records.
    pub(crate) endpoint: Endpoint,
    /// Its policies, the source of rule texts.
    pub(crate) policy: Layered,
    /// Who has which address.
    pub(crate) book: Arc<AddressBook>,
}

/// Counts of DNS queries by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookupCounts {
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
}

/// Makes records and keeps them.
#[derive(Debug)]
pub(crate) struct Recorder {
    subject: Subject,
    clock: WallClock,
    names: LruCache<IpAddr, Vec<Fqdn>>,
    tail: Arc<Mutex<Tail>>,
    summary: Summary,
    lookups: LookupCounts,
}

impl Recorder {
    pub(crate) fn new(subject: Subject, clock: WallClock) -> Self {
        Self::with_tail(subject, clock, Arc::default())
    }

    /// One of several that tell the same readers.
    pub(crate) fn with_tail(subject: Subject, clock: WallClock, tail: Arc<Mutex<Tail>>) -> Self {
        Self {
            subject,
            clock,
            names: LruCache::unbounded(),
            tail,
            summary: Summary::default(),
            lookups: LookupCounts::default(),
        }
    }

    /// The newest records, and those to come if they are to be followed.
    pub(crate) fn records(
        &self,
        last: usize,
        filter: &Filter,
        follow: bool,
    ) -> (Vec<FlowRecord>, Option<mpsc::Receiver<Arc<FlowRecord>>>) {
        self.tail().records(last, filter, follow)
    }

    /// The policy or the addresses have changed: what comes is told by these.
    pub(crate) fn update(&mut self, subject: Subject) {
        self.subject = subject;
    }

    /// Addresses have changed hands: what comes is told by this book.
    pub(crate) fn look_up_in(&mut self, book: Arc<AddressBook>) {
        self.subject.book = book;
    }

    /// A panic elsewhere leaves it whole: every record is added in one step.
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(crate) fn lookups(&self) -> LookupCounts {
        self.lookups
    }

    /// A packet opened a flow or was dropped.
    pub(crate) fn packet(&mut self, event: &Event) {
        let (Some(kind), Some(direction)) = (event.kind(), event.direction()) else {
            return;
        };
        let record = self.packet_record(event, kind, direction);
        self.sum_up(event, kind, direction, &record);
        self.keep(record);
    }

    /// The proxy saw a query.
    pub(crate) fn query(&mut self, query: &QueryRecord, now: Moment) {
        for address in &query.addresses {
            self.remember(*address, query.name.as_ref());
        }
        let name = query.name.as_ref().map_or(".", Fqdn::as_str);
        let qtype = qtype::name(query.qtype);
        match &query.verdict {
            QueryVerdict::Forwarded => {}
            QueryVerdict::Taught | QueryVerdict::Answered(_) => {
                self.lookups.answered += 1;
                self.summary.answered();
            }
            QueryVerdict::Refused { policies, hint }
            | QueryVerdict::WouldRefuse { policies, hint } => {
                self.lookups.refused += 1;
                let reason = hint::refused_name(policies);
                let hint = hint::or_allow_name(hint, name);
                self.summary.refuse_lookup(name, &qtype, &reason, &hint);
            }
            QueryVerdict::Failed(reason) => {
                self.lookups.failed += 1;
                self.summary.fail_lookup(name, &qtype, reason);
            }
        }
        let record = self.query_record(query, &qtype, now);
        self.keep(record);
    }

    fn keep(&self, record: FlowRecord) {
        self.tail().keep(record);
    }

    fn remember(&mut self, address: IpAddr, name: Option<&Fqdn>) {
        let Some(name) = name else { return };
        let names = self.names.get_or_insert_mut(address, Vec::new);
        if let Some(at) = names.iter().position(|known| known == name) {
            names.remove(at);
        }
        names.insert(0, name.clone());
        names.truncate(NAMES_PER_ADDRESS);
        while self.names.len() > ADDRESSES {
            self.names.pop_lru();
        }
    }

    fn names_of(&self, address: IpAddr) -> Vec<String> {
        self.names
            .peek(&address)
            .into_iter()
            .flatten()
            .map(|name| name.as_str().to_owned())
            .collect()
    }
}
