//! Policies of every kind as text, put together at random.

#![allow(dead_code, reason = "every test file uses some of it")]

use policy::compiled::Direction;
use proptest::prelude::*;

fn spec() -> impl Strategy<Value = String> {
    let ingress = proptest::collection::vec(clause(Direction::Ingress, true), 0..3);
    let egress = proptest::collection::vec(clause(Direction::Egress, true), 1..5);
    let ingress_deny = proptest::collection::vec(clause(Direction::Ingress, false), 0..2);
    let egress_deny = proptest::collection::vec(clause(Direction::Egress, false), 0..3);
    let subject = prop_oneof![
        Just("{}"),
        Just("{matchLabels: {app: x}}"),
        Just("{matchLabels: {app: y}}")
    ];
    let deny = prop_oneof![6 => Just(""), 1 => Just(", enableDefaultDeny: {egress: false, ingress: false}")];
    (subject, ingress, ingress_deny, egress, egress_deny, deny).prop_map(
        |(subject, ingress, ingress_deny, egress, egress_deny, deny)| {
            format!(
                "{{endpointSelector: {subject}, ingress: [{}], ingressDeny: [{}], egress: [{}], egressDeny: [{}]{deny}}}",
                ingress.join(", "),
                ingress_deny.join(", "),
                egress.join(", "),
                egress_deny.join(", ")
            )
        },
    )
}

fn clause(direction: Direction, allow: bool) -> impl Strategy<Value = String> {
    let (from, names) = match direction {
        Direction::Egress if allow => ("to", 4),
        Direction::Ingress => ("from", 0),
        Direction::Egress => ("to", 0),
    };
    let labels = prop_oneof![
        Just("{}"),
        Just("{matchLabels: {app: y}}"),
        Just("{matchLabels: {'k8s:io.kubernetes.pod.namespace': b}}"),
        Just("{matchLabels: {'io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name': b}}"),
        Just("{matchExpressions: [{key: app, operator: NotIn, values: [x]}]}"),
        Just(
            "{matchExpressions: [{key: app, operator: DoesNotExist}, {key: io.kubernetes.pod.namespace, operator: Exists}]}"
        ),
        Just("{matchLabels: {'reserved:world': ''}}"),
        Just("{matchLabels: {'reserved:host': ''}}"),
    ];
    let entity = prop_oneof![
        Just("all"),
        Just("world"),
        Just("host"),
        Just("cluster"),
        Just("health"),
        Just("none"),
        Just("remote-node")
    ];
    let cidr = prop_oneof![
        Just("{cidr: 10.0.0.0/8}"),
        Just("{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}"),
        Just("{cidr: 10.1.2.0/24}"),
        Just("{cidr: 0.0.0.0/0}"),
        Just("{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.0.2.0/24]}"),
        Just("{cidr: '::/0'}"),
        Just("{cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}"),
        Just("{cidr: 192.0.2.7/32}"),
    ];
    let fqdn = prop_oneof![
        Just("{matchName: a.test}"),
        Just("{matchPattern: '*.test'}"),
        Just("{matchPattern: '**.test'}"),
        Just("{matchPattern: '*'}"),
        Just("{matchName: b.a.test}")
    ];
    let list = move |kind: &'static str, items: BoxedStrategy<&'static str>| {
        proptest::collection::vec(items, 0..3)
            .prop_map(move |items| format!("{kind}: [{}]", items.join(", ")))
    };
    let kind = |text: &str| -> &'static str { Box::leak(format!("{from}{text}").into_boxed_str()) };
    let peers = prop_oneof![
        2 => Just(String::new()),
        4 => list(kind("Endpoints"), labels.boxed()),
        3 => list(kind("Entities"), entity.boxed()),
        1 => list(kind("Nodes"), prop_oneof![Just("{}"), Just("{matchLabels: {role: worker}}")].boxed()),
        4 => list(kind("CIDRSet"), cidr.boxed()),
        names => list("toFQDNs", fqdn.boxed()),
    ];
    let port = prop_oneof![
        Just("{port: '53', protocol: UDP}"),
        Just("{port: '53'}"),
        Just("{port: '53', protocol: TCP}"),
        Just("{port: '50', endPort: 60}"),
        Just("{port: '0', protocol: TCP}"),
        Just("{port: '0'}"),
        Just("{port: '443', protocol: TCP}"),
        Just("{port: '1', endPort: 65535, protocol: UDP}"),
        Just("{port: '80', endPort: 79}"),
        Just("{port: web, protocol: TCP}"),
        Just("{port: dns}"),
    ];
    let dns_port = prop_oneof![
        Just("{port: '53'}"),
        Just("{port: '53', protocol: UDP}"),
        Just("{port: '80', protocol: TCP}"),
        Just("{port: dns}")
    ];
    let dns = prop_oneof![
        Just("{matchName: a.test}"),
        Just("{matchPattern: '*.a.test'}"),
        Just("{matchPattern: '*'}"),
        Just("{matchName: a.test, matchPattern: 'b*.test'}")
    ];
    let plain = proptest::collection::vec(port, 0..3)
        .prop_map(|p| format!("{{ports: [{}]}}", p.join(", ")));
    let restricted = (dns_port, proptest::collection::vec(dns, 1..3)).prop_map(|(port, dns)| {
        format!("{{ports: [{port}], rules: {{dns: [{}]}}}}", dns.join(", "))
    });
    // Ports of their own: a port read by two proxies would be a contradiction.
    let inside = prop_oneof![
        Just("{ports: [{port: '60', protocol: TCP}, {port: '8000', endPort: 8007, protocol: TCP}], rules: {http: [{method: GET}]}}"),
        Just("{ports: [{port: '61', protocol: TCP}], rules: {http: [{}]}}"),
    ]
    .prop_map(str::to_owned);
    let port_rule = match direction {
        _ if !allow => plain.boxed(),
        Direction::Ingress => prop_oneof![3 => plain, 1 => inside].boxed(),
        Direction::Egress => prop_oneof![3 => plain, 2 => restricted, 1 => inside].boxed(),
    };
    let ports = prop_oneof![
        2 => Just(String::new()),
        5 => proptest::collection::vec(port_rule, 0..3).prop_map(|p| format!("toPorts: [{}]", p.join(", "))),
        1 => Just("icmps: [{fields: [{type: 8}, {family: IPv6, type: 128}]}]".to_owned()),
    ];
    (peers, ports).prop_map(|(peers, ports)| {
        let parts: Vec<_> = [peers, ports]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        format!("{{{}}}", parts.join(", "))
    })
}

pub(crate) fn cilium() -> impl Strategy<Value = String> {
    (any::<bool>(), spec()).prop_map(|(clusterwide, spec)| {
        let (kind, namespace) = if clusterwide {
            ("CiliumClusterwideNetworkPolicy", "")
        } else {
            ("CiliumNetworkPolicy", ", namespace: a")
        };
        format!("apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p{namespace}}}\nspec: {spec}\n")
    })
}

/// `NetworkPolicy`.
pub(crate) fn kubernetes() -> impl Strategy<Value = String> {
    let peer = prop_oneof![
        Just("{podSelector: {}}"),
        Just("{podSelector: {matchLabels: {app: y}}}"),
        Just("{namespaceSelector: {}}"),
        Just(
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}, podSelector: {matchLabels: {app: x}}}"
        ),
        Just("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}"),
        Just("{ipBlock: {cidr: '::/0'}}"),
    ];
    let port = prop_oneof![
        Just("{port: 53, protocol: UDP}"),
        Just("{port: 50, endPort: 60}"),
        Just("{port: web}"),
        Just("{protocol: SCTP}"),
    ];
    let rule = (
        proptest::collection::vec(peer, 0..3),
        proptest::collection::vec(port, 0..3),
    );
    let rules = proptest::collection::vec(rule, 0..3);
    let types = prop_oneof![
        Just(""),
        Just(", policyTypes: [Ingress]"),
        Just(", policyTypes: [Egress]"),
        Just(", policyTypes: [Ingress, Egress]"),
    ];
    (rules.clone(), rules, types).prop_map(|(ingress, egress, types)| {
        let text = |list: &str, rules: Vec<(Vec<&str>, Vec<&str>)>| {
            let rules: Vec<_> = rules
                .iter()
                .map(|(peers, ports)| format!("{{{list}: [{}], ports: [{}]}}", peers.join(", "), ports.join(", ")))
                .collect();
            rules.join(", ")
        };
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec: {{podSelector: {{}}, ingress: [{}], egress: [{}]{types}}}\n",
            text("from", ingress),
            text("to", egress)
        )
    })
}

/// `ClusterNetworkPolicy`.
pub(crate) fn tiered() -> impl Strategy<Value = String> {
    let workloads = || {
        prop_oneof![
            Just("{namespaces: {}}"),
            Just("{namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}}"),
            Just("{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}}"),
        ]
    };
    let outside = prop_oneof![
        Just("{networks: [10.0.0.0/8]}"),
        Just("{networks: [10.1.0.0/16, '2001:db8::/32']}"),
        Just("{nodes: {}}"),
    ];
    let port = prop_oneof![
        Just("{tcp: {destinationPort: {number: 53}}}"),
        Just("{udp: {destinationPort: {number: 53}}}"),
        Just("{tcp: {destinationPort: {range: {start: 50, end: 60}}}}"),
        Just("{tcp: {}}"),
        Just("{sctp: {}}"),
    ];
    let ports = proptest::collection::vec(port, 0..3).prop_map(|ports| {
        if ports.is_empty() {
            String::new()
        } else {
            format!(", protocols: [{}]", ports.join(", "))
        }
    });
    let action = || prop_oneof![Just("Accept"), Just("Deny"), Just("Pass")];
    let from = proptest::collection::vec(workloads(), 1..3);
    let ingress = (action(), from, ports.clone()).prop_map(|(action, from, ports)| {
        format!("{{action: {action}, from: [{}]{ports}}}", from.join(", "))
    });
    let to = proptest::collection::vec(prop_oneof![workloads(), outside], 1..3);
    let names = prop_oneof![
        Just("{domainNames: [a.test]}"),
        Just("{domainNames: ['*.test']}")
    ];
    let by_peer = (action(), to, ports.clone()).prop_map(|(action, to, ports)| {
        format!("{{action: {action}, to: [{}]{ports}}}", to.join(", "))
    });
    let by_name = (names, ports)
        .prop_map(|(names, ports)| format!("{{action: Accept, to: [{names}]{ports}}}"));
    let egress = prop_oneof![4 => by_peer, 1 => by_name];
    let tier = prop_oneof![Just("Admin"), Just("Baseline")];
    (
        tier,
        0u16..3,
        proptest::collection::vec(ingress, 0..3),
        proptest::collection::vec(egress, 0..4),
    )
        .prop_map(|(tier, priority, ingress, egress)| {
            format!(
                "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\nspec: {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, ingress: [{}], egress: [{}]}}\n",
                ingress.join(", "),
                egress.join(", ")
            )
        })
}

pub(crate) fn policies() -> impl Strategy<Value = String> {
    let document = prop_oneof![5 => cilium(), 1 => kubernetes()];
    proptest::collection::vec(document, 1..4).prop_map(|documents| documents.join("---\n"))
}

/// Policies of every kind; those of one tier and the tiers around it.
pub(crate) fn policies_in_tiers() -> impl Strategy<Value = String> {
    let normal = prop_oneof![1 => cilium(), 1 => kubernetes()];
    (
        proptest::collection::vec(tiered(), 1..4),
        proptest::collection::vec(normal, 0..2),
    )
        .prop_map(|(tiered, normal)| {
            let documents: Vec<_> = tiered.into_iter().chain(normal).collect();
            documents.join("---\n")
        })
}
