//! One clause, taken apart: which peers, which L4, what happens.
//!
//! In:  a clause of a rule that selects the endpoint.
//! Out: grants (one rule, one peer, one L4) and the DNS rules that come with them.
//! Not here: merging (`compiled::resolve`), steering (`dns`).

use super::{Build, CompileError, Grant, text};
use crate::{
    compiled::{Action, Direction, L4, Peer, PortPrefix, Protocol, RuleOrigin},
    model::{Clause, Peers, Policy, PortRule, Ports},
};

impl Build<'_> {
    /// The peers of a clause, each group with its line and its text.
    pub(super) fn peers(
        &mut self,
        policy: &Policy,
        direction: Direction,
        clause: &Clause,
    ) -> Result<Vec<(Vec<Peer>, u32, String)>, CompileError> {
        let identities = self.identities;
        let peers_of = |ids: Vec<_>| ids.into_iter().map(Peer::Identity).collect();
        Ok(match &clause.peers {
            Peers::Nobody => Vec::new(),
            Peers::Any => vec![(vec![Peer::Any], clause.line, "toPorts".into())],
            Peers::Endpoints(selectors) => selectors
                .iter()
                .map(|s| {
                    let ids = identities.select(&s.value);
                    (peers_of(ids), s.line, text::endpoints(direction, &s.value))
                })
                .collect(),
            Peers::Entities(entities) => entities
                .iter()
                .map(|e| {
                    let peers = identities.entity(e.value);
                    (peers, e.line, text::entity(direction, e.value))
                })
                .collect(),
            Peers::Prefixes(prefixes) => {
                let mut groups = Vec::with_capacity(prefixes.len());
                for p in prefixes {
                    let what = text::prefix(direction, &p.value);
                    let ids = identities.within(&p.value).map_err(|prefix| {
                        CompileError::PrefixWithoutIdentity {
                            prefix,
                            origin: Box::new(RuleOrigin {
                                policy: policy.reference.clone(),
                                file: policy.file.clone(),
                                line: p.line,
                                text: what.clone(),
                            }),
                        }
                    })?;
                    groups.push((peers_of(ids), p.line, what));
                }
                groups
            }
            Peers::Names(names) => names
                .iter()
                .map(|n| {
                    let id = self.table.intern(&n.value);
                    self.selectors.insert(id, n.value.clone());
                    (vec![Peer::Fqdn(id)], n.line, text::fqdn(&n.value))
                })
                .collect(),
        })
    }

    /// What a clause grants to some of its peers.
    pub(super) fn grants_of(
        &mut self,
        policy: &Policy,
        direction: Direction,
        clause: &Clause,
        peers: &[Peer],
        line: u32,
        what: &str,
    ) {
        let rules: &[PortRule] = match &clause.ports {
            Ports::Rules(rules) => rules,
            Ports::All | Ports::Icmp(_) => {
                let l4s: Vec<L4> = match &clause.ports {
                    Ports::Icmp(types) => types
                        .iter()
                        .map(|(proto, kind)| L4::port(*proto, u16::from(*kind)))
                        .collect(),
                    _ => vec![L4::Any],
                };
                let text = format!("{what} {}", text::ports(&clause.ports, None));
                let rule = self.origin(policy, line, text);
                self.grant(direction, peers, &l4s, Action::Allow, rule);
                return;
            }
        };
        for port_rule in rules {
            let text = format!("{what} {}", text::ports(&clause.ports, Some(port_rule)));
            let rule = self.origin(policy, line, text);
            let mut l4s = Vec::new();
            for range in &port_rule.ports {
                for proto in range.protocols() {
                    // The DNS proxy speaks UDP and TCP; SCTP to a port with DNS rules stays shut.
                    if port_rule.dns.is_some() && proto == Protocol::Sctp {
                        continue;
                    }
                    let prefixes = PortPrefix::split(range.first, range.last);
                    l4s.extend(prefixes.into_iter().map(|ports| L4::new(proto, ports)));
                }
                if direction == Direction::Egress && range.is_single() {
                    let origin = self.origins.last();
                    self.dns
                        .about_port(peers, *range, port_rule.dns.as_deref(), origin);
                }
            }
            let action = if port_rule.dns.is_some() {
                Action::RedirectDns
            } else {
                Action::Allow
            };
            self.grant(direction, peers, &l4s, action, rule);
        }
    }

    fn grant(
        &mut self,
        direction: Direction,
        peers: &[Peer],
        l4s: &[L4],
        action: Action,
        rule: super::RuleIndex,
    ) {
        for peer in peers {
            self.grants.extend(l4s.iter().map(|l4| Grant {
                direction,
                peer: *peer,
                l4: *l4,
                action,
                rule: Some(rule),
            }));
        }
    }
}
