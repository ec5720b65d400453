//! Server names of TLS hellos.
//!
//! In:  `serverNames`.
//! Out: [`ServerName`], which matches names.
//! Not here: names of `toFQDNs`, whose patterns are others (`fqdn`).
//!
//! `**` is one or more whole labels, a single `*` any part of one label; alone, `*` is every name
//! (`SniPattern` of Cilium's proxy).

use std::{fmt, sync::Arc};

/// How long a pattern may be.
const MAX_LEN: usize = 255;

/// A name or pattern of `serverNames`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Arc<str>);

impl ServerName {
    /// A name or pattern; none when no name could ever match it.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = !text.is_empty()
            && text.len() <= MAX_LEN
            && text.split('.').all(|label| !label.is_empty())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'*'));
        valid.then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// The pattern, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is meant.
    pub fn matches(&self, name: &str) -> bool {
        let valid = !name.is_empty()
            && name.len() <= MAX_LEN
            && name.split('.').all(|label| !label.is_empty())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !valid {
            return false;
        }
        if &*self.0 == "*" {
            return true;
        }
        let name = name.to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        let pattern: Vec<&str> = self.0.split('.').collect();
        labels_match(&pattern, &labels)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `reached` holds every number of labels that the pattern so far can stand for.
fn labels_match(pattern: &[&str], labels: &[&str]) -> bool {
    let mut reached = vec![false; labels.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for part in pattern {
        let mut next = vec![false; labels.len() + 1];
        for (at, label) in labels.iter().enumerate() {
            let here = reached.get(at) == Some(&true);
            // `**` goes on once it has begun.
            let goes_on = *part == "**" && next.get(at) == Some(&true);
            let fits = *part == "**" || label_matches(part.as_bytes(), label.as_bytes());
            if let Some(cell) = next.get_mut(at + 1)
                && (goes_on || (here && fits))
            {
                *cell = true;
            }
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

/// `*` is any number of characters; the pattern is matched greedily with one way back.
fn label_matches(pattern: &[u8], label: &[u8]) -> bool {
    let (mut p, mut l) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(&c) = label.get(l) {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, l));
                p += 1;
            }
            Some(&own) if own == c => {
                p += 1;
                l += 1;
            }
            _ => {
                let Some((star, at)) = back else {
                    return false;
                };
                back = Some((star, at + 1));
                p = star + 1;
                l = at + 1;
            }
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_server_names() {
        for (pattern, name, expected) in [
            ("one.one.one.one", "ONE.one.one.one", true),
            ("one.one.one.one", "two.one.one.one", false),
            ("*", "anything.at.all", true),
            ("*", "", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("**.example.com", "a.b.example.com", true),
            ("**.example.com", "example.com", false),
            ("a*.example.com", "abc.example.com", true),
            ("a*.example.com", "a.example.com", true),
            ("a*c.example.com", "abbc.example.com", true),
            ("a*c.example.com", "abbd.example.com", false),
            ("a.**.c", "a.b.b.c", true),
            ("a.**.c", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("*.com", "a b.com", false),
        ] {
            let own = ServerName::parse(pattern).unwrap();
            assert_eq!(own.matches(name), expected, "{pattern} {name}");
        }
        for bad in ["", "a..b", "a b", ".", "a.", &"a".repeat(256)] {
            assert_eq!(ServerName::parse(bad), None, "{bad}");
        }
    }
}
