//! Label selectors: which endpoints a policy speaks about.
//!
//! In:  `matchLabels` and `matchExpressions`, the scope of the policy.
//! Out: [`LabelSelector`], which matches label sets.
//! Not here: reading them from files (`parse`), finding many at once (`compile::identities`).
//!
//! Scoping follows `pkg/k8s/apis/cilium.io/utils/utils.go` of Cilium 1.20.

use std::fmt;

use identity::{Label, LabelSet, source};

/// The label that names a pod's namespace.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Prefix of the labels a pod inherits from its namespace.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";
/// The label every namespace carries with its own name.
pub const NAMESPACE_NAME: &str = "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name";
/// The label that names a pod's cluster.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// The cluster a policy means when nothing else is configured.
pub const DEFAULT_CLUSTER: &str = "default";

/// A key with the source of its label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey {
    /// `k8s`, `reserved`, …; `any` stands for every source.
    pub source: Box<str>,
    /// The key itself.
    pub key: Box<str>,
}

impl LabelKey {
    /// `[source:]key`; without a source it stands for every source.
    pub fn parse(text: &str) -> Self {
        let (source, key) = text.split_once(':').unwrap_or((source::ANY, text));
        Self {
            source: source.into(),
            key: key.into(),
        }
    }

    /// A key of Kubernetes labels.
    pub fn k8s(key: &str) -> Self {
        Self {
            source: source::K8S.into(),
            key: key.into(),
        }
    }

    /// Whether a label has this key.
    pub fn is_key_of(&self, label: &Label) -> bool {
        self.names(label.source(), label.key())
    }

    fn names(&self, source: &str, key: &str) -> bool {
        (&*self.source == source::ANY || &*self.source == source) && &*self.key == key
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.source == source::ANY {
            return f.write_str(&self.key);
        }
        write!(f, "{}:{}", self.source, self.key)
    }
}

/// What has to hold for one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label is there with one of these values.
    In(Vec<Box<str>>),
    /// The label is not there, or has another value.
    NotIn(Vec<Box<str>>),
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// A key and what has to hold for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The key.
    pub key: LabelKey,
    /// What has to hold.
    pub operator: Operator,
}

impl Requirement {
    /// The label is there with this value.
    pub fn equals(key: LabelKey, value: &str) -> Self {
        Self {
            key,
            operator: Operator::In(vec![value.into()]),
        }
    }

    /// Whether the labels satisfy it.
    pub fn matches(&self, labels: &LabelSet) -> bool {
        let mut found = labels.iter().filter(|label| self.key.is_key_of(label));
        match &self.operator {
            Operator::In(values) => found.any(|label| has(values, label)),
            Operator::NotIn(values) => !found.any(|label| has(values, label)),
            Operator::Exists => found.next().is_some(),
            Operator::DoesNotExist => found.next().is_none(),
        }
    }
}

fn has(values: &[Box<str>], label: &Label) -> bool {
    values.iter().any(|value| **value == *label.value())
}

/// Requirements that all have to hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// The selector of these requirements, whatever their order.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<_> = requirements.into_iter().collect();
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    /// What has to hold, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether the labels satisfy every requirement.
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether any requirement is about a label of this source.
    pub fn names_source(&self, source: &str) -> bool {
        self.requirements.iter().any(|r| &*r.key.source == source)
    }

    fn names_key(&self, key: &str) -> bool {
        self.requirements
            .iter()
            .any(|r| r.key.names(source::K8S, key))
    }

    /// The selector as the subject of a policy in `namespace`: a namespaced policy speaks about
    /// its own namespace only, whatever it says.
    pub fn scoped_to_subject(self, namespace: Option<&str>) -> Self {
        let Some(namespace) = namespace else {
            return self;
        };
        let forced = LabelKey::k8s(NAMESPACE);
        let others = self.requirements.into_iter().filter(|r| r.key != forced);
        Self::new(others.chain([Requirement::equals(forced.clone(), namespace)]))
    }

    /// Both selectors together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(self.requirements.into_iter().chain(other.requirements))
    }

    /// The selector over labels of Kubernetes alone, as its own policies mean it.
    #[must_use]
    pub fn of_source_k8s(self) -> Self {
        Self::new(self.requirements.into_iter().map(|mut requirement| {
            if &*requirement.key.source == source::ANY {
                requirement.key.source = source::K8S.into();
            }
            requirement
        }))
    }

    /// A selector of namespaces as one of the workloads in them.
    #[must_use]
    pub fn of_namespace(self) -> Self {
        Self::new(
            self.requirements
                .into_iter()
                .map(|requirement| Requirement {
                    key: LabelKey::k8s(&format!("{NAMESPACE_LABELS}.{}", requirement.key.key)),
                    operator: requirement.operator,
                }),
        )
    }

    /// The selector as one of workloads: of some namespace, and of this cluster unless it names
    /// another.
    #[must_use]
    pub fn of_workloads(self, cluster: &str) -> Self {
        let mut added = Vec::new();
        if !self.names_key(NAMESPACE) {
            added.push(Requirement {
                key: LabelKey::k8s(NAMESPACE),
                operator: Operator::Exists,
            });
        }
        if !self.names_key(CLUSTER) {
            added.push(Requirement::equals(LabelKey::k8s(CLUSTER), cluster));
        }
        Self::new(self.requirements.into_iter().chain(added))
    }

    /// The selector as one of nodes: those that carry this reserved label too.
    #[must_use]
    pub fn scoped_to_nodes(self, reserved: &str) -> Self {
        let key = LabelKey {
            source: source::RESERVED.into(),
            key: reserved.into(),
        };
        let operator = Operator::Exists;
        Self::new(
            self.requirements
                .into_iter()
                .chain([Requirement { key, operator }]),
        )
    }

    /// The selector as a peer in a policy of `namespace` (`None`: cluster-wide) and `cluster`.
    /// `subject_is_init`: the policy is about endpoints that have no namespace yet.
    pub fn scoped_to_peer(
        self,
        namespace: Option<&str>,
        cluster: &str,
        subject_is_init: bool,
    ) -> Self {
        if self.names_source(source::RESERVED) {
            return self;
        }
        let names_namespace = self.names_key(NAMESPACE);
        let by_namespace_labels = self
            .requirements
            .iter()
            .any(|r| r.key.key.starts_with(NAMESPACE_LABELS));
        let names_cluster = self.names_key(CLUSTER);
        let mut requirements = self.requirements;
        match namespace {
            _ if names_namespace => {}
            Some(namespace) if !by_namespace_labels => {
                requirements.push(Requirement::equals(LabelKey::k8s(NAMESPACE), namespace));
            }
            None if !subject_is_init => requirements.push(Requirement {
                key: LabelKey::k8s(NAMESPACE),
                operator: Operator::Exists,
            }),
            _ => {}
        }
        if !names_cluster {
            requirements.push(Requirement::equals(LabelKey::k8s(CLUSTER), cluster));
        }
        Self::new(requirements)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("everything");
        }
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            let key = &requirement.key;
            match &requirement.operator {
                Operator::In(values) if values.len() == 1 => {
                    write!(f, "{key}={}", values.join(""))?;
                }
                Operator::In(values) => write!(f, "{key} in ({})", values.join("|"))?,
                Operator::NotIn(values) => write!(f, "{key} not in ({})", values.join("|"))?,
                Operator::Exists => write!(f, "{key} exists")?,
                Operator::DoesNotExist => write!(f, "{key} does not exist")?,
            }
        }
        Ok(())
    }
}

/// The labels as policies see them: a workload also has the name of its cluster, and its
/// namespace the label that Kubernetes gives to every namespace.
pub fn complete(labels: &LabelSet, cluster: &str) -> LabelSet {
    let find = |key: &str| {
        labels
            .iter()
            .find(|label| label.source() == source::K8S && label.key() == key)
    };
    let Some(namespace) = find(NAMESPACE) else {
        return labels.clone();
    };
    let mut added = Vec::new();
    if find(CLUSTER).is_none() {
        added.push(Label::k8s(CLUSTER, cluster));
    }
    if find(NAMESPACE_NAME).is_none() {
        added.push(Label::k8s(NAMESPACE_NAME, namespace.value()));
    }
    labels.iter().cloned().chain(added).collect()
}
