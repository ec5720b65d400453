//! `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`.
//!
//! In:  the object of one policy.
//! Out: a [`Policy`] in the form all languages share.
//! Not here: peers, ports, labels (siblings).
//!
//! Fields and their absence: `pkg/policy/api/rule.go` and `rule_validation.go` of Cilium 1.20.

use std::sync::Arc;

use super::{
    Limits, Problem, document,
    fields::{Cursor, Reader},
    labels, peers, ports,
    tree::Value,
};
use crate::{
    compiled::{Direction, PolicyKind},
    model::{Clause, Peers, Policy, Ports, Rule},
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
        rules,
    })
}

fn rule(reader: &mut Reader, at: &Cursor<'_>, mut scope: Scope<'_>) -> Option<Rule> {
    const FIELDS: &[&str] = &[
        "endpointSelector",
        "ingress",
        "egress",
        "enableDefaultDeny",
        "description",
        "labels",
        "log",
    ];
    const LATER: &[&str] = &["nodeSelector", "ingressDeny", "egressDeny"];
    let fields = reader.fields(at, FIELDS, LATER)?;
    let subject = match fields.get("endpointSelector") {
        Some(selector) => labels::selector(reader, selector),
        None => {
            reader.problem(at, Problem::Missing("endpointSelector"));
            None
        }
    };
    scope.subject_is_init = subject.as_ref().is_some_and(|selector| {
        selector
            .requirements()
            .iter()
            .any(|r| &*r.key.source == "reserved" && &*r.key.key == "init")
    });
    let mut section = |name: &str, direction| {
        fields.get(name).map_or_else(
            || Some(Vec::new()),
            |list| clauses(reader, list, direction, &scope),
        )
    };
    let ingress = section("ingress", Direction::Ingress);
    let egress = section("egress", Direction::Egress);
    let default_deny = fields
        .get("enableDefaultDeny")
        .and_then(|c| default_deny(reader, c))
        .unwrap_or_default();
    for name in ["description"] {
        if let Some(text) = fields.get(name) {
            reader.string(text);
        }
    }
    if let Some(list) = fields.get("labels") {
        reader.list(list);
    }
    let log = fields.get("log").and_then(|c| log_value(reader, c));
    let (ingress, egress) = (ingress?, egress?);
    if ingress.is_empty() && egress.is_empty() {
        // Sections of a later version were reported already; they would have counted.
        const LATER_SECTIONS: [&str; 2] = ["ingressDeny", "egressDeny"];
        let has_later = matches!(&at.node.value, Value::Map(members)
            if members.iter().any(|m| LATER_SECTIONS.contains(&&*m.key)));
        if !has_later {
            reader.problem(at, Problem::NoSection);
        }
        return None;
    }
    Some(Rule {
        subject: subject?.scoped_to_subject(scope.namespace),
        default_deny_ingress: default_deny.0.unwrap_or(true) && !ingress.is_empty(),
        default_deny_egress: default_deny.1.unwrap_or(true) && !egress.is_empty(),
        ingress,
        egress,
        log,
        line: at.line(),
    })
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
    scope: &Scope<'_>,
) -> Option<Vec<Clause>> {
    let items = reader.list(at)?;
    let count = items.len();
    let clauses: Vec<_> = items
        .iter()
        .filter_map(|item| clause(reader, item, direction, scope))
        .collect();
    (clauses.len() == count).then_some(clauses)
}

fn clause(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    scope: &Scope<'_>,
) -> Option<Clause> {
    const INGRESS: &[&str] = &[
        "fromEndpoints",
        "fromCIDR",
        "fromCIDRSet",
        "fromEntities",
        "toPorts",
        "icmps",
    ];
    const INGRESS_LATER: &[&str] = &["fromGroups", "fromNodes", "fromRequires", "authentication"];
    const EGRESS: &[&str] = &[
        "toFQDNs",
        "toEndpoints",
        "toCIDR",
        "toCIDRSet",
        "toEntities",
        "toPorts",
        "icmps",
    ];
    const EGRESS_LATER: &[&str] = &[
        "toServices",
        "toGroups",
        "toNodes",
        "toRequires",
        "authentication",
    ];
    let errors = reader.errors.len();
    let (known, later) = match direction {
        Direction::Ingress => (INGRESS, INGRESS_LATER),
        Direction::Egress => (EGRESS, EGRESS_LATER),
    };
    let fields = reader.fields(at, known, later)?;
    let peers = peers::read(reader, at, &fields, known, scope)?;
    let (to_ports, icmps) = (fields.get("toPorts"), fields.get("icmps"));
    if to_ports.is_some()
        && let Some(icmps) = icmps
    {
        reader.problem(icmps, Problem::IcmpWithPorts);
    }
    let ports = match (to_ports, icmps) {
        (Some(list), _) => ports::to_ports(reader, list, direction)?,
        (None, Some(list)) => super::icmp::read(reader, list)?,
        (None, None) => Ports::All,
    };
    // No peers and no ports: `{}` selects nobody. Ports alone: these ports of everybody.
    let peers = match (peers, &ports) {
        (None, Ports::All) => Peers::Nobody,
        (None, _) => Peers::Any,
        (Some(peers), _) => peers,
    };
    (reader.errors.len() == errors).then_some(Clause {
        peers,
        ports,
        line: at.line(),
    })
}
