//! POLICY entries of an ephemeral identity: what a set of `toFQDNs` selectors grants together.
//!
//! In:  the selectors one name matches.
//! Out: entries for the identity that stands for them, invariant kept.
//! Not here: the identity's number (`identity::LocalIdentities::fqdn`).

use identity::SelectorSet;

use super::{Action, Direction, EndpointPolicy, L4, Layer, Peer, Precedence, RuleSetId, resolve};

/// One POLICY entry of an ephemeral identity.
///
/// Which rules stand behind a union of selectors is not known before the set exists, so the kernel
/// gets one true answer (`rule_set`: rules that all decide this way) and user space all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityEntry {
    /// Which way.
    pub direction: Direction,
    /// Which protocol and port.
    pub l4: L4,
    /// What happens.
    pub action: Action,
    /// Against entries of other peers.
    pub precedence: Precedence,
    /// What the kernel reports: the first of `rule_sets`.
    pub rule_set: RuleSetId,
    /// Every set of rules that decides this way, ascending.
    pub rule_sets: Vec<RuleSetId>,
}

impl EndpointPolicy {
    /// The POLICY entries of the ephemeral identity that stands for `set`: one per direction and
    /// L4, the highest precedence winning. Selectors of other endpoints grant nothing.
    pub fn entries_of_set(&self, set: &SelectorSet) -> Vec<IdentityEntry> {
        let mut ingress = Vec::new();
        let mut egress = Vec::new();
        for entry in set
            .iter()
            .flat_map(|id| self.entries_of_peer(Peer::Fqdn(id)))
        {
            let layer = Layer {
                l4: entry.l4,
                action: entry.action,
                precedence: entry.precedence,
                decided: entry.precedence.level(),
                rules: vec![entry.rule_set],
            };
            match entry.direction {
                Direction::Ingress => ingress.push(layer),
                Direction::Egress => egress.push(layer),
            }
        }
        [(Direction::Ingress, ingress), (Direction::Egress, egress)]
            .into_iter()
            .flat_map(|(direction, layers)| {
                resolve(layers).into_iter().filter_map(move |layer| {
                    Some(IdentityEntry {
                        direction,
                        l4: layer.l4,
                        action: layer.action,
                        precedence: layer.precedence,
                        rule_set: *layer.rules.first()?,
                        rule_sets: layer.rules,
                    })
                })
            })
            .collect()
    }

    /// The entries of one peer, both directions. Entries are sorted by direction, then peer.
    fn entries_of_peer(&self, peer: Peer) -> impl Iterator<Item = &super::Entry> + '_ {
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .flat_map(move |direction| {
                let key = (direction, peer);
                let first = self
                    .entries
                    .partition_point(|e| (e.direction, e.peer) < key);
                self.entries
                    .get(first..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(move |e| (e.direction, e.peer) == key)
            })
    }
}
