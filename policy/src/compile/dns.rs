//! Which DNS traffic is steered to the proxy, and what may be asked there.
//!
//! In:  rules about single ports, and whether the endpoint has `toFQDNs` rules.
//! Out: steering entries and [`DnsRule`]s.
//! Not here: `rules.dns` as written (`parse::ports`), deciding a query (`compiled::ask`).
//!
//! An endpoint that learns from names has all its allowed traffic to port 53 steered, whatever
//! allows it; `rules.dns` is needed only to restrict names.

use std::{collections::BTreeSet, sync::Arc};

use super::part::RuleIndex;
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

/// Ports and transports some of whose traffic is steered.
pub(super) type Steered = BTreeSet<(Protocol, u16)>;

/// A rule about exactly one port: with names, or a plain allow.
#[derive(Debug)]
pub(super) struct Ask {
    peers: Arc<[Peer]>,
    proto: Option<Protocol>,
    port: u16,
    /// `rules.dns`; none for a plain allow.
    names: Option<DnsNames>,
    origin: Option<Arc<RuleOrigin>>,
}

impl Ask {
    pub(super) fn new(
        peers: &Arc<[Peer]>,
        range: PortRange,
        names: Option<&[NameSelector]>,
        origin: Option<&Arc<RuleOrigin>>,
    ) -> Option<Self> {
        if range.proto == Some(Protocol::Sctp) {
            return None;
        }
        // Only asterisks allow truly every name, and with it the whole list does.
        let names = names.map(|names| {
            if names.iter().any(NameSelector::is_every_name) {
                DnsNames::All
            } else {
                DnsNames::Only(names.iter().cloned().collect::<NameSet>())
            }
        });
        Some(Self {
            peers: Arc::clone(peers),
            proto: range.proto,
            port: range.first,
            names,
            origin: origin.cloned(),
        })
    }

    fn transports(&self) -> impl Iterator<Item = (Protocol, u16)> + '_ {
        let own = |t: &Protocol| self.proto.is_none_or(|own| own == *t);
        TRANSPORTS.into_iter().filter(own).map(|t| (t, self.port))
    }

    /// What this rule steers by itself.
    pub(super) fn restricts(&self) -> impl Iterator<Item = (Protocol, u16)> + '_ {
        self.transports().filter(|_| self.names.is_some())
    }

    /// The rules for its peers, if anything is steered that they can be asked about. Without
    /// default deny everything may be asked: DNS rules only add the redirect.
    pub(super) fn rules(&self, steered: &Steered, shut: bool) -> impl Iterator<Item = DnsRule> {
        let counts = self.transports().any(|own| steered.contains(&own));
        self.peers
            .iter()
            .filter(move |_| counts)
            .map(move |peer| DnsRule {
                kind: DnsRuleKind::Port,
                server: *peer,
                proto: self.proto,
                ports: PortPrefix::one(self.port),
                names: match &self.names {
                    Some(names) if shut => names.clone(),
                    _ => DnsNames::All,
                },
                origin: self.origin.clone(),
            })
    }
}

/// What is steered because names teach.
pub(super) fn by_names() -> impl Iterator<Item = (Protocol, u16)> {
    TRANSPORTS.into_iter().map(|t| (t, DNS_PORT))
}

/// Without default deny: everything may be asked of everybody.
pub(super) fn unrestricted(steered: &Steered) -> impl Iterator<Item = DnsRule> + '_ {
    steered.iter().map(|(proto, port)| DnsRule {
        kind: DnsRuleKind::Wider,
        server: Peer::Any,
        proto: Some(*proto),
        ports: PortPrefix::one(*port),
        names: DnsNames::All,
        origin: None,
    })
}

/// Turns what a peer is allowed on port 53 into a redirect. Returns what may be asked there.
pub(super) fn steer<'a>(
    peer: Peer,
    layers: &mut Vec<Layer<RuleIndex>>,
    origin: impl Fn(RuleIndex) -> Option<&'a Arc<RuleOrigin>>,
) -> Vec<DnsRule> {
    let mut rules = Vec::new();
    for proto in TRANSPORTS {
        let l4 = L4::port(proto, DNS_PORT);
        let Some(allow) = lookup(layers, l4).filter(|l| l.action == Action::Allow) else {
            continue;
        };
        let precedence = Precedence::at(allow.precedence.level(), Action::RedirectDns);
        rules.push(DnsRule {
            kind: if allow.decided > Level::NORMAL {
                DnsRuleKind::Tier(precedence)
            } else {
                DnsRuleKind::Wider
            },
            server: peer,
            proto: Some(proto),
            ports: PortPrefix::one(DNS_PORT),
            names: DnsNames::All,
            // Numbers depend on what came and went; the texts do not.
            origin: allow
                .rules
                .iter()
                .filter_map(|at| origin(*at))
                .min()
                .cloned(),
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
    rules
}
