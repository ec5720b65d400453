//! POLICY: entries of compiled policies, and of the identities that names are given.
//!
//! In:  compiled policies; selector sets as names are resolved.
//! Out: POLICY entries, always complete for an identity before anything points at it.
//! Not here: LEARNED (`writer`), ENDPOINTS (`datapath`).
//!
//! One short lock guards all of it: the writer takes it for a look-up in the common case, and for
//! a few map writes when a selector set is new.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fqdn_ebpf_common::{
    Direction,
    endpoint::{InForce, PolicyId},
    policy::{ANY_PEER, Action, L4Bits, PolicyEntry, PolicyKey},
};
use identity::{EndpointId, IdentityId, LocalIdentities, SelectorSet};
use policy::compiled::{self, EndpointPolicy, L4, Peer};

use crate::{Count, MapError, hits::Hits, table::Trie};

/// The POLICY map.
pub(crate) type PolicyMap =
    Trie<PolicyKey, PolicyEntry, { size_of::<PolicyKey>() }, { size_of::<PolicyEntry>() }>;

/// A policy that is in the map.
#[derive(Debug)]
struct Registered {
    policy: Arc<EndpointPolicy>,
    keys: BTreeSet<(u32, [u8; size_of::<PolicyKey>()])>,
    /// Ephemeral identities whose entries are in the map.
    identities: BTreeSet<IdentityId>,
}

/// A workload that is in the map of endpoints.
#[derive(Debug, Default)]
struct Live {
    policies: [Option<PolicyId>; 2],
    /// The policy that will be enforced next, while a change is under way.
    next: [Option<PolicyId>; 2],
    /// Ephemeral identities that its LEARNED entries were given, each with its selectors.
    identities: BTreeMap<IdentityId, SelectorSet>,
}

#[derive(Debug)]
pub(crate) struct Policies {
    map: PolicyMap,
    hits: Hits,
    registered: HashMap<PolicyId, Registered>,
    endpoints: HashMap<EndpointId, Live>,
    identities: Arc<Mutex<LocalIdentities>>,
    /// Entries of a predecessor's policies.
    leftovers: BTreeSet<(u32, [u8; size_of::<PolicyKey>()])>,
    minted: Option<Minted>,
}

/// Whoever must know of an ephemeral identity before anything points at it.
pub(crate) struct Minted(Box<Tell>);

type Tell = dyn FnMut(IdentityId, &SelectorSet) -> std::io::Result<()> + Send;

impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Minted")
    }
}

/// What the datapath and its writers share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Policies>>);

impl Shared {
    pub(crate) fn new(map: PolicyMap, hits: Hits, identities: Arc<Mutex<LocalIdentities>>) -> Self {
        Self(Arc::new(Mutex::new(Policies {
            map,
            hits,
            registered: HashMap::new(),
            endpoints: HashMap::new(),
            identities,
            leftovers: BTreeSet::new(),
            minted: None,
        })))
    }

    /// The one writer at a time. A panic elsewhere leaves maps that are complete or over-complete,
    /// never ones that grant too much: the lock's poison says nothing here.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Policies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an identity is not ready.
pub(crate) enum NotReady {
    NoEndpoint,
    Identities(identity::IdentitiesExhausted),
    Map(MapError),
}

impl Policies {
    /// Puts a policy's entries into the map. On failure nothing of it stays.
    pub(crate) fn register(
        &mut self,
        id: PolicyId,
        policy: &EndpointPolicy,
    ) -> Result<(), MapError> {
        self.unregister(id)?;
        let mut registered = Registered {
            policy: Arc::new(policy.clone()),
            keys: BTreeSet::new(),
            identities: BTreeSet::new(),
        };
        self.hits.begin(id, policy)?;
        for entry in &policy.entries {
            let identity = match entry.peer {
                Peer::Any => ANY_PEER,
                Peer::Identity(identity) => identity.get(),
                // Reach the map with the identities that names are given.
                Peer::Fqdn(_) => continue,
            };
            let written = write(
                &mut self.map,
                &mut registered.keys,
                id,
                identity,
                entry.direction,
                entry.l4,
                entry.action,
                entry.precedence.get(),
                entry.rule_set.get(),
            );
            if let Err(error) = written {
                erase(&mut self.map, &registered.keys);
                self.hits.end(id, policy);
                return Err(error);
            }
        }
        self.registered.insert(id, registered);
        Ok(())
    }

    /// Takes a policy's entries out of the map; one that is not there is fine.
    pub(crate) fn unregister(&mut self, id: PolicyId) -> Result<(), MapError> {
        if let Some((endpoint, _)) = self
            .endpoints
            .iter()
            .find(|(_, live)| live.policies.contains(&Some(id)))
        {
            return Err(MapError::PolicyInUse {
                policy: id.get(),
                endpoint: *endpoint,
            });
        }
        for live in self.endpoints.values_mut() {
            live.next = live.next.map(|next| next.filter(|next| *next != id));
        }
        if let Some(gone) = self.registered.remove(&id) {
            erase(&mut self.map, &gone.keys);
            self.hits.end(id, &gone.policy);
        }
        Ok(())
    }

    /// How many packets each set of a policy's rules decided about, by number of the set.
    pub(crate) fn hits(&self, id: PolicyId) -> Result<Vec<Count>, MapError> {
        match self.registered.get(&id) {
            Some(registered) => self.hits.read(id, &registered.policy),
            None => Ok(Vec::new()),
        }
    }

    /// Whether the policy denies by default, for the ENDPOINTS record.
    pub(crate) fn in_force(&self, id: Option<PolicyId>) -> InForce {
        id.and_then(|id| Some((id, self.registered.get(&id)?)))
            .map_or_else(InForce::default, |(id, registered)| InForce {
                id,
                deny_ingress: registered.policy.default_deny_ingress,
                deny_egress: registered.policy.default_deny_egress,
            })
    }

    /// Says which policies come next for an endpoint: from here on every identity its names are given
    /// has entries in them too, those it already has included.
    pub(crate) fn announce(
        &mut self,
        endpoint: EndpointId,
        next: [Option<PolicyId>; 2],
    ) -> Result<(), MapError> {
        for id in next.iter().flatten() {
            self.complete_known(endpoint, *id)?;
        }
        if let Some(live) = self.endpoints.get_mut(&endpoint) {
            live.next = next;
        }
        Ok(())
    }

    /// Makes these policies the endpoint's: from here on every identity its names are given has
    /// entries in them, those it already has included. On failure the old ones stay. Returns the
    /// ones before.
    pub(crate) fn enlist(
        &mut self,
        endpoint: EndpointId,
        policies: [Option<PolicyId>; 2],
    ) -> Result<[Option<PolicyId>; 2], MapError> {
        for id in policies.iter().flatten() {
            self.complete_known(endpoint, *id)?;
        }
        let live = self.endpoints.entry(endpoint).or_default();
        live.next = [None; 2];
        Ok(std::mem::replace(&mut live.policies, policies))
    }

    fn complete_known(&mut self, endpoint: EndpointId, id: PolicyId) -> Result<(), MapError> {
        if !self.registered.contains_key(&id) {
            return Err(MapError::NoPolicy(id.get()));
        }
        let known: Vec<_> = self.endpoints.get(&endpoint).map_or_else(Vec::new, |live| {
            live.identities
                .iter()
                .map(|(id, set)| (*id, set.clone()))
                .collect()
        });
        for (identity, set) in &known {
            self.complete(id, *identity, set)?;
        }
        Ok(())
    }

    /// Undoes [`Self::enlist`].
    pub(crate) fn restore(&mut self, endpoint: EndpointId, policies: [Option<PolicyId>; 2]) {
        if let Some(live) = self.endpoints.get_mut(&endpoint) {
            live.policies = policies;
        }
    }

    /// Forgets an endpoint.
    pub(crate) fn dismiss(&mut self, endpoint: EndpointId) {
        self.endpoints.remove(&endpoint);
    }

    /// The identity that stands for `set`, with its entries in every policy of the endpoint.
    pub(crate) fn ready(
        &mut self,
        endpoint: EndpointId,
        set: &SelectorSet,
    ) -> Result<IdentityId, NotReady> {
        let Some(live) = self.endpoints.get(&endpoint) else {
            return Err(NotReady::NoEndpoint);
        };
        let [enforced, shadow] = live.policies;
        let [next, next_shadow] = live.next;
        let policies = [enforced, shadow, next, next_shadow];
        let identity = {
            let mut identities = self
                .identities
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let (identity, new) = identities.fqdn(set).map_err(NotReady::Identities)?;
            if new
                && let Some(Minted(tell)) = self.minted.as_mut()
                && let Err(error) = tell(identity, set)
            {
                identities.forget(identity);
                return Err(NotReady::Map(MapError::Failed {
                    doing: "writing down an identity for",
                    map: "LEARNED",
                    reason: error.to_string(),
                }));
            }
            identity
        };
        for id in policies.iter().flatten() {
            self.complete(*id, identity, set).map_err(NotReady::Map)?;
        }
        if let Some(live) = self.endpoints.get_mut(&endpoint) {
            live.identities
                .entry(identity)
                .or_insert_with(|| set.clone());
        }
        Ok(identity)
    }

    /// Ephemeral identities that have entries or were given to an endpoint.
    pub(crate) fn identities_in_use(&self, endpoint: EndpointId) -> Vec<IdentityId> {
        self.endpoints
            .get(&endpoint)
            .map_or_else(Vec::new, |live| live.identities.keys().copied().collect())
    }

    /// Every endpoint that is enlisted.
    pub(crate) fn endpoints(&self) -> Vec<EndpointId> {
        self.endpoints.keys().copied().collect()
    }

    /// Forgets an ephemeral identity of an endpoint; when no endpoint is left that has it, its
    /// entries and its number go too.
    pub(crate) fn release(
        &mut self,
        endpoint: EndpointId,
        identity: IdentityId,
    ) -> Result<(), MapError> {
        if let Some(live) = self.endpoints.get_mut(&endpoint) {
            live.identities.remove(&identity);
        }
        if self
            .endpoints
            .values()
            .any(|live| live.identities.contains_key(&identity))
        {
            return Ok(());
        }
        for registered in self.registered.values_mut() {
            if !registered.identities.remove(&identity) {
                continue;
            }
            let own: Vec<_> = registered
                .keys
                .iter()
                .copied()
                .filter(|(_, key)| {
                    let key: PolicyKey = zerocopy::transmute!(*key);
                    key.identity() == identity.get()
                })
                .collect();
            for (prefix_len, key) in own {
                self.map.remove(prefix_len, &zerocopy::transmute!(key))?;
                registered.keys.remove(&(prefix_len, key));
            }
        }
        self.identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(identity);
        Ok(())
    }

    /// Writes entries of another map, all or none of them.
    pub(crate) fn carry(
        &mut self,
        entries: &[(u32, PolicyKey, PolicyEntry)],
    ) -> Result<(), MapError> {
        let mut written = BTreeSet::new();
        for (len, key, entry) in entries {
            if let Err(error) = self.map.put(*len, key, entry) {
                erase(&mut self.map, &written);
                return Err(error);
            }
            written.insert((*len, zerocopy::transmute!(*key)));
        }
        Ok(())
    }

    /// Remembers which entries a predecessor left.
    pub(crate) fn take_over(&mut self) -> Result<(), MapError> {
        self.leftovers = self
            .map
            .rows()?
            .into_iter()
            .map(|(len, key, _)| (len, zerocopy::transmute!(key)))
            .collect();
        Ok(())
    }

    /// Enlists a predecessor's endpoint with the identities that its names were given.
    pub(crate) fn adopt(
        &mut self,
        endpoint: EndpointId,
        identities: impl Iterator<Item = (IdentityId, SelectorSet)>,
    ) {
        let live = self.endpoints.entry(endpoint).or_default();
        live.identities.extend(identities);
    }

    /// Takes out what a predecessor left and nobody wrote anew.
    pub(crate) fn forget_leftovers(&mut self) -> Result<(), MapError> {
        let leftovers = std::mem::take(&mut self.leftovers);
        for (len, key) in leftovers {
            let ours = self
                .registered
                .values()
                .any(|registered| registered.keys.contains(&(len, key)));
            if !ours {
                self.map.remove(len, &zerocopy::transmute!(key))?;
            }
        }
        Ok(())
    }

    /// From here on every new ephemeral identity is told before anything points at it.
    pub(crate) fn tell_minted(
        &mut self,
        tell: impl FnMut(IdentityId, &SelectorSet) -> std::io::Result<()> + Send + 'static,
    ) {
        self.minted = Some(Minted(Box::new(tell)));
    }

    pub(crate) fn map(&self) -> &PolicyMap {
        &self.map
    }

    /// Writes the entries of an ephemeral identity into a policy, once.
    fn complete(
        &mut self,
        id: PolicyId,
        identity: IdentityId,
        set: &SelectorSet,
    ) -> Result<(), MapError> {
        let Some(registered) = self.registered.get_mut(&id) else {
            return Err(MapError::NoPolicy(id.get()));
        };
        if registered.identities.contains(&identity) {
            return Ok(());
        }
        for entry in registered.policy.entries_of_set(set) {
            write(
                &mut self.map,
                &mut registered.keys,
                id,
                identity.get(),
                entry.direction,
                entry.l4,
                entry.action,
                entry.precedence.get(),
                entry.rule_set.get(),
            )?;
        }
        registered.identities.insert(identity);
        Ok(())
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one entry, from two types that share no name"
)]
fn write(
    map: &mut PolicyMap,
    keys: &mut BTreeSet<(u32, [u8; size_of::<PolicyKey>()])>,
    policy: PolicyId,
    identity: u32,
    direction: compiled::Direction,
    l4: L4,
    action: compiled::Action,
    precedence: u32,
    rule_set: u32,
) -> Result<(), MapError> {
    let bits = bits_of(l4);
    let key = PolicyKey::new(
        policy.get(),
        identity,
        direction_of(direction),
        l4.proto().map_or(0, |protocol| protocol.number()),
        l4.ports().base(),
    );
    let entry = PolicyEntry::new(action_of(action), precedence, rule_set, bits);
    map.put(bits.prefix_len(), &key, &entry)?;
    keys.insert((bits.prefix_len(), zerocopy::transmute!(key)));
    Ok(())
}

fn erase(map: &mut PolicyMap, keys: &BTreeSet<(u32, [u8; size_of::<PolicyKey>()])>) {
    for (prefix_len, key) in keys {
        // An entry that stays belongs to a policy number that no endpoint names any more.
        let _ = map.remove(*prefix_len, &zerocopy::transmute!(*key));
    }
}

const fn direction_of(direction: compiled::Direction) -> Direction {
    match direction {
        compiled::Direction::Ingress => Direction::Ingress,
        compiled::Direction::Egress => Direction::Egress,
    }
}

const fn action_of(action: compiled::Action) -> Action {
    match action {
        compiled::Action::Allow => Action::Allow,
        compiled::Action::Deny => Action::Deny,
        compiled::Action::RedirectDns => Action::RedirectDns,
        compiled::Action::NeedsProxy => Action::NeedsProxy,
        compiled::Action::Refuse => Action::Refuse,
        compiled::Action::Mixed => Action::Mixed,
    }
}

const fn bits_of(l4: L4) -> L4Bits {
    match l4 {
        L4::Any => L4Bits::ANY,
        L4::Protocol { .. } => L4Bits::PROTOCOL,
        L4::Port { ports, .. } => L4Bits::port(ports.len()),
    }
}
