//! The binary under test, as a newcomer would start it.
//!
//! In:  a namespace that stands for the machine, options, a command.
//! Out: [`Run`] (what to start) → [`Running`] or [`Shell`] (it runs) → [`Finished`] (status, output,
//!      report); [`Client`] for the operator's commands against it.
//! Not here: what the result should be (`tests/netns`, `tests/escape`).

mod client;
mod finished;
mod run;
mod running;
mod shell;

pub use client::Client;
pub use finished::Finished;
pub use run::Run;
pub use running::{Running, counter, share_network};
pub use shell::Shell;
