//! Labels as policies see them: `source:key=value`.
//!
//! In:  labels of pods, namespaces and reserved entities.
//! Out: [`LabelSet`], ordered and comparable, the key under which identities are interned.
//! Not here: selectors over labels (`policy`).

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

/// Well-known sources of labels.
pub mod source {
    /// Labels of Kubernetes objects.
    pub const K8S: &str = "k8s";
    /// Labels of entities (`reserved:host`).
    pub const RESERVED: &str = "reserved";
    /// In selectors: any source.
    pub const ANY: &str = "any";
    /// Labels of CIDR prefixes.
    pub const CIDR: &str = "cidr";
    /// Labels of FQDN selectors.
    pub const FQDN: &str = "fqdn";
}

/// One label. The value of a label without one is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    source: Box<str>,
    key: Box<str>,
    value: Box<str>,
}

/// Why a text is not a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// No key.
    #[error("label `{0}` has no key; write `key=value`")]
    EmptyKey(String),
}

impl Label {
    /// A label from its three parts.
    pub fn new(source: &str, key: &str, value: &str) -> Self {
        Self {
            source: source.into(),
            key: key.into(),
            value: value.into(),
        }
    }

    /// A label of a Kubernetes object.
    pub fn k8s(key: &str, value: &str) -> Self {
        Self::new(source::K8S, key, value)
    }

    /// A label of a reserved entity.
    pub fn reserved(name: &str) -> Self {
        Self::new(source::RESERVED, name, "")
    }

    /// `k8s`, `reserved`, …
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The key without its source.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value, empty when there is none.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Label {
    type Err = LabelError;

    /// `[source:]key[=value]`; without a source it is a Kubernetes label.
    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (head, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = head.split_once(':').unwrap_or((source::K8S, head));
        if key.is_empty() || source.is_empty() {
            return Err(LabelError::EmptyKey(text.to_owned()));
        }
        Ok(Self::new(source, key, value))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        if self.value.is_empty() {
            return Ok(());
        }
        write!(f, "={}", self.value)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// An ordered set of labels. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LabelSet(Arc<BTreeSet<Label>>);

impl LabelSet {
    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &Label> + '_ {
        self.0.iter()
    }

    /// How many labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Label> for LabelSet {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Self(Arc::new(labels.into_iter().collect()))
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, label) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{label}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_source_is_a_kubernetes_label() {
        assert_eq!("app=web".parse(), Ok(Label::k8s("app", "web")));
        assert_eq!("reserved:host".parse(), Ok(Label::reserved("host")));
        assert_eq!(Label::reserved("host").to_string(), "reserved:host");
    }

    #[test]
    fn a_label_needs_a_key() {
        assert!("=x".parse::<Label>().is_err());
        assert!("k8s:=x".parse::<Label>().is_err());
    }
}
