//! The last records, bounded, and which of them a reader wants.
//!
//! In:  records as they happen.
//! Out: the newest ones that pass a [`Filter`], oldest first.
//! Not here: following (`agent` broadcasts), files.

use std::{collections::VecDeque, fmt, net::IpAddr, sync::Arc};

use jiff::Timestamp;

use crate::{FlowRecord, Layer4, TrafficDirection, Verdict};

/// A ring of the newest records.
#[derive(Debug)]
pub struct History {
    records: VecDeque<FlowRecord>,
    capacity: usize,
    seen: u64,
}

/// Which records a reader wants; empty means all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this verdict.
    pub verdict: Option<Verdict>,
    /// Only this workload, by its number or its name.
    pub endpoint: Option<String>,
    /// Only where a name is one of these.
    pub name: Option<NameTest>,
    /// Only to or from this address.
    pub address: Option<IpAddr>,
    /// Only to or from this port.
    pub port: Option<u16>,
    /// Only this direction.
    pub direction: Option<TrafficDirection>,
    /// Only what happened since.
    pub since: Option<Timestamp>,
}

/// Decides about a name; the caller knows what patterns mean.
#[derive(Clone)]
pub struct NameTest(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl NameTest {
    /// A test by a function.
    pub fn new(test: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(test))
    }
}

impl fmt::Debug for NameTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameTest")
    }
}

impl Filter {
    /// Whether `record` is wanted.
    pub fn accepts(&self, record: &FlowRecord) -> bool {
        self.verdict.is_none_or(|v| v == record.verdict)
            && self.direction.is_none_or(|d| d == record.traffic_direction)
            && self.since.is_none_or(|since| record.time >= since)
            && self
                .endpoint
                .as_deref()
                .is_none_or(|wanted| is_of(record, wanted))
            && self.address.is_none_or(|address| {
                record
                    .ip
                    .as_ref()
                    .is_some_and(|ip| ip.source == address || ip.destination == address)
            })
            && self.port.is_none_or(|port| {
                let ports = record.l4.as_ref().and_then(Layer4::ports);
                ports.is_some_and(|p| p.source_port == port || p.destination_port == port)
            })
            && self.name.as_ref().is_none_or(|NameTest(test)| {
                let asked = record.l7.iter().map(|l7| &l7.dns.query);
                let mut names = record
                    .source_names
                    .iter()
                    .chain(&record.destination_names)
                    .chain(asked);
                names.any(|name| test(name))
            })
    }
}

fn is_of(record: &FlowRecord, wanted: &str) -> bool {
    [&record.source, &record.destination]
        .into_iter()
        .filter(|side| side.id != 0)
        .any(|side| side.pod_name == wanted || wanted.parse() == Ok(side.id))
}

impl History {
    /// An empty ring that keeps at most `capacity` records.
    pub fn new(capacity: usize) -> Self {
        Self {
            records: VecDeque::new(),
            capacity: capacity.max(1),
            seen: 0,
        }
    }

    /// Adds a record; the oldest goes when the ring is full.
    pub fn push(&mut self, record: FlowRecord) {
        if self.records.len() >= self.capacity {
            self.records.pop_front();
        }
        self.records.push_back(record);
        self.seen = self.seen.saturating_add(1);
    }

    /// The newest `count` records that `filter` accepts, oldest first.
    pub fn last(&self, count: usize, filter: &Filter) -> Vec<FlowRecord> {
        let mut out: Vec<_> = self
            .records
            .iter()
            .rev()
            .filter(|r| filter.accepts(r))
            .take(count)
            .cloned()
            .collect();
        out.reverse();
        out
    }

    /// How many records there ever were.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}
