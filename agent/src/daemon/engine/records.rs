//! What happened, to the recorder of the endpoint it happened to.
//!
//! In:  events of the kernel, query records of the DNS proxy.
//! Out: records for `observe`, counts of lookups.
//! Not here: making a record (`recorder`).

use std::sync::{Arc, PoisonError};

use dnsproxy_core::{Moment, QueryRecord};
use fqdn_ebpf_loader::Events;
use identity::EndpointId;

use crate::recorder::{LookupCounts, Recorder, Subject};

use super::Engine;

impl Engine {
    /// Tells the recorders what records are told with from now on.
    pub(super) fn retell(&mut self) {
        for workload in self.workloads.values() {
            let Some(enforced) = &workload.enforced else {
                continue;
            };
            let Some(policies) = self.policies_of(workload) else {
                continue;
            };
            if let Some(recorder) = self.recorders.get_mut(&enforced.id) {
                recorder.update(Subject {
                    endpoint: workload.told(enforced.id),
                    policy: policies,
                    book: Arc::clone(&self.book),
                });
            }
        }
    }

    /// Takes in what the kernel reported; at most `limit` events, so that nothing else waits long.
    pub(crate) fn packets(&mut self, events: &mut Events, limit: usize) -> bool {
        for _ in 0..limit {
            let Some(event) = events.next() else {
                return false;
            };
            if let Some(recorder) = self.recorders.get_mut(&EndpointId::new(event.endpoint())) {
                recorder.packet(&event);
            }
        }
        true
    }

    /// Records that followers of `observe` were too slow for.
    pub(crate) fn missed(&self) -> u64 {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.missed()
    }

    /// Takes in what the proxy reported.
    pub(crate) fn query(&mut self, record: &QueryRecord, now: Moment) {
        if let Some(recorder) = self.recorders.get_mut(&record.endpoint) {
            recorder.query(record, now);
        }
    }

    /// Lookups so far, of endpoints that are gone too.
    pub(crate) fn lookups(&self) -> LookupCounts {
        self.recorders
            .values()
            .map(Recorder::lookups)
            .fold(self.gone, |sum, counts| LookupCounts {
                answered: sum.answered + counts.answered,
                refused: sum.refused + counts.refused,
                failed: sum.failed + counts.failed,
            })
    }
}
