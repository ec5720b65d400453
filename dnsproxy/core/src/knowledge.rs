//! What the snapshot in force says about endpoints, servers and addresses.
//!
//! In:  a [`Snapshot`].
//! Out: look-ups.
//! Not here: anything that happens over time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use identity::{AddressBook, EndpointId, IdentityId, SelectorId, SelectorSet};
use policy::{compiled::EndpointPolicy, fqdn::Fqdn};

use crate::{Snapshot, query::canonical};

/// What the core knows about one endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Workload {
    pub(crate) policy: Arc<EndpointPolicy>,
    pub(crate) next: Option<Arc<EndpointPolicy>>,
    pub(crate) enforced: Option<Arc<EndpointPolicy>>,
    pub(crate) audit: bool,
}

impl Workload {
    /// The selectors that a name matches, of the policy in force and of the one that comes next.
    pub(crate) fn selectors_matching(&self, name: &Fqdn) -> SelectorSet {
        let set = self.policy.selectors_matching(name);
        match &self.next {
            None => set,
            Some(next) => set.union(&next.selectors_matching(name)),
        }
    }

    /// Whether a selector is one of either.
    pub(crate) fn has(&self, selector: SelectorId) -> bool {
        std::iter::once(&self.policy)
            .chain(&self.next)
            .any(|policy| policy.selectors.get(selector).is_some())
    }

    /// Whether names mean the same as under another.
    fn same_names(&self, other: &Self) -> bool {
        self.policy == other.policy && self.next == other.next
    }
}

/// The snapshot in force, indexed.
#[derive(Default, Debug)]
pub(crate) struct Knowledge {
    pub(crate) revision: u64,
    pub(crate) workloads: BTreeMap<EndpointId, Arc<Workload>>,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) trusted: BTreeSet<SocketAddr>,
    pub(crate) redirects: BTreeMap<IpAddr, Vec<SocketAddr>>,
    pub(crate) node_addresses: BTreeSet<IpAddr>,
}

impl Knowledge {
    pub(crate) fn workload(&self, endpoint: EndpointId) -> Option<&Arc<Workload>> {
        self.workloads.get(&endpoint)
    }

    /// The workloads that were known before and whose names mean something else than before.
    pub(crate) fn changed_since(&self, before: &Self) -> Vec<(EndpointId, Arc<Workload>)> {
        self.workloads
            .iter()
            .filter(|(id, workload)| {
                let old = before.workload(**id);
                old.is_some_and(|old| !old.same_names(workload))
            })
            .map(|(id, workload)| (*id, Arc::clone(workload)))
            .collect()
    }

    pub(crate) fn identity(&self, address: IpAddr) -> IdentityId {
        self.book.lookup(address)
    }

    /// Whether answers of the server a client asked teach anything.
    pub(crate) fn teaches(&self, server: SocketAddr) -> bool {
        let server = canonical(server);
        self.trusted.contains(&server) || self.redirects.contains_key(&server.ip())
    }

    /// The resolvers to ask when a client asks `server`.
    pub(crate) fn upstreams(&self, server: SocketAddr) -> Option<&[SocketAddr]> {
        self.redirects
            .get(&server.ip().to_canonical())
            .map(Vec::as_slice)
    }

    pub(crate) fn is_node(&self, address: IpAddr) -> bool {
        self.node_addresses.contains(&address.to_canonical())
    }

    /// Whether the kernel judges the address by what names taught: world and CIDR prefixes only.
    pub(crate) fn is_outside(&self, address: IpAddr) -> bool {
        let identity = self.identity(address);
        identity.is_world() || identity.is_local_scope()
    }
}

impl From<Snapshot> for Knowledge {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            revision: snapshot.revision,
            workloads: snapshot
                .endpoints
                .into_iter()
                .map(|e| {
                    let workload = Workload {
                        policy: e.policy,
                        next: e.next,
                        enforced: e.enforced,
                        audit: e.audit,
                    };
                    (e.id, Arc::new(workload))
                })
                .collect(),
            book: snapshot.book,
            trusted: snapshot.trusted.into_iter().map(canonical).collect(),
            redirects: snapshot
                .redirects
                .into_iter()
                .map(|(asked, upstreams)| (asked.to_canonical(), upstreams))
                .collect(),
            node_addresses: snapshot
                .node_addresses
                .iter()
                .map(IpAddr::to_canonical)
                .collect(),
        }
    }
}
