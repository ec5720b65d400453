//! One endpoint's policy, compiled: a plain value the datapath and the DNS proxy are programmed from.
//!
//! In:  what `compile` made of the policies that select the endpoint.
//! Out: entries for the POLICY map, the selectors names teach, which names may be asked where,
//!      and the rules behind each of them.
//! Not here: parsing, label selection (`compile`); identity numbers (`identity`).
//!
//! Invariant: for one direction and peer, no entry is hidden behind one with a longer prefix and
//! lower precedence. A longest-prefix look-up per peer followed by "highest precedence wins"
//! therefore decides what scanning all entries would decide. The one exception is the hole that a
//! `Pass` of a tier leaves: there the longer prefix *is* the decision of all rules.

mod ask;
mod fqdn_set;
mod judge;
mod l4;
mod l7_grant;
mod layered;
mod layers;
mod nearest;
mod origin;
mod precedence;
mod selectors;

use identity::{IdentityId, SelectorId, SelectorSet, reserved};

pub use ask::{DnsNames, DnsRule, DnsRuleKind, DnsVerdict};
pub use fqdn_set::IdentityEntry;
pub use judge::{Flow, FlowVerdict, Outcome};
pub use l4::{L4, PortPrefix, Protocol, UnknownProtocol};
pub use l7_grant::L7Grant;
pub use layered::Layered;
pub(crate) use layers::{Layer, lookup, resolve};
pub use nearest::DeniedFlow;
pub use origin::{PolicyKind, PolicyRef, RuleOrigin, RuleSet};
pub use precedence::{Level, Precedence};
pub use selectors::Selectors;

use crate::fqdn::Fqdn;

/// Which way a connection is opened, seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress,
    /// Away from it.
    Egress,
}

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Every peer; identity 0 in the POLICY map.
    Any,
    /// Peers of this identity.
    Identity(IdentityId),
    /// Addresses this endpoint learned from a name the selector matches. Such entries reach the
    /// POLICY map through [`EndpointPolicy::entries_of_set`].
    Fqdn(SelectorId),
}

impl Peer {
    /// The identity in the POLICY map; none for FQDN peers, whose identities are minted later.
    pub const fn map_identity(self) -> Option<IdentityId> {
        match self {
            Self::Any => Some(reserved::UNKNOWN),
            Self::Identity(id) => Some(id),
            Self::Fqdn(_) => None,
        }
    }
}

/// What happens to a matching packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It passes.
    Allow,
    /// It is dropped, and the reason is a rule.
    Deny,
    /// It is handed to the DNS proxy.
    RedirectDns,
    /// Only a rule about what is inside of the connection allows it: it is dropped where no proxy
    /// can look.
    NeedsProxy,
    /// It is dropped because no rule allows it: the default, put into words for the hole that a
    /// `Pass` leaves.
    Refuse,
    /// It is dropped because of who is behind a service's address: some may be reached, others not.
    Mixed,
}

/// Index into [`EndpointPolicy::rule_sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSetId(u32);

impl RuleSetId {
    /// The number as the POLICY map holds it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// A number read back from the kernel.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// One entry of the endpoint's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Which way.
    pub direction: Direction,
    /// Whom.
    pub peer: Peer,
    /// Which protocol and port.
    pub l4: L4,
    /// What happens.
    pub action: Action,
    /// Against entries of other peers.
    pub precedence: Precedence,
    /// The rules this entry stems from.
    pub rule_set: RuleSetId,
}

/// Everything the datapath and the proxy need to know about one endpoint.
///
/// The default value enforces nothing: no default deny, no entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// What reaches the endpoint without a matching entry is dropped.
    pub default_deny_ingress: bool,
    /// What leaves the endpoint without a matching entry is dropped.
    pub default_deny_egress: bool,
    /// The policies that put a direction in default deny, sorted.
    pub shut_by: Vec<(Direction, PolicyRef)>,
    /// Entries, in their order ([`EndpointPolicy::sorted`]).
    pub entries: Vec<Entry>,
    /// The rules behind the entries. The set of an entry nobody wrote (local node access) is empty.
    pub rule_sets: Vec<RuleSet>,
    /// `toFQDNs` selectors: what names teach.
    pub selectors: Selectors,
    /// Which names may be asked where, sorted by server ([`EndpointPolicy::sorted`]).
    pub dns_rules: Vec<DnsRule>,
    /// What a proxy has to look at ([`EndpointPolicy::sorted`]). Where nothing else allows it there
    /// is an [`Action::NeedsProxy`] entry too.
    pub needs_proxy: Vec<L7Grant>,
}

impl EndpointPolicy {
    /// The same policy with entries and DNS rules in the order look-ups rely on. `compile` makes
    /// sorted values; one put together by hand has to pass through here.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.entries.sort_unstable();
        self.dns_rules.sort_by_key(|rule| rule.server);
        self.needs_proxy
            .sort_by_key(|grant| (grant.direction, grant.peer, grant.l4));
        self
    }

    /// The `toFQDNs` selectors that `name` matches; empty when the name teaches nothing.
    pub fn selectors_matching(&self, name: &Fqdn) -> SelectorSet {
        self.selectors.matching(name)
    }

    /// The rules behind a number of an entry or of a kernel event.
    pub fn rule_set(&self, id: RuleSetId) -> &[std::sync::Arc<RuleOrigin>] {
        self.rule_sets
            .get(id.get() as usize)
            .map_or(&[], RuleSet::rules)
    }

    /// The policies that put a direction in default deny.
    pub fn shut_by(&self, direction: Direction) -> impl Iterator<Item = &PolicyRef> + '_ {
        let of_direction = self
            .shut_by
            .iter()
            .filter(move |(own, _)| *own == direction);
        of_direction.map(|(_, policy)| policy)
    }

    /// Whether the direction is in default deny.
    pub const fn default_deny(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.default_deny_ingress,
            Direction::Egress => self.default_deny_egress,
        }
    }
}
