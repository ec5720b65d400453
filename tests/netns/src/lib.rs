//! Real packets against real programs: see `tests/`.
#![forbid(unsafe_code)]
