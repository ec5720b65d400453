//! The world as one picture: who is there, under which names and addresses.
//!
//! In:  a world as it is written, the workloads its reader enforces itself.
//! Out: [`Universe`], or the first contradiction; a number for everybody with labels.
//! Not here: what one node makes of it (`view`).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use identity::{IdentityId, Label, LabelIdentities, LabelSet, reserved, source};
use ipnet::IpNet;
use policy::{
    compile::NamedPorts,
    selector::{CLUSTER, NAMESPACE, NAMESPACE_LABELS},
};

use super::{
    Cause, InputError, Sourced, World,
    written::{Address, ContainerPort, Endpoint, Service},
};
use crate::WorldError;

/// The label with a pod's service account.
const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// Source of the label by which the address of a service has its number. Policies cannot name it.
const FRONTEND: &str = "frontend";
/// What `from` and `to` call a node.
const NODE_PREFIX: &str = "node/";

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// `NAMESPACE/NAME`.
    pub(crate) name: String,
    pub(crate) labels: LabelSet,
    pub(crate) identity: IdentityId,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ContainerPort>,
    /// The node it is on, where that is known.
    pub(crate) home: Option<usize>,
}

impl Pod {
    /// Adds the names its containers give to ports.
    pub(crate) fn name_ports(&self, known: &mut NamedPorts) {
        for port in &self.ports {
            if let Some(name) = &port.name {
                known.insert(name, port.protocol.into(), port.port);
            }
        }
    }
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    /// One of its addresses is the Kubernetes API server's.
    pub(crate) is_api_server: bool,
    /// Who it is to other nodes.
    pub(crate) identity: IdentityId,
}

impl Node {
    /// Its labels, to itself or to others.
    pub(crate) fn labels(&self, is_local: bool, cluster: &str) -> LabelSet {
        let own = self
            .labels
            .iter()
            .map(|(key, value)| Label::k8s(key, value));
        let api_server = self
            .is_api_server
            .then(|| Label::reserved("kube-apiserver"));
        let (is, of_cluster) = if is_local {
            ("host", None)
        } else {
            ("remote-node", Some(Label::k8s(CLUSTER, cluster)))
        };
        own.chain(api_server)
            .chain([Label::reserved(is)])
            .chain(of_cluster)
            .collect()
    }
}

/// An address of a service.
#[derive(Debug)]
pub(crate) struct FrontendAddress {
    pub(crate) address: IpAddr,
    /// Whose.
    pub(crate) service: usize,
    pub(crate) identity: IdentityId,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Pod(usize),
    Node(usize),
    Service(usize, IpAddr),
    /// Nobody the world knows.
    Outside(IpAddr),
}

/// Everybody, by number, name and address.
#[derive(Debug, Default)]
pub(crate) struct Universe {
    pub(crate) pods: Vec<Pod>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    /// Addresses of the Kubernetes API server that are no node's.
    pub(crate) api_servers: Vec<IpAddr>,
    pub(crate) frontends: Vec<FrontendAddress>,
    /// The name of the cluster.
    pub(crate) cluster: String,
    /// The node whose workloads are judged.
    pub(crate) local: Option<usize>,
    pods_by_name: BTreeMap<String, usize>,
    nodes_by_name: BTreeMap<String, usize>,
    by_address: HashMap<IpAddr, Party>,
}

impl Universe {
    /// A workload of `own` is on the local node, and is meant where the world names one like it.
    ///
    /// # Errors
    /// The first contradiction in the world.
    pub(crate) fn new(
        world: &Sourced<World>,
        own: &[Endpoint],
        ids: &mut LabelIdentities,
    ) -> Result<Self, WorldError> {
        let mut universe = Self {
            cluster: world.value.config.cluster.clone(),
            ..Self::default()
        };
        universe.local = universe.add_nodes(world)?;
        universe.add_pods(world, own, ids)?;
        universe.add_services(world, ids)?;
        universe.add_api_servers(world)?;
        universe.number_nodes(ids)?;
        Ok(universe)
    }

    /// Prefixes that need a number of their own: addresses outside that are known for something.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let known = self.api_servers.iter().copied();
        known.chain(self.outside_backends()).map(IpNet::from)
    }

    /// Whom a text of a flow means.
    pub(crate) fn party(&self, text: &str) -> Result<Party, Cause> {
        if let Some(name) = text.strip_prefix(NODE_PREFIX)
            && let Some(at) = self.nodes_by_name.get(name)
        {
            return Ok(Party::Node(*at));
        }
        if let Some(at) = self.pods_by_name.get(text) {
            return Ok(Party::Pod(*at));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(self.owner(address.to_canonical()));
        }
        let unknown = |kind, name: &str, known: &BTreeMap<String, usize>| Cause::Unknown {
            kind,
            name: name.to_owned(),
            suggestion: nearest(name, known.keys()),
        };
        match text.split_once('/') {
            Some(("node", name)) => Err(unknown("node", name, &self.nodes_by_name)),
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Err(unknown("endpoint", text, &self.pods_by_name))
            }
            _ => Err(Cause::NotAPeer(text.to_owned())),
        }
    }

    /// A pod by its name.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        let at = self.pods_by_name.get(&format!("{namespace}/{name}"))?;
        self.pods.get(*at)
    }

    /// Whose address it is.
    pub(crate) fn owner(&self, address: IpAddr) -> Party {
        let known = self.by_address.get(&address).copied();
        known.unwrap_or(Party::Outside(address))
    }

    /// The addresses of one end of a flow.
    pub(crate) fn addresses(&self, party: Party) -> Vec<IpAddr> {
        match party {
            Party::Pod(at) => self.pods.get(at).map(|pod| pod.addresses.clone()),
            Party::Node(at) => self.nodes.get(at).map(|node| node.addresses.clone()),
            Party::Service(_, address) | Party::Outside(address) => Some(vec![address]),
        }
        .unwrap_or_default()
    }

    /// Backends of services that are nobody the world knows.
    pub(crate) fn outside_backends(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let all = self.services.iter().flat_map(|service| &service.backends);
        all.filter_map(|text| match self.party(&text.value) {
            Ok(Party::Outside(address)) => Some(address),
            _ => None,
        })
    }

    /// What people call it.
    pub(crate) fn name(&self, party: Party) -> String {
        match party {
            Party::Pod(at) => self.pods.get(at).map(|pod| pod.name.clone()),
            Party::Node(at) => self
                .nodes
                .get(at)
                .map(|n| format!("{NODE_PREFIX}{}", n.name)),
            Party::Service(at, _) => self.services.get(at).map(service_name),
            Party::Outside(address) => Some(address.to_string()),
        }
        .unwrap_or_default()
    }

    /// The local node, if there is one.
    fn add_nodes(&mut self, world: &Sourced<World>) -> Result<Option<usize>, InputError> {
        let mut local = None;
        for (at, written) in world.value.nodes.iter().enumerate() {
            let field = |name: &str| format!("nodes[{at}].{name}");
            let node = &written.value;
            if node.local && local.replace(at).is_some() {
                let cause = Cause::SecondLocalNode(node.name.clone());
                return Err(world.wrong(written, field("local"), cause));
            }
            if self.nodes_by_name.insert(node.name.clone(), at).is_some() {
                let cause = twice("node", &node.name);
                return Err(world.wrong(written, field("name"), cause));
            }
            self.nodes.push(Node {
                name: node.name.clone(),
                addresses: addresses(&node.ips),
                labels: node.labels.clone(),
                is_api_server: false,
                identity: reserved::REMOTE_NODE,
            });
            self.claim(&node.ips, Party::Node(at))
                .map_err(|cause| world.wrong(written, field("ips"), cause))?;
        }
        Ok(local)
    }

    fn add_pods(
        &mut self,
        world: &Sourced<World>,
        own: &[Endpoint],
        ids: &mut LabelIdentities,
    ) -> Result<(), WorldError> {
        let namespaces = namespaces(world)?;
        for endpoint in own {
            let wrong = |(_, cause)| world.wrong_file(cause);
            let labels_of = namespaces.get(&*endpoint.namespace).copied();
            let name = self.add_pod(endpoint, labels_of, self.local, ids, wrong)?;
            if let Some(name) = name {
                return Err(world.wrong_file(twice("endpoint", &name)).into());
            }
        }
        for (at, written) in world.value.endpoints.iter().enumerate() {
            let field = |name: &str| format!("endpoints[{at}].{name}");
            let endpoint = &written.value;
            let wrong = |(name, cause)| world.wrong(written, field(name), cause);
            let home = self
                .home(endpoint, self.local)
                .map_err(|cause| wrong(("node", cause)))?;
            let labels_of = namespaces.get(&*endpoint.namespace).copied();
            let taken = self.add_pod(endpoint, labels_of, home, ids, wrong)?;
            if let Some(name) = taken.filter(|name| !is_one_of(own, name)) {
                return Err(wrong(("name", twice("endpoint", &name))).into());
            }
        }
        Ok(())
    }

    /// The name, if somebody has it already: nothing is added then.
    fn add_pod(
        &mut self,
        endpoint: &Endpoint,
        namespace_labels: Option<&BTreeMap<String, String>>,
        home: Option<usize>,
        ids: &mut LabelIdentities,
        wrong: impl Fn((&'static str, Cause)) -> InputError,
    ) -> Result<Option<String>, WorldError> {
        let at = self.pods.len();
        let name = full_name(endpoint);
        if self.pods_by_name.contains_key(&name) {
            return Ok(Some(name));
        }
        let labels =
            labels(endpoint, namespace_labels).map_err(|cause| wrong(("labels", cause)))?;
        let identity = match reserved_number(&labels) {
            Some(identity) => identity,
            None => ids.intern(&labels)?,
        };
        self.pods_by_name.insert(name.clone(), at);
        self.pods.push(Pod {
            name,
            labels,
            identity,
            addresses: addresses(&endpoint.ips),
            ports: endpoint.ports.clone(),
            home,
        });
        self.claim(&endpoint.ips, Party::Pod(at))
            .map_err(|cause| wrong(("ips", cause)))?;
        Ok(None)
    }

    /// A node without labels is as good as any other.
    fn number_nodes(&mut self, ids: &mut LabelIdentities) -> Result<(), WorldError> {
        for node in &mut self.nodes {
            node.identity = match (node.labels.is_empty(), node.is_api_server) {
                (true, false) => reserved::REMOTE_NODE,
                (true, true) => reserved::KUBE_APISERVER,
                (false, _) => ids.intern(&node.labels(false, &self.cluster))?,
            };
        }
        Ok(())
    }

    /// The node a pod is on. With a single other node there is only one it can be.
    fn home(&self, endpoint: &Endpoint, local: Option<usize>) -> Result<Option<usize>, Cause> {
        if let Some(name) = &endpoint.node {
            let at = *self.nodes_by_name.get(name).ok_or_else(|| Cause::Unknown {
                kind: "node",
                name: name.clone(),
                suggestion: nearest(name, self.nodes_by_name.keys()),
            })?;
            return match endpoint.local {
                Some(is_local) if is_local != (Some(at) == local) => {
                    Err(Cause::HomeContradicts(name.clone()))
                }
                _ => Ok(Some(at)),
            };
        }
        if endpoint.local != Some(false) {
            return Ok(local);
        }
        let mut others = (0..self.nodes.len()).filter(|at| Some(*at) != local);
        Ok(match (others.next(), others.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        })
    }

    fn add_services(
        &mut self,
        world: &Sourced<World>,
        ids: &mut LabelIdentities,
    ) -> Result<(), WorldError> {
        let mut names = BTreeMap::new();
        for (at, written) in world.value.services.iter().enumerate() {
            let field = |name: &str| format!("services[{at}].{name}");
            let service = &written.value;
            let name = service_name(service);
            if names.insert(name.clone(), at).is_some() {
                return Err(world
                    .wrong(written, field("name"), twice("service", &name))
                    .into());
            }
            for (number, backend) in service.backends.iter().enumerate() {
                let field = format!("services[{at}].backends[{number}]");
                self.party(&backend.value)
                    .map_err(|cause| world.wrong(backend, field, cause))?;
            }
            self.services.push(service.clone());
            for ip in &service.ips {
                let party = Party::Service(at, ip.0);
                self.claim(std::slice::from_ref(ip), party)
                    .map_err(|cause| world.wrong(written, field("ips"), cause))?;
                let label = Label::new(FRONTEND, &name, &ip.0.to_string());
                let labels: LabelSet = std::iter::once(label).collect();
                self.frontends.push(FrontendAddress {
                    address: ip.0,
                    service: at,
                    identity: ids.intern(&labels)?,
                });
            }
        }
        Ok(())
    }

    fn add_api_servers(&mut self, world: &Sourced<World>) -> Result<(), InputError> {
        for (at, written) in world.value.kube_api_server.iter().enumerate() {
            let address = written.value.0;
            match self.owner(address) {
                Party::Node(node) => {
                    if let Some(node) = self.nodes.get_mut(node) {
                        node.is_api_server = true;
                    }
                }
                Party::Outside(_) => self.api_servers.push(address),
                party @ (Party::Pod(_) | Party::Service(..)) => {
                    let cause = Cause::AddressTaken {
                        address,
                        owner: self.name(party),
                    };
                    return Err(world.wrong(written, format!("kubeAPIServer[{at}]"), cause));
                }
            }
        }
        Ok(())
    }

    fn claim(&mut self, ips: &[Address], party: Party) -> Result<(), Cause> {
        for Address(address) in ips {
            if let Some(owner) = self.by_address.insert(*address, party) {
                return Err(Cause::AddressTaken {
                    address: *address,
                    owner: self.name(owner),
                });
            }
        }
        Ok(())
    }
}

fn namespaces(
    world: &Sourced<World>,
) -> Result<BTreeMap<&str, &BTreeMap<String, String>>, InputError> {
    let mut all = BTreeMap::new();
    for (at, written) in world.value.namespaces.iter().enumerate() {
        let namespace = &written.value;
        if all.insert(&*namespace.name, &namespace.labels).is_some() {
            let cause = twice("namespace", &namespace.name);
            return Err(world.wrong(written, format!("namespaces[{at}].name"), cause));
        }
    }
    Ok(all)
}

/// The labels policies select the pod by. One with a `reserved:` label (`reserved:init`,
/// `reserved:health`) is no pod of a namespace yet and has only its own.
fn labels(
    endpoint: &Endpoint,
    namespace_labels: Option<&BTreeMap<String, String>>,
) -> Result<LabelSet, Cause> {
    let mut labels = Vec::new();
    let mut reserved = false;
    for (key, value) in &endpoint.labels {
        let (label_source, key_only) = key.split_once(':').unwrap_or((source::K8S, key));
        if label_source.is_empty() || key_only.is_empty() {
            return Err(Cause::Label(key.clone()));
        }
        reserved |= label_source == source::RESERVED;
        labels.push(Label::new(label_source, key_only, value));
    }
    if !reserved {
        let account = endpoint.service_account.as_deref().unwrap_or("default");
        labels.push(Label::k8s(NAMESPACE, &endpoint.namespace));
        labels.push(Label::k8s(SERVICE_ACCOUNT, account));
        for (key, value) in namespace_labels.into_iter().flatten() {
            labels.push(Label::k8s(&format!("{NAMESPACE_LABELS}.{key}"), value));
        }
    }
    Ok(labels.into_iter().collect())
}

/// Whether a number is an address's of a service: no selector is about it.
pub(crate) fn is_frontend(labels: &LabelSet) -> bool {
    labels.iter().any(|label| label.source() == FRONTEND)
}

/// One without a namespace's labels may be something everybody has the same number for.
fn reserved_number(labels: &LabelSet) -> Option<IdentityId> {
    (1..=10).map(IdentityId::from_raw).find(|id| {
        reserved::name(*id).is_some_and(|name| {
            labels.iter().count() == 1 && labels.iter().all(|own| *own == Label::reserved(name))
        })
    })
}

fn full_name(endpoint: &Endpoint) -> String {
    format!("{}/{}", endpoint.namespace, endpoint.name)
}

fn is_one_of(own: &[Endpoint], name: &str) -> bool {
    own.iter().any(|endpoint| full_name(endpoint) == name)
}

pub(crate) fn service_name(service: &Service) -> String {
    format!("{}/{}", service.namespace, service.name)
}

fn addresses(ips: &[Address]) -> Vec<IpAddr> {
    ips.iter().map(|ip| ip.0).collect()
}

fn twice(kind: &'static str, name: &str) -> Cause {
    Cause::Twice {
        kind,
        name: name.to_owned(),
    }
}

/// The known name that shares the most: the same last part, or the longest common beginning.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let last = |text: &'a str| text.rsplit('/').next().unwrap_or(text);
    let own_last = name.rsplit('/').next().unwrap_or(name);
    known
        .map(|other| {
            let common = other.bytes().zip(name.bytes()).take_while(|(a, b)| a == b);
            ((last(other) == own_last, common.count()), other)
        })
        .filter(|((same_last, common), _)| *same_last || common * 2 > name.len())
        .max_by_key(|(likeness, _)| *likeness)
        .map(|(_, other)| other.clone())
}
