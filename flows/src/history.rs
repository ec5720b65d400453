//! The last records, bounded, and which of them a reader wants.
//!
//! In:  records as they happen.
//! Out: the newest ones that pass a [`Filter`], oldest first.
//! Not here: following (`agent` broadcasts), files.

use std::collections::VecDeque;

use crate::{FlowRecord, Verdict};

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
}

impl Filter {
    /// Whether `record` is wanted.
    pub fn accepts(&self, record: &FlowRecord) -> bool {
        self.verdict.is_none_or(|v| v == record.verdict)
    }
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
