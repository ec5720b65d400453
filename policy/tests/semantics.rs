//! What policies mean, one case at a time: empty forms, default deny, DNS rules, scopes, modes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use identity::{IdentityId, Label, LabelSet, SelectorSet, reserved};
use ipnet::IpNet;
use policy::{
    compile::{
        CompileError, CompileInput, EnforcementMode, Identities, SelectorTable, compile, prefixes,
    },
    compiled::{Action, DeniedFlow, Direction, DnsVerdict, EndpointPolicy, L4, Peer, Protocol},
    fqdn::Fqdn,
    model::Policy,
    parse, shorthand,
};

const ME: IdentityId = IdentityId::from_raw(256);
const FRIEND: IdentityId = IdentityId::from_raw(257);
const STRANGER: IdentityId = IdentityId::from_raw(258);
const RESOLVER: IdentityId = IdentityId::from_raw(259);
const FIRST_CIDR: u32 = 0x0100_0001;

fn labels(namespace: &str, app: &str) -> LabelSet {
    [
        Label::k8s("io.kubernetes.pod.namespace", namespace),
        Label::k8s("app", app),
    ]
    .into_iter()
    .collect()
}

fn resolver() -> LabelSet {
    [
        Label::k8s("io.kubernetes.pod.namespace", "kube-system"),
        Label::k8s("k8s-app", "kube-dns"),
    ]
    .into_iter()
    .collect()
}

fn identities(policies: &[Policy]) -> (Identities, Vec<(IdentityId, IpNet)>) {
    let pods = [
        (ME, labels("a", "me")),
        (FRIEND, labels("a", "friend")),
        (STRANGER, labels("b", "friend")),
        (RESOLVER, resolver()),
    ];
    let cidrs: Vec<_> = (FIRST_CIDR..)
        .map(IdentityId::from_raw)
        .zip(prefixes(policies))
        .collect();
    (
        Identities::new("default", pods, cidrs.iter().copied()),
        cidrs,
    )
}

fn parsed(documents: &[(&str, &str)]) -> Vec<Policy> {
    documents
        .iter()
        .flat_map(|(kind, spec)| {
            let text = format!(
                "apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n"
            );
            let limits = parse::Limits {
                default_namespace: "a".into(),
                ..parse::Limits::default()
            };
            parse::bytes("p.yaml", text.as_bytes(), &limits)
                .unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"))
                .policies
        })
        .collect()
}

fn compiled_as(policies: &[Policy], subject: &LabelSet, mode: EnforcementMode) -> EndpointPolicy {
    let (identities, _) = identities(policies);
    let input = CompileInput {
        policies,
        subject,
        identities: &identities,
        mode,
        allow_local_host: true,
        steer_dns: false,
    };
    compile(&input, &mut SelectorTable::default()).unwrap()
}

fn compiled(specs: &[&str]) -> EndpointPolicy {
    let documents: Vec<_> = specs.iter().map(|s| ("CiliumNetworkPolicy", *s)).collect();
    compiled_as(
        &parsed(&documents),
        &labels("a", "me"),
        EnforcementMode::Default,
    )
}

/// One egress rule for everybody in the namespace.
fn egress(rule: &str) -> EndpointPolicy {
    compiled(&[&format!("{{endpointSelector: {{}}, egress: [{rule}]}}")])
}

fn lookup(
    policy: &EndpointPolicy,
    direction: Direction,
    peer: Peer,
    proto: Protocol,
    port: u16,
) -> Option<Action> {
    policy
        .entries
        .iter()
        .filter(|e| e.direction == direction && e.peer == peer && e.l4.contains(proto, port))
        .max_by_key(|e| e.l4.specificity())
        .map(|e| e.action)
}

fn to(policy: &EndpointPolicy, id: IdentityId, proto: Protocol, port: u16) -> Option<Action> {
    let of = |peer| lookup(policy, Direction::Egress, peer, proto, port);
    // Among allow and redirect the redirect wins; there is no deny here.
    of(Peer::Identity(id)).max(of(Peer::Any))
}

fn name(text: &str) -> Fqdn {
    Fqdn::parse(text).unwrap()
}

#[test]
fn an_empty_rule_denies_everything() {
    let policy = egress("{}");
    assert!(policy.default_deny_egress);
    assert!(policy.entries.is_empty());
}

#[test]
fn forms_that_select_nobody() {
    for rule in [
        "{toEndpoints: []}",
        "{toEndpoints: [], toPorts: [{ports: [{port: '1'}]}]}",
        "{toEntities: []}",
        "{toCIDR: []}",
        "{toCIDRSet: [], toPorts: [{ports: [{port: '1'}]}]}",
        "{toFQDNs: []}",
        "{toFQDNs: [], toPorts: [{ports: [{port: '443'}]}]}",
        "{toEndpoints: [], toCIDR: [10.0.0.0/8]}",
        "{toPorts: []}",
        "{toPorts: [{}]}",
        "{toEntities: [none]}",
        "{toEndpoints: [{}], toPorts: [{}]}",
        "{icmps: [{fields: []}]}",
        "{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]}",
    ] {
        let policy = egress(rule);
        assert!(policy.default_deny_egress, "{rule}");
        assert!(policy.entries.is_empty(), "{rule}: {:?}", policy.entries);
    }
}

#[test]
fn ports_without_peers_are_for_everybody() {
    let policy = egress("{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}");
    assert_eq!(policy.entries.len(), 1);
    assert_eq!(policy.entries[0].peer, Peer::Any);
    assert_eq!(policy.entries[0].l4, L4::port(Protocol::Tcp, 80));
}

#[test]
fn any_is_tcp_udp_and_sctp_and_port_0_is_every_port_but_never_icmp() {
    for ports in ["{port: '0'}", "{port: '0', protocol: ANY}"] {
        let policy = egress(&format!(
            "{{toEntities: [all], toPorts: [{{ports: [{ports}]}}]}}"
        ));
        for proto in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(to(&policy, FRIEND, proto, 7), Some(Action::Allow));
        }
        assert_eq!(to(&policy, FRIEND, Protocol::Icmp, 8), None);
    }
    let policy = egress("{toEntities: [all]}");
    assert_eq!(to(&policy, FRIEND, Protocol::Icmp, 8), Some(Action::Allow));
}

#[test]
fn an_end_port_below_the_port_means_the_single_port_and_a_leading_zero_is_octal() {
    let policy = egress(
        "{toPorts: [{ports: [{port: '80', endPort: 79, protocol: TCP}, {port: '010', protocol: UDP}]}]}",
    );
    let l4s: Vec<_> = policy.entries.iter().map(|e| e.l4).collect();
    assert_eq!(
        l4s,
        [L4::port(Protocol::Tcp, 80), L4::port(Protocol::Udp, 8)]
    );
}

#[test]
fn icmp_type_0_is_echo_reply_and_nothing_more() {
    let policy = egress("{toEntities: [world], icmps: [{fields: [{type: 0}]}]}");
    assert_eq!(
        to(&policy, reserved::WORLD_IPV4, Protocol::Icmp, 0),
        Some(Action::Allow)
    );
    assert_eq!(to(&policy, reserved::WORLD_IPV4, Protocol::Icmp, 8), None);
    assert_eq!(to(&policy, reserved::WORLD_IPV6, Protocol::Icmpv6, 0), None);
}

#[test]
fn an_empty_peer_selector_means_the_namespace_or_every_workload() {
    let rule = "{endpointSelector: {}, egress: [{toEndpoints: [{}]}]}";
    let namespaced = compiled(&[rule]);
    let clusterwide = compiled_as(
        &parsed(&[("CiliumClusterwideNetworkPolicy", rule)]),
        &labels("a", "me"),
        EnforcementMode::Default,
    );
    for (peer, in_namespace, in_cluster) in [
        (FRIEND, true, true),
        (STRANGER, false, true),
        (reserved::HOST, false, false),
        (reserved::WORLD_IPV4, false, false),
    ] {
        let allowed = |policy| to(policy, peer, Protocol::Tcp, 1) == Some(Action::Allow);
        assert_eq!(allowed(&namespaced), in_namespace, "{peer}");
        assert_eq!(allowed(&clusterwide), in_cluster, "{peer}");
    }
}

#[test]
fn a_peer_of_another_cluster_is_not_meant_unless_it_is_named() {
    let foreign: LabelSet = labels("a", "me")
        .iter()
        .cloned()
        .chain([Label::k8s("io.cilium.k8s.policy.cluster", "east")])
        .collect();
    let far = IdentityId::from_raw(300);
    for (rule, expected) in [
        ("{toEndpoints: [{}]}", false),
        (
            "{toEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: east}}]}",
            true,
        ),
        ("{toEntities: [cluster]}", false),
        ("{toEntities: [cluster-mesh]}", true),
    ] {
        let policies = parsed(&[(
            "CiliumNetworkPolicy",
            &format!("{{endpointSelector: {{}}, egress: [{rule}]}}"),
        )]);
        let identities = Identities::new("default", [(far, foreign.clone())], []);
        let input = CompileInput {
            policies: &policies,
            subject: &labels("a", "me"),
            identities: &identities,
            mode: EnforcementMode::Default,
            allow_local_host: true,
            steer_dns: false,
        };
        let policy = compile(&input, &mut SelectorTable::default()).unwrap();
        assert_eq!(
            to(&policy, far, Protocol::Tcp, 1).is_some(),
            expected,
            "{rule}"
        );
    }
}

#[test]
fn a_namespaced_policy_is_about_its_own_namespace_whatever_it_says() {
    let policies = parsed(&[(
        "CiliumNetworkPolicy",
        "{endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': b}}, egress: [{}]}",
    )]);
    let deny =
        |subject| compiled_as(&policies, &subject, EnforcementMode::Default).default_deny_egress;
    assert!(deny(labels("a", "me")));
    assert!(!deny(labels("b", "me")));
}

#[test]
fn the_world_is_both_families_and_every_prefix_as_entity_and_as_label() {
    for peers in [
        "toEntities: [world]",
        "toEndpoints: [{matchLabels: {'reserved:world': ''}}]",
    ] {
        let specs = [
            format!("{{endpointSelector: {{}}, egress: [{{{peers}}}]}}"),
            "{endpointSelector: {}, ingress: [{fromCIDR: [10.0.0.0/8, '2001:db8::/32']}]}".into(),
        ];
        let policy = compiled(&[&specs[0], &specs[1]]);
        for id in [
            reserved::WORLD,
            reserved::WORLD_IPV4,
            reserved::WORLD_IPV6,
            IdentityId::from_raw(FIRST_CIDR),
            IdentityId::from_raw(FIRST_CIDR + 1),
        ] {
            assert_eq!(
                to(&policy, id, Protocol::Tcp, 1),
                Some(Action::Allow),
                "{peers} {id}"
            );
        }
        assert_eq!(to(&policy, FRIEND, Protocol::Tcp, 1), None);
        assert_eq!(to(&policy, reserved::HOST, Protocol::Tcp, 1), None);
    }
}

#[test]
fn a_wide_prefix_speaks_for_the_narrow_ones_inside_but_not_for_exceptions() {
    let policies = parsed(&[
        (
            "CiliumNetworkPolicy",
            "{endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}]}]}",
        ),
        (
            "CiliumNetworkPolicy",
            "{endpointSelector: {}, ingress: [{fromCIDR: [10.1.0.0/16, 192.0.2.0/24, '::/0']}]}",
        ),
    ]);
    let policy = compiled_as(&policies, &labels("a", "me"), EnforcementMode::Default);
    let (_, cidrs) = identities(&policies);
    for (id, prefix) in cidrs {
        let expected = (prefix.to_string() == "192.0.2.0/24").then_some(Action::Allow);
        assert_eq!(to(&policy, id, Protocol::Tcp, 1), expected, "{prefix}");
    }
    assert_eq!(
        to(&policy, reserved::WORLD_IPV4, Protocol::Tcp, 1),
        Some(Action::Allow)
    );
    assert_eq!(to(&policy, reserved::WORLD_IPV6, Protocol::Tcp, 1), None);
}

#[test]
fn a_prefix_without_identity_is_an_error_not_a_hole() {
    let policies = parsed(&[(
        "CiliumNetworkPolicy",
        "{endpointSelector: {}, egress: [{toCIDR: [10.0.0.0/8]}]}",
    )]);
    let identities = Identities::new("default", [], []);
    let input = CompileInput {
        policies: &policies,
        subject: &labels("a", "me"),
        identities: &identities,
        mode: EnforcementMode::Default,
        allow_local_host: true,
        steer_dns: false,
    };
    let error = compile(&input, &mut SelectorTable::default()).unwrap_err();
    assert!(matches!(error, CompileError::PrefixWithoutIdentity { .. }));
}

#[test]
fn default_deny_is_per_direction_and_can_be_switched_off() {
    for (spec, ingress, egress) in [
        ("{endpointSelector: {}, egress: [{}]}", false, true),
        ("{endpointSelector: {}, ingress: [{}]}", true, false),
        (
            "{endpointSelector: {}, egress: [{}], enableDefaultDeny: {egress: false}}",
            false,
            false,
        ),
        (
            "{endpointSelector: {}, egress: [{}], enableDefaultDeny: {ingress: true}}",
            false,
            true,
        ),
        (
            "{endpointSelector: {matchLabels: {app: other}}, egress: [{}]}",
            false,
            false,
        ),
    ] {
        let policy = compiled(&[spec]);
        assert_eq!(
            (policy.default_deny_ingress, policy.default_deny_egress),
            (ingress, egress),
            "{spec}"
        );
    }
}

#[test]
fn modes_and_the_local_node() {
    let one = parsed(&[(
        "CiliumNetworkPolicy",
        "{endpointSelector: {}, ingress: [{}]}",
    )]);
    let me = labels("a", "me");
    let host = |policy: &EndpointPolicy| {
        lookup(
            policy,
            Direction::Ingress,
            Peer::Identity(reserved::HOST),
            Protocol::Tcp,
            80,
        )
    };
    let with_rule = compiled_as(&one, &me, EnforcementMode::Default);
    assert_eq!(host(&with_rule), Some(Action::Allow));
    let always = compiled_as(&[], &me, EnforcementMode::Always);
    assert!(always.default_deny_ingress && always.default_deny_egress);
    assert_eq!(host(&always), None);
    let always = compiled_as(&one, &me, EnforcementMode::Always);
    assert_eq!(host(&always), Some(Action::Allow));
    let never = compiled_as(&one, &me, EnforcementMode::Never);
    assert_eq!(never, EndpointPolicy::default());
    let init: LabelSet = [Label::reserved("init")].into_iter().collect();
    assert!(compiled_as(&[], &init, EnforcementMode::Default).default_deny_egress);
}

const DNS: &str = "{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}], toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a.test}]}}]}";
const L3_ONLY: &str =
    "{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}]}";
const PLAIN_53: &str = "{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}], toPorts: [{ports: [{port: '53'}]}]}";
const ANYBODY_53: &str = "{toPorts: [{ports: [{port: '53'}]}]}";
const RANGE: &str = "{toPorts: [{ports: [{port: '1', endPort: 1023}]}]}";
const FQDN: &str =
    "{toFQDNs: [{matchName: a.test}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}";

#[test]
fn names_are_restricted_until_the_port_itself_is_allowed() {
    for (rules, restricted) in [
        (vec![DNS], true),
        (vec![DNS, L3_ONLY], true),
        (vec![DNS, RANGE], true),
        (vec![DNS, FQDN, RANGE], true),
        (vec![DNS, PLAIN_53], false),
        (vec![PLAIN_53, DNS], false),
        (vec![DNS, ANYBODY_53], false),
        (vec![FQDN, PLAIN_53], false),
        (vec![FQDN, L3_ONLY], false),
        (vec![FQDN, RANGE], false),
    ] {
        let policy = egress(&rules.join(", "));
        for proto in [Protocol::Udp, Protocol::Tcp] {
            let found = to(&policy, RESOLVER, proto, 53);
            assert_eq!(found, Some(Action::RedirectDns), "{rules:?}");
        }
        let ask = |text| {
            policy
                .may_ask(RESOLVER, false, 53, &name(text))
                .is_allowed()
        };
        assert!(ask("A.test"), "{rules:?}");
        assert_eq!(ask("b.test"), !restricted, "{rules:?}");
    }
}

#[test]
fn sctp_to_a_port_with_dns_rules_stays_shut() {
    let policy = egress(DNS);
    assert_eq!(to(&policy, RESOLVER, Protocol::Sctp, 53), None);
}

#[test]
fn dns_rules_alone_do_not_steer_other_servers() {
    let policy = egress(&format!("{DNS}, {RANGE}"));
    assert_eq!(to(&policy, FRIEND, Protocol::Udp, 53), Some(Action::Allow));
    assert_eq!(
        to(&policy, RESOLVER, Protocol::Udp, 53),
        Some(Action::RedirectDns)
    );
}

#[test]
fn a_server_reached_by_name_is_steered_and_asked_like_any_other() {
    let policy = egress("{toFQDNs: [{matchName: dns.test}]}");
    let set = policy.selectors_matching(&name("dns.test"));
    let entries = policy.entries_of_set(&set);
    let of = |proto, port| {
        entries
            .iter()
            .filter(|e| e.l4.contains(proto, port))
            .max_by_key(|e| e.l4.specificity())
            .map(|e| e.action)
    };
    assert_eq!(of(Protocol::Udp, 53), Some(Action::RedirectDns));
    assert_eq!(of(Protocol::Udp, 54), Some(Action::Allow));
    let world = reserved::WORLD_IPV4;
    assert!(
        policy
            .may_ask_learned(world, &set, true, 53, &name("x"))
            .is_allowed()
    );
    assert!(!policy.may_ask(world, true, 53, &name("x")).is_allowed());
}

#[test]
fn without_default_deny_names_are_learned_and_nothing_is_refused() {
    let policy = compiled(&[&format!(
        "{{endpointSelector: {{}}, egress: [{FQDN}, {DNS}], enableDefaultDeny: {{egress: false}}}}"
    )]);
    assert!(!policy.default_deny_egress);
    for id in [RESOLVER, STRANGER, reserved::WORLD_IPV6] {
        assert_eq!(
            to(&policy, id, Protocol::Udp, 53),
            Some(Action::RedirectDns)
        );
        assert!(policy.may_ask(id, false, 53, &name("b.test")).is_allowed());
    }
    assert_eq!(to(&policy, STRANGER, Protocol::Udp, 54), None);
}

#[test]
fn only_asterisks_in_dns_rules_allow_truly_every_name() {
    let odd = Fqdn::from_labels([&b"a/b"[..], b"test"]).unwrap();
    let rule =
        |pattern: &str| DNS.replace("matchName: a.test", &format!("matchPattern: '{pattern}'"));
    let ask = |pattern| {
        egress(&rule(pattern))
            .may_ask(RESOLVER, false, 53, &odd)
            .is_allowed()
    };
    assert!(ask("*"));
    assert!(ask("**."));
    assert!(!ask("*.test"));
    let policy = egress("{toFQDNs: [{matchPattern: '*'}]}");
    assert!(policy.selectors_matching(&odd).is_empty());
    assert!(!policy.selectors_matching(&name("a.test")).is_empty());
}

/// The published decision table for DNS rules (`TestFullPathDependence`), with servers 1 to 4.
#[test]
fn vectors_g_dns_decisions() {
    let server = |n: u32| IdentityId::from_raw(1000 + n);
    let rule = |peer: u32, port: &str, proto: &str, dns: &str| {
        let peers = if peer == 0 {
            String::new()
        } else {
            format!("toEndpoints: [{{matchLabels: {{app: s{peer}}}}}], ")
        };
        let rules = if dns.is_empty() {
            String::new()
        } else {
            format!(", rules: {{dns: [{dns}]}}")
        };
        format!("{{{peers}toPorts: [{{ports: [{{port: '{port}', protocol: {proto}}}]{rules}}}]}}")
    };
    let names = |list: &[&str]| {
        let entry = |n: &&str| format!("{{matchPattern: '{n}'}}");
        list.iter().map(entry).collect::<Vec<_>>().join(", ")
    };
    let ep1 = [
        rule(1, "53", "UDP", &names(&["*.ubuntu.com", "aws.amazon.com"])),
        rule(1, "53", "TCP", &names(&["sub.ubuntu.com"])),
        rule(2, "53", "UDP", &names(&["cilium.io"])),
        rule(0, "54", "UDP", &names(&["example.com"])),
    ];
    let ep3 = [
        rule(1, "53", "UDP", &names(&["example.com"])),
        rule(3, "53", "UDP", &names(&["*"])),
        rule(3, "53", "TCP", &names(&["example.com"])),
        rule(4, "53", "UDP", ""),
    ];
    let endpoint = |rules: &[String]| {
        let spec = format!("{{endpointSelector: {{}}, egress: [{}]}}", rules.join(", "));
        let policies = parsed(&[("CiliumNetworkPolicy", &spec)]);
        let servers = (1..=4).map(|n| (server(n), labels("a", &format!("s{n}"))));
        let identities = Identities::new("default", servers, []);
        let input = CompileInput {
            policies: &policies,
            subject: &labels("a", "me"),
            identities: &identities,
            mode: EnforcementMode::Default,
            allow_local_host: true,
            steer_dns: false,
        };
        compile(&input, &mut SelectorTable::default()).unwrap()
    };
    let (ep1, ep2, ep3) = (endpoint(&ep1), endpoint(&["{}".to_owned()]), endpoint(&ep3));
    for (row, (policy, to, tcp, port, query, expected)) in [
        (&ep1, 1, false, 53, "www.ubuntu.com", true),
        (&ep1, 1, true, 53, "www.ubuntu.com", false),
        (&ep1, 1, true, 53, "sub.ubuntu.com", true),
        (&ep1, 1, false, 53, "sub.ubuntu.com", true),
        (&ep1, 1, false, 54, "cilium.io", false),
        (&ep1, 2, false, 53, "cilium.io", true),
        (&ep1, 2, false, 53, "aws.amazon.com", false),
        (&ep1, 1, false, 54, "example.com", true),
        (&ep2, 1, false, 53, "cilium.io", false),
        (&ep3, 1, false, 53, "example.com", true),
        (&ep3, 1, false, 53, "aws.amazon.io", false),
        (&ep3, 1, false, 54, "example.com", false),
        (&ep3, 2, false, 53, "example.com", false),
        (&ep3, 3, false, 53, "example.com", true),
        (&ep3, 3, true, 53, "example.com", true),
        (&ep3, 3, true, 53, "amazon.com", false),
        (&ep3, 4, true, 53, "example.com", false),
        (&ep3, 4, false, 53, "example.com", true),
    ]
    .into_iter()
    .enumerate()
    {
        let verdict = policy.may_ask(server(to), tcp, port, &name(query));
        assert_eq!(
            verdict.is_allowed(),
            expected,
            "row {}: {verdict:?}",
            row + 1
        );
    }
}

#[test]
fn entries_of_a_union_of_selectors_are_the_strongest_of_each() {
    let policy = egress(
        "{toFQDNs: [{matchName: a.test}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}, \
         {toFQDNs: [{matchPattern: '*.test'}], toPorts: [{ports: [{port: '400', endPort: 500, protocol: TCP}]}]}",
    );
    let set = policy.selectors_matching(&name("a.test"));
    assert_eq!(set.len(), 2);
    let entries = policy.entries_of_set(&set);
    let https = entries
        .iter()
        .find(|e| e.l4 == L4::port(Protocol::Tcp, 443))
        .unwrap();
    // Both rules allow it, and both are named.
    assert_eq!(https.rule_sets.len(), 2);
    assert_eq!(https.rule_set, https.rule_sets[0]);
    assert!(entries.iter().any(|e| e.l4.contains(Protocol::Tcp, 450)));
    assert!(policy.entries_of_set(&SelectorSet::default()).is_empty());
    assert!(
        policy
            .entries_of_set(&SelectorSet::new([identity::SelectorId::new(999)]))
            .is_empty()
    );
}

#[test]
fn the_nearest_rule_is_the_one_to_change() {
    let policy = egress(
        "{toFQDNs: [{matchName: github.com}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}, \
         {toFQDNs: [{matchName: crates.io}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}, \
         {toEndpoints: [{matchLabels: {app: friend}}], toPorts: [{ports: [{port: '5432', protocol: TCP}]}]}",
    );
    let nearest = |peer, names: &[&str], port| {
        let flow = DeniedFlow {
            peer,
            names: names.iter().map(|n| name(n)).collect(),
            proto: Some(Protocol::Tcp),
            port,
        };
        policy
            .nearest(Direction::Egress, &flow)
            .map(|rule| rule.text.clone())
            .unwrap_or_default()
    };
    let world = reserved::WORLD_IPV4;
    // The right name on the wrong port.
    assert!(nearest(world, &["github.com"], 80).contains("\"github.com\" 443/TCP"));
    // Another name under the same domain.
    assert!(nearest(world, &["api.github.com"], 443).contains("\"github.com\""));
    assert!(nearest(FRIEND, &[], 5433).contains("app=friend"));
    assert_eq!(nearest(world, &[], 12345), "");
    let none = policy.nearest(
        Direction::Ingress,
        &DeniedFlow {
            peer: world,
            names: vec![],
            proto: None,
            port: 0,
        },
    );
    assert_eq!(none, None);
}

#[test]
fn the_command_line_shorthand_is_a_whole_policy() {
    let allows = [
        shorthand::allow("example.test").unwrap(),
        shorthand::allow("**.example.org:8080/any").unwrap(),
    ];
    let policies = [shorthand::policy(&allows, "a")];
    let policy = compiled_as(&policies, &labels("a", "me"), EnforcementMode::Default);
    assert!(policy.default_deny_egress && !policy.default_deny_ingress);
    assert_eq!(
        to(&policy, RESOLVER, Protocol::Udp, 53),
        Some(Action::RedirectDns)
    );
    assert!(
        policy
            .may_ask(RESOLVER, true, 53, &name("anything.test"))
            .is_allowed()
    );
    let grants = |text: &str| {
        let entries = policy.entries_of_set(&policy.selectors_matching(&name(text)));
        entries.iter().map(|e| e.l4.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(grants("example.test"), ["443/TCP"]);
    assert_eq!(
        grants("a.b.example.org"),
        ["8080/TCP", "8080/UDP", "8080/SCTP"]
    );
    assert!(grants("example.org").is_empty());
    let DnsVerdict::Allowed { rule: Some(rule) } = policy.may_ask(RESOLVER, true, 53, &name("x"))
    else {
        panic!();
    };
    assert!(rule.to_string().starts_with("--allow: toEndpoints"));
}

#[test]
fn one_table_of_selectors_serves_every_endpoint() {
    let policies = parsed(&[(
        "CiliumNetworkPolicy",
        &format!("{{endpointSelector: {{}}, egress: [{FQDN}]}}"),
    )]);
    let (identities, _) = identities(&policies);
    let mut table = SelectorTable::default();
    let mut compile_for = |app| {
        let input = CompileInput {
            policies: &policies,
            subject: &labels("a", app),
            identities: &identities,
            mode: EnforcementMode::Default,
            allow_local_host: true,
            steer_dns: false,
        };
        compile(&input, &mut table).unwrap()
    };
    let ids = |policy: &EndpointPolicy| {
        policy
            .selectors
            .iter()
            .map(|(id, _)| id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&compile_for("me")), ids(&compile_for("friend")));
}
