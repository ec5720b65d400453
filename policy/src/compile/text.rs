//! Rules in one short line, for reports.
//!
//! In:  peers and ports of a clause.
//! Out: `toFQDNs matchName "github.com" 443/TCP`.
//! Not here: where the rule stands (`compiled::RuleOrigin`).

use std::fmt::Write as _;

use ipnet::IpNet;

use crate::{
    compiled::{Direction, Protocol},
    fqdn::NameSelector,
    l7::{L7, Requests},
    model::{
        Effect, Entity, NamedPort, PortRange, PortRule, Ports, Prefix, PrefixRule, ServiceSelector,
    },
    selector::LabelSelector,
};

/// How many elements of a list are shown: the line of the rule is given beside it.
const MAX_SHOWN: usize = 8;
/// How many characters about peers are shown.
const MAX_TEXT: usize = 400;

/// The text of peers as far as a report shows it.
pub(super) fn shortened(what: &str) -> String {
    match what.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", what.get(..at).unwrap_or_default()),
        None => what.to_owned(),
    }
}

pub(super) fn endpoints(direction: Direction, selector: &LabelSelector) -> String {
    format!("{}Endpoints ({selector})", word(direction))
}

pub(super) fn entity(direction: Direction, entity: Entity) -> String {
    format!("{}Entities {}", word(direction), entity.as_str())
}

pub(super) fn nodes(direction: Direction, selector: &LabelSelector) -> String {
    format!("{}Nodes ({selector})", word(direction))
}

pub(super) fn service(service: &ServiceSelector) -> String {
    let namespace = service.namespace.as_deref().unwrap_or("*");
    match &service.name {
        Some(name) => format!("toServices {namespace}/{name}"),
        None => format!("toServices {namespace} ({})", service.labels),
    }
}

pub(super) fn networks(networks: impl Iterator<Item = IpNet>) -> String {
    let mut text = "networks".to_owned();
    for (i, net) in networks.enumerate() {
        let separator = if i == 0 { " " } else { ", " };
        let _ = write!(text, "{separator}{net}");
    }
    text
}

/// What stands in front of a rule that does not allow.
pub(super) const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "",
        Effect::Deny => "deny ",
        Effect::Pass => "pass ",
    }
}

pub(super) fn prefix_rule(direction: Direction, rule: &PrefixRule) -> String {
    let (group, except) = match rule {
        PrefixRule::Cidr(cidr) => return prefix(direction, cidr),
        PrefixRule::Group { name, except } => (name.to_string(), except),
        PrefixRule::Groups { selector, except } => (format!("({selector})"), except),
    };
    let mut text = format!("{}CIDR group {group}", word(direction));
    add_exceptions(&mut text, except);
    text
}

fn add_exceptions(text: &mut String, except: &[IpNet]) {
    for (i, except) in except.iter().enumerate() {
        let separator = if i == 0 { " except " } else { ", " };
        let _ = write!(text, "{separator}{except}");
    }
}

fn prefix(direction: Direction, prefix: &Prefix) -> String {
    let mut text = format!("{}CIDR {}", word(direction), prefix.prefix);
    add_exceptions(&mut text, &prefix.except);
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
            let shown = types.iter().take(MAX_SHOWN);
            let shown: Vec<_> = shown.map(|(p, t)| format!("{p} type {t}")).collect();
            let mut text = shown.join(", ");
            if types.len() > MAX_SHOWN {
                let _ = write!(text, " and {} more", types.len() - MAX_SHOWN);
            }
            text
        }
        (_, None) => return "any port".into(),
        (_, Some(rule)) if rule.ports.is_empty() && rule.named.is_empty() => "no port".into(),
        (_, Some(rule)) => {
            let ports = rule.ports.iter().map(range);
            let all = ports.chain(rule.named.iter().map(named));
            let mut text = all.take(MAX_SHOWN).collect::<Vec<_>>().join(", ");
            let count = rule.ports.len() + rule.named.len();
            if count > MAX_SHOWN {
                let _ = write!(text, " and {} more", count - MAX_SHOWN);
            }
            text
        }
    };
    if let Some(l7) = rule.and_then(|rule| rule.l7.as_ref()) {
        text.push_str(&inside(l7));
    }
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

fn inside(l7: &L7) -> String {
    let mut text = match &l7.rules {
        Requests::Any => String::new(),
        Requests::Http(rules) => format!(" http ({} rules)", rules.len()),
        Requests::Kafka(rules) => format!(" kafka ({} rules)", rules.len()),
    };
    if !l7.server_names.is_empty() {
        let shown: Vec<_> = l7
            .server_names
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect();
        let _ = write!(text, " serverNames {}", shown.join(", "));
        if l7.server_names.len() > shown.len() {
            let _ = write!(text, " and {} more", l7.server_names.len() - shown.len());
        }
    }
    if l7.terminating_tls.is_some() || l7.originating_tls.is_some() {
        text.push_str(" TLS");
    }
    text
}

fn named(port: &NamedPort) -> String {
    format!("{}/{}", port.name, protocol(port.proto))
}

const fn protocol(proto: Option<Protocol>) -> &'static str {
    match proto {
        None => "ANY",
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        Some(Protocol::Sctp) => "SCTP",
        Some(Protocol::Icmp) => "ICMP",
        Some(Protocol::Icmpv6) => "ICMPv6",
    }
}

fn range(range: &PortRange) -> String {
    let proto = protocol(range.proto);
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
