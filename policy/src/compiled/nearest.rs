//! The rule that comes nearest to allowing a denied flow.
//!
//! In:  a flow that was denied, with the names its address was resolved from.
//! Out: one rule, for the line in a report that says what would have to be changed.
//! Not here: deciding anything; a flow's verdict never depends on this.

use identity::IdentityId;

use super::{Action, Direction, EndpointPolicy, Entry, L4, Peer, Protocol, RuleOrigin};
use crate::fqdn::Fqdn;

/// A flow that was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedFlow {
    /// The peer's identity by address (not a learned one).
    pub peer: IdentityId,
    /// The names the peer's address was resolved from by this endpoint, if any.
    pub names: Vec<Fqdn>,
    /// The protocol, if policies can name it.
    pub proto: Option<Protocol>,
    /// The destination port or ICMP type.
    pub port: u16,
}

/// How near an entry is: peers weigh more than ports, because a port is the more common mistake
/// and the easier one to see.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Nearness {
    same_peer: bool,
    same_l4: bool,
    labels_in_common: usize,
    same_proto: bool,
}

impl EndpointPolicy {
    /// The allowing rule nearest to `what`: the same peer on another port, else the same port
    /// for the name most alike, else the same port for anybody. None when nothing is alike.
    pub fn nearest(&self, direction: Direction, what: &DeniedFlow) -> Option<&RuleOrigin> {
        let (_, entry) = self
            .entries
            .iter()
            .filter(|entry| entry.direction == direction && entry.action != Action::Deny)
            .filter_map(|entry| Some((self.nearness(entry, what)?, entry)))
            .filter(|(_, entry)| !self.rule_set(entry.rule_set).is_empty())
            .max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.cmp(x)))?;
        self.rule_set(entry.rule_set).first().map(|rule| &**rule)
    }

    fn nearness(&self, entry: &Entry, what: &DeniedFlow) -> Option<Nearness> {
        let same_proto = match (entry.l4.proto(), what.proto) {
            (None, _) => true,
            (Some(own), Some(asked)) => own == asked,
            (Some(_), None) => false,
        };
        let same_l4 = match what.proto {
            Some(proto) => entry.l4.contains(proto, what.port),
            None => entry.l4 == L4::Any,
        };
        let (same_peer, labels_in_common) = match entry.peer {
            // A wildcard says nothing about this peer; it is near only through its port.
            Peer::Any => (false, 0),
            Peer::Identity(id) => (id == what.peer, 0),
            Peer::Fqdn(id) => {
                let selector = self.selectors.get(id)?;
                let labels = what.names.iter().map(|name| selector.common_labels(name));
                (
                    what.names.iter().any(|name| selector.matches(name)),
                    labels.max().unwrap_or(0),
                )
            }
        };
        // One shared label is a top-level domain: not a likeness.
        let alike = labels_in_common >= 2;
        (same_peer || same_l4 || alike).then_some(Nearness {
            same_peer,
            same_l4,
            labels_in_common,
            same_proto,
        })
    }
}
