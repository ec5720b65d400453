//! The matrix: policies, and for each what may reach what and why not.
//!
//! In:  nothing.
//! Out: [`all`] cases. A line reads `FROM > TO WHAT = ok`, or `= egress 133`: which side drops it and
//!      with which reason. It holds over IPv4 and IPv6 unless it begins with `4:` or `6:`.
//! Not here: who they are (`village`), trying it (`super`).
//!
//! The rows are those of Cilium's own connectivity tests (`cilium-cli/connectivity/builder`) as far
//! as they are about L3, L4 and whole protocols; rows about names are in the tests of names.

/// Policies, and what they come to.
pub(crate) struct Case {
    /// As Cilium calls the test, where it has one.
    pub(crate) name: &'static str,
    /// YAML.
    pub(crate) policies: String,
    /// What may reach what.
    pub(crate) lines: &'static [&'static str],
}

const fn case(name: &'static str, policies: String, lines: &'static [&'static str]) -> Case {
    Case {
        name,
        policies,
        lines,
    }
}

fn cnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: {name}, namespace: test}}\nspec:\n{spec}\n"
    )
}

fn ccnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

fn knp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: test}}\nspec:\n{spec}\n"
    )
}

fn kcnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

/// A CNP about one workload.
fn about(workload: &str, rules: &str) -> String {
    cnp(
        "row",
        &format!("  endpointSelector: {{matchLabels: {{name: {workload}}}}}\n{rules}"),
    )
}

/// Beside deny rules, so that what they do not mean passes.
fn allow_all() -> String {
    cnp(
        "allow-all",
        "  endpointSelector: {}\n  ingress: [{fromEntities: [all]}]\n  egress: [{toEntities: [all]}]",
    )
}

const GROUP: &str = "---\napiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\n\
    metadata: {name: partners, labels: {tier: a}}\n\
    spec: {externalCIDRs: [203.0.113.10/32, \"2001:db8:113::10/128\"]}\n";

pub(crate) fn all() -> Vec<Case> {
    [
        open(),
        pods(),
        icmp_and_protocols(),
        ports(),
        cidr(),
        entities(),
        nodes_and_services(),
        deny(),
        kubernetes(),
        tiers(),
        modes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn open() -> Vec<Case> {
    vec![
        case(
            "no-policies",
            cnp(
                "row",
                "  endpointSelector: {matchLabels: {name: nobody}}\n  ingress: [{}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo udp/5353 = ok",
                "client > echo sctp/5000 = ok",
                "client > echo ping = ok",
                "client > outside tcp/8080 = ok",
                "client > host tcp/8080 = ok",
                "host > echo tcp/8080 = ok",
                "outside > echo tcp/8080 = ok",
                "4: client > service tcp/80 = ok",
            ],
        ),
        case(
            "allow-all-except-world",
            cnp(
                "row",
                "  endpointSelector: {}\n  ingress: [{fromEntities: [cluster]}]\n  \
                 egress: [{toEntities: [cluster]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > host ping = ok",
                "host > echo tcp/8080 = ok",
                "client > outside tcp/8080 = egress 133",
                "outside > echo tcp/8080 = ingress 133",
                "4: client > service tcp/80 = ok",
            ],
        ),
        case(
            "all-ingress-deny",
            cnp("row", "  endpointSelector: {}\n  ingress: [{}]"),
            &[
                "client > echo tcp/8080 = ingress 133",
                "client > echo ping = ingress 133",
                "outside > echo tcp/8080 = ingress 133",
                "remote > echo tcp/8080 = ingress 133",
                // The node itself may, as the kubelet's probes need.
                "host > echo tcp/8080 = ok",
                "client > outside tcp/8080 = ok",
            ],
        ),
        case(
            "all-egress-deny",
            cnp("row", "  endpointSelector: {}\n  egress: [{}]"),
            &[
                "client > echo tcp/8080 = egress 133",
                "client > echo udp/5353 = egress 133",
                "client > echo sctp/5000 = egress 133",
                "client > outside tcp/8080 = egress 133",
                "client > outside ping = egress 133",
                "outside > echo tcp/8080 = ok",
            ],
        ),
    ]
}

fn pods() -> Vec<Case> {
    vec![
        case(
            "client-ingress",
            about(
                "client",
                "  ingress:\n  - fromEndpoints: [{matchLabels: {name: client2}}]",
            ),
            &[
                "client2 > client tcp/8080 = ok",
                "echo > client tcp/8080 = ingress 133",
                "other > client tcp/8080 = ingress 133",
                "client > client2 tcp/8080 = ok",
            ],
        ),
        case(
            "echo-ingress-from-other-client",
            about(
                "echo",
                "  ingress:\n  - fromEndpoints: [{matchLabels: {name: client2}}]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "client2 > echo tcp/8080 = ok",
                "client2 > echo tcp/8081 = ingress 133",
                "client2 > echo udp/5353 = ingress 133",
                "client > echo tcp/8080 = ingress 133",
                "outside > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "client-egress-to-echo",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{matchLabels: {kind: echo}}]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo tcp/8081 = egress 133",
                // Of its own namespace only.
                "client > other tcp/8080 = egress 133",
                "client > outside tcp/8080 = egress 133",
                "client2 > other tcp/8080 = ok",
            ],
        ),
        case(
            "client-egress-expression",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{matchExpressions: [{key: kind, operator: In, \
                 values: [echo]}, {key: absent, operator: DoesNotExist}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > client2 tcp/8080 = egress 133",
            ],
        ),
        case(
            "client-with-service-account-egress-to-echo",
            cnp(
                "row",
                "  endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: client}}\n  \
                 egress:\n  - toEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: echo}}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > client2 tcp/8080 = egress 133",
                "client2 > outside tcp/8080 = ok",
            ],
        ),
        case(
            "egress-to-specific-namespace-ccnp",
            ccnp(
                "row",
                "  endpointSelector: {matchLabels: {k8s:io.kubernetes.pod.namespace: test}}\n  \
                 egress:\n  - toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: other}}]",
            ),
            &[
                "client > other tcp/8080 = ok",
                "client > echo tcp/8080 = egress 133",
                "other > client tcp/8080 = ok",
            ],
        ),
        case(
            "ingress-from-specific-namespace-ccnp",
            ccnp(
                "row",
                "  endpointSelector: {matchLabels: {name: echo}}\n  ingress:\n  - fromEndpoints: \
                 [{matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: others}}]",
            ),
            &[
                "other > echo tcp/8080 = ok",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "pod-on-another-node",
            about(
                "echo",
                "  ingress:\n  - fromEndpoints: [{matchLabels: {name: far}}]",
            ),
            &[
                "4: far > echo tcp/8080 = ok",
                "4: outside > echo tcp/8080 = ingress 133",
            ],
        ),
    ]
}

fn icmp_and_protocols() -> Vec<Case> {
    vec![
        case(
            "client-ingress-icmp",
            about(
                "client",
                "  ingress:\n  - fromEndpoints: [{matchLabels: {name: client2}}]\n    icmps: \
                 [{fields: [{type: 8, family: IPv4}, {type: EchoRequest, family: IPv6}]}]",
            ),
            &[
                "client2 > client ping = ok",
                "client2 > client tcp/8080 = ingress 133",
                "echo > client ping = ingress 133",
            ],
        ),
        case(
            "client-ingress-from-other-client-icmp-deny",
            allow_all()
                + &about(
                    "client",
                    "  ingressDeny:\n  - fromEndpoints: [{matchLabels: {name: client2}}]\n    icmps: \
                     [{fields: [{type: EchoRequest}, {type: 128, family: IPv6}]}]",
                ),
            &[
                "client2 > client ping = ingress 181",
                "client2 > client tcp/8080 = ok",
                "echo > client ping = ok",
            ],
        ),
        case(
            "other-icmp-types-are-not-echo",
            about(
                "client",
                "  egress:\n  - toEntities: [all]\n    icmps: \
                 [{fields: [{type: 13}, {type: 129, family: IPv6}]}]",
            ),
            &["client > echo ping = egress 133"],
        ),
        case(
            "sctp",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{matchLabels: {name: echo}}]\n    \
                 toPorts: [{ports: [{port: \"5000\", protocol: SCTP}]}]",
            ),
            &[
                "client > echo sctp/5000 = ok",
                "client > echo sctp/5001 = egress 133",
                "client > echo udp/5353 = egress 133",
                "client > echo tcp/8080 = egress 133",
            ],
        ),
        case(
            "sctp-ingress-deny",
            allow_all()
                + &about(
                    "echo",
                    "  ingressDeny:\n  - fromEntities: [all]\n    \
                     toPorts: [{ports: [{port: \"5000\", protocol: SCTP}]}]",
                ),
            &[
                "client > echo sctp/5000 = ingress 181",
                "client > echo sctp/5001 = ok",
            ],
        ),
        case(
            "any-is-tcp-udp-and-sctp",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: \"0\"}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo udp/5353 = ok",
                "client > echo sctp/5000 = ok",
                "client > echo ping = egress 133",
            ],
        ),
        case(
            "udp-only",
            about(
                "echo",
                "  ingress:\n  - fromEndpoints: [{}]\n    \
                 toPorts: [{ports: [{port: \"5353\", protocol: UDP}]}]",
            ),
            &[
                "client > echo udp/5353 = ok",
                "client > echo udp/4242 = ingress 133",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
    ]
}

fn ports() -> Vec<Case> {
    vec![
        case(
            "client-egress-expression-port-range",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{matchLabels: {kind: echo}}]\n    \
                 toPorts: [{ports: [{port: \"8080\", endPort: 8090, protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo tcp/8090 = ok",
                "client > echo tcp/8091 = egress 133",
            ],
        ),
        case(
            "echo-ingress-named-port",
            about(
                "echo",
                "  ingress:\n  - fromEndpoints: [{}]\n    \
                 toPorts: [{ports: [{port: http-8080, protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo tcp/8081 = ingress 133",
            ],
        ),
        case(
            "client-egress-named-port",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{}]\n    \
                 toPorts: [{ports: [{port: http-8080, protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo tcp/8081 = egress 133",
                // Nothing there has a port of that name.
                "client > client2 tcp/8080 = egress 133",
            ],
        ),
        case(
            "client-ingress-to-echo-named-port-deny",
            allow_all()
                + &about(
                    "echo",
                    "  ingressDeny:\n  - fromEndpoints: [{matchLabels: {name: client}}]\n    \
                     toPorts: [{ports: [{port: http-8080, protocol: TCP}]}]",
                ),
            &[
                "client > echo tcp/8080 = ingress 181",
                "client > echo tcp/8081 = ok",
                "client2 > echo tcp/8080 = ok",
            ],
        ),
        case(
            "ports-without-peers",
            about(
                "client",
                "  egress:\n  - toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > outside tcp/8080 = ok",
                "client > host tcp/8080 = ok",
                "client > outside tcp/8081 = egress 133",
            ],
        ),
    ]
}

fn cidr() -> Vec<Case> {
    vec![
        case(
            "to-cidr-external",
            about(
                "client",
                "  egress:\n  - toCIDRSet:\n    - {cidr: 203.0.113.0/24, except: [203.0.113.17/32]}\n    \
                 - {cidr: \"2001:db8:113::/64\", except: [\"2001:db8:113::17/128\"]}",
            ),
            &[
                "client > outside tcp/8080 = ok",
                "client > outside ping = ok",
                "client > outside2 tcp/8080 = egress 133",
                "client > echo tcp/8080 = egress 133",
            ],
        ),
        case(
            "client-egress-to-cidr-deny",
            allow_all()
                + &about(
                    "client",
                    "  egressDeny:\n  - toCIDRSet:\n    - {cidr: 203.0.113.0/24, except: [203.0.113.17/32]}\n    \
                     - {cidr: \"2001:db8:113::/64\", except: [\"2001:db8:113::17/128\"]}",
                ),
            &[
                "client > outside tcp/8080 = egress 181",
                "client > outside2 tcp/8080 = ok",
                "client > echo tcp/8080 = ok",
            ],
        ),
        case(
            "client-egress-to-cidr-deny-default",
            about(
                "client",
                "  egressDeny:\n  - toCIDRSet:\n    - {cidr: 203.0.113.0/24, except: [203.0.113.17/32]}\n    \
                 - {cidr: \"2001:db8:113::/64\", except: [\"2001:db8:113::17/128\"]}",
            ),
            &[
                "client > outside tcp/8080 = egress 181",
                "client > outside2 tcp/8080 = egress 133",
            ],
        ),
        case(
            "client-egress-to-cidrgroup-deny",
            allow_all()
                + GROUP
                + &about(
                    "client",
                    "  egressDeny:\n  - toCIDRSet: [{cidrGroupRef: partners}]",
                ),
            &[
                "client > outside tcp/8080 = egress 181",
                "client > outside2 tcp/8080 = ok",
            ],
        ),
        case(
            "client-egress-to-cidrgroup-deny-by-label",
            allow_all()
                + GROUP
                + &about(
                    "client",
                    "  egressDeny:\n  - toCIDRSet: [{cidrGroupSelector: {matchLabels: {tier: a}}}]",
                ),
            &[
                "client > outside tcp/8080 = egress 181",
                "client > outside2 tcp/8080 = ok",
            ],
        ),
        case(
            "cidrgroup-allow",
            GROUP.to_owned()
                + &about(
                    "client",
                    "  egress:\n  - toCIDRSet: [{cidrGroupRef: partners}]",
                ),
            &[
                "client > outside tcp/8080 = ok",
                "client > outside2 tcp/8080 = egress 133",
            ],
        ),
        case(
            "from-cidr",
            about(
                "echo",
                "  ingress:\n  - fromCIDR: [203.0.113.10/32, \"2001:db8:113::10/128\", 10.0.0.0/8, \
                 \"fd00::/8\"]",
            ),
            &[
                "outside > echo tcp/8080 = ok",
                "outside2 > echo tcp/8080 = ingress 133",
                // A prefix never means a workload.
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "a-whole-family-is-that-family",
            about("client", "  egress:\n  - toCIDR: [0.0.0.0/0]"),
            &[
                "4: client > outside tcp/8080 = ok",
                "6: client > outside tcp/8080 = egress 133",
                "client > host tcp/8080 = egress 133",
                "client > echo tcp/8080 = egress 133",
            ],
        ),
    ]
}

fn entities() -> Vec<Case> {
    vec![
        case(
            "to-entities-world",
            about(
                "client",
                "  egress:\n  - toEntities: [world]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "client > outside tcp/8080 = ok",
                "client > outside tcp/8081 = egress 133",
                "client > echo tcp/8080 = egress 133",
                "client > host tcp/8080 = egress 133",
                "client > remote tcp/8080 = egress 133",
            ],
        ),
        case(
            "from-entities-world",
            about("echo", "  ingress:\n  - fromEntities: [world]"),
            &[
                "outside > echo tcp/8080 = ok",
                "4: nodeport > echo tcp/30080 = ok",
                "remote > echo tcp/8080 = ingress 133",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "from-one-family-of-the-world",
            about("echo", "  ingress:\n  - fromCIDR: [\"::/0\"]"),
            &[
                "6: outside > echo tcp/8080 = ok",
                "4: outside > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "cluster-entity",
            about("client", "  egress:\n  - toEntities: [cluster]"),
            &[
                "client > echo tcp/8080 = ok",
                "client > other tcp/8080 = ok",
                "client > host tcp/8080 = ok",
                "client > remote tcp/8080 = ok",
                "4: client > far tcp/8080 = ok",
                "client > outside tcp/8080 = egress 133",
            ],
        ),
        case(
            "host-entity-egress",
            about("client", "  egress:\n  - toEntities: [host]"),
            &[
                "client > host tcp/8080 = ok",
                "client > remote tcp/8080 = egress 133",
                "client > echo tcp/8080 = egress 133",
            ],
        ),
        case(
            "host-entity-ingress",
            about("echo", "  ingress:\n  - fromEntities: [host]"),
            &[
                "host > echo tcp/8080 = ok",
                // What was translated on its way has a node's address, and is not the node.
                "4: nodeport > echo tcp/30080 = ingress 133",
                "remote > echo tcp/8080 = ingress 133",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "host-entity-ingress-deny",
            allow_all() + &about("echo", "  ingressDeny:\n  - fromEntities: [host]"),
            &[
                "host > echo tcp/8080 = ingress 181",
                "remote > echo tcp/8080 = ok",
                "client > echo tcp/8080 = ok",
            ],
        ),
        case(
            "remote-node",
            about("client", "  egress:\n  - toEntities: [remote-node]"),
            &[
                "client > remote tcp/8080 = ok",
                "client > host tcp/8080 = egress 133",
                "client > outside tcp/8080 = egress 133",
            ],
        ),
        case(
            "kube-apiserver",
            about("client", "  egress:\n  - toEntities: [kube-apiserver]"),
            &[
                "client > api tcp/8080 = ok",
                "client > outside tcp/8080 = egress 133",
            ],
        ),
        case(
            "kube-apiserver-deny",
            allow_all() + &about("client", "  egressDeny:\n  - toEntities: [kube-apiserver]"),
            &[
                "client > api tcp/8080 = egress 181",
                "client > outside tcp/8080 = ok",
            ],
        ),
        case(
            "health",
            about("echo", "  ingress:\n  - fromEntities: [health]"),
            &[
                "4: health > echo tcp/8080 = ok",
                "4: ingress > echo tcp/8080 = ingress 133",
                "4: outside > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "ingress",
            about("echo", "  ingress:\n  - fromEntities: [ingress]"),
            &[
                "4: ingress > echo tcp/8080 = ok",
                "4: init > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "init",
            about("echo", "  ingress:\n  - fromEntities: [init]"),
            &[
                "4: init > echo tcp/8080 = ok",
                "4: health > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "unmanaged",
            about("echo", "  ingress:\n  - fromEntities: [unmanaged]"),
            &[
                "stray > echo tcp/8080 = ok",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "all-entities-deny",
            about("client", "  egressDeny:\n  - toEntities: [all]"),
            &[
                "client > echo tcp/8080 = egress 181",
                "client > outside tcp/8080 = egress 181",
                "client > host ping = egress 181",
            ],
        ),
    ]
}

fn nodes_and_services() -> Vec<Case> {
    vec![
        case(
            "to-nodes-by-label",
            about(
                "client",
                "  egress:\n  - toNodes: [{matchLabels: {role: worker}}]",
            ),
            &[
                "client > remote tcp/8080 = ok",
                "client > outside tcp/8080 = egress 133",
            ],
        ),
        case(
            "to-nodes-of-another-label",
            about(
                "client",
                "  egress:\n  - toNodes: [{matchLabels: {role: storage}}]",
            ),
            &["client > remote tcp/8080 = egress 133"],
        ),
        case(
            "service-by-its-backend",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{matchLabels: {name: echo}}]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "4: client > service tcp/80 = ok",
                "4: client > echo tcp/8080 = ok",
                // The service's own port is not what its backends listen on.
                "4: client > service tcp/81 = egress 133",
            ],
        ),
        case(
            "service-port-instead-of-target-port",
            about(
                "client",
                "  egress:\n  - toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]",
            ),
            &["4: client > service tcp/80 = egress 133"],
        ),
        case(
            "service-with-mixed-backends",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{matchLabels: {name: echo}}]",
            ),
            &[
                "4: client > service tcp/80 = ok",
                "4: client > mixed tcp/80 = egress 248",
            ],
        ),
        case(
            "service-with-denied-backend",
            allow_all()
                + &about(
                    "client",
                    "  egressDeny:\n  - toEndpoints: [{matchLabels: {name: echo}}]",
                ),
            &["4: client > service tcp/80 = egress 181"],
        ),
        case(
            "to-services",
            about(
                "client",
                "  egress:\n  - toServices: [{k8sService: {serviceName: git, namespace: test}}]",
            ),
            &[
                "4: client > service tcp/80 = ok",
                "client > echo tcp/8080 = ok",
                "client > other tcp/8080 = egress 133",
            ],
        ),
        case(
            "a-prefix-does-not-mean-a-service",
            about("client", "  egress:\n  - toCIDR: [10.96.0.0/12]"),
            &["4: client > service tcp/80 = egress 133"],
        ),
    ]
}

fn deny() -> Vec<Case> {
    vec![
        case(
            "echo-ingress-from-other-client-deny",
            allow_all()
                + &about(
                    "echo",
                    "  ingressDeny:\n  - fromEndpoints: [{matchLabels: {name: client2}}]\n    \
                     toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
                ),
            &[
                "client2 > echo tcp/8080 = ingress 181",
                "client2 > echo tcp/8081 = ok",
                "client > echo tcp/8080 = ok",
            ],
        ),
        case(
            "client-egress-to-echo-deny",
            allow_all()
                + &about(
                    "client",
                    "  egressDeny:\n  - toEndpoints: [{matchLabels: {name: echo}}]\n    \
                     toPorts: [{ports: [{port: \"8080\", endPort: 8090, protocol: TCP}]}]",
                ),
            &[
                "client > echo tcp/8080 = egress 181",
                "client > echo tcp/8090 = egress 181",
                "client > echo tcp/8091 = ok",
                "client > outside tcp/8080 = ok",
            ],
        ),
        case(
            "a-wide-deny-beats-a-narrow-allow",
            about(
                "client",
                "  egress:\n  - toCIDR: [203.0.113.10/32, \"2001:db8:113::10/128\"]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]\n  \
                 egressDeny:\n  - toCIDR: [0.0.0.0/0, \"::/0\"]",
            ),
            &["client > outside tcp/8080 = egress 181"],
        ),
        case(
            "client-egress-to-echo-service-account-deny",
            allow_all()
                + &about(
                    "client",
                    "  egressDeny:\n  - toEndpoints: \
                     [{matchLabels: {io.cilium.k8s.policy.serviceaccount: echo}}]",
                ),
            &[
                "client > echo tcp/8080 = egress 181",
                "client > client2 tcp/8080 = ok",
            ],
        ),
    ]
}

fn kubernetes() -> Vec<Case> {
    vec![
        case(
            "client-ingress-knp",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: client}}\n  policyTypes: [Ingress]\n  \
                 ingress: [{from: [{podSelector: {matchLabels: {name: client2}}}]}]",
            ),
            &[
                "client2 > client tcp/8080 = ok",
                "echo > client tcp/8080 = ingress 133",
                "client > echo tcp/8080 = ok",
            ],
        ),
        case(
            "all-ingress-deny-knp",
            knp("row", "  podSelector: {}\n  policyTypes: [Ingress]"),
            &[
                "client > echo tcp/8080 = ingress 133",
                "host > echo tcp/8080 = ok",
                "client > outside tcp/8080 = ok",
            ],
        ),
        case(
            "all-egress-deny-knp",
            knp("row", "  podSelector: {}\n  policyTypes: [Egress]"),
            &[
                "client > echo tcp/8080 = egress 133",
                "client > outside tcp/8080 = egress 133",
                "outside > echo tcp/8080 = ok",
            ],
        ),
        case(
            "client-egress-knp-port-range",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: client}}\n  policyTypes: [Egress]\n  \
                 egress: [{to: [{podSelector: {matchLabels: {kind: echo}}}], \
                 ports: [{port: 8080, endPort: 8090, protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8090 = ok",
                "client > echo tcp/8091 = egress 133",
                "client > other tcp/8080 = egress 133",
            ],
        ),
        case(
            "to-cidr-external-knp",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: client}}\n  policyTypes: [Egress]\n  \
                 egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.17/32]}}]}]",
            ),
            &[
                "4: client > outside tcp/8080 = ok",
                "4: client > outside2 tcp/8080 = egress 133",
                "6: client > outside tcp/8080 = egress 133",
            ],
        ),
        case(
            "namespaces-knp",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: echo}}\n  policyTypes: [Ingress]\n  \
                 ingress: [{from: [{namespaceSelector: {matchLabels: {team: others}}}]}]",
            ),
            &[
                "other > echo tcp/8080 = ok",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "named-port-knp",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: echo}}\n  policyTypes: [Ingress]\n  \
                 ingress: [{ports: [{port: http-8080}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "outside > echo tcp/8080 = ok",
                "client > echo tcp/8081 = ingress 133",
            ],
        ),
    ]
}

const SUBJECT: &str =
    "  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: test}}}\n";

fn tiers() -> Vec<Case> {
    let echo_accepts_client2 = || {
        about(
            "echo",
            "  ingress:\n  - fromEndpoints: [{matchLabels: {name: client2}}]",
        )
    };
    let from = |tier: &str, action: &str| {
        kcnp(
            "row",
            &format!(
                "  tier: {tier}\n  priority: 10\n{SUBJECT}  ingress:\n  - name: one\n    action: \
                 {action}\n    from: [{{pods: {{namespaceSelector: {{}}, podSelector: \
                 {{matchLabels: {{kind: client}}}}}}}}]"
            ),
        )
    };
    vec![
        case(
            "admin-deny",
            echo_accepts_client2() + &from("Admin", "Deny"),
            &[
                "client2 > echo tcp/8080 = ingress 181",
                "client > echo tcp/8080 = ingress 181",
            ],
        ),
        case(
            "admin-accept",
            echo_accepts_client2() + &from("Admin", "Accept"),
            &[
                "client > echo tcp/8080 = ok",
                "other > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "admin-pass",
            echo_accepts_client2() + &from("Admin", "Pass"),
            &[
                "client2 > echo tcp/8080 = ok",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "baseline-deny",
            from("Baseline", "Deny"),
            &[
                "client > echo tcp/8080 = ingress 181",
                "outside > echo tcp/8080 = ok",
            ],
        ),
        case(
            "baseline-deny-below-a-policy",
            echo_accepts_client2() + &from("Baseline", "Deny"),
            &[
                "client2 > echo tcp/8080 = ok",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "admin-egress-networks",
            kcnp(
                "row",
                &format!(
                    "  tier: Admin\n  priority: 10\n{SUBJECT}  egress:\n  - name: one\n    action: \
                     Deny\n    to: [{{networks: [203.0.113.0/24, \"2001:db8:113::/64\"]}}]"
                ),
            ),
            &[
                "client > outside tcp/8080 = egress 181",
                "client > echo tcp/8080 = ok",
            ],
        ),
    ]
}

fn modes() -> Vec<Case> {
    vec![
        case(
            "deny-without-default-deny",
            about(
                "client",
                "  enableDefaultDeny: {egress: false}\n  egressDeny:\n  - toEntities: [host]",
            ),
            &[
                "client > host tcp/8080 = egress 181",
                "client > outside tcp/8080 = ok",
            ],
        ),
        case(
            "allow-without-default-deny",
            about(
                "client",
                "  enableDefaultDeny: {egress: false}\n  egress:\n  - toEntities: [host]",
            ),
            &[
                "client > host tcp/8080 = ok",
                "client > outside tcp/8080 = ok",
            ],
        ),
        // Nobody here can look inside, so nothing passes that only an L7 rule would let.
        case(
            "echo-ingress-l7",
            about(
                "echo",
                "  ingress:\n  - fromEndpoints: [{matchLabels: {name: client2}}]\n    toPorts: \
                 [{ports: [{port: \"8080\", protocol: TCP}], rules: {http: [{method: GET, path: /public}]}}]",
            ),
            &[
                "client2 > echo tcp/8080 = ingress 247",
                "client > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "client-egress-tls-sni",
            about(
                "client",
                "  egress:\n  - toPorts: \
                 [{ports: [{port: \"8080\", protocol: TCP}], serverNames: [example.test]}]",
            ),
            &[
                "client > outside tcp/8080 = egress 247",
                "client > outside tcp/8081 = egress 133",
            ],
        ),
        case(
            "an-empty-peer-selects-nobody",
            about(
                "client",
                "  egress:\n  - toEndpoints: []\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &["client > echo tcp/8080 = egress 133"],
        ),
    ]
}
