//! Where an entry comes from: the policy, and the line of the rule.
//!
//! In:  what the parser knows about a rule.
//! Out: values for flow records, refusals and reports.
//! Not here: the rule itself (`model`).

use std::{collections::BTreeSet, fmt, sync::Arc};

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `cilium.io/v2`, in a namespace.
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, for the whole cluster.
    CiliumClusterwideNetworkPolicy,
    /// `networking.k8s.io/v1`, in a namespace.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`, for the whole cluster.
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// Whether policies of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        matches!(self, Self::CiliumNetworkPolicy | Self::NetworkPolicy)
    }

    /// The `kind` of the Kubernetes object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A policy by kind, namespace and name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRef {
    /// What it is.
    pub kind: PolicyKind,
    /// Its namespace; empty for cluster-wide kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{}/{}", self.kind, self.name);
        }
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// One rule of one policy, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleOrigin {
    /// The policy.
    pub policy: PolicyRef,
    /// The file it was read from, as named on the command line.
    pub file: Arc<str>,
    /// The line the rule starts on, from 1; 0 when there is no file.
    pub line: u32,
    /// The rule in short: `toFQDNs matchName "github.com" 443/TCP`.
    pub text: String,
}

impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {} ({})", self.text, self.policy)
    }
}

/// The rules behind one or more entries, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSet(Vec<Arc<RuleOrigin>>);

impl RuleSet {
    /// The rules in order.
    pub fn rules(&self) -> &[Arc<RuleOrigin>] {
        &self.0
    }

    /// The policies of the rules, each once, in order.
    pub fn policies(&self) -> Vec<PolicyRef> {
        let policies: BTreeSet<_> = self.0.iter().map(|rule| &rule.policy).collect();
        policies.into_iter().cloned().collect()
    }
}

impl FromIterator<Arc<RuleOrigin>> for RuleSet {
    fn from_iter<I: IntoIterator<Item = Arc<RuleOrigin>>>(rules: I) -> Self {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_unstable();
        rules.dedup();
        Self(rules)
    }
}
