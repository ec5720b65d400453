//! The second, obvious implementation of what the pure crates decide.
//!
//! In:  the same inputs the real ones get.
//! Out: answers found by regular expressions, linear scans and lists.
//! Not here: anything fast. Property tests and fuzz targets compare; nothing ships.

#![forbid(unsafe_code)]

pub mod ledger;
pub mod pattern;
pub mod policy;
pub mod verdict;

pub use regex::Regex;
