//! One element of `ingress`, `ingressDeny`, `egress` or `egressDeny`.
//!
//! In:  the element.
//! Out: [`Clause`].
//! Not here: its peers (`peers`) and ports (`ports`, `icmp`).
//!
//! Fields: `pkg/policy/api/{ingress,egress}.go` of Cilium 1.20.

use super::{
    Problem,
    cilium::Scope,
    fields::{Cursor, Fields, Reader},
    icmp, peers, ports,
    tree::Value,
};
use crate::{
    compiled::Direction,
    model::{Clause, Effect, Peers, Ports},
};

const INGRESS: &[&str] = &[
    "fromEndpoints",
    "fromRequires",
    "fromCIDR",
    "fromCIDRSet",
    "fromEntities",
    "fromGroups",
    "fromNodes",
    "toPorts",
    "icmps",
    "authentication",
];
const EGRESS: &[&str] = &[
    "toFQDNs",
    "toEndpoints",
    "toRequires",
    "toCIDR",
    "toCIDRSet",
    "toEntities",
    "toServices",
    "toGroups",
    "toNodes",
    "toPorts",
    "icmps",
    "authentication",
];
const INGRESS_DENY: &[&str] = &[
    "fromEndpoints",
    "fromRequires",
    "fromCIDR",
    "fromCIDRSet",
    "fromEntities",
    "fromGroups",
    "fromNodes",
    "toPorts",
    "icmps",
];
/// Names cannot be denied: what they resolve to is known too late, and to the workload alone.
const EGRESS_DENY: &[&str] = &[
    "toEndpoints",
    "toRequires",
    "toCIDR",
    "toCIDRSet",
    "toEntities",
    "toServices",
    "toGroups",
    "toNodes",
    "toPorts",
    "icmps",
];

pub(super) fn read(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    effect: Effect,
    scope: &Scope<'_>,
) -> Option<Clause> {
    let errors = reader.errors.len();
    let known = match (direction, effect) {
        (Direction::Ingress, Effect::Allow) => INGRESS,
        (Direction::Egress, Effect::Allow) => EGRESS,
        (Direction::Ingress, _) => INGRESS_DENY,
        (Direction::Egress, _) => EGRESS_DENY,
    };
    let fields = reader.fields(at, known, &[])?;
    for name in ["fromRequires", "toRequires"] {
        requires(reader, fields.get(name), name);
    }
    authentication(reader, &fields);
    let peers = peers::read(reader, at, &fields, known, scope);
    let (to_ports, icmps) = (fields.get("toPorts"), fields.get("icmps"));
    if to_ports.is_some()
        && let Some(icmps) = icmps
    {
        reader.problem(icmps, Problem::IcmpWithPorts);
    }
    let ports = match (to_ports, icmps) {
        (Some(list), _) => ports::to_ports(reader, list, direction, effect),
        (None, Some(list)) => icmp::read(reader, list),
        (None, None) => Some(Ports::All),
    };
    let (peers, ports) = (peers?, ports?);
    // No peers and no ports: `{}` selects nobody. Ports alone: these ports of everybody.
    let peers = match (peers, &ports) {
        (None, Ports::All) => Peers::Nobody,
        (None, _) => Peers::Any,
        (Some(peers), _) => peers,
    };
    (reader.errors.len() == errors).then_some(Clause {
        effect,
        order: 0,
        peers,
        ports,
        line: at.line(),
    })
}

/// A member that older versions had; only the empty list is left of it.
fn requires(reader: &mut Reader, at: Option<&Cursor<'_>>, name: &str) {
    let Some(at) = at else {
        return;
    };
    if !matches!(&at.node.value, Value::List(items) if items.is_empty()) {
        let problem = Problem::Refused {
            what: name.into(),
            why: "is no longer part of the language; write the labels into each selector of `fromEndpoints` or `toEndpoints`",
        };
        reader.problem(at, problem);
    }
}

/// Mutual authentication: only its absence can be enforced.
fn authentication(reader: &mut Reader, fields: &Fields<'_>) {
    let Some(at) = fields.get("authentication") else {
        return;
    };
    let Some(fields) = reader.fields(at, &["mode"], &[]) else {
        return;
    };
    let Some(mode_at) = fields.get("mode") else {
        return reader.problem(at, Problem::Missing("mode"));
    };
    let problem = match reader.string(mode_at) {
        None | Some("disabled") => return,
        Some(mode @ ("required" | "test-always-fail")) => Problem::Refused {
            what: format!("mode: {mode}"),
            why: "needs mutual authentication between nodes, which is not there; remove `authentication`, or enforce it with mutual TLS in the workloads",
        },
        Some(other) => Problem::NotOneOf {
            found: other.into(),
            allowed: "disabled, required, test-always-fail".into(),
        },
    };
    reader.problem(mode_at, problem);
}
