//! One entry of `toFQDNs` or `rules.dns`: a name or a pattern.
//!
//! In:  the text of `matchName` or `matchPattern`.
//! Out: [`NameSelector`], equal when the meaning is equal, printed as policies write it.
//! Not here: numbers for selectors (`identity::SelectorId`, `compile::SelectorTable`).

use std::fmt;

use super::{Fqdn, NameError, Pattern};

/// A name or a pattern.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NameSelector {
    /// `matchName`.
    Name(Fqdn),
    /// `matchPattern`.
    Pattern(Pattern),
}

impl NameSelector {
    /// `matchName: text`.
    ///
    /// # Errors
    /// When the text is not a name policies may write.
    pub fn name(text: &str) -> Result<Self, NameError> {
        Fqdn::from_policy(text).map(Self::Name)
    }

    /// `matchPattern: text`. A pattern without any wildcard is the name.
    ///
    /// # Errors
    /// When the text is not a pattern policies may write.
    pub fn pattern(text: &str) -> Result<Self, NameError> {
        let pattern = Pattern::parse(text)?;
        if text.contains('*') {
            return Ok(Self::Pattern(pattern));
        }
        Fqdn::from_policy(text).map(Self::Name)
    }

    /// Whether the selector stands for `name`.
    pub fn matches(&self, name: &Fqdn) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Pattern(pattern) => pattern.matches(name),
        }
    }

    /// Whether this is a pattern of only asterisks.
    pub fn is_every_name(&self) -> bool {
        matches!(self, Self::Pattern(pattern) if pattern.is_every_name())
    }

    /// The canonical text: `github.com.`, `*.github.com.`, `*`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }

    /// How many whole labels the selector and the name share, counted from the right.
    pub fn common_labels(&self, name: &Fqdn) -> usize {
        let suffix = match self {
            Self::Name(own) => return own.common_labels(name),
            Self::Pattern(pattern) => pattern.literal_suffix(),
        };
        Fqdn::parse(suffix).map_or(0, |suffix| suffix.common_labels(name))
    }
}

impl fmt::Display for NameSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}
