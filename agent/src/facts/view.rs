//! The world as the agent of one node sees it: which identity every address has.
//!
//! In:  the universe, the node, the numbers of label sets and of prefixes.
//! Out: [`View`]: identities and surroundings for the compiler, an address book for packets.
//! Not here: the policies themselves (`policy::compile`).
//!
//! The node a pod runs on is `host` to it, every other one a `remote-node`; so a pod on another
//! node is judged by another view.

use std::{collections::BTreeMap, net::IpAddr};

use identity::{AddressBook, IdentityId, Label, LabelIdentities, LabelSet, reserved};
use ipnet::IpNet;
use policy::{
    compile::{Identities, NamedPorts, Service, Surroundings},
    model::CidrGroup,
};

use super::{
    frontends,
    universe::{Universe, is_frontend},
};

/// What one agent knows.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) identities: Identities,
    /// What rules refer to besides identities. The endpoint's own ports are set for each.
    pub(crate) around: Surroundings,
    prefixes: Vec<(IpNet, IdentityId)>,
    nodes: Vec<(IpAddr, IdentityId)>,
    frontends: Vec<(IpAddr, IdentityId)>,
    pods: Vec<(IpAddr, IdentityId)>,
}

impl View {
    /// `prefixes` are those of policies and of [`Universe::prefixes`].
    pub(crate) fn new(
        universe: &Universe,
        home: Option<usize>,
        ids: &LabelIdentities,
        prefixes: &BTreeMap<IpNet, IdentityId>,
        groups: &[CidrGroup],
    ) -> Self {
        let mut labels: Vec<_> = ids
            .iter()
            .filter(|(_, labels)| !is_frontend(labels))
            .map(|(id, labels)| (id, labels.clone()))
            .collect();
        // One outside of the cluster is a part of the world that has a name.
        labels.extend(universe.api_servers.iter().filter_map(|address| {
            let id = prefixes.get(&IpNet::from(*address))?;
            Some((*id, outside_api_server(*address)))
        }));
        let mut nodes = Vec::new();
        for (at, node) in universe.nodes.iter().enumerate() {
            let id = node_identity(universe, at, home);
            labels.push((id, node.labels(id == reserved::HOST, &universe.cluster)));
            nodes.extend(node.addresses.iter().map(|address| (*address, id)));
        }
        let pods = universe.pods.iter();
        let pods = pods.flat_map(|pod| pod.addresses.iter().map(|a| (*a, pod.identity)));
        let frontends = universe.frontends.iter();
        let mut view = Self {
            identities: Identities::new(
                &universe.cluster,
                labels,
                prefixes.iter().map(|(prefix, id)| (*id, *prefix)),
            ),
            around: Surroundings {
                groups: groups.to_vec(),
                ports: ports(universe),
                addresses: addresses(universe, home),
                ..Surroundings::default()
            },
            prefixes: prefixes.iter().map(|(net, id)| (*net, *id)).collect(),
            nodes,
            frontends: frontends.map(|f| (f.address, f.identity)).collect(),
            pods: pods.collect(),
        };
        let book = view.address_book(&[], &[]);
        view.around.services = services(universe, &book);
        view.around.frontends = frontends::of(universe, &book);
        view
    }

    /// Which identity every known address has. What is several things at once is the most
    /// specific: a workload before a resolver, a resolver before a service, a service before a node.
    /// `host` are addresses of the local node that the world does not name.
    pub(crate) fn address_book(
        &self,
        host: &[IpAddr],
        resolvers: &[(IpAddr, IdentityId)],
    ) -> AddressBook {
        let mut book = AddressBook::default();
        for (prefix, id) in &self.prefixes {
            book.insert_prefix(*prefix, *id);
        }
        let host = host.iter().map(|address| (*address, reserved::HOST));
        let exact = self.nodes.iter().copied().chain(host);
        let exact = exact.chain(self.frontends.iter().copied());
        let exact = exact.chain(resolvers.iter().copied());
        for (address, id) in exact.chain(self.pods.iter().copied()) {
            book.insert_address(address, id);
        }
        book
    }
}

fn node_identity(universe: &Universe, at: usize, home: Option<usize>) -> IdentityId {
    if home == Some(at) {
        return reserved::HOST;
    }
    let node = universe.nodes.get(at);
    node.map_or(reserved::REMOTE_NODE, |node| node.identity)
}

/// Services by what is behind them.
fn services(universe: &Universe, book: &AddressBook) -> Vec<Service> {
    let backends = |service: &super::written::Service| {
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
        let own = all.entry(node_identity(universe, at, home)).or_default();
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
