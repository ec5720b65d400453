//! Lists for operators: identities, endpoints' policies, the kernel's maps.
//!
//! In:  the engine.
//! Out: [`Rows`].
//! Not here: tables (`cli`), what is asked of the DNS proxy (`inspector`).

use std::sync::Arc;

use fqdn_ebpf_loader::{Direction, MapError, Passed};
use identity::{IdentityId, LocalIdentity, reserved};
use policy::{
    compiled::{self, EndpointPolicy, Entry, Layered, Peer},
    select,
};
use serde_json::{Value, json};

use crate::api::Rows;

use super::engine::Engine;

/// The rows of one kind; none when there is no such kind. A map that cannot be read has no rows,
/// and the log says why.
pub(crate) fn rows(engine: &Engine, what: &str) -> Option<Rows> {
    let rows = match what {
        "identities" => Ok(identities(engine)),
        "endpoints" => Ok(endpoints(engine)),
        "policy" => Ok(policy(engine)),
        "bpf-learned" => learned(engine),
        "bpf-policy" => policy_map(engine),
        "bpf-ct" => flows(engine),
        "bpf-ipcache" => addresses(engine),
        "bpf-metrics" => metrics(engine),
        _ => return None,
    };
    Some(rows.unwrap_or_else(|error| {
        tracing::warn!(%error, what, "a list could not be made");
        Rows::default()
    }))
}

fn table(columns: &[&str], rows: Vec<Vec<Value>>) -> Rows {
    Rows {
        columns: columns.iter().map(|&column| column.to_owned()).collect(),
        rows,
    }
}

fn identities(engine: &Engine) -> Rows {
    let reserved = (1..=10)
        .map(IdentityId::from_raw)
        .filter_map(|id| Some((id, format!("reserved:{}", reserved::name(id)?), "reserved")));
    let labels = engine
        .catalog
        .labels()
        .iter()
        .map(|(id, labels)| (id, labels.to_string(), "labels"));
    let locals = engine.catalog.locals();
    let local = locals.iter().map(|(id, what)| match what {
        LocalIdentity::Cidr(prefix) => (id, format!("cidr:{prefix}"), "cidr"),
        LocalIdentity::Fqdn(set) => {
            let selectors: Vec<_> = set
                .iter()
                .map(|selector| match engine.catalog.selectors().get(selector) {
                    Some(selector) => format!("fqdn:{selector}"),
                    None => "fqdn:?".to_owned(),
                })
                .collect();
            (id, selectors.join(", "), "fqdn")
        }
    });
    let rows = reserved
        .chain(labels)
        .chain(local)
        .map(|(id, what, kind)| vec![json!(id.get()), json!(kind), json!(what)])
        .collect();
    table(&["Identity", "Kind", "Labels"], rows)
}

fn endpoints(engine: &Engine) -> Rows {
    let rows = super::inspector::endpoint_rows(engine)
        .into_iter()
        .map(|row| {
            let addresses: Vec<_> = row.addresses.iter().map(ToString::to_string).collect();
            vec![
                json!(row.id),
                json!(row.interface),
                json!(row.state),
                json!(row.identity),
                json!(addresses.join(",")),
                json!(row.attachment),
                json!(row.labels.join(",")),
                json!(row.policies.join(",")),
                json!(row.reason),
            ]
        })
        .collect();
    table(
        &[
            "Endpoint",
            "Interface",
            "State",
            "Identity",
            "IPs",
            "Attached",
            "Labels",
            "Policies",
            "Reason",
        ],
        rows,
    )
}

fn policy(engine: &Engine) -> Rows {
    let mut rows = Vec::new();
    for workload in engine.workloads.values() {
        let Some(Layered {
            whole: policy,
            enforced,
        }) = engine.policies_of(workload)
        else {
            continue;
        };
        let id = workload.enforced.as_ref().map(|enforced| enforced.id.get());
        // Where nothing is in audit, one policy is both. What is only in the whole one is watched.
        let mode = |is_enforced: &dyn Fn(&EndpointPolicy) -> bool| {
            let watched = enforced
                .as_deref()
                .is_some_and(|policy| !is_enforced(policy));
            if workload.config.audit || watched {
                "audit"
            } else {
                "enforced"
            }
        };
        let labels = &workload.subject.labels;
        let selecting: Vec<_> = select::selecting(engine.policies(), labels, engine.cluster())
            .iter()
            .map(|policy| policy.reference.to_string())
            .collect();
        for direction in [compiled::Direction::Egress, compiled::Direction::Ingress] {
            let deny = policy.default_deny(direction);
            let action = if deny { "Deny" } else { "Allow" };
            rows.push(vec![
                json!(id),
                json!(workload.config.interface),
                json!(format!("{direction:?}")),
                json!("any"),
                json!("any"),
                json!(format!("{action} (default)")),
                json!(mode(&|enforced| enforced.default_deny(direction) == deny)),
                json!(selecting.join(", ")),
            ]);
        }
        for entry in &policy.entries {
            let same = |other: &Entry| {
                let of = |entry: &Entry| (entry.direction, entry.peer, entry.l4, entry.action);
                of(other) == of(entry)
            };
            rows.push(vec![
                json!(id),
                json!(workload.config.interface),
                json!(format!("{:?}", entry.direction)),
                json!(peer(engine, &policy, entry.peer)),
                json!(entry.l4.to_string()),
                json!(format!("{:?}", entry.action)),
                json!(mode(&|enforced| enforced.entries.iter().any(same))),
                json!(rules(&policy, entry.rule_set)),
            ]);
        }
    }
    table(
        &[
            "Endpoint",
            "Interface",
            "Direction",
            "Peer",
            "Port",
            "Action",
            "Mode",
            "Rules",
        ],
        rows,
    )
}

fn peer(engine: &Engine, policy: &EndpointPolicy, peer: Peer) -> String {
    match peer {
        Peer::Any => "any".to_owned(),
        Peer::Identity(id) => identity_text(engine, id),
        Peer::Fqdn(selector) => policy
            .selectors
            .get(selector)
            .map_or_else(|| "fqdn:?".to_owned(), |name| format!("fqdn:{name}")),
    }
}

fn identity_text(engine: &Engine, id: IdentityId) -> String {
    if let Some(name) = reserved::name(id) {
        return format!("reserved:{name}");
    }
    if let Some(labels) = engine.catalog.labels().get(id) {
        return labels.to_string();
    }
    match engine.catalog.locals().get(id) {
        Some(LocalIdentity::Cidr(prefix)) => format!("cidr:{prefix}"),
        _ => id.to_string(),
    }
}

fn rules(policy: &EndpointPolicy, set: compiled::RuleSetId) -> String {
    let rules: Vec<_> = policy
        .rule_set(set)
        .iter()
        .map(|rule| format!("{}:{} {}", rule.file, rule.line, rule.policy))
        .collect();
    rules.join(", ")
}

fn learned(engine: &Engine) -> Result<Rows, MapError> {
    let mut rows = Vec::new();
    for row in engine.datapath.learned()? {
        for (identity, expires) in &row.slots {
            rows.push(vec![
                json!(row.endpoint.get()),
                json!(row.address),
                json!(identity.get()),
                json!(engine.clock.time(*expires).to_string()),
            ]);
        }
    }
    rows.sort_by_key(|row| format!("{row:?}"));
    Ok(table(&["Endpoint", "Address", "Identity", "Expires"], rows))
}

fn policy_map(engine: &Engine) -> Result<Rows, MapError> {
    let mut entries = engine.datapath.policy_entries()?;
    entries.sort_by_key(|row| (row.policy, row.identity, row.protocol, row.ports));
    let rows = entries
        .into_iter()
        .map(|row| {
            vec![
                json!(row.policy.get()),
                json!(row.direction.map(|direction| format!("{direction:?}"))),
                json!(row.identity.map_or(0, IdentityId::get)),
                json!(row.protocol.unwrap_or(0)),
                json!(row.ports.map_or_else(
                    || "any".to_owned(),
                    |(port, bits)| if bits == 16 {
                        port.to_string()
                    } else {
                        format!("{port}/{bits}")
                    }
                )),
                json!(format!("{:?}", row.action)),
                json!(row.precedence),
                json!(row.rule_set),
            ]
        })
        .collect();
    Ok(table(
        &[
            "Policy",
            "Direction",
            "Identity",
            "Protocol",
            "Port",
            "Action",
            "Precedence",
            "RuleSet",
        ],
        rows,
    ))
}

fn flows(engine: &Engine) -> Result<Rows, MapError> {
    let mut rows = Vec::new();
    for workload in engine.workloads.values() {
        let Some(enforced) = &workload.enforced else {
            continue;
        };
        for flow in engine.datapath.flows(enforced.id)? {
            rows.push(vec![
                json!(enforced.id.get()),
                json!(format!("{:?}", flow.opened)),
                json!(flow.protocol),
                json!(flow.own_port),
                json!(flow.peer),
                json!(flow.peer_port),
                json!(flow.identity.get()),
                json!(flow.learned.map(IdentityId::get)),
                json!(flow.sent.0),
                json!(flow.received.0),
                json!(engine.clock.time(flow.expires).to_string()),
            ]);
        }
    }
    Ok(table(
        &[
            "Endpoint", "Opened", "Protocol", "OwnPort", "Peer", "PeerPort", "Identity", "Learned",
            "Sent", "Received", "Expires",
        ],
        rows,
    ))
}

fn addresses(engine: &Engine) -> Result<Rows, MapError> {
    let rows = engine
        .datapath
        .addresses()?
        .into_iter()
        .map(|(net, id)| {
            vec![
                json!(net.to_string()),
                json!(id.get()),
                json!(identity_text(engine, id)),
            ]
        })
        .collect();
    Ok(table(&["Prefix", "Identity", "Labels"], rows))
}

fn metrics(engine: &Engine) -> Result<Rows, MapError> {
    let metrics = Arc::new(engine.datapath.metrics()?);
    let passed = Passed::ALL.iter().flat_map(|what| {
        let metrics = Arc::clone(&metrics);
        [Direction::Egress, Direction::Ingress].map(move |direction| {
            let count = metrics.passed(*what, direction);
            (format!("{what:?}"), "passed", direction, count)
        })
    });
    let rows = passed
        .filter(|(.., count)| count.packets() > 0)
        .chain(metrics.drops().map(|(reason, direction, count)| {
            (reason.text().to_owned(), "dropped", direction, count)
        }))
        .map(|(what, kind, direction, count)| {
            vec![
                json!(what),
                json!(kind),
                json!(format!("{direction:?}")),
                json!(count.packets()),
                json!(count.bytes()),
            ]
        })
        .collect();
    Ok(table(
        &["What", "Kind", "Direction", "Packets", "Bytes"],
        rows,
    ))
}
