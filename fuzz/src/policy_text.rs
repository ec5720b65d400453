//! Policies as text, put together from choices.
//!
//! In:  bytes.
//! Out: YAML that is always a policy.
//! Not here: text that may be no policy (`parse`).

use crate::input::Input;

const SUBJECTS: &[&str] = &["{}", "{matchLabels: {app: x}}", "{matchLabels: {app: y}}"];
const LABELS: &[&str] = &[
    "{}",
    "{matchLabels: {app: y}}",
    "{matchLabels: {'k8s:io.kubernetes.pod.namespace': b}}",
    "{matchLabels: {'io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name': b}}",
    "{matchExpressions: [{key: app, operator: NotIn, values: [x]}]}",
    "{matchExpressions: [{key: app, operator: DoesNotExist}, {key: io.kubernetes.pod.namespace, operator: Exists}]}",
    "{matchLabels: {'reserved:world': ''}}",
    "{matchLabels: {'reserved:host': ''}}",
];
const ENTITIES: &[&str] = &[
    "all",
    "world",
    "host",
    "cluster",
    "health",
    "none",
    "remote-node",
];
const PREFIXES: &[&str] = &[
    "{cidr: 10.0.0.0/8}",
    "{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}",
    "{cidr: 10.1.2.0/24}",
    "{cidr: 0.0.0.0/0}",
    "{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.0.2.0/24]}",
    "{cidr: '::/0'}",
    "{cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}",
    "{cidr: 192.0.2.7/32}",
];
const NAMES: &[&str] = &[
    "{matchName: a.test}",
    "{matchPattern: '*.test'}",
    "{matchPattern: '**.test'}",
    "{matchPattern: '*'}",
    "{matchName: b.a.test}",
];
const PORTS: &[&str] = &[
    "{port: '53', protocol: UDP}",
    "{port: '53'}",
    "{port: '53', protocol: TCP}",
    "{port: '50', endPort: 60}",
    "{port: '0', protocol: TCP}",
    "{port: '0'}",
    "{port: '443', protocol: TCP}",
    "{port: '1', endPort: 65535, protocol: UDP}",
    "{port: '80', endPort: 79}",
];
const DNS_PORTS: &[&str] = &[
    "{port: '53'}",
    "{port: '53', protocol: UDP}",
    "{port: '80', protocol: TCP}",
];
const DNS_NAMES: &[&str] = &[
    "{matchName: a.test}",
    "{matchPattern: '*.a.test'}",
    "{matchPattern: '*'}",
    "{matchName: a.test, matchPattern: 'b*.test'}",
];
const DEFAULTS: &[&str] = &[
    "",
    "",
    "",
    ", enableDefaultDeny: {egress: false, ingress: false}",
];

const KUBERNETES_PEERS: &[&str] = &[
    "{podSelector: {}}",
    "{podSelector: {matchLabels: {app: y}}}",
    "{namespaceSelector: {}}",
    "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}, podSelector: {matchLabels: {app: x}}}",
    "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}",
    "{ipBlock: {cidr: '::/0'}}",
];
const KUBERNETES_PORTS: &[&str] = &[
    "{port: 53, protocol: UDP}",
    "{port: 50, endPort: 60}",
    "{port: 443}",
    "{protocol: SCTP}",
];
const POLICY_TYPES: &[&str] = &[
    "",
    ", policyTypes: [Ingress]",
    ", policyTypes: [Egress]",
    ", policyTypes: [Ingress, Egress]",
];
const ACTIONS: &[&str] = &["Accept", "Deny", "Pass"];
const WORKLOADS: &[&str] = &[
    "{namespaces: {}}",
    "{namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}}",
    "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}}",
];
const OTHERS: &[&str] = &[
    "{namespaces: {}}",
    "{namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}}",
    "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}}",
    "{networks: [10.0.0.0/8]}",
    "{networks: [10.1.0.0/16, '2001:db8::/32']}",
    "{nodes: {}}",
];
const TIER_PORTS: &[&str] = &[
    "",
    ", protocols: [{tcp: {destinationPort: {number: 53}}}]",
    ", protocols: [{udp: {destinationPort: {number: 53}}}]",
    ", protocols: [{tcp: {destinationPort: {range: {start: 50, end: 60}}}}]",
    ", protocols: [{sctp: {}}, {tcp: {}}]",
];
const INSIDE: &[&str] = &[
    "{ports: [{port: '60', protocol: TCP}], rules: {http: [{method: GET}]}}",
    "{ports: [{port: '61', protocol: TCP}], rules: {http: [{}]}}",
];

/// One to three policies.
pub(crate) fn policies(input: &mut Input<'_>) -> String {
    let documents: Vec<String> = (0..=input.below(3))
        .map(|_| {
            let (kind, namespace) = match input.below(8) {
                0..=2 => ("CiliumClusterwideNetworkPolicy", ""),
                3..=5 => ("CiliumNetworkPolicy", ", namespace: a"),
                6 => return network_policy(input),
                _ => return cluster_network_policy(input),
            };
            let spec = spec(input);
            format!(
                "apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p{namespace}}}\nspec: {spec}\n"
            )
        })
        .collect();
    documents.join("---\n")
}

fn spec(input: &mut Input<'_>) -> String {
    let subject = *input.pick(SUBJECTS);
    let counts = input.byte();
    let mut clauses = |count: u8, egress: bool, allow: bool| {
        let clauses: Vec<String> = (0..count).map(|_| clause(input, egress, allow)).collect();
        clauses.join(", ")
    };
    let ingress = clauses(counts % 3, false, true);
    let egress = clauses(1 + counts / 3 % 4, true, true);
    let ingress_deny = clauses(counts / 12 % 2, false, false);
    let egress_deny = clauses(counts / 24 % 3, true, false);
    format!(
        "{{endpointSelector: {subject}, ingress: [{ingress}], ingressDeny: [{ingress_deny}], \
         egress: [{egress}], egressDeny: [{egress_deny}]{}}}",
        input.pick(DEFAULTS),
    )
}

/// What is denied can be neither names nor what goes through a proxy.
fn clause(input: &mut Input<'_>, egress: bool, allow: bool) -> String {
    let direction = if egress { "to" } else { "from" };
    let peers = match input.below(10) {
        0 | 1 => String::new(),
        2..=4 => list(input, &format!("{direction}Endpoints"), LABELS),
        5 => list(input, &format!("{direction}Entities"), ENTITIES),
        6 | 7 => list(input, &format!("{direction}CIDRSet"), PREFIXES),
        _ if egress && allow => list(input, "toFQDNs", NAMES),
        _ => String::new(),
    };
    let ports = match input.below(8) {
        0 | 1 => String::new(),
        2 => "icmps: [{fields: [{type: 8}, {family: IPv6, type: 128}]}]".into(),
        _ => {
            let rules: Vec<String> = (0..input.below(3))
                .map(|_| port_rule(input, egress && allow))
                .collect();
            format!("toPorts: [{}]", rules.join(", "))
        }
    };
    let parts: Vec<&str> = [&peers[..], &ports]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    format!("{{{}}}", parts.join(", "))
}

fn network_policy(input: &mut Input<'_>) -> String {
    let mut rules = |kind: &str| {
        let rules: Vec<String> = (0..input.below(3))
            .map(|_| {
                let peers = list(input, kind, KUBERNETES_PEERS);
                let ports = list(input, "ports", KUBERNETES_PORTS);
                format!("{{{peers}, {ports}}}")
            })
            .collect();
        rules.join(", ")
    };
    let (ingress, egress) = (rules("from"), rules("to"));
    let types = input.pick(POLICY_TYPES);
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: a}}\n\
         spec: {{podSelector: {{}}, ingress: [{ingress}], egress: [{egress}]{types}}}\n"
    )
}

fn cluster_network_policy(input: &mut Input<'_>) -> String {
    let mut rules = |egress: bool| {
        let rules: Vec<String> = (0..input.below(3))
            .map(|_| {
                // Names go with Accept only.
                let names = egress && input.below(4) == 0;
                let action = if names {
                    "Accept"
                } else {
                    *input.pick(ACTIONS)
                };
                let peer = match (names, egress) {
                    (true, _) => "{domainNames: ['*.test']}",
                    (false, true) => *input.pick(OTHERS),
                    (false, false) => *input.pick(WORKLOADS),
                };
                let list = if egress { "to" } else { "from" };
                let port = input.pick(TIER_PORTS);
                format!("{{action: {action}, {list}: [{peer}]{port}}}")
            })
            .collect();
        rules.join(", ")
    };
    let (ingress, egress) = (rules(false), rules(true));
    let tier = input.pick(&["Admin", "Baseline"]);
    let priority = input.below(3);
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\n\
         spec: {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, \
         ingress: [{ingress}], egress: [{egress}]}}\n"
    )
}

fn port_rule(input: &mut Input<'_>, names: bool) -> String {
    if names && input.below(3) == 0 {
        let port = *input.pick(DNS_PORTS);
        let names: Vec<&str> = (0..=input.below(2))
            .map(|_| *input.pick(DNS_NAMES))
            .collect();
        return format!(
            "{{ports: [{port}], rules: {{dns: [{}]}}}}",
            names.join(", ")
        );
    }
    // Ports of their own: a port read by two proxies would be a contradiction.
    if names && input.below(6) == 0 {
        return (*input.pick(INSIDE)).to_owned();
    }
    list(input, "{ports", PORTS) + "}"
}

fn list(input: &mut Input<'_>, name: &str, items: &[&str]) -> String {
    let items: Vec<&str> = (0..input.below(3)).map(|_| *input.pick(items)).collect();
    format!("{name}: [{}]", items.join(", "))
}
