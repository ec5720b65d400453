//! Advice about policies that are valid.
//!
//! In:  the policies that select an endpoint, and what they were compiled to.
//! Out: [`Warning`]s: what will surprise, where, and what to write.
//! Not here: mistakes (`parse`); a warning never changes what is enforced.

use std::{collections::BTreeSet, fmt, sync::Arc};

use identity::source;

use crate::{
    compiled::{EndpointPolicy, PolicyRef},
    fqdn::NameSelector,
    l7::Proxy,
    model::{Peers, Policy, Ports, Rule},
    selector::NAMESPACE,
};

/// The longest label DNS can carry.
const MAX_LABEL: usize = 63;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Probably not what was meant.
    Warning,
}

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// How much it matters.
    pub severity: Severity,
    /// The policy it is about; none when it is about all of them together.
    pub policy: Option<PolicyRef>,
    /// Its file.
    pub file: Arc<str>,
    /// The line; 0 when it is about no line in particular.
    pub line: u32,
    /// What will surprise.
    pub advice: Advice,
}

/// What will surprise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Advice {
    /// Nothing can be learned.
    #[error(
        "`toFQDNs` without any allowed DNS traffic: no name can be resolved, so nothing is ever reachable by name; allow port 53 to the resolver"
    )]
    NoDnsPath,
    /// `*github.com`.
    #[error(
        "`{pattern}` also matches names somebody else can register, like `evil{name}`; write `*.{name}` and `{name}`"
    )]
    GluedWildcard {
        /// The pattern.
        pattern: String,
        /// What follows the wildcard.
        name: String,
    },
    /// `a.**.b`.
    #[error(
        "`**` means no more than `*` here (the pattern is `{0}`): only `**.` at the start stands for several labels"
    )]
    DoubleStarInside(String),
    /// `*.github.com` without `github.com`.
    #[error("`{pattern}` does not match `{apex}` itself; add it if it is needed")]
    ApexNotCovered {
        /// The pattern.
        pattern: String,
        /// The name it leaves out.
        apex: String,
    },
    /// A label of more than 63 characters.
    #[error("`{0}` has a label of more than 63 characters, which no name in DNS has")]
    LabelTooLong(String),
    /// A namespaced policy that names a namespace in its subject.
    #[error(
        "the subject names a namespace, but a namespaced policy is about its own namespace only"
    )]
    SubjectNamespace,
    /// Rules that need a proxy.
    #[error("the {0} rules need a proxy that is not there yet: what only they allow is refused")]
    NeedsProxy(Proxy),
    /// A rule about nodes.
    #[error("the rule is about nodes, and only workloads are enforced: it has no effect here")]
    NodeSubject,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            f.write_str(" ")?;
        }
        f.write_str(match self.severity {
            Severity::Info => "note: ",
            Severity::Warning => "warning: ",
        })?;
        write!(f, "{}", self.advice)
    }
}

/// Advice about the names policies are written with.
pub fn policies(policies: &[Policy]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for policy in policies {
        let mut warn = |severity, line, advice| {
            warnings.push(Warning {
                severity,
                policy: Some(policy.reference.clone()),
                file: policy.file.clone(),
                line,
                advice,
            });
        };
        let written: BTreeSet<&str> = fqdns(policy).map(|(name, _)| name.as_str()).collect();
        for rule in &policy.rules {
            let mut keys = rule.subject.requirements().iter().map(|r| &r.key);
            if keys.any(|key| &*key.source == source::RESERVED && &*key.key == "host") {
                warn(Severity::Warning, rule.line, Advice::NodeSubject);
            }
            for (proxy, line) in proxies(rule) {
                warn(Severity::Warning, line, Advice::NeedsProxy(proxy));
            }
            let namespaces = rule.subject.requirements().iter();
            if namespaces.filter(|r| &*r.key.key == NAMESPACE).count() > 1 {
                warn(Severity::Warning, rule.line, Advice::SubjectNamespace);
            }
        }
        for (selector, line) in fqdns(policy) {
            let NameSelector::Pattern(pattern) = selector else {
                if selector.as_str().split('.').any(|l| l.len() > MAX_LABEL) {
                    warn(
                        Severity::Warning,
                        line,
                        Advice::LabelTooLong(selector.to_string()),
                    );
                }
                continue;
            };
            if let Some(name) = glued(pattern.as_str()) {
                let advice = Advice::GluedWildcard {
                    pattern: pattern.to_string(),
                    name,
                };
                warn(Severity::Warning, line, advice);
            }
            if pattern.has_inner_star_run() {
                let advice = Advice::DoubleStarInside(pattern.to_string());
                warn(Severity::Warning, line, advice);
            }
            let apex = pattern
                .as_str()
                .strip_prefix("**.")
                .or_else(|| pattern.as_str().strip_prefix("*."));
            if let Some(apex) = apex
                && !apex.contains('*')
                && !written.contains(apex)
            {
                let advice = Advice::ApexNotCovered {
                    pattern: pattern.to_string(),
                    apex: apex.trim_end_matches('.').into(),
                };
                warn(Severity::Info, line, advice);
            }
        }
    }
    warnings
}

/// Advice about what one endpoint ends up with.
pub fn endpoint(policies: &[Policy], compiled: &EndpointPolicy) -> Vec<Warning> {
    if compiled.selectors.is_empty() || !compiled.dns_rules.is_empty() {
        return Vec::new();
    }
    let first = policies
        .iter()
        .find_map(|policy| fqdns(policy).next().map(|(_, line)| (policy, line)));
    first
        .map(|(policy, line)| Warning {
            severity: Severity::Warning,
            policy: Some(policy.reference.clone()),
            file: policy.file.clone(),
            line,
            advice: Advice::NoDnsPath,
        })
        .into_iter()
        .collect()
}

/// The port rules that need a proxy, with their lines.
fn proxies(rule: &Rule) -> impl Iterator<Item = (Proxy, u32)> {
    rule.ingress
        .iter()
        .chain(&rule.egress)
        .filter_map(|clause| match &clause.ports {
            Ports::Rules(rules) => Some(rules),
            Ports::All | Ports::Icmp(_) => None,
        })
        .flatten()
        .filter_map(|rule| Some((rule.l7.as_ref()?.proxy(), rule.line)))
}

fn fqdns(policy: &Policy) -> impl Iterator<Item = (&NameSelector, u32)> {
    policy
        .rules
        .iter()
        .flat_map(|rule| &rule.egress)
        .filter_map(|clause| match &clause.peers {
            Peers::Names(names) => Some(names),
            _ => None,
        })
        .flatten()
        .map(|name| (&name.value, name.line))
}

/// `*github.com` → `github.com`: a wildcard glued to a name of two labels, which is what can be
/// registered.
fn glued(pattern: &str) -> Option<String> {
    let name = pattern.strip_prefix('*')?.trim_end_matches('.');
    let registrable = !name.starts_with(['.', '*'])
        && !name.is_empty()
        && !name.contains('*')
        && name.split('.').count() == 2;
    registrable.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::documents;

    fn advice(spec: &str) -> Vec<Advice> {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: a, namespace: ci}}\nspec: {spec}\n"
        );
        let parsed = documents("p.yaml", &text).unwrap();
        let warnings = policies(&parsed.policies);
        warnings.into_iter().map(|w| w.advice).collect()
    }

    fn about(fqdn: &str) -> Vec<Advice> {
        advice(&format!(
            "{{endpointSelector: {{}}, egress: [{{toFQDNs: [{fqdn}]}}]}}"
        ))
    }

    #[test]
    fn a_wildcard_glued_to_what_can_be_registered_is_pointed_out() {
        let glued = |pattern: &str, name: &str| Advice::GluedWildcard {
            pattern: pattern.into(),
            name: name.into(),
        };
        assert_eq!(
            about("{matchPattern: '*github.com'}"),
            [glued("*github.com", "github.com")]
        );
        assert_eq!(
            about("{matchPattern: '**GitHub.com.'}").first(),
            Some(&glued("*github.com", "github.com"))
        );
        assert_eq!(about("{matchPattern: '*api.github.com'}"), []);
        assert_eq!(about("{matchPattern: '*'}"), []);
    }

    #[test]
    fn two_stars_that_mean_one_are_pointed_out() {
        assert_eq!(
            about("{matchPattern: 'a.**.b'}"),
            [Advice::DoubleStarInside("a.*.b".into())]
        );
        assert_eq!(about("{matchPattern: '**.a.b'}, {matchName: a.b}"), []);
    }

    #[test]
    fn a_label_no_name_has_is_pointed_out() {
        let long = "a".repeat(64);
        assert_eq!(
            about(&format!("{{matchName: {long}.test}}")),
            [Advice::LabelTooLong(format!("{long}.test"))]
        );
    }

    #[test]
    fn rules_that_nothing_enforces_yet_are_pointed_out() {
        let spec = "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]}";
        assert_eq!(advice(spec), [Advice::NeedsProxy(Proxy::Http)]);
        let text = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: a}\n\
            spec: {nodeSelector: {}, ingress: [{}]}\n";
        let warnings = policies(&documents("p.yaml", text).unwrap().policies);
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].advice, Advice::NodeSubject);
    }

    #[test]
    fn a_namespace_in_the_subject_of_a_namespaced_policy_is_pointed_out() {
        let spec =
            "{endpointSelector: {matchLabels: {io.kubernetes.pod.namespace: b}}, egress: [{}]}";
        assert_eq!(advice(spec), [Advice::SubjectNamespace]);
    }
}
