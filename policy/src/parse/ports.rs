//! `toPorts`: ports, protocols, and the DNS rules on them.
//!
//! In:  the list of port rules of one rule.
//! Out: [`Ports`].
//! Not here: ICMP types (`icmp`), power-of-two prefixes (`compiled::PortPrefix`).

use super::{
    Problem,
    fields::{Cursor, Reader},
    peers::name_selectors,
    tree::Value,
};
use crate::{
    compiled::{Direction, Protocol},
    fqdn::NameSelector,
    model::{PortRange, PortRule, Ports},
};

const MAX_PORTS: usize = 40;
const PROTOCOLS: &str = "TCP, UDP, SCTP, ANY";

pub(super) fn to_ports(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
) -> Option<Ports> {
    let items = reader.list(at)?;
    // `toPorts: []` is no restriction.
    if items.is_empty() {
        return Some(Ports::All);
    }
    let rules: Vec<_> = items
        .iter()
        .filter_map(|item| port_rule(reader, item, direction))
        .collect();
    (rules.len() == items.len()).then_some(Ports::Rules(rules))
}

fn port_rule(reader: &mut Reader, at: &Cursor<'_>, direction: Direction) -> Option<PortRule> {
    const LATER: &[&str] = &[
        "terminatingTLS",
        "originatingTLS",
        "serverNames",
        "listener",
    ];
    let errors = reader.errors.len();
    let fields = reader.fields(at, &["ports", "rules"], LATER)?;
    let mut ports = Vec::new();
    if let Some(list) = fields.get("ports") {
        for item in reader.short_list(list, MAX_PORTS)? {
            ports.extend(port(reader, &item));
        }
    }
    let mut dns = None;
    if let Some(rules) = fields.get("rules") {
        let kinds = reader.fields(rules, &["dns"], &["http", "kafka", "l7", "l7proto"])?;
        if let Some(list) = kinds.get("dns") {
            dns = dns_rules(reader, list);
            if dns.is_some() {
                check_dns(reader, list, direction, &ports);
            }
        }
    }
    (reader.errors.len() == errors).then_some(PortRule {
        ports,
        dns,
        line: at.line(),
    })
}

fn dns_rules(reader: &mut Reader, at: &Cursor<'_>) -> Option<Vec<NameSelector>> {
    let mut names = Vec::new();
    for item in reader.list(at)? {
        let found = name_selectors(reader, &item)?;
        if found.is_empty() {
            reader.problem(&item, Problem::NameOrPattern);
        }
        names.extend(found);
    }
    // `dns: []` is the same as no DNS rules.
    (!names.is_empty()).then_some(names)
}

fn check_dns(reader: &mut Reader, at: &Cursor<'_>, direction: Direction, ports: &[PortRange]) {
    let problem = if direction == Direction::Ingress {
        Problem::DnsOnIngress
    } else if ports.is_empty() {
        Problem::DnsWithoutPort
    } else if ports.iter().any(|p| p.first == 0) {
        Problem::DnsOnEveryPort
    } else if ports.iter().any(|p| !p.is_single()) {
        Problem::DnsOnRange
    } else if ports.iter().any(|p| p.proto == Some(Protocol::Sctp)) {
        Problem::DnsOnSctp
    } else {
        return;
    };
    reader.problem(at, problem);
}

fn port(reader: &mut Reader, at: &Cursor<'_>) -> Option<PortRange> {
    let fields = reader.fields(at, &["port", "endPort", "protocol"], &[])?;
    let proto = match fields.get("protocol") {
        None => None,
        Some(at) => protocol(reader, at)?,
    };
    let Some(port_at) = fields.get("port") else {
        reader.problem(at, Problem::Missing("port"));
        return None;
    };
    let text = reader.string(port_at)?;
    if is_service_name(text) {
        reader.problem(
            port_at,
            Problem::Unsupported(format!("the port name {text}")),
        );
        return None;
    }
    let Some(first) = number(text) else {
        reader.problem(port_at, Problem::Port(text.into()));
        return None;
    };
    let end = match fields.get("endPort") {
        None => 0,
        Some(at) => reader.number(at, u32::from(u16::MAX))?,
    };
    // Within range after `number`; below the port it means the single port.
    let end = u16::try_from(end).unwrap_or(0);
    let last = match first {
        0 => u16::MAX,
        first => end.max(first),
    };
    Some(PortRange { proto, first, last })
}

fn protocol(reader: &mut Reader, at: &Cursor<'_>) -> Option<Option<Protocol>> {
    let text = reader.string(at)?;
    let problem = match text {
        "ANY" | "" => return Some(None),
        "TCP" => return Some(Some(Protocol::Tcp)),
        "UDP" => return Some(Some(Protocol::Udp)),
        "SCTP" => return Some(Some(Protocol::Sctp)),
        "VRRP" | "IGMP" | "GRE" | "IPIP" | "IPV6" | "ESP" | "AH" => {
            Problem::Unsupported(format!("protocol: {text}"))
        }
        other => Problem::NotOneOf {
            found: other.into(),
            allowed: PROTOCOLS.into(),
        },
    };
    reader.problem(at, problem);
    None
}

/// A port number as Go's `ParseUint` with base 0 reads it: a leading 0 is octal.
fn number(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u16::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Letters, digits and single inner dashes, at most 15, at least one letter (RFC 6335).
fn is_service_name(text: &str) -> bool {
    text.len() <= 15
        && text.bytes().any(|b| b.is_ascii_alphabetic())
        && text
            .split('-')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Kept beside the other scalars: an ICMP type is a number or a name.
pub(super) fn is_number(at: &Cursor<'_>) -> bool {
    matches!(at.node.value, Value::Number(_))
}
