//! `toPorts`: ports, protocols, and the DNS rules on them.
//!
//! In:  the list of port rules of one rule.
//! Out: [`Ports`].
//! Not here: ICMP types (`icmp`), power-of-two prefixes (`compiled::PortPrefix`).

use super::{
    Problem,
    fields::{Cursor, Reader},
    l7,
    peers::name_selectors,
    tree::Value,
};
use crate::{
    compiled::{Direction, Protocol},
    fqdn::NameSelector,
    model::{Effect, NamedPort, PortRange, PortRule, Ports},
};

const MAX_PORTS: usize = 40;
const PROTOCOLS: &str = "TCP, UDP, SCTP, ANY";

pub(super) fn to_ports(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    effect: Effect,
) -> Option<Ports> {
    let items = reader.list(at)?;
    // `toPorts: []` is no restriction.
    if items.is_empty() {
        return Some(Ports::All);
    }
    let rules: Vec<_> = items
        .iter()
        .filter_map(|item| port_rule(reader, item, direction, effect))
        .collect();
    (rules.len() == items.len()).then_some(Ports::Rules(rules))
}

fn port_rule(
    reader: &mut Reader,
    at: &Cursor<'_>,
    direction: Direction,
    effect: Effect,
) -> Option<PortRule> {
    const ALLOW: &[&str] = &[
        "ports",
        "rules",
        "terminatingTLS",
        "originatingTLS",
        "serverNames",
        "listener",
    ];
    // What is denied is denied whatever is said inside of it.
    const DENY: &[&str] = &["ports"];
    let errors = reader.errors.len();
    let known = if effect == Effect::Allow { ALLOW } else { DENY };
    let fields = reader.fields(at, known, &[])?;
    let mut rule = PortRule {
        ports: Vec::new(),
        named: Vec::new(),
        dns: None,
        l7: None,
        line: at.line(),
    };
    if let Some(list) = fields.get("ports") {
        for item in reader.short_list(list, MAX_PORTS)? {
            match port(reader, &item) {
                Some(Port::Range(range)) => rule.ports.push(range),
                Some(Port::Named(named)) => rule.named.push(named),
                None => {}
            }
        }
    }
    let mut http_or_kafka = None;
    if let Some(rules) = fields.get("rules") {
        let kinds = reader.fields(rules, &["dns", "http", "kafka"], &["l7", "l7proto"])?;
        if let Some(list) = kinds.get("dns") {
            rule.dns = dns_rules(reader, list);
            if rule.dns.is_some() {
                check_dns(reader, list, direction, &rule);
            }
        }
        let requests = l7::requests(reader, &kinds)?;
        if requests.is_some() && rule.dns.is_some() {
            reader.problem(rules, Problem::ExactlyOne("`dns`, `http` and `kafka`"));
        }
        http_or_kafka = requests.map(|requests| (requests, rules.clone()));
    }
    rule.l7 = l7::read(reader, at, &fields, http_or_kafka, &rule)?;
    (reader.errors.len() == errors).then_some(rule)
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

fn check_dns(reader: &mut Reader, at: &Cursor<'_>, direction: Direction, rule: &PortRule) {
    let is_sctp = |proto: Option<Protocol>| proto == Some(Protocol::Sctp);
    let problem = if direction == Direction::Ingress {
        Problem::DnsOnIngress
    } else if rule.ports.is_empty() && rule.named.is_empty() {
        Problem::DnsWithoutPort
    } else if rule.ports.iter().any(|p| p.first == 0) {
        Problem::DnsOnEveryPort
    } else if rule.ports.iter().any(|p| !p.is_single()) {
        Problem::DnsOnRange
    } else if rule.ports.iter().any(|p| is_sctp(p.proto))
        || rule.named.iter().any(|p| is_sctp(p.proto))
    {
        Problem::DnsOnSctp
    } else {
        return;
    };
    reader.problem(at, problem);
}

/// One element of `ports`.
enum Port {
    Range(PortRange),
    Named(NamedPort),
}

fn port(reader: &mut Reader, at: &Cursor<'_>) -> Option<Port> {
    let fields = reader.fields(at, &["port", "endPort", "protocol"], &[])?;
    let proto = match fields.get("protocol") {
        None => None,
        Some(at) => protocol(reader, at, fields.get("port"))?,
    };
    let Some(port_at) = fields.get("port") else {
        reader.problem(at, Problem::Missing("port"));
        return None;
    };
    let text = reader.string(port_at)?;
    let end = match fields.get("endPort") {
        None => 0,
        Some(at) => reader.number(at, u32::from(u16::MAX))?,
    };
    if is_service_name(text) {
        // A name stands for one number; `endPort` beside it says nothing.
        return Some(Port::Named(NamedPort {
            name: text.to_ascii_lowercase().into(),
            proto,
        }));
    }
    let Some(first) = number(text) else {
        reader.problem(port_at, Problem::Port(text.into()));
        return None;
    };
    // Within range after `number`; below the port it means the single port.
    let end = u16::try_from(end).unwrap_or(0);
    let last = match first {
        0 => u16::MAX,
        first => end.max(first),
    };
    Some(Port::Range(PortRange { proto, first, last }))
}

fn protocol(
    reader: &mut Reader,
    at: &Cursor<'_>,
    port: Option<&Cursor<'_>>,
) -> Option<Option<Protocol>> {
    let text = reader.string(at)?;
    let problem = match text {
        "ANY" | "" => return Some(None),
        "TCP" => return Some(Some(Protocol::Tcp)),
        "UDP" => return Some(Some(Protocol::Udp)),
        "SCTP" => return Some(Some(Protocol::Sctp)),
        "VRRP" | "IGMP" | "GRE" | "IPIP" | "IPV6" | "ESP" | "AH" => {
            let has_number = port.is_some_and(
                |at| !matches!(&at.node.value, Value::String(text) if text.is_empty() || &**text == "0"),
            );
            Problem::Refused {
                what: format!("protocol: {text}"),
                why: if has_number {
                    "has no ports; `port` must be empty or \"0\""
                } else {
                    "cannot be told apart from other protocols without ports; leave out `toPorts` to allow every protocol of these peers"
                },
            }
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
pub(super) fn is_service_name(text: &str) -> bool {
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
