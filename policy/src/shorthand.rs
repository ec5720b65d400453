//! `--allow NAME_OR_PATTERN[:PORT[/PROTO]]`: a policy without a file.
//!
//! In:  the texts given on the command line.
//! Out: one policy named `command-line` that allows these names, and asking for names.
//! Not here: other policies beside it; where it applies is the caller's namespace.

use std::{net::IpAddr, sync::Arc};

use crate::{
    compiled::{PolicyKind, PolicyRef, Protocol},
    fqdn::{NameError, NameSelector},
    model::{Clause, Effect, Located, Mode, Peers, Policy, PortRange, PortRule, Ports, Rule, Tier},
    selector::{DEFAULT_CLUSTER, LabelKey, LabelSelector, NAMESPACE, Requirement},
};

/// The name of the policy the command line makes.
pub const POLICY_NAME: &str = "command-line";
/// What stands for a file in reports.
const FILE: &str = "--allow";
const DEFAULT_PORT: u16 = 443;
const DNS_PORT: u16 = 53;

/// One `--allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// The name or pattern.
    pub name: NameSelector,
    /// The port and protocol.
    pub port: PortRange,
}

/// Why an `--allow` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShorthandError {
    /// No name in front of the port.
    #[error("`{0}` has no name; write NAME, NAME:PORT or NAME:PORT/PROTO")]
    NoName(String),
    /// A URL.
    #[error("`{text}` is a URL; write `{host}`")]
    Url {
        /// What was given.
        text: String,
        /// The host in it.
        host: String,
    },
    /// An address.
    #[error(
        "`{0}` is an address, and `--allow` takes names; write a policy with `toCIDR` for addresses"
    )]
    Address(String),
    /// A bad name or pattern.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A bad port.
    #[error("`{0}` is not a port from 1 to 65535")]
    Port(String),
    /// A bad protocol.
    #[error("`{0}` is not one of TCP, UDP, SCTP, ANY")]
    Protocol(String),
}

/// Reads one `NAME_OR_PATTERN[:PORT[/PROTO]]`; 443/TCP unless it says otherwise.
///
/// # Errors
/// When the text is no such thing, with what to write.
pub fn allow(text: &str) -> Result<Allow, ShorthandError> {
    let text = text.trim();
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        return Err(ShorthandError::Url {
            text: text.into(),
            host: host.into(),
        });
    }
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    // More than one colon can only be an IPv6 address, with or without brackets and port.
    if text.starts_with('[') || text.matches(':').count() > 1 || is_address(text) {
        return Err(ShorthandError::Address(text.into()));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(ShorthandError::NoName(text.into()));
    }
    if is_address(name) {
        return Err(ShorthandError::Address(name.into()));
    }
    let (port, proto) = match port {
        None => (DEFAULT_PORT, Some(Protocol::Tcp)),
        Some(port) => {
            let (port, proto) = port.split_once('/').unwrap_or((port, "TCP"));
            (port_number(port)?, protocol(proto)?)
        }
    };
    Ok(Allow {
        name: NameSelector::pattern(name)?,
        port: PortRange {
            proto,
            first: port,
            last: port,
        },
    })
}

fn port_number(text: &str) -> Result<u16, ShorthandError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(ShorthandError::Port(text.into())),
    }
}

fn protocol(text: &str) -> Result<Option<Protocol>, ShorthandError> {
    Ok(match text.to_ascii_uppercase().as_str() {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        "ANY" => None,
        _ => return Err(ShorthandError::Protocol(text.into())),
    })
}

/// The policy the command line makes: every endpoint of `namespace` may reach these names, and
/// ask the cluster's resolver for names. Everything else it tries is denied.
pub fn policy(allows: &[Allow], namespace: &str) -> Policy {
    let clause = |peers, port| Clause {
        effect: Effect::Allow,
        order: 0,
        peers,
        ports: Ports::Rules(vec![PortRule {
            ports: vec![port],
            named: Vec::new(),
            dns: None,
            l7: None,
            line: 0,
        }]),
        line: 0,
    };
    let names = allows.iter().map(|allow| {
        let name = Located {
            value: allow.name.clone(),
            line: 0,
        };
        clause(Peers::Names(vec![name]), allow.port)
    });
    let resolver = LabelSelector::new([
        Requirement::equals(LabelKey::k8s(NAMESPACE), "kube-system"),
        Requirement::equals(LabelKey::k8s("k8s-app"), "kube-dns"),
    ]);
    let resolver = Located {
        value: resolver.scoped_to_peer(Some(namespace), DEFAULT_CLUSTER, false),
        line: 0,
    };
    let dns = PortRange {
        proto: None,
        first: DNS_PORT,
        last: DNS_PORT,
    };
    let egress = names
        .chain([clause(Peers::Endpoints(vec![resolver]), dns)])
        .collect();
    Policy {
        reference: PolicyRef {
            kind: PolicyKind::CiliumNetworkPolicy,
            namespace: namespace.into(),
            name: POLICY_NAME.into(),
        },
        file: Arc::from(FILE),
        mode: Mode::Enforce,
        rules: vec![Rule {
            subject: LabelSelector::default().scoped_to_subject(Some(namespace)),
            tier: Tier::Normal,
            ingress: Vec::new(),
            egress,
            default_deny_ingress: false,
            default_deny_egress: true,
            log: None,
            line: 0,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_means_https() {
        let allow = allow("GitHub.com").unwrap();
        assert_eq!(allow.name.to_string(), "github.com");
        assert_eq!(
            (allow.port.proto, allow.port.first),
            (Some(Protocol::Tcp), 443)
        );
    }

    #[test]
    fn port_and_protocol_follow_the_name() {
        for (text, proto, port) in [
            ("*.example.org:80", Some(Protocol::Tcp), 80),
            ("**.example.org:123/udp", Some(Protocol::Udp), 123),
            ("example.org:8443/ANY", None, 8443),
        ] {
            let allow = allow(text).unwrap();
            assert_eq!(
                (allow.port.proto, allow.port.first),
                (proto, port),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_to_write() {
        for (text, message) in [
            ("", "`` has no name"),
            (":443", "`:443` has no name"),
            ("https://github.com/x", "write `github.com`"),
            ("192.0.2.1", "is an address"),
            ("192.0.2.1:443", "is an address"),
            ("[2001:db8::1]:443", "is an address"),
            ("2001:db8::1", "is an address"),
            ("a:b:c", "is an address"),
            ("example.org:", "is not a port"),
            ("example.org:0", "is not a port"),
            ("example.org:+1", "is not a port"),
            ("example.org:65536", "is not a port"),
            ("example.org:443/icmp", "is not one of TCP"),
            ("exa mple.org", "contains ' '"),
            ("a..b", "empty label"),
        ] {
            let error = allow(text).unwrap_err().to_string();
            assert!(error.contains(message), "`{text}`: {error}");
        }
    }
}
