//! `NetworkPolicy` and `ClusterNetworkPolicy`: forms, tiers, mistakes.

mod village;

use policy::{
    compile::Surroundings,
    compiled::{Direction, Outcome, Protocol},
    fqdn::Fqdn,
};
use village::{FRIEND, RESOLVER, STRANGER, Village, cnp, document, mistakes, village, village_in};

use Outcome::{Allowed, AllowedByDefault, Denied, NotAllowed};

fn knp(spec: &str) -> String {
    document("networking.k8s.io/v1", "NetworkPolicy", spec)
}

fn tier(tier: &str, priority: u16, sections: &str) -> String {
    document(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        &format!(
            "{{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, {sections}}}"
        ),
    )
}

#[test]
fn directions_a_network_policy_shuts() {
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", true, false),
        ("{podSelector: {}, policyTypes: [Ingress]}", true, false),
        ("{podSelector: {}, policyTypes: [Egress]}", false, true),
        (
            "{podSelector: {}, policyTypes: [Ingress, Egress]}",
            true,
            true,
        ),
        ("{podSelector: {}, egress: [{}]}", true, true),
        // Sections count even when the types leave them out.
        (
            "{podSelector: {}, ingress: [{}], policyTypes: [Egress]}",
            true,
            true,
        ),
        ("{podSelector: {matchLabels: {app: other}}}", false, false),
    ] {
        let policy = village(&knp(spec)).policy;
        assert_eq!(
            (policy.default_deny_ingress, policy.default_deny_egress),
            (ingress, egress),
            "{spec}"
        );
    }
}

#[test]
fn empty_peers_are_everybody_and_missing_ports_every_port() {
    for rule in ["{}", "{from: []}", "{from: [], ports: []}"] {
        let village = village(&knp(&format!("{{podSelector: {{}}, ingress: [{rule}]}}")));
        for address in ["10.0.0.2", "198.51.100.1", "192.0.2.2"] {
            assert_eq!(village.from(address, 80), Allowed, "{rule}");
        }
        let icmp = village.named(Direction::Ingress, "10.0.0.2", "", Protocol::Icmp, 8);
        assert_eq!(icmp.outcome, Allowed, "{rule}");
    }
}

#[test]
fn who_peers_of_a_network_policy_are() {
    for (peer, friend, stranger, world) in [
        ("{podSelector: {}}", true, false, false),
        (
            "{podSelector: {matchLabels: {app: friend}}}",
            true,
            false,
            false,
        ),
        ("{namespaceSelector: {}}", true, true, false),
        (
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}",
            false,
            true,
            false,
        ),
        (
            "{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}",
            true,
            true,
            false,
        ),
        (
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}, podSelector: {matchLabels: {app: me}}}",
            false,
            false,
            false,
        ),
        ("{ipBlock: {cidr: 0.0.0.0/0}}", false, false, true),
        (
            "{ipBlock: {cidr: 0.0.0.0/0, except: [198.51.100.0/24]}}",
            false,
            false,
            false,
        ),
    ] {
        let village = village(&knp(&format!(
            "{{podSelector: {{}}, egress: [{{to: [{peer}]}}]}}"
        )));
        for (address, expected) in [
            ("10.0.0.2", friend),
            ("10.0.0.3", stranger),
            ("198.51.100.1", world),
        ] {
            let allowed = village.to(address, 80) == Allowed;
            assert_eq!(allowed, expected, "{peer} {address}");
        }
        assert_eq!(village.to("192.0.2.2", 80), NotAllowed, "{peer}");
    }
}

#[test]
fn ports_of_a_network_policy() {
    let village = village(&knp(
        "{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 1000, endPort: 1010, protocol: UDP}, {protocol: SCTP}]}]}",
    ));
    for (proto, port, expected) in [
        (Protocol::Tcp, 80, Allowed),
        (Protocol::Udp, 80, NotAllowed),
        (Protocol::Udp, 1010, Allowed),
        (Protocol::Udp, 1011, NotAllowed),
        (Protocol::Sctp, 7, Allowed),
        (Protocol::Icmp, 8, NotAllowed),
    ] {
        let found = village.named(Direction::Ingress, "10.0.0.2", "", proto, port);
        assert_eq!(found.outcome, expected, "{proto} {port}");
    }
    // The node may always come in.
    assert_eq!(village.from("192.0.2.1", 22), Allowed);
}

#[test]
fn names_of_ports_are_those_of_the_receiving_side() {
    let mut around = Surroundings::default();
    around.own_ports.insert("web", Protocol::Tcp, 8080);
    around
        .ports
        .entry(FRIEND)
        .or_default()
        .insert("web", Protocol::Tcp, 9090);
    let other = around.ports.entry(STRANGER).or_default();
    other.insert("web", Protocol::Tcp, 1);
    other.insert("WEB", Protocol::Tcp, 2);
    let text = knp(
        "{podSelector: {}, ingress: [{ports: [{port: web}]}], egress: [{ports: [{port: web}]}]}",
    );
    let village = village_in(&text, &around);
    assert_eq!(village.from("10.0.0.2", 8080), Allowed);
    assert_eq!(village.from("10.0.0.2", 9090), NotAllowed);
    assert_eq!(village.to("10.0.0.2", 9090), Allowed);
    assert_eq!(village.to("10.0.0.2", 8080), NotAllowed);
    // Two numbers are none, and the world names no ports.
    assert_eq!(village.to("10.0.0.3", 1), NotAllowed);
    assert_eq!(village.to("10.0.0.3", 2), NotAllowed);
    assert_eq!(village.to("198.51.100.1", 9090), NotAllowed);
}

#[test]
fn mistakes_in_network_policies() {
    for (spec, expected) in [
        (
            "{podSelector: {}, ingress: [{to: []}]}",
            "ingress[0].to: unknown field `to`",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{}]}]}",
            "ingress[0].from[0]: exactly one of",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
            "exactly one of",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]}",
            "write `10.0.0.1/32`",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}]}",
            "is not inside",
        ),
        (
            "{podSelector: {}, policyTypes: [Both]}",
            "is not one of Ingress, Egress",
        ),
        (
            "{podSelector: {}, ingress: [{ports: [{port: '80'}]}]}",
            "a number stands without quotes",
        ),
        (
            "{podSelector: {}, ingress: [{ports: [{port: 0}]}]}",
            "out of range",
        ),
        (
            "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 79}]}]}",
            "`endPort` needs a `port`",
        ),
        (
            "{podSelector: {}, ingress: [{ports: [{endPort: 79}]}]}",
            "`endPort` needs a `port`",
        ),
        (
            "{podSelector: {}, ingress: [{ports: [{port: web, endPort: 79}]}]}",
            "`endPort` needs a `port`",
        ),
        (
            "{podSelector: {}, ingress: [{ports: [{protocol: ICMP}]}]}",
            "is not one of TCP, UDP, SCTP",
        ),
        (
            "{podSelector: {}, podselector: {}}",
            "did you mean `podSelector`?",
        ),
    ] {
        let found = mistakes(&knp(spec));
        assert!(
            found.iter().any(|m| m.contains(expected)),
            "{spec}\n{found:#?}"
        );
    }
}

const ACCEPT_B: &str =
    "{action: Accept, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}}]}";
const DENY_ALL: &str = "{action: Deny, from: [{namespaces: {}}]}";
const PASS_ALL: &str = "{action: Pass, from: [{namespaces: {}}]}";

/// What becomes of a connection from the friend and from the stranger of namespace b.
fn both(text: &str) -> (Outcome, Outcome) {
    let village = village(text);
    (village.from("10.0.0.2", 80), village.from("10.0.0.3", 80))
}

#[test]
fn the_first_match_of_a_tier_is_final() {
    let text = |rules: &[&str]| tier("Admin", 1, &format!("ingress: [{}]", rules.join(", ")));
    assert_eq!(both(&text(&[ACCEPT_B, DENY_ALL])), (Denied, Allowed));
    assert_eq!(both(&text(&[DENY_ALL, ACCEPT_B])), (Denied, Denied));
    assert_eq!(
        both(&text(&[PASS_ALL, DENY_ALL])),
        (AllowedByDefault, AllowedByDefault)
    );
}

#[test]
fn lower_priority_numbers_come_first() {
    let at = |priority, rule: &str| tier("Admin", priority, &format!("ingress: [{rule}]"));
    let (accept, deny) = (at(5, ACCEPT_B), at(6, DENY_ALL));
    assert_eq!(both(&(accept.clone() + &deny)), (Denied, Allowed));
    assert_eq!(both(&(deny + &accept)), (Denied, Allowed));
    let (deny, accept) = (at(5, DENY_ALL), at(6, ACCEPT_B));
    assert_eq!(both(&(accept + &deny)), (Denied, Denied));
}

#[test]
fn admin_comes_before_network_policies_and_baseline_after_them() {
    let admin = tier("Admin", 1, &format!("ingress: [{ACCEPT_B}]"));
    let shut = knp("{podSelector: {}}");
    let open = knp("{podSelector: {}, ingress: [{}]}");
    let baseline = tier("Baseline", 1, &format!("ingress: [{DENY_ALL}]"));
    assert_eq!(both(&(admin + &shut)), (NotAllowed, Allowed));
    assert_eq!(both(&baseline), (Denied, Denied));
    // Where a network policy selects the endpoint, it is final.
    assert_eq!(both(&(baseline.clone() + &open)), (Allowed, Allowed));
    assert_eq!(both(&(baseline.clone() + &shut)), (NotAllowed, NotAllowed));
    let denied = tier("Admin", 1, &format!("ingress: [{DENY_ALL}]"));
    assert_eq!(both(&(denied + &open)), (Denied, Denied));
    // A Cilium policy without default deny leaves the last word to the baseline.
    let lenient = cnp(
        "{endpointSelector: {}, enableDefaultDeny: {ingress: false}, ingress: [{fromEndpoints: [{}]}]}",
    );
    assert_eq!(both(&(baseline + &lenient)), (Allowed, Denied));
}

#[test]
fn pass_leaves_the_decision_to_the_next_tier() {
    let admin = tier("Admin", 1, &format!("ingress: [{PASS_ALL}, {DENY_ALL}]"));
    let only_own = cnp("{endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}");
    let baseline = tier("Baseline", 1, &format!("ingress: [{DENY_ALL}]"));
    assert_eq!(both(&(admin.clone() + &only_own)), (Allowed, NotAllowed));
    assert_eq!(both(&(admin.clone() + &baseline)), (Denied, Denied));
    let passed = tier("Baseline", 1, &format!("ingress: [{PASS_ALL}, {DENY_ALL}]"));
    assert_eq!(
        both(&(admin + &passed)),
        (AllowedByDefault, AllowedByDefault)
    );
}

#[test]
fn pass_on_some_ports_leaves_the_others_denied() {
    let text = tier(
        "Admin",
        1,
        "ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, {action: Deny, from: [{namespaces: {}}]}]",
    );
    let village = village(&(text + &knp("{podSelector: {}, ingress: [{}]}")));
    assert_eq!(village.from("10.0.0.2", 80), Allowed);
    assert_eq!(village.from("10.0.0.2", 81), Denied);
}

/// NPEP-133: several labels under `*.`, no apex, no implicit DNS, and the tier still counts.
#[test]
fn names_in_a_tier() {
    let egress = "egress: [{action: Accept, to: [{domainNames: ['*.a.test', b.test]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}, {action: Deny, to: [{networks: [198.51.100.0/24]}]}]";
    let village = village(&tier("Admin", 1, egress));
    let to = |village: &Village, name, port| {
        village
            .named(Direction::Egress, "198.51.100.1", name, Protocol::Tcp, port)
            .outcome
    };
    for (name, expected) in [
        ("x.a.test", Allowed),
        ("y.x.a.test", Allowed),
        ("B.TEST", Allowed),
        ("a.test", Denied),
        ("c.test", Denied),
    ] {
        assert_eq!(to(&village, name, 443), expected, "{name}");
    }
    assert_eq!(to(&village, "b.test", 80), Denied);
    // What is allowed anyway goes through the proxy, which learns from it.
    assert_eq!(village.to("10.0.0.4", 53), Outcome::RedirectedDns);
    // Nothing about names opens DNS where it is shut.
    let shut = village_in(
        &(tier("Admin", 1, egress) + &knp("{podSelector: {}, policyTypes: [Egress]}")),
        &Surroundings::default(),
    );
    assert_eq!(shut.to("10.0.0.4", 53), NotAllowed);
    assert_eq!(to(&shut, "b.test", 443), Allowed);
}

/// `rules.dns` stand in the tier that decides about the packet, or nowhere: an Accept that a Pass
/// skips lifts nothing, and one that decides lifts them all.
#[test]
fn only_an_accept_that_decides_lifts_dns_rules() {
    let dns = "toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a.test}]}}]";
    let restricted = cnp(&format!(
        "{{endpointSelector: {{}}, egress: [{{toEndpoints: [{{matchLabels: {{'k8s:io.kubernetes.pod.namespace': kube-system}}}}], {dns}}}, {{toFQDNs: [{{matchName: a.test}}]}}]}}"
    ));
    let resolver = "to: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]";
    let port = "protocols: [{udp: {destinationPort: {number: 53}}}]";
    let wide = "protocols: [{udp: {destinationPort: {range: {start: 1, end: 100}}}}]";
    let ask = |rules: &[String], text| {
        let admin = tier("Admin", 1, &format!("egress: [{}]", rules.join(", ")));
        let village = village(&(admin + &restricted));
        let judged = village.named(Direction::Egress, "10.0.0.4", "", Protocol::Udp, 53);
        assert_eq!(judged.outcome, Outcome::RedirectedDns, "{rules:?}");
        let name = Fqdn::parse(text).unwrap();
        village
            .policy
            .may_ask(RESOLVER, false, 53, &name)
            .is_allowed()
    };
    let rule = |action: &str, ports: &str| format!("{{action: {action}, {resolver}, {ports}}}");
    for (rules, any_name) in [
        (vec![rule("Accept", port)], true),
        (vec![rule("Accept", wide)], true),
        (vec![rule("Pass", port), rule("Accept", port)], false),
        (vec![rule("Pass", wide), rule("Accept", port)], false),
        (vec![rule("Pass", port), rule("Accept", wide)], false),
        (vec![rule("Accept", port), rule("Pass", port)], true),
        // Another port's Accept says nothing about this one.
        (
            vec![rule(
                "Accept",
                "protocols: [{udp: {destinationPort: {number: 5353}}}]",
            )],
            false,
        ),
    ] {
        assert!(ask(&rules, "a.test"), "{rules:?}");
        assert_eq!(ask(&rules, "b.test"), any_name, "{rules:?}");
    }
    // A Pass before names of the same tier is as strong as itself, and still lifts nothing.
    let names = "{action: Accept, to: [{domainNames: [ns.test]}]}".to_owned();
    assert!(!ask(
        &[rule("Pass", port), rule("Accept", port), names],
        "b.test"
    ));
}

/// What a Pass leaves and nobody takes up is not allowed; it is not denied by a rule.
#[test]
fn a_hole_that_nobody_fills_is_the_default() {
    let admin = tier(
        "Admin",
        1,
        "egress: [{action: Pass, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, {action: Deny, to: [{namespaces: {}}]}]",
    );
    let shut = village(&(admin.clone() + &knp("{podSelector: {}, policyTypes: [Egress]}")));
    assert_eq!(shut.to("10.0.0.2", 80), NotAllowed);
    assert_eq!(shut.to("10.0.0.2", 81), Denied);
    let open = village(&admin);
    assert_eq!(open.to("10.0.0.2", 80), AllowedByDefault);
}

/// A pass that comes before a name accepted later in its tier counts for that name too.
#[test]
fn a_pass_before_a_name_counts_for_it() {
    let admin = tier(
        "Admin",
        1,
        "egress: [{action: Pass, to: [{networks: [198.51.100.0/24]}]}, {action: Accept, to: [{domainNames: [a.test]}]}]",
    );
    let to = |text: &str, address| {
        village(text)
            .named(Direction::Egress, address, "a.test", Protocol::Tcp, 443)
            .outcome
    };
    let shut = admin.clone() + &knp("{podSelector: {}, policyTypes: [Egress]}");
    assert_eq!(to(&shut, "198.51.100.1"), NotAllowed);
    assert_eq!(to(&shut, "203.0.113.1"), Allowed);
    let open = admin.clone() + &knp("{podSelector: {}, egress: [{}]}");
    assert_eq!(to(&open, "198.51.100.1"), Allowed);
    assert!(matches!(
        to(&admin, "198.51.100.1"),
        Allowed | AllowedByDefault
    ));
}

/// An identity with addresses inside and outside of a network is denied, and not accepted.
#[test]
fn networks_are_addresses_whoever_has_them() {
    let mut around = Surroundings::default();
    around
        .addresses
        .insert(FRIEND, vec!["10.0.0.2".parse().unwrap()]);
    let mixed = vec!["10.0.0.3".parse().unwrap(), "172.16.0.3".parse().unwrap()];
    around.addresses.insert(STRANGER, mixed);
    let text = |action: &str| {
        tier(
            "Admin",
            1,
            &format!("egress: [{{action: {action}, to: [{{networks: [10.0.0.0/24]}}]}}]"),
        ) + &knp("{podSelector: {}, policyTypes: [Egress]}")
    };
    let accept = village_in(&text("Accept"), &around);
    assert_eq!(accept.to("10.0.0.2", 80), Allowed);
    assert_eq!(accept.to("10.0.0.3", 80), NotAllowed);
    let deny = village_in(&text("Deny"), &around);
    assert_eq!(deny.to("10.0.0.2", 80), Denied);
    assert_eq!(deny.to("10.0.0.3", 80), Denied);
}

#[test]
fn nodes_are_the_own_one_and_others() {
    let text = |nodes: &str| {
        tier(
            "Admin",
            1,
            &format!("egress: [{{action: Deny, to: [{{nodes: {nodes}}}]}}]"),
        )
    };
    let all = village(&text("{}"));
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(all.to(address, 22), Denied, "{address}");
    }
    assert_eq!(all.to("10.0.0.2", 22), AllowedByDefault);
    let workers = village(&text("{matchLabels: {role: worker}}"));
    assert_eq!(workers.to("192.0.2.3", 22), Denied);
    assert_eq!(workers.to("192.0.2.2", 22), AllowedByDefault);
}

#[test]
fn mistakes_in_cluster_network_policies() {
    let subject = "subject: {namespaces: {}}";
    for (spec, expected) in [
        (format!("{{priority: 1, {subject}}}"), "`tier` is required"),
        (
            format!("{{tier: Admin, {subject}}}"),
            "`priority` is required",
        ),
        ("{tier: Admin, priority: 1}".into(), "`subject` is required"),
        (
            format!("{{tier: Normal, priority: 1, {subject}}}"),
            "is not one of Admin, Baseline",
        ),
        (
            format!("{{tier: Admin, priority: 1001, {subject}}}"),
            "out of range",
        ),
        (
            "{tier: Admin, priority: 1, subject: {}}".into(),
            "exactly one of `namespaces` and `pods`",
        ),
        (
            "{tier: Admin, priority: 1, subject: {pods: {podSelector: {}}}}".into(),
            "`namespaceSelector` is required",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, ingress: [{{action: Allow, from: [{{namespaces: {{}}}}]}}]}}"
            ),
            "is not one of Accept, Deny, Pass",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, ingress: [{{action: Deny, from: []}}]}}"
            ),
            "needs at least one element",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, ingress: [{{action: Deny, from: [{{}}]}}]}}"
            ),
            "exactly one of",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, ingress: [{{action: Deny, from: [{{networks: [10.0.0.0/8]}}]}}]}}"
            ),
            "unknown field `networks`",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, egress: [{{action: Deny, to: [{{domainNames: [a.test]}}]}}]}}"
            ),
            "goes with `action: Accept` only",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, egress: [{{action: Accept, to: [{{domainNames: ['a.*.test']}}]}}]}}"
            ),
            "or `*.` in front",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, egress: [{{action: Accept, to: [{{networks: [10.0.0.0/8]}}], protocols: [{{destinationNamedPort: web}}]}}]}}"
            ),
            "write the number",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, egress: [{{action: Deny, to: [{{namespaces: {{}}}}], protocols: [{{tcp: {{destinationPort: {{range: {{start: 9, end: 9}}}}}}}}]}}]}}"
            ),
            "a range from a port to a higher one",
        ),
        (
            format!(
                "{{tier: Admin, priority: 1, {subject}, egress: [{}]}}",
                "{action: Deny, to: [{namespaces: {}}]},".repeat(26)
            ),
            "at most 25",
        ),
    ] {
        let text = document(
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            &spec,
        );
        let found = mistakes(&text);
        assert!(
            found.iter().any(|m| m.contains(expected)),
            "{spec}\n{found:#?}"
        );
    }
}

/// `namespace-label-limits.txtar` of Cilium: the longest keys Kubernetes has, in every kind.
#[test]
fn the_longest_labels_of_namespaces() {
    let short = "k".repeat(63);
    let label = "d".repeat(63);
    let long = format!(
        "{}.{label}.{label}.{}/{}",
        label,
        "d".repeat(61),
        "k".repeat(63)
    );
    for key in [short, long] {
        let cilium = format!(
            "{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{{matchLabels: {{'k8s:io.cilium.k8s.namespace.labels.{key}': v}}}}]}}]}}"
        );
        let texts = [
            cnp(&cilium),
            document("cilium.io/v2", "CiliumClusterwideNetworkPolicy", &cilium),
            knp(&format!(
                "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{'{key}': v}}}}}}]}}]}}"
            )),
            tier(
                "Admin",
                0,
                &format!(
                    "ingress: [{{action: Accept, from: [{{namespaces: {{matchLabels: {{'{key}': v}}}}}}]}}]"
                ),
            ),
        ];
        for text in texts {
            assert_eq!(village::parsed(&text).policies.len(), 1);
        }
    }
}
