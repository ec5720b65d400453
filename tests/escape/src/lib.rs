//! The ways out of `namegate run`, tried by an unprivileged command.
//!
//! In:  root, a built `namegate`, perl for system calls no other program makes.
//! Out: [`Attack`]: a script run as `nobody` inside a pod, and what it wrote.
//! Not here: the ways themselves (`tests/`), what is not contained (`docs/threat-model.md`).
//!
//! A script says `ESCAPED` when it got what it wanted; a row also names the refusal it expects, so that an attack
//! that never ran (a missing program, a typing error) is a failure and not a success.

#![forbid(unsafe_code)]

mod attack;
mod listener;

pub use attack::{Attack, NOBODY, Outcome};
pub use listener::Listener;
