//! Which names an endpoint may ask for, at which server.
//!
//! In:  the server's identity, transport and port, and the queried name.
//! Out: [`DnsVerdict`]: allowed and by which rule, or refused and by which policies.
//! Not here: what an answer teaches (`selectors`), the refusal on the wire (`dnsproxy/core`).

use std::collections::BTreeSet;

use identity::{IdentityId, SelectorSet};

use super::{
    Direction, EndpointPolicy, Flow, Outcome, Peer, PolicyRef, PortPrefix, Precedence, Protocol,
    RuleOrigin,
};
use crate::fqdn::{Fqdn, NameSet};

/// Which names a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsNames {
    /// Truly every name, whatever its characters.
    All,
    /// The names one of these matches.
    Only(NameSet),
}

impl DnsNames {
    /// Whether `name` is one of them.
    pub fn matches(&self, name: &Fqdn) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.matches(name),
        }
    }
}

/// How firmly a rule speaks about names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsRuleKind {
    /// A rule about exactly this port: `rules.dns`, or a plain allow of the port, which lifts them.
    Port,
    /// A tier before the one with `rules.dns` accepts the port. Where the entry of this precedence
    /// decides, the tier with `rules.dns` is never asked.
    Tier(Precedence),
    /// The port is allowed by something wider (every port, a range, the absence of a default
    /// deny). Counts only for servers no `Port` rule speaks about.
    Wider,
}

/// Some names may be asked at some servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRule {
    /// How firmly.
    pub kind: DnsRuleKind,
    /// Which servers.
    pub server: Peer,
    /// Over UDP or TCP; `None` is both.
    pub proto: Option<Protocol>,
    /// At these ports.
    pub ports: PortPrefix,
    /// Which names.
    pub names: DnsNames,
    /// The rule; none when nobody wrote one (no default deny).
    pub origin: Option<std::sync::Arc<RuleOrigin>>,
}

/// May this be asked?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsVerdict<'a> {
    /// Yes.
    Allowed {
        /// By this rule; none when nothing restricts the endpoint.
        rule: Option<&'a RuleOrigin>,
    },
    /// No.
    Refused {
        /// The policies that restrict names here, or none when the server itself is not allowed.
        policies: Vec<PolicyRef>,
        /// The rule that comes nearest to allowing it.
        nearest: Option<&'a RuleOrigin>,
    },
}

impl DnsVerdict<'_> {
    /// Whether the question may be forwarded.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl EndpointPolicy {
    /// May this endpoint ask the server with this identity for this name?
    pub fn may_ask(&self, server: IdentityId, tcp: bool, port: u16, name: &Fqdn) -> DnsVerdict<'_> {
        self.may_ask_learned(server, &SelectorSet::default(), tcp, port, name)
    }

    /// The same for a server whose address the endpoint learned by name: `learned` are the
    /// unexpired selectors its address was learned under.
    pub fn may_ask_learned(
        &self,
        server: IdentityId,
        learned: &SelectorSet,
        tcp: bool,
        port: u16,
        name: &Fqdn,
    ) -> DnsVerdict<'_> {
        let proto = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let here = |kind: DnsRuleKind| {
            self.rules_about(server, learned, proto, port)
                .filter(move |rule| rule.kind == kind)
        };
        if let Some(rule) = self.accepted_before(server, learned, proto, port) {
            return DnsVerdict::Allowed {
                rule: rule.origin.as_deref(),
            };
        }
        let mut about_port = here(DnsRuleKind::Port).peekable();
        let found = if about_port.peek().is_some() {
            about_port.find(|rule| rule.names.matches(name))
        } else {
            here(DnsRuleKind::Wider).find(|rule| rule.names.matches(name))
        };
        if let Some(rule) = found {
            return DnsVerdict::Allowed {
                rule: rule.origin.as_deref(),
            };
        }
        let policies: BTreeSet<_> = here(DnsRuleKind::Port)
            .filter_map(|rule| Some(&rule.origin.as_ref()?.policy))
            .collect();
        DnsVerdict::Refused {
            policies: policies.into_iter().cloned().collect(),
            nearest: self.nearest_dns_rule(name),
        }
    }

    /// Whether questions to this server go through the proxy at all.
    pub fn is_steered(
        &self,
        server: IdentityId,
        learned: &SelectorSet,
        tcp: bool,
        port: u16,
    ) -> bool {
        let proto = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let flow = Flow {
            direction: Direction::Egress,
            peer: server,
            learned: std::slice::from_ref(learned),
            proto: Some(proto),
            port,
        };
        self.judge(&flow).outcome == Outcome::RedirectedDns
    }

    /// The rule of an earlier tier that decides about these questions, if one does.
    pub(crate) fn accepted_before(
        &self,
        server: IdentityId,
        learned: &SelectorSet,
        proto: Protocol,
        port: u16,
    ) -> Option<&DnsRule> {
        let mut accepting = self
            .rules_about(server, learned, proto, port)
            .filter_map(|rule| match rule.kind {
                DnsRuleKind::Tier(precedence) => Some((precedence, rule)),
                DnsRuleKind::Port | DnsRuleKind::Wider => None,
            })
            .peekable();
        accepting.peek()?;
        let flow = Flow {
            direction: Direction::Egress,
            peer: server,
            learned: std::slice::from_ref(learned),
            proto: Some(proto),
            port,
        };
        let decides = self.deciding(&flow)?;
        let (_, rule) = accepting.find(|(own, _)| *own == decides)?;
        Some(rule)
    }

    fn rules_about<'a, 'l>(
        &'a self,
        server: IdentityId,
        learned: &'l SelectorSet,
        proto: Protocol,
        port: u16,
    ) -> impl Iterator<Item = &'a DnsRule> + use<'a, 'l> {
        [Peer::Any, Peer::Identity(server)]
            .into_iter()
            .chain(learned.iter().map(Peer::Fqdn))
            .flat_map(|peer| self.dns_rules_of(peer))
            .filter(move |rule| {
                rule.proto.is_none_or(|own| own == proto) && rule.ports.contains(port)
            })
    }

    fn dns_rules_of(&self, server: Peer) -> impl Iterator<Item = &DnsRule> + '_ {
        let first = self.dns_rules.partition_point(|rule| rule.server < server);
        self.dns_rules
            .get(first..)
            .unwrap_or_default()
            .iter()
            .take_while(move |rule| rule.server == server)
    }

    /// The DNS rule with the name most alike, wherever it applies.
    fn nearest_dns_rule(&self, name: &Fqdn) -> Option<&RuleOrigin> {
        self.dns_rules
            .iter()
            .filter_map(|rule| {
                let alike = match &rule.names {
                    // The name is fine with it; the server or the port is not.
                    DnsNames::All => usize::MAX,
                    DnsNames::Only(names) if names.matches(name) => usize::MAX,
                    DnsNames::Only(names) => names
                        .iter()
                        .map(|selector| selector.common_labels(name))
                        .max()
                        .unwrap_or(0),
                };
                Some((alike, rule.origin.as_deref()?))
            })
            .filter(|(alike, _)| *alike > 0)
            .max_by_key(|(alike, rule)| (*alike, std::cmp::Reverse(*rule)))
            .map(|(_, rule)| rule)
    }
}
