//! One document: which kind of object it is.
//!
//! In:  the root of a document, or an item of a `List`.
//! Out: a policy, a note that it is none, or a mistake.
//! Not here: the `spec` of a policy (`cilium`).

use std::sync::Arc;

use super::{
    Limits, Note, ParsedFile, Problem, cilium,
    fields::{Cursor, Reader},
    tree::Value,
};
use crate::compiled::{PolicyKind, PolicyRef};

const CILIUM_GROUP: &str = "cilium.io/";
const CILIUM_V2: &str = "cilium.io/v2";

/// Objects of the `cilium.io` group that are not policies.
const CILIUM_OTHERS: &[&str] = &[
    "CiliumBGPAdvertisement",
    "CiliumBGPClusterConfig",
    "CiliumBGPNodeConfig",
    "CiliumBGPNodeConfigOverride",
    "CiliumBGPPeerConfig",
    "CiliumBGPPeeringPolicy",
    "CiliumCIDRGroup",
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
const POLICIES_OF_OTHERS: &[(&str, &str)] = &[
    ("networking.k8s.io/", "NetworkPolicy"),
    ("policy.networking.k8s.io/", "ClusterNetworkPolicy"),
    ("policy.networking.k8s.io/", "AdminNetworkPolicy"),
    ("policy.networking.k8s.io/", "BaselineAdminNetworkPolicy"),
];

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
    match kind {
        "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" if api_version == CILIUM_V2 => {
            let policy_kind = if kind == "CiliumNetworkPolicy" {
                PolicyKind::CiliumNetworkPolicy
            } else {
                PolicyKind::CiliumClusterwideNetworkPolicy
            };
            parsed
                .policies
                .extend(cilium::policy(reader, at, policy_kind, limits));
        }
        "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" => {
            let problem = Problem::ApiVersion {
                kind: kind.into(),
                found: api_version.into(),
                expected: CILIUM_V2,
            };
            reader.problem(at, problem);
        }
        _ if is_list(kind, api_version) => list(reader, at, limits, parsed),
        _ if POLICIES_OF_OTHERS
            .iter()
            .any(|(group, other)| *other == kind && api_version.starts_with(group)) =>
        {
            reader.problem(at, Problem::Unsupported(format!("kind: {kind}")));
        }
        _ if api_version.starts_with(CILIUM_GROUP) && !CILIUM_OTHERS.contains(&kind) => {
            let problem = Problem::UnknownKind {
                api_version: api_version.into(),
                kind: kind.into(),
            };
            reader.problem(at, problem);
        }
        _ => parsed.notes.push(Note {
            file: Arc::clone(&reader.file),
            line: at.line(),
            what: format!("{api_version} {kind}").trim().to_owned(),
        }),
    }
}

fn is_list(kind: &str, api_version: &str) -> bool {
    (kind == "List" && api_version == "v1")
        || (api_version == CILIUM_V2
            && matches!(
                kind,
                "CiliumNetworkPolicyList" | "CiliumClusterwideNetworkPolicyList"
            ))
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
    let namespace = match (kind, find("namespace")) {
        (PolicyKind::CiliumNetworkPolicy, Some(namespace)) => object_name(reader, namespace)?,
        (PolicyKind::CiliumNetworkPolicy, None) => &limits.default_namespace,
        (PolicyKind::CiliumClusterwideNetworkPolicy, None) => "",
        (PolicyKind::CiliumClusterwideNetworkPolicy, Some(namespace)) => {
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

/// A DNS subdomain (RFC 1123), as Kubernetes wants it.
fn object_name<'a>(reader: &mut Reader, at: &Cursor<'a>) -> Option<&'a str> {
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
