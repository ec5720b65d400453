//! Workloads and resolvers as a configuration file has them.
//!
//! In:  YAML.
//! Out: [`EndpointConfig`], [`ResolverConfig`], and the label sets they stand for.
//! Not here: whether they contradict each other (`check`).

use std::{collections::BTreeMap, net::IpAddr};

use identity::{Label, LabelSet};
use serde::Deserialize;

use crate::{
    facts::written::{Address, ContainerPort, Endpoint},
    world,
};

/// One workload.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EndpointConfig {
    /// The host side of its veth pair.
    pub(crate) interface: String,
    /// What it may use as source: at most one IPv4 and two IPv6 addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its name in its namespace; the interface's by default.
    #[serde(default)]
    name: Option<String>,
    /// As policies select it.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// As policies select it.
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
    /// As policies select it.
    #[serde(default)]
    pub(crate) service_account: Option<String>,
    /// Names that rules may call its ports by.
    #[serde(default)]
    pub(crate) ports: Vec<ContainerPort>,
    /// Its hardware address; by default the other end of the veth pair is asked.
    #[serde(default)]
    pub(crate) mac: Option<MacText>,
    /// Nothing is refused, everything is recorded.
    #[serde(default)]
    pub(crate) audit: bool,
}

impl EndpointConfig {
    /// Its name in its namespace.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.interface)
    }

    /// It as a world knows it.
    pub(crate) fn facts(&self) -> Endpoint {
        Endpoint {
            name: self.name().to_owned(),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            service_account: self.service_account.clone(),
            ips: self
                .addresses
                .iter()
                .map(|address| Address(address.to_canonical()))
                .collect(),
            ports: self.ports.clone(),
            local: Some(true),
            node: None,
        }
    }
}

/// A resolver whose answers teach. Without labels it counts as kube-dns in kube-system, so that
/// policies written for a cluster allow it without a change.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ResolverConfig {
    Address(IpAddr),
    Labelled(LabelledResolver),
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LabelledResolver {
    pub(crate) address: IpAddr,
    /// None: the resolver is what its address is, the world or the node.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
}

impl ResolverConfig {
    pub(crate) const fn address(&self) -> IpAddr {
        match self {
            Self::Address(address) => *address,
            Self::Labelled(resolver) => resolver.address,
        }
    }

    /// Its labels; none when it is to be judged by its address.
    pub(crate) fn label_set(&self) -> Option<LabelSet> {
        match self {
            Self::Address(_) => Some(world::resolver_labels()),
            Self::Labelled(resolver) if resolver.labels.is_empty() => None,
            Self::Labelled(resolver) => {
                let labels = resolver.labels.iter().map(|(k, v)| label(k, v));
                Some(world::pod_labels(&resolver.namespace, labels))
            }
        }
    }
}

fn label(key: &str, value: &str) -> Label {
    match key.split_once(':') {
        Some((source, key)) => Label::new(source, key, value),
        None => Label::k8s(key, value),
    }
}

/// A hardware address as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MacText(pub(crate) [u8; 6]);

impl TryFrom<String> for MacText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?)
            .collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no hardware address like 02:00:5e:10:00:01"))
    }
}

fn default_namespace() -> String {
    "default".to_owned()
}
