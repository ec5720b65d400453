//! Why a text is not a name or a pattern.
//!
//! In:  the offending text.
//! Out: one message per mistake, with what to write.
//! Not here: where in a file the text stands (`parse`).

use super::MAX_NAME_LEN;

/// Why a text is not a name or a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing there.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than DNS allows.
    #[error("the name has {len} characters; at most {MAX_NAME_LEN} are allowed")]
    TooLong {
        /// Its length without the final dot.
        len: usize,
    },
    /// A character outside of letters, digits, `-`, `_` and `.` (and `*` in patterns).
    #[error(
        "`{text}` contains {found:?}; only letters, digits, `-`, `_` and `.` are allowed (write international names in punycode)"
    )]
    Character {
        /// The whole text.
        text: String,
        /// The first bad character.
        found: char,
    },
    /// `*` in a `matchName`.
    #[error("`{text}` contains `*`; an exact name has no wildcard, use matchPattern")]
    Wildcard {
        /// The whole text.
        text: String,
    },
    /// Two dots in a row, or a dot in front.
    #[error("`{text}` has an empty label (a leading dot or two dots in a row)")]
    EmptyLabel {
        /// The whole text.
        text: String,
    },
    /// A backslash not followed by a character or three digits up to 255.
    #[error("`{text}` has a broken `\\` escape")]
    Escape {
        /// The whole text.
        text: String,
    },
}
