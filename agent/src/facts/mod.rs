//! What is known about the world around workloads: nodes, namespaces, other workloads, services, groups.
//!
//! In:  a file of facts, the same one for an agent and for judging offline.
//! Out: who is there, what policies of one node make of it.
//! Not here: what policies mean (`policy`), the flows a file may also hold (`offline`).

mod error;
mod file;
mod frontends;
mod groups;
mod protocol;
mod universe;
mod view;
pub mod written;

pub use error::{Cause, InputError};
pub(crate) use file::read;
#[cfg(test)]
pub(crate) use file::text;
pub use file::{Sourced, world};
pub(crate) use frontends::{Behind, backends};
pub(crate) use groups::groups;
pub use protocol::Protocol;
pub(crate) use universe::{Party, Universe, service_name};
pub(crate) use view::View;
pub use written::World;
