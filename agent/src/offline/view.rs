//! The world as the agent of one node sees it: which identity every address has.
//!
//! In:  the universe, the node, the prefixes of policies.
//! Out: [`View`]: identities for the compiler, an address book for flows.
//! Not here: the policies themselves (`compiled`).
//!
//! The node a pod runs on is `host` to it, every other one a `remote-node`; so a pod on another
//! node is judged by another view.

use std::{collections::BTreeMap, net::IpAddr};

use identity::{AddressBook, IdentityId, Label, LabelSet, LocalIdentities, reserved};
use ipnet::IpNet;
use policy::{
    compile::{Identities, NamedPorts, Service, Surroundings},
    model::CidrGroup,
    selector::CLUSTER,
};

use super::universe::{Node, Party, Universe};
use crate::WorldError;

/// First number for nodes with labels of their own (Cilium's remote-node scope).
const NODE_SCOPE: u32 = 0x0200_0001;

/// What one agent knows.
#[derive(Debug)]
pub(super) struct View {
    pub(super) identities: Identities,
    /// What rules refer to besides identities. The endpoint's own ports are set for each.
    pub(super) around: Surroundings,
    book: AddressBook,
}

impl View {
    pub(super) fn new(
        universe: &Universe,
        home: Option<usize>,
        cluster: &str,
        prefixes: impl IntoIterator<Item = IpNet>,
        groups: &[CidrGroup],
        locals: &mut LocalIdentities,
    ) -> Result<Self, WorldError> {
        let mut book = AddressBook::default();
        let mut cidrs = Vec::new();
        let mut labels: Vec<_> = universe
            .label_identities
            .iter()
            .map(|(id, labels)| (id, labels.clone()))
            .collect();
        for prefix in prefixes {
            let id = locals.cidr(prefix)?;
            book.insert_prefix(prefix, id);
            cidrs.push((id, prefix));
        }
        // One outside of the cluster is a part of the world that has a name.
        for address in &universe.api_servers {
            let prefix = IpNet::from(*address);
            let id = locals.cidr(prefix)?;
            book.insert_prefix(prefix, id);
            cidrs.push((id, prefix));
            labels.push((id, outside_api_server(*address)));
        }
        for (at, node) in universe.nodes.iter().enumerate() {
            let id = node_identity(at, home);
            labels.push((id, node_labels(node, id, cluster)));
            for address in &node.addresses {
                book.insert_address(*address, id);
            }
        }
        for pod in &universe.pods {
            for address in &pod.addresses {
                book.insert_address(*address, pod.identity);
            }
        }
        // A backend outside is not the whole world: it has a number of its own.
        for address in universe.outside_backends() {
            let prefix = IpNet::from(address);
            let id = locals.cidr(prefix)?;
            book.insert_prefix(prefix, id);
            cidrs.push((id, prefix));
        }
        cidrs.sort_unstable();
        cidrs.dedup();
        let around = Surroundings {
            groups: groups.to_vec(),
            services: services(universe, &book),
            own_ports: NamedPorts::default(),
            ports: ports(universe),
            addresses: addresses(universe, home),
        };
        Ok(Self {
            identities: Identities::new(cluster, labels, cidrs),
            around,
            book,
        })
    }

    /// The identity of one end of a flow. A service has none of its own: nobody selects it.
    pub(super) fn identity(&self, party: Party, address: IpAddr) -> IdentityId {
        match party {
            Party::Service(..) => reserved::UNKNOWN,
            Party::Pod(_) | Party::Node(_) | Party::Outside(_) => self.book.lookup(address),
        }
    }
}

fn node_identity(at: usize, home: Option<usize>) -> IdentityId {
    if home == Some(at) {
        return reserved::HOST;
    }
    // Far fewer nodes than numbers: they are elements of a bounded file.
    IdentityId::from_raw(NODE_SCOPE.saturating_add(u32::try_from(at).unwrap_or(u32::MAX)))
}

fn node_labels(node: &Node, id: IdentityId, cluster: &str) -> LabelSet {
    let api_server = node
        .is_api_server
        .then(|| Label::reserved("kube-apiserver"));
    let own = node
        .labels
        .iter()
        .map(|(key, value)| Label::k8s(key, value));
    let (is, of_cluster) = if id == reserved::HOST {
        ("host", None)
    } else {
        ("remote-node", Some(Label::k8s(CLUSTER, cluster)))
    };
    own.chain(api_server)
        .chain([Label::reserved(is)])
        .chain(of_cluster)
        .collect()
}

/// Services by what is behind them.
fn services(universe: &Universe, book: &AddressBook) -> Vec<Service> {
    let backends = |service: &super::world::Service| {
        let mut ids: Vec<_> = service
            .backends
            .iter()
            .filter_map(|text| universe.party(&text.value).ok())
            .flat_map(|party| universe.addresses(party))
            .map(|address| book.lookup(address))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    universe
        .services
        .iter()
        .map(|service| Service {
            namespace: (&*service.namespace).into(),
            name: (&*service.name).into(),
            labels: service
                .labels
                .iter()
                .map(|(key, value)| Label::k8s(key, value))
                .collect(),
            backends: backends(service),
        })
        .collect()
}

/// The names of ports of every identity: those of all pods that share it.
fn ports(universe: &Universe) -> BTreeMap<IdentityId, NamedPorts> {
    let mut all: BTreeMap<_, NamedPorts> = BTreeMap::new();
    for pod in &universe.pods {
        let own = all.entry(pod.identity).or_default();
        pod.name_ports(own);
    }
    all
}

/// The addresses of workloads and nodes.
fn addresses(universe: &Universe, home: Option<usize>) -> BTreeMap<IdentityId, Vec<IpAddr>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for pod in &universe.pods {
        let own = all.entry(pod.identity).or_default();
        own.extend(&pod.addresses);
    }
    for (at, node) in universe.nodes.iter().enumerate() {
        let own = all.entry(node_identity(at, home)).or_default();
        own.extend(&node.addresses);
    }
    all
}

fn outside_api_server(address: IpAddr) -> LabelSet {
    let family = if address.is_ipv4() {
        "world-ipv4"
    } else {
        "world-ipv6"
    };
    ["kube-apiserver", "world", family]
        .into_iter()
        .map(Label::reserved)
        .collect()
}
