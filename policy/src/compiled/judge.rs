//! One flow, judged offline: as if every proxy were there, and as the datapath does without.
//!
//! In:  the first packet of a flow: direction, the peer's identity, what was learned, L4.
//! Out: [`FlowVerdict`]: the entry that decides, and what a proxy would have to say.
//! Not here: connections that exist already (`fqdn-ebpf/common`), names that are asked (`ask`).

use identity::{IdentityId, SelectorSet};

use super::{
    Action, Direction, EndpointPolicy, Entry, L4, L7Grant, Level, Peer, Precedence, Protocol,
    RuleSetId,
};
use crate::l7::{Message, Proxy};

/// The first packet of a flow.
#[derive(Clone, Debug)]
pub struct Flow<'a> {
    /// Seen from the endpoint.
    pub direction: Direction,
    /// The peer's identity by its address.
    pub peer: IdentityId,
    /// What the endpoint learned about the address: one set for each name that is still valid.
    pub learned: &'a [SelectorSet],
    /// The protocol, if policies can name it.
    pub proto: Option<Protocol>,
    /// The destination port or the ICMP type.
    pub port: u16,
}

/// What happens at L3 and L4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing restricts the direction, and no rule speaks about the flow.
    AllowedByDefault,
    /// A rule allows it.
    Allowed,
    /// It goes to the DNS proxy.
    RedirectedDns,
    /// It goes to another proxy, which decides about every message.
    Redirected(Proxy),
    /// No rule allows it.
    NotAllowed,
    /// A rule denies it.
    Denied,
}

/// How a flow is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowVerdict<'a> {
    /// What happens, were every proxy there.
    pub outcome: Outcome,
    /// What happens in the datapath, where only the DNS proxy is there. What needs another one
    /// ([`Action::NeedsProxy`]) is [`Outcome::Redirected`] and refused.
    pub datapath: Outcome,
    /// The rules behind the entry that decides.
    pub rule_sets: Vec<RuleSetId>,
    /// The L7 parts about the flow, when it is redirected.
    pub grants: Vec<&'a L7Grant>,
    /// Whether a rule without L7 part allows the flow too: then the proxy lets everything pass.
    pub lifted: bool,
}

impl FlowVerdict<'_> {
    /// Whether the proxy lets a message pass, for a flow that is redirected to it.
    pub fn allows(&self, message: Message<'_>) -> bool {
        self.lifted || self.grants.iter().any(|grant| grant.l7.allows(message))
    }
}

/// What one candidate of the look-up says: precedence, deny, specificity, peer.
type Weight = (Precedence, bool, u8, bool);

struct Candidate {
    weight: Weight,
    action: Action,
    rule_sets: Vec<RuleSetId>,
}

impl EndpointPolicy {
    /// Judges the first packet of a flow.
    pub fn judge(&self, flow: &Flow<'_>) -> FlowVerdict<'_> {
        let best = self.strongest(flow);
        let (entry, rule_sets) = match best {
            Some(found) if found.weight.0.get() > 0 && found.action != Action::Refuse => {
                let precedence = found.weight.0;
                (Some((found.action, precedence)), found.rule_sets)
            }
            _ => (None, Vec::new()),
        };
        let otherwise = if self.default_deny(flow.direction) {
            Outcome::NotAllowed
        } else {
            Outcome::AllowedByDefault
        };
        let plain = match entry {
            None => otherwise,
            Some((Action::Allow, _)) => Outcome::Allowed,
            Some((Action::RedirectDns, _)) => Outcome::RedirectedDns,
            Some((Action::Deny | Action::Mixed, _)) => Outcome::Denied,
            // There is a grant for it: what the proxy would say comes below.
            Some((Action::NeedsProxy | Action::Refuse, _)) => Outcome::NotAllowed,
        };
        // A redirect is stronger than an allow of its tier, and weaker than a deny or DNS.
        let to_proxy = match entry {
            None | Some((Action::NeedsProxy | Action::Refuse, _)) => true,
            Some((Action::Allow, precedence)) => precedence.level() <= Level::NORMAL,
            Some((Action::RedirectDns | Action::Deny | Action::Mixed, precedence)) => {
                precedence.level() < Level::NORMAL
            }
        };
        let grants = if to_proxy {
            self.grants_about(flow)
        } else {
            Vec::new()
        };
        let Some(proxy) = grants.iter().map(|grant| grant.l7.proxy()).max() else {
            return FlowVerdict {
                outcome: plain,
                datapath: plain,
                rule_sets,
                grants,
                lifted: false,
            };
        };
        let lifted =
            matches!(entry, Some((Action::Allow, _))) || !self.default_deny(flow.direction);
        FlowVerdict {
            outcome: Outcome::Redirected(proxy),
            datapath: if lifted {
                plain
            } else {
                Outcome::Redirected(proxy)
            },
            rule_sets,
            grants,
            lifted,
        }
    }

    /// How strong the entry is that decides about a flow.
    pub(super) fn deciding(&self, flow: &Flow<'_>) -> Option<Precedence> {
        self.strongest(flow).map(|found| found.weight.0)
    }

    fn strongest(&self, flow: &Flow<'_>) -> Option<Candidate> {
        let by_address = [(Peer::Any, false), (Peer::Identity(flow.peer), true)]
            .into_iter()
            .filter_map(|(peer, specific)| {
                let entry = self.longest(flow, peer)?;
                Some(Candidate {
                    weight: (
                        entry.precedence,
                        entry.action == Action::Deny,
                        entry.l4.specificity(),
                        specific,
                    ),
                    action: entry.action,
                    rule_sets: vec![entry.rule_set],
                })
            });
        let by_name = flow.learned.iter().filter_map(|set| {
            let entries = self.entries_of_set(set).into_iter();
            let entry = entries
                .filter(|e| e.direction == flow.direction && flow.is_in(e.l4))
                .max_by_key(|e| e.l4.specificity())?;
            Some(Candidate {
                weight: (
                    entry.precedence,
                    entry.action == Action::Deny,
                    entry.l4.specificity(),
                    true,
                ),
                action: entry.action,
                rule_sets: entry.rule_sets,
            })
        });
        by_address.chain(by_name).max_by_key(|found| found.weight)
    }

    fn longest(&self, flow: &Flow<'_>, peer: Peer) -> Option<&Entry> {
        let key = (flow.direction, peer);
        let first = self
            .entries
            .partition_point(|e| (e.direction, e.peer) < key);
        self.entries
            .get(first..)?
            .iter()
            .take_while(|e| (e.direction, e.peer) == key)
            .filter(|e| flow.is_in(e.l4))
            .max_by_key(|e| e.l4.specificity())
    }

    fn grants_about(&self, flow: &Flow<'_>) -> Vec<&L7Grant> {
        let learned = flow
            .learned
            .iter()
            .flat_map(SelectorSet::iter)
            .map(Peer::Fqdn);
        let mut peers: Vec<_> = [Peer::Any, Peer::Identity(flow.peer)]
            .into_iter()
            .chain(learned)
            .collect();
        peers.sort_unstable();
        peers.dedup();
        let about = peers.into_iter().flat_map(|peer| {
            let key = (flow.direction, peer);
            let first = self
                .needs_proxy
                .partition_point(|grant| (grant.direction, grant.peer) < key);
            self.needs_proxy
                .get(first..)
                .unwrap_or_default()
                .iter()
                .take_while(move |grant| (grant.direction, grant.peer) == key)
        });
        about.filter(|grant| flow.is_in(grant.l4)).collect()
    }
}

impl Flow<'_> {
    fn is_in(&self, l4: L4) -> bool {
        match self.proto {
            Some(proto) => l4.contains(proto, self.port),
            None => l4 == L4::Any,
        }
    }
}
