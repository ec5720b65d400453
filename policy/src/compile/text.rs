//! Rules in one short line, for reports.
//!
//! In:  peers and ports of a clause.
//! Out: `toFQDNs matchName "github.com" 443/TCP`.
//! Not here: where the rule stands (`compiled::RuleOrigin`).

use std::fmt::Write as _;

use crate::{
    compiled::{Direction, Protocol},
    fqdn::NameSelector,
    model::{Entity, PortRange, PortRule, Ports, Prefix},
    selector::LabelSelector,
};

pub(super) fn endpoints(direction: Direction, selector: &LabelSelector) -> String {
    format!("{}Endpoints ({selector})", word(direction))
}

pub(super) fn entity(direction: Direction, entity: Entity) -> String {
    format!("{}Entities {}", word(direction), entity.as_str())
}

pub(super) fn prefix(direction: Direction, prefix: &Prefix) -> String {
    let mut text = format!("{}CIDR {}", word(direction), prefix.prefix);
    for (i, except) in prefix.except.iter().enumerate() {
        let separator = if i == 0 { " except " } else { ", " };
        let _ = write!(text, "{separator}{except}");
    }
    text
}

pub(super) fn name(selector: &NameSelector) -> String {
    let field = match selector {
        NameSelector::Name(_) => "matchName",
        NameSelector::Pattern(_) => "matchPattern",
    };
    format!("{field} \"{selector}\"")
}

pub(super) fn fqdn(selector: &NameSelector) -> String {
    format!("toFQDNs {}", name(selector))
}

/// The ports of one port rule with its DNS names, or of a clause without port rules.
pub(super) fn ports(clause: &Ports, rule: Option<&PortRule>) -> String {
    let mut text = match (clause, rule) {
        (Ports::Icmp(types), _) => {
            let types: Vec<_> = types.iter().map(|(p, t)| format!("{p} type {t}")).collect();
            types.join(", ")
        }
        (_, None) => return "any port".into(),
        (_, Some(rule)) if rule.ports.is_empty() => "no port".into(),
        (_, Some(rule)) => {
            let ports: Vec<_> = rule.ports.iter().map(range).collect();
            ports.join(", ")
        }
    };
    if let Some(names) = rule.and_then(|rule| rule.dns.as_ref()) {
        text.push_str(" dns ");
        // A long list is summed up: the line of the rule is given beside it.
        let shown: Vec<_> = names.iter().take(3).map(name).collect();
        text.push_str(&shown.join(", "));
        if names.len() > shown.len() {
            let _ = write!(text, " and {} more", names.len() - shown.len());
        }
    }
    text
}

fn range(range: &PortRange) -> String {
    let proto = match range.proto {
        None => "ANY",
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        Some(Protocol::Sctp) => "SCTP",
        Some(Protocol::Icmp) => "ICMP",
        Some(Protocol::Icmpv6) => "ICMPv6",
    };
    match (range.first, range.last) {
        (0, u16::MAX) => format!("any/{proto}"),
        (first, last) if first == last => format!("{first}/{proto}"),
        (first, last) => format!("{first}-{last}/{proto}"),
    }
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}
