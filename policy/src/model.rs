//! Policies as values: what every policy language here is parsed into.
//!
//! In:  parsed files, or the command line's shorthand.
//! Out: rules for both directions, with the lines they were written on.
//! Not here: field names of a particular language (`parse`), labels of endpoints (`select`),
//!      entries (`compile`).

use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    compiled::{Direction, PolicyRef, Protocol},
    fqdn::NameSelector,
    selector::LabelSelector,
};

/// One policy object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Kind, namespace, name.
    pub reference: PolicyRef,
    /// The file it stands in, as named on the command line.
    pub file: Arc<str>,
    /// Its rules: `spec`, then `specs`.
    pub rules: Vec<Rule>,
}

/// One `spec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which endpoints it applies to; the policy's namespace is already part of it.
    pub subject: LabelSelector,
    /// What may reach them.
    pub ingress: Vec<Clause>,
    /// What they may reach.
    pub egress: Vec<Clause>,
    /// Whether ingress without a matching clause is dropped.
    pub default_deny_ingress: bool,
    /// Whether egress without a matching clause is dropped.
    pub default_deny_egress: bool,
    /// `log.value`, copied to flow records.
    pub log: Option<Arc<str>>,
    /// The line it starts on.
    pub line: u32,
}

impl Rule {
    /// The clauses of one direction.
    pub fn clauses(&self, direction: Direction) -> &[Clause] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Whether the rule puts its subjects in default deny.
    pub const fn default_deny(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.default_deny_ingress,
            Direction::Egress => self.default_deny_egress,
        }
    }
}

/// One element of `ingress` or `egress`: these peers on these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Whom.
    pub peers: Peers,
    /// On which ports.
    pub ports: Ports,
    /// The line it starts on.
    pub line: u32,
}

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its line, from 1; 0 when there is no file.
    pub line: u32,
}

/// The peers of a clause. An empty list of any kind selects nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// No restriction was written: everybody.
    Any,
    /// Nobody.
    Nobody,
    /// Workloads by label; the policy's scope (namespace, cluster) is already part of each.
    Endpoints(Vec<Located<LabelSelector>>),
    /// Addresses outside of the cluster.
    Prefixes(Vec<Located<Prefix>>),
    /// Named groups of peers.
    Entities(Vec<Located<Entity>>),
    /// Addresses learned by name; egress only.
    Names(Vec<Located<NameSelector>>),
}

/// Addresses of one prefix without those of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix, host bits cleared.
    pub prefix: IpNet,
    /// What is left out; each inside `prefix`.
    pub except: Vec<IpNet>,
}

/// A named group of peers (`pkg/policy/api/entity.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// Everybody.
    All,
    /// Everything outside of the cluster.
    World,
    /// The local cluster.
    Cluster,
    /// Every connected cluster.
    ClusterMesh,
    /// The local node.
    Host,
    /// Other nodes.
    RemoteNode,
    /// The Kubernetes API server.
    KubeApiserver,
    /// Endpoints without labels yet.
    Init,
    /// Health endpoints.
    Health,
    /// Endpoints nobody manages.
    Unmanaged,
    /// The ingress proxy.
    Ingress,
    /// Nobody.
    None,
}

impl Entity {
    /// Every entity a policy may name.
    pub const ALL: [Self; 12] = [
        Self::All,
        Self::World,
        Self::Cluster,
        Self::ClusterMesh,
        Self::Host,
        Self::RemoteNode,
        Self::KubeApiserver,
        Self::Init,
        Self::Health,
        Self::Unmanaged,
        Self::Ingress,
        Self::None,
    ];

    /// The name in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::World => "world",
            Self::Cluster => "cluster",
            Self::ClusterMesh => "cluster-mesh",
            Self::Host => "host",
            Self::RemoteNode => "remote-node",
            Self::KubeApiserver => "kube-apiserver",
            Self::Init => "init",
            Self::Health => "health",
            Self::Unmanaged => "unmanaged",
            Self::Ingress => "ingress",
            Self::None => "none",
        }
    }
}

/// The ports of a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// No restriction was written: every protocol.
    All,
    /// `toPorts`.
    Rules(Vec<PortRule>),
    /// `icmps`: protocol (ICMP or ICMPv6) and type.
    Icmp(Vec<(Protocol, u8)>),
}

/// One element of `toPorts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// The ports; none selects nothing.
    pub ports: Vec<PortRange>,
    /// `rules.dns`, if it holds any entry.
    pub dns: Option<Vec<NameSelector>>,
    /// The line it starts on.
    pub line: u32,
}

/// Ports of one protocol, or of all that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The protocol; `None` is `ANY`: TCP, UDP and SCTP.
    pub proto: Option<Protocol>,
    /// First port. 0 with `last` 65535 is every port.
    pub first: u16,
    /// Last port, at least `first`.
    pub last: u16,
}

impl PortRange {
    /// The protocols it stands for.
    pub fn protocols(self) -> impl Iterator<Item = Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .filter(move |proto| self.proto.is_none_or(|own| own == *proto))
    }

    /// Whether it is one port.
    pub const fn is_single(self) -> bool {
        self.first == self.last
    }
}
