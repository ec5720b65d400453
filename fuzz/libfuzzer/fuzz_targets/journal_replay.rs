//! libFuzzer finds inputs for `fuzz::journal_replay`.
//!
//! In:  bytes.
//! Out: a crash file when a property does not hold.
//! Not here: the property.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::journal_replay(data));
