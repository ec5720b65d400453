//! Which policies are about an endpoint, and why none is.
//!
//! In:  policies, the endpoint's labels, the name of its cluster.
//! Out: the policies that select it; or a text that says what each wanted and what there was.
//! Not here: what the policies allow (`compile`).

use std::fmt;

use identity::LabelSet;

use crate::{
    compiled::PolicyRef,
    model::Policy,
    selector::{LabelSelector, complete},
};

/// The policies with a rule that selects the endpoint.
pub fn selecting<'a>(policies: &'a [Policy], subject: &LabelSet, cluster: &str) -> Vec<&'a Policy> {
    let subject = complete(subject, cluster);
    policies
        .iter()
        .filter(|policy| policy.rules.iter().any(|r| r.subject.matches(&subject)))
        .collect()
}

/// The policies that do not select the endpoint, and what they wanted.
pub fn unselected(policies: &[Policy], subject: &LabelSet, cluster: &str) -> Unselected {
    let labels = complete(subject, cluster);
    let wanted = policies
        .iter()
        .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
        .filter(|(_, rule)| !rule.subject.matches(&labels))
        .map(|(policy, rule)| Wanted {
            policy: policy.reference.clone(),
            file: policy.file.clone(),
            line: rule.line,
            missing: LabelSelector::new(
                rule.subject
                    .requirements()
                    .iter()
                    .filter(|requirement| !requirement.matches(&labels))
                    .cloned(),
            ),
        })
        .collect();
    Unselected {
        labels: subject.clone(),
        wanted,
    }
}

/// What the policies wanted, and what the endpoint has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unselected {
    /// The endpoint's labels.
    pub labels: LabelSet,
    /// One per rule that does not select it.
    pub wanted: Vec<Wanted>,
}

/// One rule that does not select the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The policy.
    pub policy: PolicyRef,
    /// Its file.
    pub file: std::sync::Arc<str>,
    /// The line of the rule.
    pub line: u32,
    /// The part of its `endpointSelector` that does not hold.
    pub missing: LabelSelector,
}

/// `policy … selects nothing here`, for each rule, and the labels there are.
pub fn explain_unselected(policies: &[Policy], subject: &LabelSet, cluster: &str) -> String {
    unselected(policies, subject, cluster).to_string()
}

impl fmt::Display for Unselected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for wanted in &self.wanted {
            writeln!(
                f,
                "{}:{}: {} does not select the command: it wants {}",
                wanted.file, wanted.line, wanted.policy, wanted.missing
            )?;
        }
        if self.labels.is_empty() {
            return f.write_str("the command has no labels; set them with --label and --namespace");
        }
        write!(
            f,
            "the command has the labels {}; set others with --label and --namespace",
            self.labels
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::documents;

    #[test]
    fn the_explanation_names_what_is_missing_and_what_there_is() {
        let parsed = documents(
            "p.yaml",
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a, namespace: ci}\n\
             spec:\n  endpointSelector: {matchLabels: {app: runner}}\n  egress: [{}]\n",
        )
        .unwrap();
        let labels: LabelSet = ["io.kubernetes.pod.namespace=ci", "app=other"]
            .iter()
            .map(|l| l.parse().unwrap())
            .collect();
        assert!(selecting(&parsed.policies, &labels, "default").is_empty());
        assert_eq!(
            explain_unselected(&parsed.policies, &labels, "default"),
            "p.yaml:5: CiliumNetworkPolicy/ci/a does not select the command: it wants app=runner\n\
             the command has the labels k8s:app=other, k8s:io.kubernetes.pod.namespace=ci; \
             set others with --label and --namespace"
        );
    }
}
