//! Peers that are looked up: groups of prefixes, services, nodes, names of ports.

mod village;

use identity::{Label, LabelSet};
use policy::{
    compile::{CompileError, EnforcementMode, Service, Surroundings},
    compiled::{Direction, Outcome, Protocol},
    fqdn::Fqdn,
};
use village::{
    FRIEND, RESOLVER, STRANGER, cnp, document, mistakes, try_village, village, village_in,
};

use Outcome::{Allowed, Denied, NotAllowed};

fn group(name: &str, label: &str, prefixes: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {{name: {name}, labels: {{tier: {label}}}}}\nspec: {{externalCIDRs: [{prefixes}]}}\n---\n"
    )
}

fn egress(rule: &str) -> String {
    cnp(&format!("{{endpointSelector: {{}}, egress: [{rule}]}}"))
}

#[test]
fn groups_of_prefixes_by_name_and_by_label() {
    let groups = group("partners", "a", "198.51.100.0/24, '2001:db8::/32'")
        + &group("others", "b", "203.0.113.0/24");
    for (set, first, second) in [
        ("{cidrGroupRef: partners}", true, false),
        ("{cidrGroupRef: nobody}", false, false),
        (
            "{cidrGroupRef: partners, except: [198.51.100.7/32]}",
            false,
            false,
        ),
        ("{cidrGroupSelector: {matchLabels: {tier: b}}}", false, true),
        // Negative and empty selectors mean groups, never the rest of the world.
        ("{cidrGroupSelector: {}}", true, true),
        (
            "{cidrGroupSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [a]}]}}",
            false,
            true,
        ),
        (
            "{cidrGroupSelector: {matchLabels: {tier: c}}}",
            false,
            false,
        ),
    ] {
        let village = village(&(groups.clone() + &egress(&format!("{{toCIDRSet: [{set}]}}"))));
        assert_eq!(village.to("198.51.100.7", 80) == Allowed, first, "{set}");
        assert_eq!(village.to("203.0.113.1", 80) == Allowed, second, "{set}");
        assert_eq!(village.to("192.0.2.200", 80), NotAllowed, "{set}");
        assert_eq!(village.to("10.0.0.2", 80), NotAllowed, "{set}");
    }
}

/// `client-egress-to-cidrgroup-deny` and `-by-label` of Cilium's connectivity tests.
#[test]
fn denied_groups() {
    for set in [
        "{cidrGroupRef: partners, except: [198.51.100.7/32]}",
        "{cidrGroupSelector: {matchLabels: {tier: a}}, except: [198.51.100.7/32]}",
    ] {
        let text = group("partners", "a", "198.51.100.0/24")
            + &cnp(&format!(
                "{{endpointSelector: {{}}, egress: [{{toEntities: [all]}}], egressDeny: [{{toCIDRSet: [{set}]}}]}}"
            ));
        let village = village(&text);
        assert_eq!(village.to("198.51.100.1", 80), Denied, "{set}");
        assert_eq!(village.to("198.51.100.7", 80), Allowed, "{set}");
    }
}

fn services() -> Surroundings {
    let service = |namespace: &str, name: &str, tier: &str, backend| Service {
        namespace: namespace.into(),
        name: name.into(),
        labels: [Label::k8s("tier", tier)].into_iter().collect::<LabelSet>(),
        backends: vec![backend],
    };
    Surroundings {
        services: vec![
            service("a", "git", "web", FRIEND),
            service("b", "git", "db", STRANGER),
        ],
        ..Surroundings::default()
    }
}

#[test]
fn services_are_their_backends_and_unresolved_ones_nobody() {
    for (item, friend, stranger) in [
        (
            "{k8sService: {serviceName: git, namespace: a}}",
            true,
            false,
        ),
        ("{k8sService: {serviceName: git}}", true, true),
        (
            "{k8sService: {serviceName: git, namespace: c}}",
            false,
            false,
        ),
        (
            "{k8sServiceSelector: {selector: {matchLabels: {tier: db}}}}",
            false,
            true,
        ),
        (
            "{k8sServiceSelector: {selector: {}, namespace: a}}",
            true,
            false,
        ),
        (
            "{k8sServiceSelector: {selector: {matchLabels: {tier: x}}}}",
            false,
            false,
        ),
    ] {
        let ports = ", toPorts: [{ports: [{port: '443', protocol: TCP}]}]";
        for ports in ["", ports] {
            let text = egress(&format!("{{toServices: [{item}]{ports}}}"));
            let village = village_in(&text, &services());
            assert_eq!(
                village.to("10.0.0.2", 443) == Allowed,
                friend,
                "{item}{ports}"
            );
            assert_eq!(
                village.to("10.0.0.3", 443) == Allowed,
                stranger,
                "{item}{ports}"
            );
            assert_eq!(village.to("198.51.100.1", 443), NotAllowed, "{item}{ports}");
        }
    }
    let empty = village(&egress(
        "{toServices: [], toPorts: [{ports: [{port: '443'}]}]}",
    ));
    assert_eq!(empty.to("198.51.100.1", 443), NotAllowed);
}

#[test]
fn nodes_by_label() {
    for (selector, worker, other) in [
        ("{}", true, true),
        ("{matchLabels: {role: worker}}", true, false),
        ("{matchLabels: {role: control}}", false, false),
    ] {
        let village = village(&egress(&format!("{{toNodes: [{selector}]}}")));
        assert_eq!(village.to("192.0.2.3", 22) == Allowed, worker, "{selector}");
        assert_eq!(village.to("192.0.2.2", 22) == Allowed, other, "{selector}");
        assert_eq!(village.to("192.0.2.1", 22), NotAllowed, "{selector}");
        assert_eq!(village.to("10.0.0.2", 22), NotAllowed, "{selector}");
    }
}

#[test]
fn dns_rules_on_a_named_port_are_for_the_number_the_server_gives_it() {
    let mut around = Surroundings::default();
    let ports = around.ports.entry(RESOLVER).or_default();
    ports.insert("dns", Protocol::Udp, 5353);
    let village = village_in(
        &egress(
            "{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}], toPorts: [{ports: [{port: dns}], rules: {dns: [{matchName: a.test}]}}]}",
        ),
        &around,
    );
    let udp = |port| {
        village
            .named(Direction::Egress, "10.0.0.4", "", Protocol::Udp, port)
            .outcome
    };
    assert_eq!(udp(5353), Outcome::RedirectedDns);
    assert_eq!(udp(53), NotAllowed);
    for (name, expected) in [("a.test", true), ("b.test", false)] {
        let name = Fqdn::parse(name).unwrap();
        let verdict = village.policy.may_ask(RESOLVER, false, 5353, &name);
        assert_eq!(verdict.is_allowed(), expected);
    }
}

#[test]
fn what_is_left_of_older_forms() {
    for rule in [
        "{toRequires: [], toEntities: [world]}",
        "{toEntities: [world], authentication: {mode: disabled}}",
    ] {
        assert_eq!(
            village(&egress(rule)).to("198.51.100.1", 80),
            Allowed,
            "{rule}"
        );
    }
    let found = mistakes(&egress("{toRequires: [{}]}"));
    assert!(
        found[0].contains("is no longer part of the language"),
        "{found:#?}"
    );
}

/// Five thousand ports, each named in a rule of its own, for everybody: bounded work.
#[test]
fn many_ports_are_bounded() {
    use std::fmt::Write as _;
    let mut rules = String::new();
    for chunk in 0..125u32 {
        let mut ports = String::new();
        for i in 0..40 {
            let port = 1 + (chunk * 40 + i) * 13;
            let _ = write!(ports, "{{port: '{port}', protocol: TCP}},");
        }
        let _ = write!(rules, "{{ports: [{ports}]}},");
    }
    let text = egress(&format!("{{toEntities: [world], toPorts: [{rules}]}}"));
    let result = try_village(&text, &Surroundings::default(), EnforcementMode::Default);
    let entries = result.unwrap().policy.entries.len();
    assert_eq!(entries, 3 * 5000);
    let found = mistakes(&egress(&format!(
        "{{toPorts: [{{ports: [{}]}}]}}",
        "{port: '1'},".repeat(41)
    )));
    assert!(found[0].contains("at most 40"), "{found:#?}");
}

#[test]
fn an_older_group_and_lists_of_every_kind_are_read() {
    let text = group("g", "a", "198.51.100.0/24").replace("cilium.io/v2", "cilium.io/v2alpha1")
        + "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: n}, spec: {podSelector: {}}}\n---\n"
        + &document(
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            "{tier: Admin, priority: 0, subject: {namespaces: {}}}",
        );
    let parsed = village::parsed(&text);
    assert_eq!((parsed.policies.len(), parsed.groups.len()), (2, 1));
    let names: Vec<_> = parsed
        .policies
        .iter()
        .map(|p| p.reference.to_string())
        .collect();
    assert_eq!(names, ["NetworkPolicy/a/n", "ClusterNetworkPolicy/p"]);
}

/// Ranges that fall apart into many prefixes, for many peers, are refused before they fill memory.
#[test]
fn what_multiplies_is_bounded() {
    let odd: Vec<_> = (1..=40)
        .map(|n| format!("{{port: '{n}', endPort: 65534}}"))
        .collect();
    let rule = format!("{{ports: [{}]}},", odd.join(", "));
    let prefixes: Vec<_> = (0..2000)
        .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
        .collect();
    let text = egress(&format!(
        "{{toCIDR: [{}], toPorts: [{}]}}",
        prefixes.join(", "),
        rule.repeat(40)
    ));
    let result = try_village(&text, &Surroundings::default(), EnforcementMode::Default);
    assert!(
        matches!(result, Err(CompileError::TooMany { .. })),
        "{:?}",
        result.map(|village| village.policy.entries.len())
    );
}
