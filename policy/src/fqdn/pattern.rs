//! `matchPattern`: names with `*` in them.
//!
//! In:  the text of a pattern.
//! Out: [`Pattern`], matched in time linear in the name for every label without a wildcard and
//!      bounded by name × pattern (255 × 255) otherwise; no backtracking beyond one star.
//! Not here: the regular expressions this is checked against (`tests/reference`).
//!
//! A dot is only ever matched by a dot, so pattern and name are aligned label by label from the
//! right: `*` stays inside its label, and a leading `**.` takes whatever labels are left over.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    Fqdn, NameError,
    name::{check_policy_text, is_name_byte},
};

/// A pattern over names, anchored at both ends. Two patterns that differ only in spelling are
/// equal.
#[derive(Clone)]
pub struct Pattern {
    /// Canonical text; everything else but the spelling follows from it.
    text: Arc<str>,
    shape: Shape,
    inner_star_run: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Shape {
    /// Only asterisks: any name made of the characters names are made of, and the root.
    Every,
    Labels {
        /// A leading `**.`: one or more whole labels in front.
        any_front: bool,
        /// One glob per label, the root's empty one included.
        globs: Arc<[Box<str>]>,
    },
}

impl Pattern {
    /// A `matchPattern` of a policy: what both the CRD schema and the parser of Cilium accept.
    ///
    /// # Errors
    /// When the text has other characters than letters, digits, `-`, `_`, `*` and single dots.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_policy_text(text, true)?;
        Ok(Self::compile(text))
    }

    /// A pattern from any text, without the grammar policies are held to. A text with other
    /// characters matches nothing.
    pub fn compile(text: &str) -> Self {
        let text = sanitize(text);
        if is_only_asterisks(&text) {
            return Self {
                text: "*".into(),
                shape: Shape::Every,
                inner_star_run: false,
            };
        }
        let stars = text.bytes().take_while(|b| *b == b'*').count();
        let (any_front, tail) = match text.get(stars..).and_then(|rest| rest.strip_prefix('.')) {
            Some(rest) if stars >= 2 => (true, rest),
            _ => (false, text.as_str()),
        };
        let globs: Arc<[Box<str>]> = tail.split('.').map(collapse_stars).collect();
        let mut canonical = String::from(if any_front { "**." } else { "" });
        canonical.push_str(&globs.join("."));
        Self {
            text: canonical.into(),
            shape: Shape::Labels { any_front, globs },
            inner_star_run: tail.contains("**"),
        }
    }

    /// Whether the pattern matches the name.
    pub fn matches(&self, name: &Fqdn) -> bool {
        self.matches_text(name.as_str())
    }

    /// The same for a text that need not be a well-formed name.
    pub fn matches_text(&self, name: &str) -> bool {
        if !name.bytes().all(|b| is_name_byte(b) || b == b'.') {
            return false;
        }
        match &self.shape {
            Shape::Every => match name.strip_suffix('.') {
                Some("") => true,
                Some(labels) => labels.split('.').all(|label| !label.is_empty()),
                None => false,
            },
            Shape::Labels { any_front, globs } => {
                // As bytes: a name has only ASCII in it by here.
                let mut labels = name.as_bytes().rsplit(|byte| *byte == b'.');
                let tail = globs.iter().rev().all(|glob| {
                    labels
                        .next()
                        .is_some_and(|label| label_matches(glob.as_bytes(), label))
                });
                if !tail {
                    return false;
                }
                match labels.next() {
                    None => !any_front,
                    Some(label) => {
                        *any_front && !label.is_empty() && labels.all(|label| !label.is_empty())
                    }
                }
            }
        }
    }

    /// Whether the pattern is only asterisks. In `rules.dns` such a pattern allows truly every
    /// name, whatever its characters; in `toFQDNs` only names of ordinary characters.
    pub fn is_every_name(&self) -> bool {
        self.shape == Shape::Every
    }

    /// Whether it was spelled with `**` where that means no more than `*`.
    pub const fn has_inner_star_run(&self) -> bool {
        self.inner_star_run
    }

    /// The canonical text, ending in a dot unless it is `*`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The longest suffix of whole labels without a wildcard, as it stands in every name the
    /// pattern matches; empty when even the last label has one.
    pub fn literal_suffix(&self) -> &str {
        let Shape::Labels { .. } = self.shape else {
            return "";
        };
        let mut suffix = "";
        for (at, _) in self.text.match_indices('.').rev() {
            let from = self.text.get(at + 1..).unwrap_or("");
            if from.contains('*') {
                return suffix;
            }
            suffix = from;
        }
        if self.text.contains('*') {
            suffix
        } else {
            &self.text
        }
    }
}

/// Trims, lower-cases and closes a pattern with a dot, as Cilium's `matchpattern.Sanitize` does;
/// patterns made of asterisks only stay as they are.
pub fn sanitize(pattern: &str) -> String {
    let mut text = pattern.trim().to_ascii_lowercase();
    if !is_only_asterisks(&text) && !text.ends_with('.') {
        text.push('.');
    }
    text
}

fn is_only_asterisks(text: &str) -> bool {
    let stars = text.strip_suffix('.').unwrap_or(text);
    !stars.is_empty() && stars.bytes().all(|b| b == b'*')
}

fn collapse_stars(label: &str) -> Box<str> {
    let mut out = String::with_capacity(label.len());
    for c in label.chars() {
        if c != '*' || !out.ends_with('*') {
            out.push(c);
        }
    }
    out.into()
}

/// One label against one glob. A star that fails is extended by one character; earlier stars need
/// never be revisited, because the text between two stars was found at its first place.
fn label_matches(mut glob: &[u8], mut label: &[u8]) -> bool {
    if !glob.contains(&b'*') {
        return glob == label;
    }
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (glob.split_first(), label.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, label));
                glob = rest;
            }
            (Some((g, glob_rest)), Some((l, label_rest))) if g == l => {
                (glob, label) = (glob_rest, label_rest);
            }
            (None, None) => return true,
            _ => match retry {
                Some((after_star, [_, rest @ ..])) => {
                    (glob, label) = (after_star, rest);
                    retry = Some((after_star, rest));
                }
                _ => return false,
            },
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.strip_suffix('.') {
            Some("") | None => f.pad(&self.text),
            Some(text) => f.pad(text),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.text)
    }
}
