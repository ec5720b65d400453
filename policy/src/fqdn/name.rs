//! One absolute domain name in its canonical text.
//!
//! In:  presentation text of a policy or a query, or the labels of a wire name.
//! Out: [`Fqdn`]: lower-case, absolute, every byte that needs it escaped; cheap to clone.
//! Not here: wildcards (`pattern`).

use std::{fmt, sync::Arc};

use super::NameError;

/// Longest name, without the final dot (`MaxFQDNLength` in Cilium).
pub const MAX_NAME_LEN: usize = 255;

/// An absolute domain name. Two spellings of one name are one value.
///
/// [`as_str`](Self::as_str) ends in a dot, as DNS tools print it; `Display` leaves the dot out,
/// as people write policies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fqdn(Arc<str>);

impl Fqdn {
    /// The root name, `.`.
    pub fn root() -> Self {
        Self(".".into())
    }

    /// A name from presentation text, with or without final dot, in any case; `\.`, `\\` and
    /// `\DDD` are understood. Accepts every name a query can carry.
    ///
    /// # Errors
    /// When the text is empty or too long, has an empty label or a broken escape.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text == "." {
            return Ok(Self::root());
        }
        // Four characters of text per byte is the longest spelling there is.
        if text.len() > 4 * MAX_NAME_LEN + 1 {
            return Err(NameError::TooLong { len: text.len() });
        }
        Self::from_labels(split_labels(text)?).map_err(|error| match error {
            NameError::EmptyLabel { .. } => NameError::EmptyLabel { text: text.into() },
            other => other,
        })
    }

    /// A name from its labels, the leftmost first, without the root's empty one. No label at all
    /// is the root.
    ///
    /// # Errors
    /// When a label is empty or the name too long.
    pub fn from_labels<L: AsRef<[u8]>>(
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Self, NameError> {
        let mut text = String::with_capacity(64);
        let mut len = 0usize;
        for label in labels {
            let label = label.as_ref();
            if label.is_empty() {
                text.push('.');
                return Err(NameError::EmptyLabel { text });
            }
            len += label.len() + 1;
            if len > MAX_NAME_LEN + 1 {
                return Err(NameError::TooLong { len: len - 1 });
            }
            match std::str::from_utf8(label) {
                // Nearly every label there is.
                Ok(plain) if label.iter().all(is_plain) => {
                    let from = text.len();
                    text.push_str(plain);
                    if let Some(pushed) = text.get_mut(from..) {
                        pushed.make_ascii_lowercase();
                    }
                }
                _ => label.iter().for_each(|byte| push_byte(&mut text, *byte)),
            }
            text.push('.');
        }
        if text.is_empty() {
            return Ok(Self::root());
        }
        Ok(Self(text.into()))
    }

    /// A `matchName` of a policy: what both the CRD schema and the parser of Cilium accept.
    ///
    /// # Errors
    /// When the text has other characters than letters, digits, `-`, `_` and single dots.
    pub fn from_policy(text: &str) -> Result<Self, NameError> {
        check_policy_text(text, false)?;
        Self::parse(text)
    }

    /// The canonical text, ending in a dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `.`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "."
    }

    /// How many labels the two names have in common, counted from the right.
    pub fn common_labels(&self, other: &Self) -> usize {
        let labels = |name: &'_ Self| -> Vec<String> {
            name.0
                .trim_end_matches('.')
                .rsplit('.')
                .map(str::to_owned)
                .collect()
        };
        if self.is_root() || other.is_root() {
            return 0;
        }
        labels(self)
            .iter()
            .zip(labels(other).iter())
            .take_while(|(a, b)| a == b)
            .count()
    }
}

/// The grammar policies are held to: `^([-a-zA-Z0-9_]+[.]?)+$`, with `*` in patterns.
pub(super) fn check_policy_text(text: &str, wildcards: bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong { len: text.len() });
    }
    for found in text.chars() {
        if found == '*' && !wildcards {
            return Err(NameError::Wildcard { text: text.into() });
        }
        if !(found.is_ascii() && is_name_byte(found as u8) || found == '.' || found == '*') {
            return Err(NameError::Character {
                text: text.into(),
                found,
            });
        }
    }
    if text.starts_with('.') || text.contains("..") {
        return Err(NameError::EmptyLabel { text: text.into() });
    }
    Ok(())
}

/// The characters a wildcard stands for: `[-a-zA-Z0-9_]`.
pub(super) const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A byte that stands for itself, or for its lower case.
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn push_byte(text: &mut String, byte: u8) {
    match byte {
        b'.' | b'\\' => {
            text.push('\\');
            text.push(char::from(byte));
        }
        b if b.is_ascii_graphic() => text.push(char::from(b.to_ascii_lowercase())),
        b => {
            text.push('\\');
            for digit in [b / 100, b / 10 % 10, b % 10] {
                text.push(char::from(b'0' + digit));
            }
        }
    }
}

fn split_labels(text: &str) -> Result<Vec<Vec<u8>>, NameError> {
    let broken = || NameError::Escape { text: text.into() };
    let mut labels = Vec::new();
    let mut label = Vec::new();
    let mut bytes = text.bytes();
    let mut ended_by_dot = false;
    while let Some(byte) = bytes.next() {
        ended_by_dot = byte == b'.';
        match byte {
            b'.' => labels.push(std::mem::take(&mut label)),
            b'\\' => {
                let first = bytes.next().ok_or_else(broken)?;
                if !first.is_ascii_digit() {
                    label.push(first);
                    continue;
                }
                let mut value = u32::from(first - b'0');
                for _ in 0..2 {
                    let digit = bytes.next().filter(u8::is_ascii_digit).ok_or_else(broken)?;
                    value = value * 10 + u32::from(digit - b'0');
                }
                label.push(u8::try_from(value).map_err(|_| broken())?);
            }
            other => label.push(other),
        }
    }
    if !ended_by_dot {
        labels.push(label);
    }
    Ok(labels)
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_suffix('.') {
            Some("") | None => f.pad(&self.0),
            Some(text) => f.pad(text),
        }
    }
}

impl fmt::Debug for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_name_are_one_value() {
        for text in [
            "GitHub.com",
            "github.com.",
            "\\103ithub.com",
            "git\\hub.COM.",
        ] {
            assert_eq!(Fqdn::parse(text).unwrap().as_str(), "github.com.", "{text}");
        }
        assert_eq!(Fqdn::parse("github.com").unwrap().to_string(), "github.com");
        assert_eq!(Fqdn::parse(".").unwrap().to_string(), ".");
        assert_eq!(Fqdn::from_labels::<&[u8]>([]).unwrap(), Fqdn::root());
    }

    #[test]
    fn a_dot_inside_a_label_is_not_a_label_boundary() {
        let name = Fqdn::from_labels([&b"a.b"[..], b"c"]).unwrap();
        assert_eq!(name.as_str(), "a\\.b.c.");
        assert_ne!(name, Fqdn::parse("a.b.c").unwrap());
        assert_eq!(Fqdn::parse(name.as_str()).unwrap(), name);
    }

    #[test]
    fn malformed_names_are_refused() {
        assert_eq!(Fqdn::parse(""), Err(NameError::Empty));
        for text in [".io.", "a..b", "..", "a.b.."] {
            assert!(
                matches!(Fqdn::parse(text), Err(NameError::EmptyLabel { .. })),
                "{text}"
            );
        }
        for text in ["a\\", "a\\1", "a\\25b", "a\\256"] {
            assert!(
                matches!(Fqdn::parse(text), Err(NameError::Escape { .. })),
                "{text}"
            );
        }
        let long = "a".repeat(MAX_NAME_LEN);
        assert!(Fqdn::parse(&long).is_ok());
        assert!(Fqdn::parse(&format!("{long}.")).is_ok());
        assert!(matches!(
            Fqdn::parse(&format!("{long}a")),
            Err(NameError::TooLong { len: 256 })
        ));
        assert!(Fqdn::parse(&"\\".repeat(100_000)).is_err());
    }

    #[test]
    fn labels_in_common_are_counted_from_the_right() {
        let name = |text| Fqdn::parse(text).unwrap();
        assert_eq!(name("api.github.com").common_labels(&name("github.com")), 2);
        assert_eq!(name("notgithub.com").common_labels(&name("github.com")), 1);
        assert_eq!(name(".").common_labels(&name("github.com")), 0);
    }

    proptest! {
        #[test]
        fn any_wire_name_survives_its_text(labels in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..10), 0..8)) {
            let name = Fqdn::from_labels(&labels).unwrap();
            prop_assert_eq!(Fqdn::parse(name.as_str()).unwrap(), name.clone());
            prop_assert_eq!(Fqdn::parse(&name.to_string()).unwrap(), name);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Fqdn::parse(&text);
            let _ = Fqdn::from_policy(&text);
        }
    }
}
