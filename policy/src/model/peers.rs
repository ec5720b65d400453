//! Whom a clause is about.
//!
//! In:  L3 members of a rule, as parsed.
//! Out: [`Peers`].
//! Not here: the identities they stand for (`compile`).

use std::sync::Arc;

use ipnet::IpNet;

use super::Located;
use crate::{fqdn::NameSelector, selector::LabelSelector};

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
    Prefixes(Vec<Located<PrefixRule>>),
    /// Addresses, whoever has them: workloads and nodes too.
    Networks(Vec<Located<IpNet>>),
    /// Nodes by label.
    Nodes(Vec<Located<LabelSelector>>),
    /// The workloads behind services; egress only.
    Services(Vec<Located<ServiceSelector>>),
    /// Named groups of peers.
    Entities(Vec<Located<Entity>>),
    /// Addresses learned by name; egress only.
    Names(Vec<Located<NameSelector>>),
}

/// One element of a `CIDRSet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefixRule {
    /// `cidr`.
    Cidr(Prefix),
    /// `cidrGroupRef`: the prefixes of the group of this name.
    Group {
        /// The group.
        name: Arc<str>,
        /// What is left out.
        except: Vec<IpNet>,
    },
    /// `cidrGroupSelector`: the prefixes of every group with such labels.
    Groups {
        /// The labels.
        selector: LabelSelector,
        /// What is left out.
        except: Vec<IpNet>,
    },
}

/// One element of `toServices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSelector {
    /// The namespace; none is every namespace.
    pub namespace: Option<Arc<str>>,
    /// The name; none is every name.
    pub name: Option<Arc<str>>,
    /// The labels of the service.
    pub labels: LabelSelector,
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
