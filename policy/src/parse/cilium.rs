//! `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`.
//!
//! In:  the object of one policy.
//! Out: a [`Policy`] in the form all languages share.
//! Not here: elements of its sections (`clause`), peers, ports, labels (siblings).
//!
//! Fields and their absence: `pkg/policy/api/rule.go` and `rule_validation.go` of Cilium 1.20.

use std::sync::Arc;

use identity::source;

use super::{
    Limits, Problem, clause, document,
    fields::{Cursor, Fields, Reader},
    labels,
};
use crate::{
    compiled::{Direction, PolicyKind},
    model::{Clause, Effect, Policy, Rule, Tier},
    selector::{LabelKey, LabelSelector, Operator, Requirement},
};

/// What peers and subjects of a policy are relative to.
pub(super) struct Scope<'a> {
    /// None for cluster-wide policies.
    pub(super) namespace: Option<&'a str>,
    pub(super) cluster: &'a str,
    /// The subject names `reserved:init`.
    pub(super) subject_is_init: bool,
}

pub(super) fn policy(
    reader: &mut Reader,
    at: &Cursor<'_>,
    kind: PolicyKind,
    limits: &Limits,
) -> Option<Policy> {
    const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "specs", "status"];
    let fields = reader.fields(at, FIELDS, &[])?;
    let reference = document::metadata(reader, fields.get("metadata"), at, kind, limits);
    let mode = document::mode(reader, fields.get("metadata"));
    let namespace = reference
        .as_ref()
        .map(|r| Arc::clone(&r.namespace))
        .filter(|namespace| !namespace.is_empty());
    let mut specs: Vec<Cursor<'_>> = fields.get("spec").cloned().into_iter().collect();
    if let Some(list) = fields.get("specs") {
        specs.extend(reader.list(list).unwrap_or_default());
    }
    if specs.is_empty() {
        reader.problem(at, Problem::NoSpec);
        return None;
    }
    let mut rules = Vec::new();
    for spec in &specs {
        let scope = Scope {
            namespace: namespace.as_deref(),
            cluster: &limits.cluster,
            subject_is_init: false,
        };
        rules.extend(rule(reader, spec, scope));
    }
    Some(Policy {
        reference: reference?,
        file: Arc::clone(&reader.file),
        mode: mode?,
        rules,
    })
}

fn rule(reader: &mut Reader, at: &Cursor<'_>, mut scope: Scope<'_>) -> Option<Rule> {
    const FIELDS: &[&str] = &[
        "endpointSelector",
        "nodeSelector",
        "ingress",
        "ingressDeny",
        "egress",
        "egressDeny",
        "enableDefaultDeny",
        "description",
        "labels",
        "log",
    ];
    let fields = reader.fields(at, FIELDS, &[])?;
    let subject = subject(reader, at, &fields, &scope);
    scope.subject_is_init = subject.as_ref().is_some_and(|selector| {
        let mut keys = selector.requirements().iter().map(|r| &r.key);
        keys.any(|key| &*key.source == source::RESERVED && &*key.key == "init")
    });
    let mut section = |name: &str, direction, effect| {
        fields.get(name).map_or_else(
            || Some(Vec::new()),
            |list| clauses(reader, list, direction, effect, &scope),
        )
    };
    let ingress = section("ingress", Direction::Ingress, Effect::Allow);
    let ingress_deny = section("ingressDeny", Direction::Ingress, Effect::Deny);
    let egress = section("egress", Direction::Egress, Effect::Allow);
    let egress_deny = section("egressDeny", Direction::Egress, Effect::Deny);
    let default_deny = fields
        .get("enableDefaultDeny")
        .and_then(|c| default_deny(reader, c))
        .unwrap_or_default();
    if let Some(text) = fields.get("description") {
        reader.string(text);
    }
    if let Some(list) = fields.get("labels") {
        rule_labels(reader, list);
    }
    let log = fields.get("log").and_then(|c| log_value(reader, c));
    let (mut ingress, mut egress) = (ingress?, egress?);
    ingress.extend(ingress_deny?);
    egress.extend(egress_deny?);
    if ingress.is_empty() && egress.is_empty() {
        reader.problem(at, Problem::NoSection);
        return None;
    }
    Some(Rule {
        subject: subject?,
        tier: Tier::Normal,
        // A deny element turns it on like any other; the flag alone does nothing.
        default_deny_ingress: default_deny.0.unwrap_or(true) && !ingress.is_empty(),
        default_deny_egress: default_deny.1.unwrap_or(true) && !egress.is_empty(),
        ingress,
        egress,
        log,
        line: at.line(),
    })
}

/// `endpointSelector` or, for the node itself, `nodeSelector`.
fn subject(
    reader: &mut Reader,
    at: &Cursor<'_>,
    fields: &Fields<'_>,
    scope: &Scope<'_>,
) -> Option<LabelSelector> {
    match (fields.get("endpointSelector"), fields.get("nodeSelector")) {
        (Some(selector), None) => {
            Some(labels::selector(reader, selector)?.scoped_to_subject(scope.namespace))
        }
        (None, Some(selector)) if scope.namespace.is_some() => {
            let problem = Problem::Refused {
                what: "nodeSelector".into(),
                why: "belongs into a CiliumClusterwideNetworkPolicy: nodes have no namespace",
            };
            reader.problem(selector, problem);
            None
        }
        (None, Some(selector)) => {
            let nodes = labels::selector(reader, selector)?;
            Some(LabelSelector::new(
                nodes.requirements().iter().cloned().chain([Requirement {
                    key: LabelKey {
                        source: source::RESERVED.into(),
                        key: "host".into(),
                    },
                    operator: Operator::Exists,
                }]),
            ))
        }
        (Some(_), Some(_)) => {
            reader.problem(
                at,
                Problem::ExactlyOne("`endpointSelector` and `nodeSelector`"),
            );
            None
        }
        (None, None) => {
            reader.problem(at, Problem::Missing("endpointSelector"));
            None
        }
    }
}

/// Free labels of the rule: checked, and without effect.
fn rule_labels(reader: &mut Reader, at: &Cursor<'_>) {
    for item in reader.list(at).unwrap_or_default() {
        let Some(fields) = reader.fields(&item, &["key", "value", "source"], &[]) else {
            continue;
        };
        if fields.get("key").is_none() {
            reader.problem(&item, Problem::Missing("key"));
        }
        for name in ["key", "value", "source"] {
            reader.text(fields.get(name));
        }
    }
}

/// `enableDefaultDeny`: ingress, egress.
fn default_deny(reader: &mut Reader, at: &Cursor<'_>) -> Option<(Option<bool>, Option<bool>)> {
    let fields = reader.fields(at, &["ingress", "egress"], &[])?;
    let mut flag = |name| fields.get(name).and_then(|c| reader.boolean(c));
    Some((flag("ingress"), flag("egress")))
}

fn log_value(reader: &mut Reader, at: &Cursor<'_>) -> Option<Arc<str>> {
    let fields = reader.fields(at, &["value"], &[])?;
    let value = fields.get("value")?;
    let text = reader.string(value)?;
    if text.chars().count() > 32 || text.chars().any(char::is_control) {
        reader.problem(value, Problem::LogValue);
        return None;
    }
    Some(text.into())
}

fn clauses(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    effect: Effect,
    scope: &Scope<'_>,
) -> Option<Vec<Clause>> {
    let items = reader.list(at)?;
    let count = items.len();
    let clauses: Vec<_> = items
        .iter()
        .filter_map(|item| clause::read(reader, item, direction, effect, scope))
        .collect();
    (clauses.len() == count).then_some(clauses)
}
