//! Which DNS traffic is steered to the proxy, and what may be asked there.
//!
//! In:  rules about single ports, and whether the endpoint has `toFQDNs` rules.
//! Out: steering entries and [`DnsRule`]s.
//! Not here: `rules.dns` as written (`parse::ports`), deciding a query (`compiled::ask`).
//!
//! An endpoint that learns from names has all its allowed traffic to port 53 steered, whatever
//! allows it; `rules.dns` is needed only to restrict names.

use std::{collections::BTreeSet, sync::Arc};

use super::RuleIndex;
use crate::{
    compiled::{
        Action, DnsNames, DnsRule, DnsRuleKind, L4, Layer, Level, Peer, PortPrefix, Precedence,
        Protocol, RuleOrigin, lookup,
    },
    fqdn::{NameSelector, NameSet},
    model::PortRange,
};

/// The port whose traffic teaches without further rules.
const DNS_PORT: u16 = 53;
/// What the proxy speaks.
const TRANSPORTS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

/// DNS rules as they are gathered.
#[derive(Default)]
pub(super) struct Rules {
    /// `rules.dns`, and plain allows of single ports.
    about_ports: Vec<DnsRule>,
    /// Ports and transports with `rules.dns`.
    restricted: BTreeSet<(Protocol, u16)>,
    wider: Vec<DnsRule>,
}

impl Rules {
    /// A rule about exactly one port: with names, or a plain allow.
    pub(super) fn about_port(
        &mut self,
        peers: &[Peer],
        range: PortRange,
        names: Option<&[NameSelector]>,
        origin: Option<&Arc<RuleOrigin>>,
    ) {
        if range.proto == Some(Protocol::Sctp) {
            return;
        }
        let names = match names {
            None => DnsNames::All,
            Some(names) => {
                let transports = TRANSPORTS.into_iter();
                self.restricted.extend(
                    transports
                        .filter(|t| range.proto.is_none_or(|own| own == *t))
                        .map(|t| (t, range.first)),
                );
                // Only asterisks allow truly every name, and with it the whole list does.
                if names.iter().any(NameSelector::is_every_name) {
                    DnsNames::All
                } else {
                    DnsNames::Only(names.iter().cloned().collect::<NameSet>())
                }
            }
        };
        self.about_ports.extend(peers.iter().map(|peer| DnsRule {
            kind: DnsRuleKind::Port,
            server: *peer,
            proto: range.proto,
            ports: PortPrefix::one(range.first),
            names: names.clone(),
            origin: origin.cloned(),
        }));
    }

    /// The ports and transports some of whose traffic is steered.
    pub(super) fn steered_ports(&self, learns: bool) -> BTreeSet<(Protocol, u16)> {
        let by_names = TRANSPORTS.into_iter().filter(|_| learns);
        self.restricted
            .iter()
            .copied()
            .chain(by_names.map(|t| (t, DNS_PORT)))
            .collect()
    }

    /// Without default deny everything may be asked: DNS rules only add the redirect. What of
    /// everybody's traffic has to be steered then.
    pub(super) fn unrestricted(
        &mut self,
        steered: &BTreeSet<(Protocol, u16)>,
        learns: bool,
    ) -> Vec<L4> {
        self.wider
            .extend(steered.iter().map(|(proto, port)| DnsRule {
                kind: DnsRuleKind::Wider,
                server: Peer::Any,
                proto: Some(*proto),
                ports: PortPrefix::one(*port),
                names: DnsNames::All,
                origin: None,
            }));
        for rule in &mut self.about_ports {
            rule.names = DnsNames::All;
        }
        let by_names = TRANSPORTS.into_iter().filter(|_| learns);
        by_names.map(|t| L4::port(t, DNS_PORT)).collect()
    }

    /// Turns what a peer is allowed on port 53 into a redirect.
    pub(super) fn steer(
        &mut self,
        peer: Peer,
        layers: &mut Vec<Layer<RuleIndex>>,
        origins: &[Arc<RuleOrigin>],
    ) {
        for proto in TRANSPORTS {
            let l4 = L4::port(proto, DNS_PORT);
            let Some(allow) = lookup(layers, l4).filter(|l| l.action == Action::Allow) else {
                continue;
            };
            let origin = allow.rules.first().and_then(|at| origins.get(*at as usize));
            let precedence = Precedence::at(allow.precedence.level(), Action::RedirectDns);
            self.wider.push(DnsRule {
                kind: if allow.decided > Level::NORMAL {
                    DnsRuleKind::Tier(precedence)
                } else {
                    DnsRuleKind::Wider
                },
                server: peer,
                proto: Some(proto),
                ports: PortPrefix::one(DNS_PORT),
                names: DnsNames::All,
                origin: origin.cloned(),
            });
            let steered = Layer {
                l4,
                action: Action::RedirectDns,
                precedence,
                decided: allow.decided,
                rules: allow.rules.clone(),
            };
            // One port is as long as a prefix gets: nothing can be hidden behind it.
            match layers.iter_mut().find(|layer| layer.l4 == l4) {
                Some(layer) => *layer = steered,
                None => layers.push(steered),
            }
        }
    }

    /// The rules that can be asked about: those on steered ports.
    pub(super) fn finish(self, steered: &BTreeSet<(Protocol, u16)>) -> Vec<DnsRule> {
        let on_steered = |rule: &DnsRule| {
            TRANSPORTS.into_iter().any(|t| {
                rule.proto.is_none_or(|own| own == t) && steered.contains(&(t, rule.ports.base()))
            })
        };
        let mut rules = self.about_ports;
        rules.retain(on_steered);
        rules.extend(self.wider);
        rules
    }
}
