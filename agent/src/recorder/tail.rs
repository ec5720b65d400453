//! Records for readers: the newest ones, and those to come.
//!
//! In:  records, in the order they were made.
//! Out: a bounded history, and to each follower the records it wants.
//! Not here: making records (`packet`, `query`), the readers (`control`).
//!
//! Records are chosen before they wait for a follower: what others cause never takes the room of
//! what it asked for. A follower that is too slow for that misses records, which is counted; it
//! holds up nobody.

use std::sync::Arc;

use flows::{Filter, FlowRecord, History};
use tokio::sync::mpsc::{self, error::TrySendError};

/// Records kept for `observe --last`.
const HISTORY: usize = 10_000;
/// Records that may wait for one follower.
const WAITING: usize = 4096;

/// Records for readers: the newest ones, and those to come. Recorders may share one.
#[derive(Debug)]
pub(crate) struct Tail {
    history: History,
    followers: Vec<Follower>,
    missed: u64,
}

#[derive(Debug)]
struct Follower {
    wants: Filter,
    records: mpsc::Sender<Arc<FlowRecord>>,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            history: History::new(HISTORY),
            followers: Vec::new(),
            missed: 0,
        }
    }
}

impl Tail {
    /// The newest records that `filter` accepts, and where to follow those to come.
    pub(crate) fn records(
        &mut self,
        last: usize,
        filter: &Filter,
        follow: bool,
    ) -> (Vec<FlowRecord>, Option<mpsc::Receiver<Arc<FlowRecord>>>) {
        let following = follow.then(|| {
            let (records, following) = mpsc::channel(WAITING);
            self.followers.push(Follower {
                wants: filter.clone(),
                records,
            });
            following
        });
        (self.history.last(last, filter), following)
    }

    /// Records that followers were too slow for.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    pub(super) fn keep(&mut self, record: FlowRecord) {
        if !self.followers.is_empty() {
            let shared = Arc::new(record.clone());
            let missed = &mut self.missed;
            self.followers.retain(|follower| {
                if !follower.wants.accepts(&shared) {
                    return !follower.records.is_closed();
                }
                match follower.records.try_send(Arc::clone(&shared)) {
                    Ok(()) => true,
                    Err(TrySendError::Full(_)) => {
                        *missed = missed.saturating_add(1);
                        true
                    }
                    Err(TrySendError::Closed(_)) => false,
                }
            });
        }
        self.history.push(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(of: &str) -> FlowRecord {
        let source = flows::Endpoint {
            id: 1,
            pod_name: of.to_owned(),
            ..flows::Endpoint::default()
        };
        FlowRecord {
            time: jiff::Timestamp::UNIX_EPOCH,
            verdict: flows::Verdict::Forwarded,
            drop_reason: 0,
            drop_reason_desc: None,
            ip: None,
            l4: None,
            source,
            destination: flows::Endpoint::default(),
            kind: flows::FlowKind::L3L4,
            source_names: Vec::new(),
            destination_names: Vec::new(),
            l7: None,
            traffic_direction: flows::TrafficDirection::Egress,
            policy_match_type: 0,
            is_reply: None,
            egress_allowed_by: Vec::new(),
            ingress_allowed_by: Vec::new(),
            egress_denied_by: Vec::new(),
            ingress_denied_by: Vec::new(),
            summary: String::new(),
        }
    }

    fn only(of: &str) -> Filter {
        Filter {
            endpoint: Some(of.to_owned()),
            ..Filter::default()
        }
    }

    #[test]
    fn a_flood_of_others_takes_no_room_from_what_a_follower_wants() {
        let mut tail = Tail::default();
        let mut follow = |of| tail.records(0, &only(of), true).1.unwrap();
        let (mut quiet, mut loud) = (follow("quiet"), follow("loud"));
        tail.keep(record("quiet"));
        for _ in 0..3 * WAITING {
            tail.keep(record("loud"));
        }
        tail.keep(record("quiet"));
        assert!(quiet.try_recv().is_ok() && quiet.try_recv().is_ok());
        assert!(quiet.try_recv().is_err());
        let got = std::iter::from_fn(|| loud.try_recv().ok()).count();
        assert_eq!((got, tail.missed()), (WAITING, 2 * WAITING as u64));
        drop((quiet, loud));
        tail.keep(record("quiet"));
        assert!(tail.followers.len() <= 1);
        tail.keep(record("loud"));
        assert!(tail.followers.is_empty());
    }
}
