//! What a person can do about a refusal.
//!
//! In:  the reason, and what is known about the peer or the name.
//! Out: one sentence that names the next step.
//! Not here: the nearest existing rule (`policy`), layout (`cli`).

use fqdn_ebpf_common::reason::DropReason;
use identity::reserved;
use policy::compiled::{DeniedFlow, Protocol};

/// Why a name may not be asked.
pub(crate) fn refused_name(policies: &[String]) -> String {
    if policies.is_empty() {
        "no rule allows asking this server for it".to_owned()
    } else {
        format!("not among the names that {} allows", policies.join(", "))
    }
}

/// The proxy's own advice, or what would allow the name.
pub(crate) fn or_allow_name(hint: &str, name: &str) -> String {
    if hint.is_empty() {
        format!(
            "to allow: `matchName: {}` under rules.dns and toFQDNs",
            bare(name)
        )
    } else {
        hint.to_owned()
    }
}

/// What to do about a packet that was dropped.
pub(crate) fn denied_packet(reason: DropReason, flow: &DeniedFlow) -> String {
    match reason {
        DropReason::PolicyDenied => not_allowed(flow),
        DropReason::PolicyDeny => {
            "a deny rule names it; deny rules win over every allow".to_owned()
        }
        DropReason::NeedsProxy => {
            "only a rule with http, kafka or serverNames allows it, and nothing here can look inside; \
             to allow all of it: the same port without them"
                .to_owned()
        }
        DropReason::MixedBackends => {
            "it goes to a service; allow every backend of it, on the port the backend listens on"
                .to_owned()
        }
        DropReason::InvalidSourceIp | DropReason::InvalidSourceMac => {
            "the workload may only use its own addresses".to_owned()
        }
        DropReason::SocketLookupFailed | DropReason::SocketAssignFailed => {
            "the DNS proxy is not running; lookups fail until it is".to_owned()
        }
        DropReason::CtInsertFailed | DropReason::CtMapMissing => {
            "the connection table is full or missing; see `namegate status`".to_owned()
        }
        DropReason::FragmentIntercepted => "send DNS queries unfragmented, or over TCP".to_owned(),
        _ => String::new(),
    }
}

fn not_allowed(flow: &DeniedFlow) -> String {
    let port = match flow.proto {
        Some(Protocol::Tcp) => format!("{}/TCP", flow.port),
        Some(Protocol::Udp) => format!("{}/UDP", flow.port),
        Some(Protocol::Sctp) => format!("{}/SCTP", flow.port),
        Some(Protocol::Icmp | Protocol::Icmpv6) => {
            return format!("to allow: an `icmps` rule with type {}", flow.port);
        }
        None => return "policies cannot allow this protocol by port".to_owned(),
    };
    if flow.peer == reserved::HOST {
        return format!(
            "this is an address of the host, which no name and no CIDR opens; \
             to allow: toEntities `host` with port {port}"
        );
    }
    if !flow.peer.is_world() && !flow.peer.is_local_scope() {
        return format!(
            "the pod's resolver answers what policy sends to its port 53; \
             to allow: toEndpoints for it with port {port}"
        );
    }
    match flow.names.first() {
        Some(name) => format!(
            "to allow: --allow {}:{port}, or toFQDNs `matchName: {}` with port {port}",
            bare(name.as_str()),
            bare(name.as_str())
        ),
        None => format!(
            "this address did not come from a lookup of an allowed name; \
             resolve its name through the pod's resolver, or allow it with toCIDR and port {port}"
        ),
    }
}

fn bare(name: &str) -> &str {
    name.strip_suffix('.')
        .filter(|n| !n.is_empty())
        .unwrap_or(name)
}
