//! libFuzzer finds inputs for `fuzz::selector_parse`.
//!
//! In:  bytes.
//! Out: a crash file when a property does not hold.
//! Not here: the property.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::selector_parse(data));
