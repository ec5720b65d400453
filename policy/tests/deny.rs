//! Deny rules: what they take away, from whom, and what they turn on.

mod village;

use identity::reserved;
use policy::{
    compile::{EnforcementMode, Surroundings},
    compiled::{Action, Direction, Outcome, Peer, Protocol},
};
use village::{FRIEND, cnp, document, try_village, village};

use Outcome::{Allowed, AllowedByDefault, Denied, NotAllowed};

#[test]
fn deny_beats_allow_however_wide_or_narrow() {
    for (allow, deny, port, expected) in [
        (
            "toCIDR: [198.51.100.1/32]",
            "toCIDR: [0.0.0.0/0]",
            80,
            Denied,
        ),
        (
            "toCIDR: [0.0.0.0/0]",
            "toCIDR: [198.51.100.1/32]",
            80,
            Denied,
        ),
        (
            "toCIDR: [198.51.100.1/32], toPorts: [{ports: [{port: '80', protocol: TCP}]}]",
            "toEntities: [world]",
            80,
            Denied,
        ),
        (
            "toEntities: [world]",
            "toPorts: [{ports: [{port: '80', protocol: TCP}]}]",
            80,
            Denied,
        ),
        (
            "toEntities: [all]",
            "toPorts: [{ports: [{port: '1', endPort: 1023, protocol: TCP}]}]",
            80,
            Denied,
        ),
        (
            "toPorts: [{ports: [{port: '80', protocol: TCP}]}]",
            "toEntities: [all]",
            80,
            Denied,
        ),
        (
            "toEntities: [world]",
            "toPorts: [{ports: [{port: '80', protocol: TCP}]}]",
            81,
            Allowed,
        ),
        (
            "toEntities: [world]",
            "toCIDR: [203.0.113.0/24]",
            80,
            Allowed,
        ),
    ] {
        let village = village(&cnp(&format!(
            "{{endpointSelector: {{}}, egress: [{{{allow}}}], egressDeny: [{{{deny}}}]}}"
        )));
        assert_eq!(village.to("198.51.100.1", port), expected, "{allow} {deny}");
    }
}

#[test]
fn deny_counts_across_policies_and_in_both_directions() {
    let text = cnp("{endpointSelector: {}, ingress: [{fromEntities: [all]}]}")
        + &cnp(
            "{endpointSelector: {}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: friend}}]}]}",
        );
    let village = village(&text);
    assert_eq!(village.from("10.0.0.2", 80), Denied);
    assert_eq!(village.from("10.0.0.3", 80), Allowed);
    let verdict = village.named(Direction::Ingress, "10.0.0.2", "", Protocol::Tcp, 80);
    let texts = village.texts(&verdict);
    assert_eq!(texts.len(), 1);
    assert!(
        texts[0].starts_with("deny fromEndpoints (app=friend"),
        "{texts:?}"
    );
}

/// `client-egress-to-cidr-deny-default` of Cilium's connectivity tests: the excepted address is
/// refused for want of an allow, not by the deny.
#[test]
fn a_deny_alone_turns_on_default_deny() {
    let spec = "{endpointSelector: {}, egressDeny: [{toCIDRSet: [{cidr: 198.51.100.0/24, except: [198.51.100.7/32]}]}]}";
    let alone = village(&cnp(spec));
    assert!(alone.policy.default_deny_egress && !alone.policy.default_deny_ingress);
    assert_eq!(alone.to("198.51.100.1", 80), Denied);
    assert_eq!(alone.to("198.51.100.7", 80), NotAllowed);
    let off = spec.replace(
        "egressDeny",
        "enableDefaultDeny: {egress: false}, egressDeny",
    );
    let off = village(&cnp(&off));
    assert!(!off.policy.default_deny_egress);
    assert_eq!(off.to("198.51.100.1", 80), Denied);
    assert_eq!(off.to("198.51.100.7", 80), AllowedByDefault);
}

/// `client-egress-to-cidr-deny`: with an allow beside it the excepted address is reachable.
#[test]
fn an_exception_of_a_deny_is_what_the_allow_says() {
    let village = village(&cnp(
        "{endpointSelector: {}, egress: [{toEntities: [all]}], egressDeny: [{toCIDRSet: [{cidr: 198.51.100.0/24, except: [198.51.100.7/32]}]}]}",
    ));
    assert_eq!(village.to("198.51.100.1", 80), Denied);
    assert_eq!(village.to("198.51.100.7", 80), Allowed);
}

/// `all-entities-deny`, and `kube-apiserver-deny.txtar`.
#[test]
fn denied_entities() {
    let all = village(&cnp(
        "{endpointSelector: {}, egress: [{toEntities: [all]}], egressDeny: [{toEntities: [all]}]}",
    ));
    assert_eq!(all.to("10.0.0.2", 80), Denied);
    assert_eq!(all.to("198.51.100.1", 80), Denied);
    let remote = village(&cnp(
        "{endpointSelector: {}, egress: [{toEntities: [all]}], egressDeny: [{toEntities: [remote-node]}]}",
    ));
    assert_eq!(remote.to("192.0.2.2", 443), Denied);
    assert_eq!(remote.to("198.51.100.1", 80), Allowed);
}

#[test]
fn empty_forms_deny_nothing_and_turn_on_default_deny() {
    for deny in [
        "{}",
        "{toEndpoints: []}",
        "{toCIDR: [], toPorts: [{ports: [{port: '80'}]}]}",
        "{toPorts: [{}]}",
    ] {
        let village = village(&cnp(&format!(
            "{{endpointSelector: {{}}, egressDeny: [{deny}]}}"
        )));
        assert!(village.policy.default_deny_egress, "{deny}");
        assert_eq!(village.to("10.0.0.2", 80), NotAllowed, "{deny}");
    }
}

#[test]
fn learned_names_do_not_open_what_is_denied() {
    let village = village(&cnp(
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.test}]}], egressDeny: [{toCIDR: [198.51.100.0/24]}, {toPorts: [{ports: [{port: '22', protocol: TCP}]}]}]}",
    ));
    let to = |address, port| {
        village
            .named(Direction::Egress, address, "a.test", Protocol::Tcp, port)
            .outcome
    };
    assert_eq!(to("198.51.100.1", 443), Denied);
    assert_eq!(to("203.0.113.1", 443), Allowed);
    assert_eq!(to("203.0.113.1", 22), Denied);
}

#[test]
fn icmp_types_are_denied_one_by_one() {
    let village = village(&cnp(
        "{endpointSelector: {}, ingress: [{fromEntities: [all]}], ingressDeny: [{fromEndpoints: [{}], icmps: [{fields: [{type: EchoRequest}]}]}]}",
    ));
    let icmp = |address, kind| {
        village
            .named(Direction::Ingress, address, "", Protocol::Icmp, kind)
            .outcome
    };
    assert_eq!(icmp("10.0.0.2", 8), Denied);
    assert_eq!(icmp("10.0.0.2", 13), Allowed);
    assert_eq!(icmp("10.0.0.3", 8), Allowed);
}

/// Probes of the node come in by default, and stay out when a rule says so.
#[test]
fn the_local_node_is_below_explicit_denies() {
    let plain = village(&cnp("{endpointSelector: {}, ingress: [{}]}"));
    assert_eq!(plain.from("192.0.2.1", 80), Allowed);
    let denied = village(&cnp(
        "{endpointSelector: {}, ingressDeny: [{fromEntities: [host]}]}",
    ));
    assert_eq!(denied.from("192.0.2.1", 80), Denied);
    let always = |text: &str| try_village(text, &Surroundings::default(), EnforcementMode::Always);
    let nothing = always(&cnp("{endpointSelector: {}, egress: [{}]}"));
    assert_eq!(nothing.map(|v| v.from("192.0.2.1", 80)), Ok(NotAllowed));
    let one = always(&cnp("{endpointSelector: {}, ingress: [{}]}"));
    assert_eq!(one.map(|v| v.from("192.0.2.1", 80)), Ok(Allowed));
}

#[test]
fn rules_about_nodes_are_for_nodes_alone() {
    let text = document(
        "cilium.io/v2",
        "CiliumClusterwideNetworkPolicy",
        "{nodeSelector: {}, ingressDeny: [{fromEntities: [all]}]}",
    );
    let village = village(&text);
    assert!(!village.policy.default_deny_ingress);
    assert_eq!(village.from("10.0.0.2", 80), AllowedByDefault);
}

/// `policymap.txtar` of Cilium: an allow of every port, DNS rules on one, and a denied entity.
#[test]
fn vectors_policymap() {
    let village = village(&cnp(
        "{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {app: friend}}]}, {toEndpoints: [{matchLabels: {app: friend}}], toPorts: [{ports: [{port: '53', protocol: UDP}], rules: {dns: [{matchPattern: '*'}]}}]}], egressDeny: [{toEntities: [host]}]}",
    ));
    let rows: Vec<_> = village
        .policy
        .entries
        .iter()
        .map(|e| (e.peer, e.l4.to_string(), e.action))
        .collect();
    assert_eq!(
        rows,
        [
            (
                Peer::Identity(reserved::HOST),
                "any port".into(),
                Action::Deny
            ),
            (Peer::Identity(FRIEND), "any port".into(), Action::Allow),
            (Peer::Identity(FRIEND), "53/UDP".into(), Action::RedirectDns),
        ]
    );
}
