//! What the real-packet tests stand on: namespaces, servers, captures, and the `namegate` binary.
//!
//! In:  root, the programs that `scripts/setup` installs, a built `namegate`.
//! Out: values that hold a piece of the world and take it down again when they are dropped.
//! Not here: what namegate promises (`tests/netns`, `tests/escape`).
//!
//! Invariant: nothing is skipped. A missing privilege, program or binary is an error that says
//! what to do.

#![forbid(unsafe_code)]

pub mod capture;
pub mod frame;
pub mod leftovers;
pub mod link;
pub mod namegate;
pub mod netns;
pub mod process;
pub mod report;
pub mod tools;
pub mod wait;
pub mod world;

pub use namegate::{Finished, Run, Running, Shell, counter, share_network};
pub use netns::Netns;
pub use process::{Output, Process};
pub use wait::{patience, rounds, slowness, until};
pub use world::World;
