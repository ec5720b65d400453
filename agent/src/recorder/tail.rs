//! Records for readers: the newest ones, and those to come.
//!
//! In:  records, in the order they were made.
//! Out: a bounded history, and a channel that a slow reader cannot hold up.
//! Not here: making records (`packet`, `query`), the readers (`control`).

use std::sync::Arc;

use flows::{Filter, FlowRecord, History};
use tokio::sync::broadcast;

use crate::control::FOLLOW_BUFFER;

/// Records kept for `observe --last`.
const HISTORY: usize = 10_000;

/// Records for readers: the newest ones, and those to come. Recorders may share one.
#[derive(Debug)]
pub(crate) struct Tail {
    history: History,
    followers: broadcast::Sender<Arc<FlowRecord>>,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            history: History::new(HISTORY),
            followers: broadcast::channel(FOLLOW_BUFFER).0,
        }
    }
}

impl Tail {
    /// The newest records, and those to come.
    pub(crate) fn records(
        &self,
        last: usize,
        filter: &Filter,
    ) -> (Vec<FlowRecord>, broadcast::Receiver<Arc<FlowRecord>>) {
        (self.history.last(last, filter), self.followers.subscribe())
    }

    pub(super) fn keep(&mut self, record: FlowRecord) {
        if self.followers.receiver_count() > 0 {
            // A send fails only when the last follower left in between.
            let _nobody = self.followers.send(Arc::new(record.clone()));
        }
        self.history.push(record);
    }
}
