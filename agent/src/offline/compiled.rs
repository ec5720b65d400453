//! One endpoint's policies in force: what is enforced, what is only watched, what names opened.
//!
//! In:  policies, the endpoint, the view of its node, the names it asked for.
//! Out: [`Compiled`], which judges one peer on one port.
//! Not here: whole flows (`judge`), services (`service`), L7 (`l7`).

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use fqdn_ebpf_common::{
    ipcache,
    learned::SLOTS,
    verdict::{self, Ask, Judgement, Peers},
};
use identity::{IdentityId, LocalIdentities, SelectorSet};
use policy::{
    compile::{CompileInput, SelectorTable, Surroundings, compile_layered},
    compiled::{
        Direction, EndpointPolicy, Flow, FlowVerdict, L7Grant, Layered, Protocol, RuleSetId,
    },
    fqdn::Fqdn,
};

use super::{
    Decision,
    entries::{self, Entries},
};
use crate::WorldError;

/// Number of the only policy in a map of its own.
const POLICY: u32 = 1;

/// One compiled policy and its map.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) policy: Arc<EndpointPolicy>,
    entries: Entries,
}

/// One answer of DNS.
#[derive(Clone, Debug)]
pub(super) struct Taught {
    pub(super) name: Fqdn,
    pub(super) addresses: Vec<IpAddr>,
}

/// What an endpoint learned about one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Learned {
    slots: Vec<(IdentityId, SelectorSet)>,
}

/// One endpoint.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) enforced: Layer,
    /// Everything, what is in audit included; none where nothing is in audit.
    pub(super) shadow: Option<Layer>,
    /// Whether everything is in audit.
    pub(super) audited: bool,
    learned: HashMap<IpAddr, Learned>,
}

/// Who a peer is: by address, and by the names that led to it.
#[derive(Clone, Debug)]
pub(super) struct PeerIs {
    pub(super) identity: IdentityId,
    pub(super) learned: Learned,
}

impl PeerIs {
    /// One set of selectors per name that led to the address.
    fn sets(&self) -> Vec<SelectorSet> {
        self.learned
            .slots
            .iter()
            .map(|(_, set)| set.clone())
            .collect()
    }

    /// Every selector the address was learned under.
    pub(super) fn selectors(&self) -> SelectorSet {
        let sets = self.sets();
        sets.iter()
            .fold(SelectorSet::default(), |all, set| all.union(set))
    }
}

impl Layer {
    fn of(policy: Arc<EndpointPolicy>) -> Self {
        Self {
            entries: Entries::of(&policy),
            policy,
        }
    }

    /// The verdict of the kernel's function.
    pub(super) fn judge(
        &self,
        direction: Direction,
        peer: &PeerIs,
        protocol: Protocol,
        port: u16,
    ) -> Judgement {
        let mut learned = [0; SLOTS];
        for (slot, (identity, _)) in learned.iter_mut().zip(&peer.learned.slots) {
            *slot = identity.get();
        }
        let ask = Ask {
            policy: POLICY,
            deny_by_default: self.policy.default_deny(direction),
            direction: entries::direction_of(direction),
            protocol: protocol.number(),
            port,
        };
        let peers = Peers {
            learned,
            identity: peer.identity.get(),
        };
        verdict::judge(&self.entries, &ask, &peers)
    }

    /// The same with every rule behind it, and with what proxies would be asked.
    pub(super) fn explain(
        &self,
        direction: Direction,
        peer: &PeerIs,
        protocol: Protocol,
        port: u16,
    ) -> FlowVerdict<'_> {
        self.policy.judge(&Flow {
            direction,
            peer: peer.identity,
            learned: &peer.sets(),
            proto: Some(protocol),
            port,
        })
    }

    /// The policies behind sets of rules and L7 parts, sorted.
    pub(super) fn policies(&self, sets: &[RuleSetId], grants: &[&L7Grant]) -> Vec<String> {
        let of_sets = sets.iter().flat_map(|set| self.policy.rule_set(*set));
        let of_grants = grants.iter().map(|grant| &grant.rule);
        let mut names: Vec<_> = of_sets
            .chain(of_grants)
            .map(|rule| rule.policy.to_string())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Compiled {
    /// `audited`: nothing is enforced, everything is watched.
    pub(super) fn new(
        input: &CompileInput<'_>,
        around: &Surroundings,
        audited: bool,
        names: &[Taught],
        selectors: &mut SelectorTable,
        locals: &mut LocalIdentities,
    ) -> Result<Self, WorldError> {
        let Layered { whole, enforced } = compile_layered(input, around, selectors)?;
        let whole = Layer::of(whole);
        let mut compiled = match (audited, enforced) {
            (true, _) => Self {
                audited: true,
                shadow: Some(whole),
                ..Self::default()
            },
            (false, None) => Self {
                enforced: whole,
                ..Self::default()
            },
            (false, Some(enforced)) => Self {
                enforced: Layer::of(enforced),
                shadow: Some(whole),
                ..Self::default()
            },
        };
        for taught in names {
            compiled.learn(taught, locals)?;
        }
        Ok(compiled)
    }

    /// The policies in audit behind a default deny, in words; nothing where a rule refuses.
    pub(super) fn blamed(&self, direction: Direction, refused: &Decision) -> String {
        let Some(shadow) = self.shadow.as_ref().filter(|_| !self.audited) else {
            return String::new();
        };
        if !refused.rules.is_empty() {
            return String::new();
        }
        let layered = Layered {
            whole: Arc::clone(&shadow.policy),
            enforced: Some(Arc::clone(&self.enforced.policy)),
        };
        let policies = layered.would_shut(direction);
        let names: Vec<_> = policies.iter().map(ToString::to_string).collect();
        format!(" by {}", names.join(", "))
    }

    /// The layers that are there.
    fn layers(&mut self) -> impl Iterator<Item = &mut Layer> + '_ {
        std::iter::once(&mut self.enforced).chain(&mut self.shadow)
    }

    /// What an answer does: one slot per set of selectors that a name matches; when slots run
    /// out, sets are merged.
    fn learn(&mut self, taught: &Taught, locals: &mut LocalIdentities) -> Result<(), WorldError> {
        let set = self
            .layers()
            .map(|layer| layer.policy.selectors_matching(&taught.name))
            .fold(SelectorSet::default(), |all, set| all.union(&set));
        if set.is_empty() {
            return Ok(());
        }
        for address in &taught.addresses {
            let mut slots = self.learned.remove(address).unwrap_or_default().slots;
            if !slots.iter().any(|(_, known)| *known == set) {
                let merged = if slots.len() < SLOTS {
                    set.clone()
                } else {
                    slots
                        .pop()
                        .map_or_else(|| set.clone(), |(_, last)| last.union(&set))
                };
                let (identity, _) = locals.fqdn(&merged)?;
                for layer in self.layers() {
                    layer.entries.teach(&layer.policy, identity, &merged);
                }
                slots.push((identity, merged));
            }
            self.learned.insert(*address, Learned { slots });
        }
        Ok(())
    }

    /// Who the peer at an address is to this endpoint. A name opens no address that is a
    /// workload's or a node's.
    pub(super) fn peer(&self, identity: IdentityId, address: IpAddr) -> PeerIs {
        let learned = if ipcache::names_count_for(identity.get()) {
            self.learned.get(&address).cloned().unwrap_or_default()
        } else {
            Learned::default()
        };
        PeerIs { identity, learned }
    }
}
