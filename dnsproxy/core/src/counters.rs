//! What happened, in numbers.
//!
//! In:  every decision that no [`crate::QueryRecord`] tells about, and totals of those it does.
//! Out: [`Counters`], a value.
//! Not here: names and endpoints (records have them).

/// Totals since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Queries that could be read.
    pub queries: u64,
    /// Messages without a header, and messages that go the wrong way.
    pub garbage: u64,
    /// Datagrams that repeat a question in flight.
    pub repeated: u64,
    /// Replies nobody waits for: late, duplicate or made up.
    pub unsolicited: u64,
    /// Replies that fit a question in flight by server, socket and id, but not by content.
    pub wrong_question: u64,
    /// Queries that policy refused, or would have in audit mode.
    pub refused: u64,
    /// Queries beyond an endpoint's limit.
    pub over_limit: u64,
    /// Queries no resolver answered.
    pub silent: u64,
    /// Answers released with a proof.
    pub taught: u64,
    /// Batches that could not be written.
    pub write_failures: u64,
}
