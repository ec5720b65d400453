//! Published vectors that no other file of tests has. docs/acceptance.md says where the others are.
//!
//! In:  policies as text.
//! Out: entries, or what is judged.
//! Not here: patterns (`patterns`), merging (`inside`), deny (`deny`).

#![allow(
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; shared helpers are not all used"
)]

mod village;

use policy::{
    compile::{NamedPorts, Surroundings},
    compiled::{Action, Direction, Entry, L4, Outcome, Peer, Precedence, Protocol},
};
use village::{FRIEND, Village, cnp, mistakes, village, village_in};

use Outcome::{Allowed, Denied, NotAllowed};

/// Containers that call their TCP port 80 `web`: the endpoint's own, and its friend's.
fn named() -> Surroundings {
    let mut web = NamedPorts::default();
    web.insert("web", Protocol::Tcp, 80);
    Surroundings {
        own_ports: web.clone(),
        ports: [(FRIEND, web)].into_iter().collect(),
        ..Surroundings::default()
    }
}

fn about(village: &Village, direction: Direction) -> Vec<(Peer, L4, Action, Precedence)> {
    let own = |entry: &&Entry| entry.direction == direction;
    let entries = village.policy.entries.iter().filter(own);
    entries
        .map(|e| (e.peer, e.l4, e.action, e.precedence))
        .collect()
}

/// `Test_MergeRulesWithNamedPorts`: all 32 combinations of rules about one peer, a name and L7
/// come to what they come to with the number.
#[test]
fn vectors_merge_rules_with_named_ports() {
    const PEER: &str = "fromEndpoints: [{matchLabels: {app: friend}}]";
    for combination in 1u32..32 {
        let with = |port: &str| {
            let ports = format!("ports: [{{port: '{port}', protocol: TCP}}]");
            let inside = format!("toPorts: [{{{ports}, rules: {{http: [{{method: GET}}]}}}}]");
            let rules = [
                format!("{{{PEER}}}"),
                format!("{{toPorts: [{{{ports}}}]}}"),
                format!("{{{PEER}, toPorts: [{{{ports}}}]}}"),
                format!("{{{inside}}}"),
                format!("{{{PEER}, {inside}}}"),
            ];
            let chosen = rules.iter().enumerate();
            let chosen = chosen.filter(|(nth, _)| combination >> nth & 1 == 1);
            let chosen: Vec<_> = chosen.map(|(_, rule)| rule.as_str()).collect();
            let text = format!(
                "{{endpointSelector: {{}}, ingress: [{}]}}",
                chosen.join(", ")
            );
            village_in(&cnp(&text), &named())
        };
        let (name, number) = (with("web"), with("80"));
        let of = |village| about(village, Direction::Ingress);
        assert_eq!(of(&name), of(&number), "{combination:05b}");
        assert_eq!(
            name.from("10.0.0.2", 80),
            number.from("10.0.0.2", 80),
            "{combination:05b}"
        );
    }
}

#[test]
fn an_end_port_beside_a_name_says_nothing_and_0x10_is_a_name() {
    let rule = |port: &str| {
        cnp(&format!(
            "{{endpointSelector: {{}}, egress: [{{toPorts: [{{ports: [{port}]}}]}}]}}"
        ))
    };
    let web = rule("{port: web, endPort: 90, protocol: TCP}");
    let village_with = village_in(&web, &named());
    assert_eq!(village_with.to("10.0.0.2", 80), Allowed);
    assert_eq!(village_with.to("10.0.0.2", 81), NotAllowed);
    // Nobody has a port of this name: it is not 16.
    let hexadecimal = village_in(&rule("{port: '0x10', protocol: TCP}"), &named());
    assert!(about(&hexadecimal, Direction::Egress).is_empty());
    assert_eq!(hexadecimal.to("10.0.0.2", 16), NotAllowed);
}

/// `fqdn.txtar`: a name without ports is an allow of everything there, once it is known.
#[test]
fn vectors_fqdn() {
    let village = village(&cnp(
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: cilium.io}]}]}",
    ));
    let mut entries = about(&village, Direction::Egress);
    // Questions that are allowed teach (docs/differences.md).
    let plain = |entry: &(Peer, L4, Action, Precedence)| entry.2 != Action::RedirectDns;
    entries.retain(plain);
    assert!(
        matches!(entries[..], [(Peer::Fqdn(_), L4::Any, Action::Allow, _)]),
        "{entries:?}"
    );
    assert_eq!(village.to("192.0.2.200", 443), NotAllowed);
}

/// `Test_AllowAll`, and that entities and prefixes of the world meet
/// (`Test_EnsureEntitiesSelectableByCIDR`, world deny against a prefix that is allowed).
#[test]
fn vectors_allow_all_and_the_world_by_entity_and_by_prefix() {
    let all = village(&cnp(
        "{endpointSelector: {}, egress: [{toEntities: [all]}], ingress: [{fromEntities: [all]}]}",
    ));
    for address in ["10.0.0.2", "192.0.2.1", "192.0.2.2", "203.0.113.1"] {
        assert_eq!(all.to(address, 80), Allowed, "{address}");
        assert_eq!(all.from(address, 80), Allowed, "{address}");
    }
    for (deny, expected) in [
        ("toEntities: [world]", Denied),
        ("toCIDR: [0.0.0.0/0]", Denied),
        ("toEntities: [host]", Allowed),
    ] {
        let village = village(&cnp(&format!(
            "{{endpointSelector: {{}}, egress: [{{toCIDR: [203.0.113.1/32]}}], egressDeny: [{{{deny}}}]}}"
        )));
        assert_eq!(village.to("203.0.113.1", 80), expected, "{deny}");
    }
}

#[test]
fn names_cannot_be_denied() {
    let told = mistakes(&cnp(
        "{endpointSelector: {}, egressDeny: [{toFQDNs: [{matchName: a.test}]}]}",
    ));
    assert!(told.iter().any(|text| text.contains("toFQDNs")), "{told:?}");
}
