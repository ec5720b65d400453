//! One document: which kind of object it is.
//!
//! In:  the root of a document, or an item of a `List`.
//! Out: a policy, a note that it is none, or a mistake.
//! Not here: the `spec` of a policy (`cilium`, `network_policy`, `cluster_policy`).

use std::sync::Arc;

use super::{
    Limits, Note, ParsedFile, Problem, cidr_group, cilium, cluster_policy,
    fields::{Cursor, Reader},
    network_policy,
    tree::Value,
};
use crate::{
    compiled::{PolicyKind, PolicyRef},
    model::Mode,
};

const CILIUM_GROUP: &str = "cilium.io/";
const CILIUM_V2: &str = "cilium.io/v2";
const CILIUM_V2ALPHA1: &str = "cilium.io/v2alpha1";
const KUBERNETES_GROUP: &str = "networking.k8s.io/";
const KUBERNETES_V1: &str = "networking.k8s.io/v1";
const CLUSTER_GROUP: &str = "policy.networking.k8s.io/";
const CLUSTER_V1ALPHA2: &str = "policy.networking.k8s.io/v1alpha2";

/// Objects of the `cilium.io` group that are not policies.
const CILIUM_OTHERS: &[&str] = &[
    "CiliumBGPAdvertisement",
    "CiliumBGPClusterConfig",
    "CiliumBGPNodeConfig",
    "CiliumBGPNodeConfigOverride",
    "CiliumBGPPeerConfig",
    "CiliumBGPPeeringPolicy",
    "CiliumClusterwideEnvoyConfig",
    "CiliumEgressGatewayPolicy",
    "CiliumEndpoint",
    "CiliumEndpointSlice",
    "CiliumEnvoyConfig",
    "CiliumGatewayClassConfig",
    "CiliumIdentity",
    "CiliumL2AnnouncementPolicy",
    "CiliumLoadBalancerIPPool",
    "CiliumLocalRedirectPolicy",
    "CiliumNode",
    "CiliumNodeConfig",
    "CiliumPodIPPool",
];

/// Policies of other languages: passing them over would leave open what they close.
const POLICIES_OF_OTHERS: &[&str] = &["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];

pub(super) fn read(reader: &mut Reader, at: &Cursor<'_>, limits: &Limits, parsed: &mut ParsedFile) {
    let members = match &at.node.value {
        // Nothing between two `---`.
        Value::Null => return,
        Value::Map(members) => members,
        _ => return reader.problem(at, Problem::NotAnObject),
    };
    let text = |name: &str| {
        members
            .iter()
            .find(|m| &*m.key == name)
            .and_then(|m| match &m.value.value {
                Value::String(text) => Some(&**text),
                _ => None,
            })
    };
    let (Some(kind), api_version) = (text("kind"), text("apiVersion").unwrap_or("")) else {
        return reader.problem(at, Problem::NotAnObject);
    };
    let kinds = [
        ("CiliumNetworkPolicy", CILIUM_GROUP, CILIUM_V2),
        ("CiliumClusterwideNetworkPolicy", CILIUM_GROUP, CILIUM_V2),
        ("CiliumCIDRGroup", CILIUM_GROUP, CILIUM_V2),
        ("NetworkPolicy", KUBERNETES_GROUP, KUBERNETES_V1),
        ("ClusterNetworkPolicy", CLUSTER_GROUP, CLUSTER_V1ALPHA2),
    ];
    let ours = kinds
        .into_iter()
        .find(|(own, group, _)| *own == kind && api_version.starts_with(group));
    // `CiliumCIDRGroup` had another version before, with the same fields.
    if let Some((_, _, expected)) = ours
        && api_version != expected
        && !(kind == "CiliumCIDRGroup" && api_version == CILIUM_V2ALPHA1)
    {
        let problem = Problem::ApiVersion {
            kind: kind.into(),
            found: api_version.into(),
            expected,
        };
        return reader.problem(at, problem);
    }
    match (ours, kind) {
        (Some(_), "CiliumNetworkPolicy") => {
            let kind = PolicyKind::CiliumNetworkPolicy;
            let policy = cilium::policy(reader, at, kind, limits);
            parsed.policies.extend(policy);
        }
        (Some(_), "CiliumClusterwideNetworkPolicy") => {
            let kind = PolicyKind::CiliumClusterwideNetworkPolicy;
            let policy = cilium::policy(reader, at, kind, limits);
            parsed.policies.extend(policy);
        }
        (Some(_), "NetworkPolicy") => {
            let policy = network_policy::policy(reader, at, limits);
            parsed.policies.extend(policy);
        }
        (Some(_), "ClusterNetworkPolicy") => {
            let policy = cluster_policy::policy(reader, at, limits);
            parsed.policies.extend(policy);
        }
        (Some(_), _) => parsed.groups.extend(cidr_group::read(reader, at)),
        (None, _) if is_list(kind, api_version) => list(reader, at, limits, parsed),
        (None, _)
            if api_version.starts_with(CLUSTER_GROUP) && POLICIES_OF_OTHERS.contains(&kind) =>
        {
            let problem = Problem::Refused {
                what: format!("kind: {kind}"),
                why: "was replaced by ClusterNetworkPolicy; write its tier, priority and rules there",
            };
            reader.problem(at, problem);
        }
        // Cilium's kinds are known by their name too: in another group they are a mistake.
        (None, "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy") => {
            let problem = Problem::ApiVersion {
                kind: kind.into(),
                found: api_version.into(),
                expected: CILIUM_V2,
            };
            reader.problem(at, problem);
        }
        (None, _) if api_version.starts_with(CILIUM_GROUP) && !CILIUM_OTHERS.contains(&kind) => {
            let problem = Problem::UnknownKind {
                api_version: api_version.into(),
                kind: kind.into(),
            };
            reader.problem(at, problem);
        }
        (None, _) => parsed.notes.push(Note {
            file: Arc::clone(&reader.file),
            line: at.line(),
            what: format!("{api_version} {kind}").trim().to_owned(),
        }),
    }
}

fn is_list(kind: &str, api_version: &str) -> bool {
    let known = match api_version {
        "v1" => &["List"][..],
        CILIUM_V2 => &[
            "CiliumNetworkPolicyList",
            "CiliumClusterwideNetworkPolicyList",
            "CiliumCIDRGroupList",
        ],
        KUBERNETES_V1 => &["NetworkPolicyList"],
        CLUSTER_V1ALPHA2 => &["ClusterNetworkPolicyList"],
        _ => &[],
    };
    known.contains(&kind)
}

fn list(reader: &mut Reader, at: &Cursor<'_>, limits: &Limits, parsed: &mut ParsedFile) {
    const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "items"];
    let Some(fields) = reader.fields(at, FIELDS, &[]) else {
        return;
    };
    let Some(items) = fields.get("items").and_then(|items| reader.list(items)) else {
        return;
    };
    for item in items {
        // The depth of a file is bounded, and with it lists inside of lists.
        read(reader, &item, limits, parsed);
    }
}

/// `metadata`: the name, and the namespace where the kind has one. Everything else in it is free.
pub(super) fn metadata(
    reader: &mut Reader,
    at: Option<&Cursor<'_>>,
    object: &Cursor<'_>,
    kind: PolicyKind,
    limits: &Limits,
) -> Option<PolicyRef> {
    let Some(at) = at else {
        reader.problem(object, Problem::Missing("metadata"));
        return None;
    };
    let members = reader.mapping(at)?;
    let find = |name: &str| members.iter().find(|(key, _)| *key == name).map(|(_, c)| c);
    let Some(name) = find("name") else {
        reader.problem(at, Problem::Missing("name"));
        return None;
    };
    let name = object_name(reader, name)?;
    let namespace = match (kind.is_namespaced(), find("namespace")) {
        (true, Some(namespace)) => object_name(reader, namespace)?,
        (true, None) => &limits.default_namespace,
        (false, None) => "",
        (false, Some(namespace)) => {
            reader.problem(namespace, Problem::NamespaceOnClusterwide);
            return None;
        }
    };
    Some(PolicyRef {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// The annotation `namegate.io/mode`. A mode nobody knows is a mistake: taking it for either one
/// would surprise.
pub(super) fn mode(reader: &mut Reader, metadata: Option<&Cursor<'_>>) -> Option<Mode> {
    const KEY: &str = "namegate.io/mode";
    // What is wrong with the metadata as a whole was said by whoever read the name.
    let Some(annotations) = metadata.and_then(|metadata| metadata.member("annotations")) else {
        return Some(Mode::default());
    };
    if matches!(annotations.node.value, Value::Null) {
        return Some(Mode::default());
    }
    let annotations = reader.mapping(&annotations)?;
    let Some((_, at)) = annotations.into_iter().find(|(key, _)| *key == KEY) else {
        return Some(Mode::default());
    };
    match reader.string(&at)? {
        "enforce" => Some(Mode::Enforce),
        "audit" => Some(Mode::Audit),
        other => {
            let problem = Problem::NotOneOf {
                found: other.into(),
                allowed: "enforce, audit".into(),
            };
            reader.problem(&at, problem);
            None
        }
    }
}

/// A DNS subdomain (RFC 1123), as Kubernetes wants it.
pub(super) fn object_name<'a>(reader: &mut Reader, at: &Cursor<'a>) -> Option<&'a str> {
    let text = reader.string(at)?;
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = text.len() <= 253
        && text.split('.').all(|label| {
            label.starts_with(alphanumeric)
                && label.ends_with(alphanumeric)
                && label.chars().all(|c| alphanumeric(c) || c == '-')
        });
    if !valid {
        reader.problem(at, Problem::ObjectName(text.into()));
        return None;
    }
    Some(text)
}
