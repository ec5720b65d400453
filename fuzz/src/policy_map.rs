//! A compiled policy as the datapath sees it, and whom it can meet.
//!
//! In:  policies, a subject, packets.
//! Out: what longest-prefix look-ups and "highest precedence wins" decide.
//! Not here: what the rules say (`reference::policy`).

use std::collections::BTreeMap;

use identity::{AddressBook, IdentityId, Label, LabelSet, LocalIdentities, SelectorSet, reserved};
use policy::{
    compile::{CompileInput, EnforcementMode, Identities, SelectorTable, compile, prefixes},
    compiled::{Action, Direction, EndpointPolicy, Flow, L4, Outcome, Precedence},
    model::Policy,
};
use reference::policy::{Fact, Judgement, Packet};

pub(crate) const CLUSTER: &str = "default";

/// One row of the POLICY map.
type Row = (L4, Precedence, Action);

/// A workload's labels.
pub(crate) fn pod(namespace: &str, app: Option<&str>) -> LabelSet {
    let app = app.map(|app| Label::k8s("app", app));
    std::iter::once(Label::k8s("io.kubernetes.pod.namespace", namespace))
        .chain(app)
        .collect()
}

/// Every identity with labels.
pub(crate) fn managed() -> Vec<(IdentityId, LabelSet)> {
    let id = IdentityId::from_raw;
    let entity = |name: &str| [Label::reserved(name)].into_iter().collect();
    vec![
        (id(256), pod("a", Some("x"))),
        (id(257), pod("a", Some("y"))),
        (id(258), pod("b", Some("y"))),
        (id(259), pod("b", None)),
        (reserved::HOST, entity("host")),
        (reserved::HEALTH, entity("health")),
        (reserved::REMOTE_NODE, entity("remote-node")),
    ]
}

/// The maps of one endpoint.
pub(crate) struct Datapath {
    pub(crate) policy: EndpointPolicy,
    book: AddressBook,
    map: BTreeMap<(Direction, IdentityId), Vec<Row>>,
}

impl Datapath {
    pub(crate) fn new(policies: &[Policy], subject: &LabelSet) -> Self {
        let mut local = LocalIdentities::default();
        let mut book = AddressBook::default();
        let mut known = Vec::new();
        for prefix in prefixes(policies) {
            let id = local.cidr(prefix).unwrap();
            book.insert_prefix(prefix, id);
            known.push((id, prefix));
        }
        let identities = Identities::new(CLUSTER, managed(), known);
        let input = CompileInput {
            policies,
            subject,
            identities: &identities,
            mode: EnforcementMode::Default,
            allow_local_host: true,
            steer_dns: false,
        };
        let policy = compile(&input, &mut SelectorTable::default()).unwrap();
        let mut map: BTreeMap<_, Vec<Row>> = BTreeMap::new();
        for entry in &policy.entries {
            if let Some(id) = entry.peer.map_identity() {
                let rows = map.entry((entry.direction, id)).or_default();
                rows.push((entry.l4, entry.precedence, entry.action));
            }
        }
        Self { policy, book, map }
    }

    /// The identity of a peer's address.
    pub(crate) fn identity(&self, fact: &Fact) -> IdentityId {
        match fact {
            Fact::Managed(labels) => {
                let own = managed().into_iter().find(|(_, of)| of == labels);
                own.map_or(reserved::UNKNOWN, |(id, _)| id)
            }
            Fact::Outside(address, _) => self.book.lookup(*address),
        }
    }

    /// The selectors that the peer's names match.
    pub(crate) fn learned(&self, fact: &Fact) -> SelectorSet {
        let Fact::Outside(_, names) = fact else {
            return SelectorSet::default();
        };
        names
            .iter()
            .map(|name| self.policy.selectors_matching(name))
            .fold(SelectorSet::default(), |all, of| all.union(&of))
    }

    pub(crate) fn judge(&self, packet: &Packet) -> Judgement {
        let lookup = |rows: &[Row]| {
            rows.iter()
                .filter(|(l4, ..)| l4.contains(packet.proto, packet.port))
                .max_by_key(|(l4, ..)| l4.specificity())
                .map(|(_, precedence, action)| (*precedence, *action))
        };
        let mut found = Vec::new();
        for id in [self.identity(&packet.peer), reserved::UNKNOWN] {
            let rows = self.map.get(&(packet.direction, id));
            found.extend(rows.and_then(|rows| lookup(rows)));
        }
        if let Fact::Outside(_, names) = &packet.peer {
            for name in names {
                let set = self.policy.selectors_matching(name);
                let rows: Vec<Row> = self
                    .policy
                    .entries_of_set(&set)
                    .into_iter()
                    .filter(|entry| entry.direction == packet.direction)
                    .map(|entry| (entry.l4, entry.precedence, entry.action))
                    .collect();
                found.extend(lookup(&rows));
            }
        }
        match found.into_iter().max_by_key(|(precedence, _)| *precedence) {
            Some((_, Action::Allow)) => Judgement::Allowed,
            Some((_, Action::RedirectDns)) => Judgement::Redirected,
            Some((_, Action::Deny | Action::Mixed)) => Judgement::Denied,
            Some((_, Action::NeedsProxy)) => Judgement::NeedsProxy,
            Some((_, Action::Refuse)) => Judgement::NotAllowed,
            None if self.policy.default_deny(packet.direction) => Judgement::NotAllowed,
            None => Judgement::Allowed,
        }
    }

    /// What the offline judge says.
    pub(crate) fn offline(&self, packet: &Packet) -> Judgement {
        let learned: Vec<SelectorSet> = match &packet.peer {
            Fact::Managed(_) => Vec::new(),
            Fact::Outside(_, names) => {
                let sets = names
                    .iter()
                    .map(|name| self.policy.selectors_matching(name));
                sets.collect()
            }
        };
        let verdict = self.policy.judge(&Flow {
            direction: packet.direction,
            peer: self.identity(&packet.peer),
            learned: &learned,
            proto: Some(packet.proto),
            port: packet.port,
        });
        match verdict.datapath {
            Outcome::Allowed | Outcome::AllowedByDefault => Judgement::Allowed,
            Outcome::RedirectedDns => Judgement::Redirected,
            Outcome::Redirected(_) => Judgement::NeedsProxy,
            Outcome::NotAllowed => Judgement::NotAllowed,
            Outcome::Denied => Judgement::Denied,
        }
    }
}
