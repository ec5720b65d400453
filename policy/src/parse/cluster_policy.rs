//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`.
//!
//! In:  the object.
//! Out: a [`Policy`] in the form all languages share: ordered clauses of a tier.
//! Not here: what the tiers mean together (`compile`).
//!
//! Fields: `apis/v1alpha2/clusternetworkpolicy_types.go` of kubernetes-sigs/network-policy-api;
//! `domainNames`: its NPEP-133.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Limits, Problem, document,
    fields::{Cursor, Reader},
    labels,
    network_policy::workloads,
    peers, ports,
};
use crate::{
    compiled::{Direction, PolicyKind, Protocol},
    fqdn::NameSelector,
    model::{
        Clause, Effect, Located, NamedPort, Peers, Policy, PortRange, PortRule, Ports, Rule, Tier,
    },
    selector::LabelSelector,
};

const MAX_PRIORITY: u32 = 1000;
/// Elements of every list of the object.
const MAX_LIST: usize = 25;
const MAX_NAME: usize = 100;

pub(super) fn policy(reader: &mut Reader, at: &Cursor<'_>, limits: &Limits) -> Option<Policy> {
    const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    const SPEC: &[&str] = &["tier", "priority", "subject", "ingress", "egress"];
    let fields = reader.fields(at, FIELDS, &[])?;
    let kind = PolicyKind::ClusterNetworkPolicy;
    let reference = document::metadata(reader, fields.get("metadata"), at, kind, limits);
    let mode = document::mode(reader, fields.get("metadata"));
    let Some(spec_at) = fields.get("spec") else {
        reader.problem(at, Problem::NoSpec);
        return None;
    };
    let spec = reader.fields(spec_at, SPEC, &[])?;
    for name in ["tier", "priority", "subject"] {
        if spec.get(name).is_none() {
            reader.problem(spec_at, Problem::Missing(name));
        }
    }
    let priority = spec
        .get("priority")
        .and_then(|at| reader.number(at, MAX_PRIORITY))
        .and_then(|priority| u16::try_from(priority).ok());
    let tier = spec
        .get("tier")
        .and_then(|at| tier(reader, at, priority.unwrap_or(0)));
    let subject = spec
        .get("subject")
        .and_then(|at| workload_peer(reader, at, limits));
    let mut section = |name: &str, direction| match spec.get(name) {
        None => Some(Vec::new()),
        Some(list) => section(reader, list, direction, limits),
    };
    let ingress = section("ingress", Direction::Ingress);
    let egress = section("egress", Direction::Egress);
    priority?;
    Some(Policy {
        reference: reference?,
        file: Arc::clone(&reader.file),
        mode: mode?,
        rules: vec![Rule {
            subject: subject?,
            tier: tier?,
            ingress: ingress?,
            egress: egress?,
            // What no rule matches is for the next tier to decide.
            default_deny_ingress: false,
            default_deny_egress: false,
            log: None,
            line: spec_at.line(),
        }],
    })
}

fn tier(reader: &mut Reader, at: &Cursor<'_>, priority: u16) -> Option<Tier> {
    match reader.string(at)? {
        "Admin" => Some(Tier::Admin(priority)),
        "Baseline" => Some(Tier::Baseline(priority)),
        other => {
            let problem = Problem::NotOneOf {
                found: other.into(),
                allowed: "Admin, Baseline".into(),
            };
            reader.problem(at, problem);
            None
        }
    }
}

/// `namespaces` or `pods`: the subject, and peers that are workloads.
fn workload_peer(reader: &mut Reader, at: &Cursor<'_>, limits: &Limits) -> Option<LabelSelector> {
    let fields = reader.fields(at, &["namespaces", "pods"], &[])?;
    match (fields.get("namespaces"), fields.get("pods")) {
        (Some(namespaces), None) => by_namespace(reader, namespaces, limits),
        (None, Some(pods)) => by_pod(reader, pods, limits),
        _ => {
            reader.problem(at, Problem::ExactlyOne("`namespaces` and `pods`"));
            None
        }
    }
}

fn by_namespace(reader: &mut Reader, at: &Cursor<'_>, limits: &Limits) -> Option<LabelSelector> {
    let namespaces = labels::selector(reader, at)?.of_namespace();
    Some(namespaces.of_workloads(&limits.cluster))
}

fn by_pod(reader: &mut Reader, at: &Cursor<'_>, limits: &Limits) -> Option<LabelSelector> {
    let fields = reader.fields(at, &["namespaceSelector", "podSelector"], &[])?;
    for name in ["namespaceSelector", "podSelector"] {
        if fields.get(name).is_none() {
            reader.problem(at, Problem::Missing(name));
            return None;
        }
    }
    workloads(reader, &fields, None, &limits.cluster)
}

fn section(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    limits: &Limits,
) -> Option<Vec<Clause>> {
    let items = reader.short_list(at, MAX_LIST)?;
    let errors = reader.errors.len();
    let mut clauses = Vec::new();
    for (order, item) in (0..).zip(&items) {
        clauses.extend(rule(reader, item, direction, order, limits).unwrap_or_default());
    }
    (reader.errors.len() == errors).then_some(clauses)
}

/// One rule: a clause for each kind of peers in it, all with the place of the rule.
fn rule(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    order: u16,
    limits: &Limits,
) -> Option<Vec<Clause>> {
    let (known, list): (&'static [&'static str], _) = match direction {
        Direction::Ingress => (&["name", "action", "from", "protocols"], "from"),
        Direction::Egress => (&["name", "action", "to", "protocols"], "to"),
    };
    let fields = reader.fields(at, known, &[])?;
    if let Some(name) = fields.get("name")
        && reader.string(name)?.chars().count() > MAX_NAME
    {
        let problem = Problem::Form {
            found: "name".into(),
            expected: "a name of at most 100 characters",
        };
        reader.problem(name, problem);
    }
    let effect = match fields.get("action") {
        None => {
            reader.problem(at, Problem::Missing("action"));
            None
        }
        Some(at) => action(reader, at),
    };
    let ports = match fields.get("protocols") {
        None => Some(Ports::All),
        Some(list) => protocols(reader, list),
    };
    let Some(list_at) = fields.get(list) else {
        reader.problem(at, Problem::Missing(list));
        return None;
    };
    let items = reader.short_list(list_at, MAX_LIST)?;
    if items.is_empty() {
        let problem = Problem::Refused {
            what: list.into(),
            why: "needs at least one element",
        };
        reader.problem(list_at, problem);
    }
    let (effect, ports) = (effect?, ports?);
    let mut clauses = Vec::new();
    for item in &items {
        let Some(peers) = peer(reader, item, direction, effect, limits) else {
            continue;
        };
        let by_name = matches!(&ports, Ports::Rules(rules)
            if rules.iter().any(|rule| !rule.named.is_empty()));
        if by_name && !matches!(peers, Peers::Endpoints(_)) {
            let problem = Problem::Refused {
                what: "destinationNamedPort".into(),
                why: "has a meaning for `namespaces` and `pods` only; write the number",
            };
            reader.problem(item, problem);
        }
        clauses.push(Clause {
            effect,
            order,
            peers,
            ports: ports.clone(),
            line: item.line(),
        });
    }
    Some(clauses)
}

fn action(reader: &mut Reader, at: &Cursor<'_>) -> Option<Effect> {
    match reader.string(at)? {
        "Accept" => Some(Effect::Allow),
        "Deny" => Some(Effect::Deny),
        "Pass" => Some(Effect::Pass),
        other => {
            let problem = Problem::NotOneOf {
                found: other.into(),
                allowed: "Accept, Deny, Pass".into(),
            };
            reader.problem(at, problem);
            None
        }
    }
}

fn peer(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    effect: Effect,
    limits: &Limits,
) -> Option<Peers> {
    const FROM: &[&str] = &["namespaces", "pods"];
    const TO: &[&str] = &["namespaces", "pods", "nodes", "networks", "domainNames"];
    let known = match direction {
        Direction::Ingress => FROM,
        Direction::Egress => TO,
    };
    let fields = reader.fields(at, known, &[])?;
    let written: Vec<_> = known
        .iter()
        .filter_map(|name| Some((*name, fields.get(name)?)))
        .collect();
    let [(name, field)] = written.as_slice() else {
        let choice = match direction {
            Direction::Ingress => "`namespaces` and `pods`",
            Direction::Egress => "`namespaces`, `pods`, `nodes`, `networks` and `domainNames`",
        };
        reader.problem(at, Problem::ExactlyOne(choice));
        return None;
    };
    let one = |value| {
        let line = at.line();
        vec![Located { value, line }]
    };
    Some(match *name {
        "namespaces" => Peers::Endpoints(one(by_namespace(reader, field, limits)?)),
        "pods" => Peers::Endpoints(one(by_pod(reader, field, limits)?)),
        "nodes" => {
            let nodes = labels::selector(reader, field)?;
            let line = at.line();
            let scoped = ["host", "remote-node"].map(|reserved| Located {
                value: nodes.clone().scoped_to_nodes(reserved),
                line,
            });
            Peers::Nodes(scoped.into())
        }
        "networks" => {
            let items = full_list(reader, field)?;
            Peers::Networks(peers::all(reader, &items, address_range)?)
        }
        _ => {
            if effect != Effect::Allow {
                let problem = Problem::Refused {
                    what: "domainNames".into(),
                    why: "goes with `action: Accept` only: what a name resolves to is known too late to deny it",
                };
                reader.problem(field, problem);
                return None;
            }
            let items = full_list(reader, field)?;
            Peers::Names(peers::all(reader, &items, domain_name)?)
        }
    })
}

fn full_list<'a>(reader: &mut Reader, at: &Cursor<'a>) -> Option<Vec<Cursor<'a>>> {
    let items = reader.short_list(at, MAX_LIST)?;
    if items.is_empty() {
        let problem = Problem::Refused {
            what: "[]".into(),
            why: "needs at least one element",
        };
        reader.problem(at, problem);
        return None;
    }
    Some(items)
}

fn address_range(reader: &mut Reader, at: &Cursor<'_>) -> Option<IpNet> {
    peers::address_range(reader, at)
}

/// A name, or `*.` and a name: one or more whole labels in front.
fn domain_name(reader: &mut Reader, at: &Cursor<'_>) -> Option<NameSelector> {
    let text = reader.string(at)?;
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if name.contains('*') {
        let problem = Problem::Form {
            found: text.into(),
            expected: "a name, or `*.` in front of a name",
        };
        reader.problem(at, problem);
        return None;
    }
    let parsed = if wildcard {
        NameSelector::pattern(&format!("**.{name}"))
    } else {
        NameSelector::name(name)
    };
    match parsed {
        Ok(selector) => Some(selector),
        Err(error) => {
            reader.problem(at, error);
            None
        }
    }
}

fn protocols(reader: &mut Reader, at: &Cursor<'_>) -> Option<Ports> {
    let items = full_list(reader, at)?;
    let mut rule = PortRule {
        ports: Vec::new(),
        named: Vec::new(),
        dns: None,
        l7: None,
        line: at.line(),
    };
    let errors = reader.errors.len();
    for item in &items {
        protocol(reader, item, &mut rule);
    }
    (reader.errors.len() == errors).then(|| Ports::Rules(vec![rule]))
}

fn protocol(reader: &mut Reader, at: &Cursor<'_>, rule: &mut PortRule) -> Option<()> {
    const KINDS: &[&str] = &["tcp", "udp", "sctp", "destinationNamedPort"];
    let fields = reader.fields(at, KINDS, &[])?;
    let written: Vec<_> = KINDS
        .iter()
        .filter_map(|name| Some((*name, fields.get(name)?)))
        .collect();
    let [(name, field)] = written.as_slice() else {
        let problem = Problem::ExactlyOne("`tcp`, `udp`, `sctp` and `destinationNamedPort`");
        reader.problem(at, problem);
        return None;
    };
    let proto = match *name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            let text = reader.string(field)?;
            if !ports::is_service_name(text) {
                let problem = Problem::Form {
                    found: text.into(),
                    expected: "the name of a port",
                };
                reader.problem(field, problem);
                return None;
            }
            rule.named.push(NamedPort {
                name: text.to_ascii_lowercase().into(),
                proto: None,
            });
            return Some(());
        }
    };
    let inner = reader.fields(field, &["destinationPort"], &[])?;
    let (first, last) = match inner.get("destinationPort") {
        None => (0, u16::MAX),
        Some(port) => destination_port(reader, port)?,
    };
    rule.ports.push(PortRange {
        proto: Some(proto),
        first,
        last,
    });
    Some(())
}

fn destination_port(reader: &mut Reader, at: &Cursor<'_>) -> Option<(u16, u16)> {
    let fields = reader.fields(at, &["number", "range"], &[])?;
    let mut number = |at: &Cursor<'_>| {
        let number = reader.number(at, u32::from(u16::MAX))?;
        if number == 0 {
            reader.problem(at, Problem::OutOfRange("0".into(), 65535));
            return None;
        }
        u16::try_from(number).ok()
    };
    match (fields.get("number"), fields.get("range")) {
        (Some(port), None) => {
            let port = number(port)?;
            Some((port, port))
        }
        (None, Some(range_at)) => {
            let range = reader.fields(range_at, &["start", "end"], &[])?;
            let mut bound = |name: &'static str| match range.get(name) {
                None => {
                    reader.problem(range_at, Problem::Missing(name));
                    None
                }
                Some(at) => u16::try_from(reader.number(at, u32::from(u16::MAX))?).ok(),
            };
            let (start, end) = (bound("start")?, bound("end")?);
            if start == 0 || start >= end {
                let problem = Problem::Form {
                    found: format!("{start}-{end}"),
                    expected: "a range from a port to a higher one",
                };
                reader.problem(range_at, problem);
                return None;
            }
            Some((start, end))
        }
        _ => {
            reader.problem(at, Problem::ExactlyOne("`number` and `range`"));
            None
        }
    }
}
