//! Addresses of services: what may be reached behind them decides about them.
//!
//! In:  a compiled policy, the frontends of services with their ready backends.
//! Out: entries and DNS rules about the frontends.
//! Not here: who is behind a service (the caller), rules that name services (`expand`).
//!
//! On the workload's own interface a packet still carries the service's address. A frontend is used
//! exactly when every backend may be, on its own port: whichever the packet is sent on to, no rule
//! is broken. What a rule says about everybody on the frontend's port therefore counts only where
//! nobody is behind it.

use identity::SelectorSet;

use crate::compiled::{
    Action, Direction, DnsRule, DnsRuleKind, EndpointPolicy, Entry, Flow, FlowVerdict, L4, Level,
    Outcome, Peer, PortPrefix, Precedence, Protocol, RuleSet, RuleSetId,
};

use super::{Backend, Frontend};

/// Where DNS is.
const DNS_PORT: u16 = 53;
/// Above every rule: it says what all of them together come to.
const LEVEL: Level = Level::NORMAL.above(u32::MAX);

/// What a frontend's port comes to.
struct Decision {
    action: Action,
    rules: RuleSet,
    dns: Vec<DnsRule>,
}

/// Adds what the policy comes to for frontends.
pub(super) fn decide(policy: &mut EndpointPolicy, frontends: &[Frontend]) {
    let mut entries = Vec::new();
    let mut sets = policy.rule_sets.clone();
    let mut dns = Vec::new();
    for frontend in frontends {
        let server = Peer::Identity(frontend.identity);
        for port in &frontend.ports {
            let Some(decision) = decision(policy, port.proto, port.port, &port.backends) else {
                continue;
            };
            let ports = PortPrefix::one(port.port);
            entries.push(Entry {
                direction: Direction::Egress,
                peer: server,
                l4: L4::Port {
                    proto: port.proto,
                    ports,
                },
                action: decision.action,
                precedence: Precedence::at(LEVEL, decision.action),
                rule_set: number(&mut sets, decision.rules),
            });
            dns.extend(decision.dns.into_iter().map(|rule| DnsRule {
                server,
                proto: Some(port.proto),
                ports,
                ..rule
            }));
        }
    }
    if entries.is_empty() {
        return;
    }
    policy.entries.extend(entries);
    policy.rule_sets = sets;
    policy.dns_rules.extend(dns);
    *policy = std::mem::take(policy).sorted();
}

/// None where nobody is behind the port.
fn decision(
    policy: &EndpointPolicy,
    proto: Protocol,
    port: u16,
    backends: &[Backend],
) -> Option<Decision> {
    let judged: Vec<_> = backends
        .iter()
        .map(|backend| {
            policy.judge(&Flow {
                direction: Direction::Egress,
                peer: backend.identity,
                learned: &[],
                proto: Some(proto),
                port: backend.port,
            })
        })
        .collect();
    if judged.is_empty() {
        return None;
    }
    let usable = |verdict: &FlowVerdict<'_>| {
        matches!(
            verdict.datapath,
            Outcome::Allowed | Outcome::AllowedByDefault | Outcome::RedirectedDns
        )
    };
    let rules_of = |wanted: &dyn Fn(&FlowVerdict<'_>) -> bool| -> RuleSet {
        let sets = judged.iter().filter(|v| wanted(v));
        sets.flat_map(|verdict| &verdict.rule_sets)
            .flat_map(|set| policy.rule_set(*set).iter().cloned())
            .collect()
    };
    let refused = |action, rules| {
        Some(Decision {
            action,
            rules,
            dns: Vec::new(),
        })
    };
    let refuse = || {
        let denied = rules_of(&|verdict| verdict.datapath == Outcome::Denied);
        if !denied.rules().is_empty() {
            return refused(Action::Deny, denied);
        }
        let inside = rules_of(&|verdict| matches!(verdict.datapath, Outcome::Redirected(_)));
        if inside.rules().is_empty() {
            refused(Action::Refuse, inside)
        } else {
            refused(Action::NeedsProxy, inside)
        }
    };
    let open = judged.iter().filter(|verdict| usable(verdict)).count();
    if open == 0 {
        return refuse();
    }
    if open < judged.len() {
        return refused(Action::Mixed, rules_of(&|verdict| !usable(verdict)));
    }
    let steered = judged
        .iter()
        .any(|verdict| verdict.datapath == Outcome::RedirectedDns);
    let learns = !policy.selectors.is_empty()
        && port == DNS_PORT
        && matches!(proto, Protocol::Tcp | Protocol::Udp);
    let rules = rules_of(&|_| true);
    if !steered && !learns {
        return Some(Decision {
            action: Action::Allow,
            rules,
            dns: Vec::new(),
        });
    }
    // The proxy sees the frontend: it must be able to ask whichever backend the same names.
    let mut lists = backends.iter().map(|backend| names(policy, proto, backend));
    let dns = lists.next().unwrap_or_default();
    if lists.any(|other| other != dns) {
        return refused(Action::Mixed, rules);
    }
    Some(Decision {
        action: Action::RedirectDns,
        rules,
        dns,
    })
}

/// Which names a backend may be asked.
fn names(policy: &EndpointPolicy, proto: Protocol, backend: &Backend) -> Vec<DnsRule> {
    let about = |rule: &&DnsRule| {
        [Peer::Any, Peer::Identity(backend.identity)].contains(&rule.server)
            && rule.proto.is_none_or(|own| own == proto)
            && rule.ports.contains(backend.port)
    };
    let mut found: Vec<DnsRule> = Vec::new();
    let nothing_learned = SelectorSet::default();
    let accepted = policy.accepted_before(backend.identity, &nothing_learned, proto, backend.port);
    if let Some(rule) = accepted {
        return vec![DnsRule {
            kind: DnsRuleKind::Port,
            server: Peer::Any,
            proto: None,
            ports: PortPrefix::one(backend.port),
            ..rule.clone()
        }];
    }
    let counts = |rule: &&DnsRule| about(rule) && !matches!(rule.kind, DnsRuleKind::Tier(_));
    for rule in policy.dns_rules.iter().filter(counts) {
        // Where the rule was found does not matter; what it allows does.
        let rule = DnsRule {
            server: Peer::Any,
            proto: None,
            ports: PortPrefix::one(backend.port),
            ..rule.clone()
        };
        if !found.contains(&rule) {
            found.push(rule);
        }
    }
    found
}

/// The number of a set of rules, a new one where needed.
fn number(sets: &mut Vec<RuleSet>, rules: RuleSet) -> RuleSetId {
    let at = sets
        .iter()
        .position(|set| *set == rules)
        .unwrap_or_else(|| {
            sets.push(rules);
            sets.len() - 1
        });
    // Far fewer than 2^32: as many as ports of services.
    RuleSetId::from_raw(at as u32)
}
