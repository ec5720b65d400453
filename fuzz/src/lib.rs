//! Fuzz targets: properties that must hold for any input, as plain functions over bytes.
//!
//! In:  bytes, from the committed corpora, a random generator, or libFuzzer.
//! Out: nothing, or a panic that says which property does not hold.
//! Not here: finding inputs (`fuzz/libfuzzer`, `tests/explore.rs`), the corpora (`fuzz/corpus`).
//!
//! docs/fuzzing.md says what each target shows and how to run it.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target says what it found by panicking"
)]

mod answer;
mod event;
mod framing;
mod input;
mod journal;
mod kernel;
mod ledger;
mod maps;
mod message;
mod packet;
mod parse;
mod pattern;
mod policies;
mod policy_map;
mod policy_text;
mod selector;
mod shell;
mod verdict;
mod wire;

pub use answer::answer_acceptance;
pub use event::event_decode;
pub use framing::tcp_framing;
pub use journal::journal_replay;
pub use ledger::ledger_vs_reference;
pub use packet::packet_path;
pub use parse::policy_parse;
pub use pattern::pattern_vs_regex;
pub use policies::policy_vs_reference;
pub use selector::selector_parse;
pub use verdict::verdict_vs_reference;
pub use wire::wire_decode;

/// A target: its name, which is also the folder of its corpus, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("answer_acceptance", answer_acceptance),
    ("event_decode", event_decode),
    ("journal_replay", journal_replay),
    ("ledger_vs_reference", ledger_vs_reference),
    ("packet_path", packet_path),
    ("pattern_vs_regex", pattern_vs_regex),
    ("policy_parse", policy_parse),
    ("policy_vs_reference", policy_vs_reference),
    ("selector_parse", selector_parse),
    ("tcp_framing", tcp_framing),
    ("verdict_vs_reference", verdict_vs_reference),
    ("wire_decode", wire_decode),
];
