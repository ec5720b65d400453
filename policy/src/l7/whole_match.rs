//! Regular expressions over a whole value.
//!
//! In:  the text of `path`, `method` or `host`.
//! Out: [`WholeMatch`], which matches a value from its first to its last byte, in linear time.
//! Not here: the fields it is used for (`http`).
//!
//! Envoy runs RE2 with both ends anchored. The engine here is the `regex` crate over bytes: ASCII
//! classes as in RE2, no back references, time linear in the value, size bounded.

use std::sync::{Arc, OnceLock};

use regex::bytes::{Regex, RegexBuilder};

/// How long the text may be.
pub const MAX_REGEX_LEN: usize = 4096;
/// How large the program of one expression may become.
const MAX_PROGRAM: usize = 1 << 18;
/// How deep groups may nest.
const MAX_NESTING: u32 = 64;

/// Why a text is no regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// Too long.
    #[error("the regular expression has {0} bytes; at most {MAX_REGEX_LEN} are allowed")]
    TooLong(usize),
    /// It does not parse, or is too large once repetitions are written out.
    #[error("not a regular expression: {0}")]
    Invalid(String),
}

/// A regular expression anchored at both ends. Equal when the text is.
#[derive(Clone, Debug)]
pub struct WholeMatch {
    text: Arc<str>,
    /// Built when first asked: thousands of rules cost no more than their text.
    regex: Arc<OnceLock<Option<Regex>>>,
}

impl WholeMatch {
    /// Checks the text.
    ///
    /// # Errors
    /// When it is not a regular expression, or one beyond the limits.
    pub fn parse(text: &str) -> Result<Self, RegexError> {
        if text.len() > MAX_REGEX_LEN {
            return Err(RegexError::TooLong(text.len()));
        }
        // By itself first: `a)(b` is valid only inside of a group.
        build(text).map_err(|error| RegexError::Invalid(last_line(&error.to_string())))?;
        anchored(text).map_err(|error| RegexError::Invalid(last_line(&error.to_string())))?;
        Ok(Self {
            text: text.into(),
            regex: Arc::default(),
        })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole value matches.
    pub fn matches(&self, value: &str) -> bool {
        let regex = self.regex.get_or_init(|| anchored(&self.text).ok());
        regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(value.as_bytes()))
    }
}

impl PartialEq for WholeMatch {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for WholeMatch {}

fn anchored(text: &str) -> Result<Regex, regex::Error> {
    build(&format!(r"\A(?:{text})\z"))
}

fn build(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_PROGRAM)
        .dfa_size_limit(MAX_PROGRAM)
        .nest_limit(MAX_NESTING)
        .build()
}

/// The parser draws the expression with a caret; the last line says what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or(text);
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, value: &str) -> bool {
        WholeMatch::parse(text).unwrap().matches(value)
    }

    #[test]
    fn the_whole_value_has_to_match() {
        assert!(matches("/", "/"));
        assert!(!matches("/", "/public"));
        assert!(matches("/api/v1/.*", "/api/v1/users?x=1"));
        assert!(!matches("/api/v1/.*", "/evil/api/v1/users"));
        assert!(matches("GET|POST", "POST"));
        assert!(!matches("GET|POST", "POSTER"));
        assert!(!matches("a$", "a\n"));
        assert!(!matches(r"\d", "\u{664}"));
        assert!(matches("", ""));
        assert!(!matches("", "a"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["a)(b", "(", "[", "a{1000}{1000}{1000}", r"(a)\1", "(?=a)"] {
            assert!(WholeMatch::parse(text).is_err(), "{text}");
        }
        assert!(WholeMatch::parse(&"(".repeat(3000)).is_err());
        assert!(WholeMatch::parse(&"a".repeat(5000)).is_err());
    }

    #[test]
    fn a_pattern_that_backtracks_elsewhere_takes_no_time() {
        let value = "a".repeat(100_000);
        assert!(!matches("(a*)*b", &value));
    }
}
