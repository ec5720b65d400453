//! Wires policy, DNS proxy and datapath into `namegate run` (and the agent).
//!
//! In:  a policy file, a command, resolvers.
//! Out: an enforced pod, answers to the operator's commands, a report.
//! Not here: any decision about a name or a packet (`policy`, `dnsproxy/core`, `fqdn-ebpf/common`).

#![forbid(unsafe_code)]

pub mod api;
mod control;
pub mod daemon;
pub mod facts;
mod hint;
mod lists;
pub mod offline;
pub mod pod;
pub mod policies;
mod qtype;
mod recorder;
mod resolvers;
mod rows;
pub mod run;
mod steering;
mod totals;
mod world;

pub use world::{Given, WorldError};
