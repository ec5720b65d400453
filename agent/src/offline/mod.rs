//! Judging flows offline: a world, policies and flows from files; verdicts and the rules behind them.
//!
//! In:  files ([`World`], [`flow::Flow`], [`scenario::Scenario`]) and policies.
//! Out: one [`Outcome`] per flow; mismatches of a scenario; mistakes with file, line and field.
//! Not here: what policies mean (`policy`), the verdict itself (`fqdn-ebpf/common`), printing (`cli`).
//!
//! The way of a flow is the one it has on a node: parse, compile per endpoint, POLICY entries, the
//! verdict function the kernel runs. Only the maps are ordinary ones.

mod compiled;
mod direction;
mod entries;
mod error;
mod expect;
mod file;
pub mod flow;
mod given;
mod judge;
mod l7;
mod outcome;
pub mod scenario;
mod service;
#[cfg(test)]
mod tests;
mod validate;

pub use crate::facts::{Cause, InputError, Sourced, World, world};
pub use error::OfflineError;
pub use expect::{Difference, Expectation};
pub use file::{flows, flows_of};
pub use judge::{Options, judge};
pub use outcome::{Decision, L7, Outcome, Verdict};
pub use scenario::{Mismatch, Tested, test};
pub use validate::{Checked, validate};
