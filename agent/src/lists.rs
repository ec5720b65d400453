//! Lists for operators: identities, endpoints and their policies, the kernel's maps.
//!
//! In:  [`Known`]: what an agent or a run knows at this moment.
//! Out: [`Rows`].
//! Not here: tables (`cli`), what is asked of the DNS proxy (`rows`).

use std::{
    collections::{BTreeMap, btree_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fqdn_ebpf_loader::{Count, Datapath, Direction, MapError, Passed, PolicyId};
use identity::{EndpointId, IdentityId, LabelIdentities, LocalIdentities, LocalIdentity, reserved};
use policy::{
    compile::SelectorTable,
    compiled::{self, EndpointPolicy, Entry, Layered, Peer, RuleSet},
};
use serde_json::{Value, json};

use crate::{
    api::{EndpointRow, Rows},
    recorder::WallClock,
};

/// Where lists come from.
pub(crate) struct Known<'a> {
    pub(crate) datapath: &'a Datapath,
    pub(crate) clock: WallClock,
    pub(crate) labels: &'a LabelIdentities,
    /// Locked for as long as one look takes: answers wait for it.
    pub(crate) locals: Arc<Mutex<LocalIdentities>>,
    pub(crate) selectors: &'a SelectorTable,
    pub(crate) endpoints: Vec<Restricted>,
}

impl Known<'_> {
    /// A panic elsewhere leaves the table whole: a number is entered in one step.
    fn locals(&self) -> MutexGuard<'_, LocalIdentities> {
        self.locals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A workload and what is in force for it.
pub(crate) struct Restricted {
    pub(crate) row: EndpointRow,
    /// Nothing is refused it, all of it is told.
    pub(crate) audit: bool,
    pub(crate) policies: Option<Layered>,
    /// The number of the whole policy, under which the kernel counts.
    pub(crate) number: Option<PolicyId>,
    /// What the same rules decided before under other numbers.
    pub(crate) counted: Counted,
}

/// Packets by the rules that decided about them.
pub(crate) type Counted = Arc<BTreeMap<RuleSet, Count>>;

impl Restricted {
    /// How many packets each set of rules decided about, by number of the set.
    fn hits(&self, datapath: &Datapath, policy: &EndpointPolicy) -> Result<Vec<Count>, MapError> {
        let Some(number) = self.number else {
            return Ok(Vec::new());
        };
        let now = datapath.hits(number)?;
        let before = policy.rule_sets.iter().map(|set| self.counted.get(set));
        Ok(now
            .into_iter()
            .zip(before)
            .map(|(now, before)| before.map_or(now, |before| now.plus(*before)))
            .collect())
    }
}

/// The rows of one kind; none when there is no such kind. A map that cannot be read has no rows,
/// and the log says why.
pub(crate) fn rows(known: &Known<'_>, what: &str) -> Option<Rows> {
    let rows = match what {
        "identities" => Ok(identities(known)),
        "endpoints" => Ok(endpoints(known)),
        "policy" => policy(known),
        "bpf-learned" => learned(known),
        "bpf-policy" => policy_map(known),
        "bpf-ct" => flows(known),
        "bpf-ipcache" => addresses(known),
        "bpf-metrics" => metrics(known),
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

fn identities(known: &Known<'_>) -> Rows {
    let reserved = (1..=10)
        .map(IdentityId::from_raw)
        .filter_map(|id| Some((id, format!("reserved:{}", reserved::name(id)?), "reserved")));
    let labels = known
        .labels
        .iter()
        .map(|(id, labels)| (id, labels.to_string(), "labels"));
    let locals = known.locals();
    let local = locals.iter().map(|(id, what)| match what {
        LocalIdentity::Cidr(prefix) => (id, format!("cidr:{prefix}"), "cidr"),
        LocalIdentity::Fqdn(set) => {
            let selectors: Vec<_> = set
                .iter()
                .map(|selector| match known.selectors.get(selector) {
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

fn endpoints(known: &Known<'_>) -> Rows {
    let rows = known
        .endpoints
        .iter()
        .map(|Restricted { row, .. }| {
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

fn policy(known: &Known<'_>) -> Result<Rows, MapError> {
    let mut rows = Vec::new();
    for endpoint in &known.endpoints {
        let Some(Layered {
            whole: policy,
            enforced,
        }) = &endpoint.policies
        else {
            continue;
        };
        let row = &endpoint.row;
        let hits = endpoint.hits(known.datapath, policy)?;
        // Where nothing is in audit, one policy is both. What is only in the whole one is watched.
        let mode = |is_enforced: &dyn Fn(&EndpointPolicy) -> bool| {
            let watched = enforced
                .as_deref()
                .is_some_and(|policy| !is_enforced(policy));
            if endpoint.audit || watched {
                "audit"
            } else {
                "enforced"
            }
        };
        for direction in [compiled::Direction::Egress, compiled::Direction::Ingress] {
            let deny = policy.default_deny(direction);
            let action = if deny { "Deny" } else { "Allow" };
            rows.push(vec![
                json!(row.id),
                json!(row.interface),
                json!(format!("{direction:?}")),
                json!("any"),
                json!("any"),
                json!(format!("{action} (default)")),
                json!(mode(&|enforced| enforced.default_deny(direction) == deny)),
                Value::Null,
                Value::Null,
                json!(row.policies.join(", ")),
            ]);
        }
        for entry in &policy.entries {
            let same = |other: &Entry| {
                let of = |entry: &Entry| (entry.direction, entry.peer, entry.l4, entry.action);
                of(other) == of(entry)
            };
            let count = usize::try_from(entry.rule_set.get()).ok();
            let count = count.and_then(|set| hits.get(set));
            rows.push(vec![
                json!(row.id),
                json!(row.interface),
                json!(format!("{:?}", entry.direction)),
                json!(peer(known, policy, entry.peer)),
                json!(entry.l4.to_string()),
                json!(format!("{:?}", entry.action)),
                json!(mode(&|enforced| enforced.entries.iter().any(same))),
                json!(count.map(|count| count.packets())),
                json!(count.map(|count| count.bytes())),
                json!(rules(policy, entry.rule_set)),
            ]);
        }
    }
    Ok(table(
        &[
            "Endpoint",
            "Interface",
            "Direction",
            "Peer",
            "Port",
            "Action",
            "Mode",
            "Packets",
            "Bytes",
            "Rules",
        ],
        rows,
    ))
}

fn peer(known: &Known<'_>, policy: &EndpointPolicy, peer: Peer) -> String {
    match peer {
        Peer::Any => "any".to_owned(),
        Peer::Identity(id) => identity_text(known, id),
        Peer::Fqdn(selector) => policy
            .selectors
            .get(selector)
            .map_or_else(|| "fqdn:?".to_owned(), |name| format!("fqdn:{name}")),
    }
}

fn identity_text(known: &Known<'_>, id: IdentityId) -> String {
    if let Some(name) = reserved::name(id) {
        return format!("reserved:{name}");
    }
    if let Some(labels) = known.labels.get(id) {
        return labels.to_string();
    }
    match known.locals().get(id) {
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

fn learned(known: &Known<'_>) -> Result<Rows, MapError> {
    let mut rows = Vec::new();
    for row in known.datapath.learned()? {
        for (identity, expires) in &row.slots {
            rows.push(vec![
                json!(row.endpoint.get()),
                json!(row.address),
                json!(identity.get()),
                json!(known.clock.time(*expires).to_string()),
            ]);
        }
    }
    rows.sort_by_key(|row| format!("{row:?}"));
    Ok(table(&["Endpoint", "Address", "Identity", "Expires"], rows))
}

fn policy_map(known: &Known<'_>) -> Result<Rows, MapError> {
    let mut entries = known.datapath.policy_entries()?;
    entries.sort_by_key(|row| (row.policy, row.identity, row.protocol, row.ports));
    let mut hits = BTreeMap::new();
    for row in &entries {
        if let btree_map::Entry::Vacant(place) = hits.entry(row.policy) {
            place.insert(known.datapath.hits(row.policy)?);
        }
    }
    let rows = entries
        .into_iter()
        .map(|row| {
            let set = usize::try_from(row.rule_set).ok();
            let count = set.and_then(|set| hits.get(&row.policy)?.get(set));
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
                json!(count.map(|count| count.packets())),
                json!(count.map(|count| count.bytes())),
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
            "Packets",
            "Bytes",
        ],
        rows,
    ))
}

fn flows(known: &Known<'_>) -> Result<Rows, MapError> {
    let mut rows = Vec::new();
    for endpoint in &known.endpoints {
        let Some(id) = endpoint.row.id else {
            continue;
        };
        for flow in known.datapath.flows(EndpointId::new(id))? {
            rows.push(vec![
                json!(id),
                json!(format!("{:?}", flow.opened)),
                json!(flow.protocol),
                json!(flow.own_port),
                json!(flow.peer),
                json!(flow.peer_port),
                json!(flow.identity.get()),
                json!(flow.learned.map(IdentityId::get)),
                json!(flow.sent.0),
                json!(flow.received.0),
                json!(known.clock.time(flow.expires).to_string()),
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

fn addresses(known: &Known<'_>) -> Result<Rows, MapError> {
    let rows = known
        .datapath
        .addresses()?
        .into_iter()
        .map(|(net, id)| {
            vec![
                json!(net.to_string()),
                json!(id.get()),
                json!(identity_text(known, id)),
            ]
        })
        .collect();
    Ok(table(&["Prefix", "Identity", "Labels"], rows))
}

fn metrics(known: &Known<'_>) -> Result<Rows, MapError> {
    let metrics = &known.datapath.metrics()?;
    let passed = Passed::ALL.iter().flat_map(|what| {
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
