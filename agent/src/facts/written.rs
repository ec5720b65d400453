//! The world file: what policies are judged against, as it is written.
//!
//! In:  YAML or JSON.
//! Out: [`World`], its fields checked one by one.
//! Not here: what its parts say together (`universe`).

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use identity::Label;
use ipnet::IpNet;
use policy::{compile::EnforcementMode, selector::NAMESPACE_LABELS};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Protocol;
use crate::offline::flow::Flow;

/// A world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct World {
    /// Settings of the agent.
    #[serde(default)]
    pub config: Config,
    /// The nodes.
    #[serde(default)]
    pub nodes: Vec<Spanned<Node>>,
    /// Addresses of the Kubernetes API server.
    #[serde(default, rename = "kubeAPIServer")]
    pub kube_api_server: Vec<Spanned<Address>>,
    /// Labels of namespaces.
    #[serde(default)]
    pub namespaces: Vec<Spanned<Namespace>>,
    /// Pods.
    #[serde(default)]
    pub endpoints: Vec<Spanned<Endpoint>>,
    /// Services.
    #[serde(default)]
    pub services: Vec<Spanned<Service>>,
    /// CIDR groups.
    #[serde(default)]
    pub cidr_groups: Vec<Spanned<CidrGroup>>,
    /// What DNS has taught, per endpoint.
    #[serde(default)]
    pub names: Vec<Spanned<Name>>,
    /// Flows, unless they are in a file of their own.
    #[serde(default)]
    pub flows: Vec<Spanned<Flow>>,
}

impl World {
    /// The labels of a namespace, as workloads in it carry them.
    pub(crate) fn labels_of_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = Label> + 'a {
        let all = self.namespaces.iter().map(|written| &written.value);
        all.filter(move |one| one.name == namespace)
            .flat_map(|one| &one.labels)
            .map(|(key, value)| Label::k8s(&format!("{NAMESPACE_LABELS}.{key}"), value))
    }
}

/// Settings of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// When endpoints are restricted.
    pub policy_enforcement_mode: Mode,
    /// Whether what is denied is let through and said.
    pub policy_audit_mode: bool,
    /// The name of the cluster.
    pub cluster: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy_enforcement_mode: Mode::Default,
            policy_audit_mode: false,
            cluster: policy::selector::DEFAULT_CLUSTER.into(),
        }
    }
}

/// When endpoints are restricted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Once a policy selects them.
    #[default]
    Default,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<Mode> for EnforcementMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Default => Self::Default,
            Mode::Always => Self::Always,
            Mode::Never => Self::Never,
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it is the one whose endpoints are local.
    #[serde(default)]
    pub local: bool,
    /// Its addresses.
    pub ips: Vec<Address>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels; every namespace also has `kubernetes.io/metadata.name`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its labels; a key may name a source (`reserved:init`).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its service account, `default` unless said otherwise.
    pub service_account: Option<String>,
    /// Its addresses.
    pub ips: Vec<Address>,
    /// Its container ports.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
    /// Whether it runs on the local node; by default it does, unless `node` names another.
    pub local: Option<bool>,
    /// The node it runs on.
    pub node: Option<String>,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPort {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Frontend addresses: cluster address, external addresses, load balancer.
    #[serde(default)]
    pub ips: Vec<Address>,
    /// Frontend ports.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// Ready backends: NAMESPACE/NAME of an endpoint, node/NAME, or an address.
    #[serde(default)]
    pub backends: Vec<Spanned<String>>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// The frontend's port.
    pub port: u16,
    /// The backends' port; the frontend's when absent.
    #[serde(default)]
    pub target_port: Option<TargetPort>,
    /// The protocol.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
}

/// A port of backends, by number or by the name their containers give it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TargetPort {
    /// The number.
    Number(u16),
    /// The name.
    Name(String),
}

impl TryFrom<String> for TargetPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return Ok(Self::Number(port));
        }
        if text.is_empty() || text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!(
                "`{text}` is neither a port from 0 to 65535 nor a name"
            ));
        }
        Ok(Self::Name(text))
    }
}

/// A CIDR group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CidrGroup {
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its prefixes.
    #[serde(default)]
    pub cidrs: Vec<Prefix>,
}

/// What DNS taught one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// NAMESPACE/NAME of the endpoint that asked.
    pub endpoint: Spanned<String>,
    /// The name it asked for.
    pub name: Spanned<String>,
    /// The addresses it was told.
    pub ips: Vec<Address>,
}

/// An address of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub IpAddr);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match IpAddr::from_str(&text) {
            // An IPv4 address in IPv6 clothing is that IPv4 address.
            Ok(address) => Ok(Self(address.to_canonical())),
            Err(_) => Err(format!("`{text}` is not an IP address")),
        }
    }
}

/// A prefix of either family, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix(pub IpNet);

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        IpNet::from_str(&text)
            .map(|prefix| Self(prefix.trunc()))
            .map_err(|_| format!("`{text}` is not a CIDR prefix"))
    }
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}
