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

use identity::{AddressBook, EndpointId, IdentityId};
use policy::compiled::EndpointPolicy;

use crate::Snapshot;

/// What the core knows about one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) policy: Arc<EndpointPolicy>,
    pub(crate) audit: bool,
}

/// The snapshot in force, indexed.
#[derive(Default, Debug)]
pub(crate) struct Knowledge {
    pub(crate) revision: u64,
    pub(crate) workloads: BTreeMap<EndpointId, Workload>,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) trusted: BTreeSet<IpAddr>,
    pub(crate) redirects: BTreeMap<IpAddr, Vec<SocketAddr>>,
    pub(crate) node_addresses: BTreeSet<IpAddr>,
}

impl Knowledge {
    pub(crate) fn workload(&self, endpoint: EndpointId) -> Option<&Workload> {
        self.workloads.get(&endpoint)
    }

    pub(crate) fn identity(&self, address: IpAddr) -> IdentityId {
        self.book.lookup(address)
    }

    /// Whether answers of the server a client asked teach anything.
    pub(crate) fn teaches(&self, server: IpAddr) -> bool {
        let server = server.to_canonical();
        self.trusted.contains(&server) || self.redirects.contains_key(&server)
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
        let canonical = |set: BTreeSet<IpAddr>| set.iter().map(IpAddr::to_canonical).collect();
        Self {
            revision: snapshot.revision,
            workloads: snapshot
                .endpoints
                .into_iter()
                .map(|e| {
                    let workload = Workload {
                        policy: e.policy,
                        audit: e.audit,
                    };
                    (e.id, workload)
                })
                .collect(),
            book: snapshot.book,
            trusted: canonical(snapshot.trusted),
            redirects: snapshot
                .redirects
                .into_iter()
                .map(|(asked, upstreams)| (asked.to_canonical(), upstreams))
                .collect(),
            node_addresses: canonical(snapshot.node_addresses),
        }
    }
}
