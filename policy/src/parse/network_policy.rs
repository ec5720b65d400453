//! `NetworkPolicy` of `networking.k8s.io/v1`.
//!
//! In:  the object.
//! Out: a [`Policy`] in the form all languages share.
//! Not here: label selectors (`labels`), prefixes (`peers`).
//!
//! Meaning: the API reference of Kubernetes, and `pkg/k8s/network_policy.go` of Cilium 1.20 where
//! that leaves it open.

use std::sync::Arc;

use super::{
    Limits, Problem, document,
    fields::{Cursor, Fields, Reader},
    labels, peers,
    ports::{self, is_number},
};
use crate::{
    compiled::{Direction, PolicyKind, Protocol},
    model::{
        Clause, Effect, Located, NamedPort, Peers, Policy, PortRange, PortRule, Ports, Prefix,
        PrefixRule, Rule, Tier,
    },
    selector::LabelSelector,
};

pub(super) fn policy(reader: &mut Reader, at: &Cursor<'_>, limits: &Limits) -> Option<Policy> {
    const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    const SPEC: &[&str] = &["podSelector", "ingress", "egress", "policyTypes"];
    let fields = reader.fields(at, FIELDS, &[])?;
    let kind = PolicyKind::NetworkPolicy;
    let reference = document::metadata(reader, fields.get("metadata"), at, kind, limits);
    let mode = document::mode(reader, fields.get("metadata"));
    let Some(spec_at) = fields.get("spec") else {
        reader.problem(at, Problem::NoSpec);
        return None;
    };
    let spec = reader.fields(spec_at, SPEC, &[])?;
    let subject = match spec.get("podSelector") {
        Some(selector) => labels::selector(reader, selector),
        None => Some(LabelSelector::default()),
    };
    let types = policy_types(reader, spec.get("policyTypes"));
    let reference = reference?;
    let scope = Scope {
        namespace: &reference.namespace,
        cluster: &limits.cluster,
    };
    let mut section = |name: &str, direction| match spec.get(name) {
        None => Some(Vec::new()),
        Some(list) => section(reader, list, direction, &scope),
    };
    let ingress = section("ingress", Direction::Ingress);
    let egress = section("egress", Direction::Egress);
    let (mut ingress, mut egress, types) = (ingress?, egress?, types?);
    // A section without rules still shuts its direction, when the policy is about it.
    let nobody = Clause {
        effect: Effect::Allow,
        order: 0,
        peers: Peers::Nobody,
        ports: Ports::All,
        line: spec_at.line(),
    };
    if ingress.is_empty() && (types.ingress || !types.egress) {
        ingress.push(nobody.clone());
    }
    if egress.is_empty() && types.egress {
        egress.push(nobody);
    }
    let subject = subject?.of_source_k8s();
    let rule = Rule {
        subject: subject.scoped_to_subject(Some(&reference.namespace)),
        tier: Tier::Normal,
        default_deny_ingress: !ingress.is_empty(),
        default_deny_egress: !egress.is_empty(),
        ingress,
        egress,
        log: None,
        line: spec_at.line(),
    };
    Some(Policy {
        reference,
        file: Arc::clone(&reader.file),
        mode: mode?,
        rules: vec![rule],
    })
}

struct Scope<'a> {
    namespace: &'a str,
    cluster: &'a str,
}

#[derive(Default)]
struct Types {
    ingress: bool,
    egress: bool,
}

fn policy_types(reader: &mut Reader, at: Option<&Cursor<'_>>) -> Option<Types> {
    let mut types = Types::default();
    let Some(at) = at else {
        return Some(types);
    };
    for item in reader.list(at)? {
        match reader.string(&item)? {
            "Ingress" => types.ingress = true,
            "Egress" => types.egress = true,
            other => {
                let problem = Problem::NotOneOf {
                    found: other.into(),
                    allowed: "Ingress, Egress".into(),
                };
                reader.problem(&item, problem);
                return None;
            }
        }
    }
    Some(types)
}

fn section(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    scope: &Scope<'_>,
) -> Option<Vec<Clause>> {
    let mut clauses = Vec::new();
    let errors = reader.errors.len();
    for item in reader.list(at)? {
        clauses.extend(rule(reader, &item, direction, scope).unwrap_or_default());
    }
    (reader.errors.len() == errors).then_some(clauses)
}

/// One rule: a clause for each kind of peers in it.
fn rule(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    scope: &Scope<'_>,
) -> Option<Vec<Clause>> {
    let (known, list): (&'static [&'static str], _) = match direction {
        Direction::Ingress => (&["from", "ports"], "from"),
        Direction::Egress => (&["to", "ports"], "to"),
    };
    let fields = reader.fields(at, known, &[])?;
    let ports = match fields.get("ports") {
        None => Some(Ports::All),
        Some(list) => ports_of(reader, list),
    };
    let items = match fields.get(list) {
        None => Vec::new(),
        Some(list) => reader.list(list)?,
    };
    let clause = |peers, ports: &Ports| Clause {
        effect: Effect::Allow,
        order: 0,
        peers,
        ports: ports.clone(),
        line: at.line(),
    };
    if items.is_empty() {
        return Some(vec![clause(Peers::Any, &ports?)]);
    }
    let (mut workloads, mut prefixes) = (Vec::new(), Vec::new());
    for item in &items {
        let line = item.line();
        match peer(reader, item, scope) {
            Some(Peer::Workloads(value)) => workloads.push(Located { value, line }),
            Some(Peer::Addresses(value)) => prefixes.push(Located { value, line }),
            None => {}
        }
    }
    let ports = ports?;
    Some(
        [
            (!workloads.is_empty()).then_some(Peers::Endpoints(workloads)),
            (!prefixes.is_empty()).then_some(Peers::Prefixes(prefixes)),
        ]
        .into_iter()
        .flatten()
        .map(|peers| clause(peers, &ports))
        .collect(),
    )
}

enum Peer {
    Workloads(LabelSelector),
    Addresses(PrefixRule),
}

fn peer(reader: &mut Reader, at: &Cursor<'_>, scope: &Scope<'_>) -> Option<Peer> {
    const FIELDS: &[&str] = &["podSelector", "namespaceSelector", "ipBlock"];
    let fields = reader.fields(at, FIELDS, &[])?;
    let (pods, namespaces) = (fields.get("podSelector"), fields.get("namespaceSelector"));
    match (fields.get("ipBlock"), pods.or(namespaces)) {
        (Some(block), None) => address_block(reader, block).map(Peer::Addresses),
        (None, Some(_)) => {
            let selector = workloads(reader, &fields, Some(scope.namespace), scope.cluster)?;
            Some(Peer::Workloads(selector))
        }
        _ => {
            reader.problem(
                at,
                Problem::ExactlyOne("`ipBlock` and `podSelector` with `namespaceSelector`"),
            );
            None
        }
    }
}

/// `podSelector` and `namespaceSelector` together; without the latter the pods are those of
/// `own`, or of every namespace.
pub(super) fn workloads(
    reader: &mut Reader,
    fields: &Fields<'_>,
    own: Option<&str>,
    cluster: &str,
) -> Option<LabelSelector> {
    let pods = match fields.get("podSelector") {
        Some(at) => labels::selector(reader, at)?.of_source_k8s(),
        None => LabelSelector::default(),
    };
    let selector = match fields.get("namespaceSelector") {
        Some(at) => pods.and(labels::selector(reader, at)?.of_namespace()),
        None => match own {
            Some(own) => pods.scoped_to_subject(Some(own)),
            None => pods,
        },
    };
    Some(selector.of_workloads(cluster))
}

fn address_block(reader: &mut Reader, at: &Cursor<'_>) -> Option<PrefixRule> {
    let fields = reader.fields(at, &["cidr", "except"], &[])?;
    let Some(cidr) = fields.get("cidr") else {
        reader.problem(at, Problem::Missing("cidr"));
        return None;
    };
    let prefix = peers::address_range(reader, cidr)?;
    let except = match fields.get("except") {
        None => Vec::new(),
        Some(list) => peers::except(reader, list, Some(prefix))?,
    };
    Some(PrefixRule::Cidr(Prefix { prefix, except }))
}

fn ports_of(reader: &mut Reader, at: &Cursor<'_>) -> Option<Ports> {
    let items = reader.list(at)?;
    if items.is_empty() {
        return Some(Ports::All);
    }
    let mut rule = PortRule {
        ports: Vec::new(),
        named: Vec::new(),
        dns: None,
        l7: None,
        line: at.line(),
    };
    let errors = reader.errors.len();
    for item in &items {
        port(reader, item, &mut rule);
    }
    (reader.errors.len() == errors).then(|| Ports::Rules(vec![rule]))
}

fn port(reader: &mut Reader, at: &Cursor<'_>, rule: &mut PortRule) -> Option<()> {
    let fields = reader.fields(at, &["protocol", "port", "endPort"], &[])?;
    let proto = match fields.get("protocol") {
        None => Protocol::Tcp,
        Some(at) => match reader.string(at)? {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => {
                let problem = Problem::NotOneOf {
                    found: other.into(),
                    allowed: "TCP, UDP, SCTP".into(),
                };
                reader.problem(at, problem);
                return None;
            }
        },
    };
    let end = match fields.get("endPort") {
        None => None,
        Some(end) => Some((end, reader.number(end, u32::from(u16::MAX))?)),
    };
    let number = match fields.get("port") {
        None => None,
        Some(port) if is_number(port) => Some(reader.number(port, u32::from(u16::MAX))?),
        Some(port) => {
            let text = reader.string(port)?;
            if !ports::is_service_name(text) {
                let problem = Problem::Form {
                    found: text.into(),
                    expected: "the name of a port; a number stands without quotes",
                };
                reader.problem(port, problem);
                return None;
            }
            if let Some((end, _)) = end {
                end_port(reader, end);
                return None;
            }
            rule.named.push(NamedPort {
                name: text.to_ascii_lowercase().into(),
                proto: Some(proto),
            });
            return Some(());
        }
    };
    let (first, last) = match (number, end) {
        (None, None) => (0, u32::from(u16::MAX)),
        (Some(0), _) => {
            let port = fields.get("port")?;
            reader.problem(port, Problem::OutOfRange("0".into(), 65535));
            return None;
        }
        (Some(port), None) => (port, port),
        (Some(port), Some((_, end))) if end >= port => (port, end),
        (_, Some((end, _))) => {
            end_port(reader, end);
            return None;
        }
    };
    rule.ports.push(PortRange {
        proto: Some(proto),
        first: u16::try_from(first).ok()?,
        last: u16::try_from(last).ok()?,
    });
    Some(())
}

fn end_port(reader: &mut Reader, at: &Cursor<'_>) {
    let problem = Problem::Refused {
        what: "endPort".into(),
        why: "needs a `port` that is a number and not above it",
    };
    reader.problem(at, problem);
}
