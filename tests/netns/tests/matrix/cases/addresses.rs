//! Prefixes, groups of them, and entities.
//!
//! In:  nothing.
//! Out: rows of the matrix.
//! Not here: the form of a row (`super`).

use super::{Case, GROUP, about, allow_all, case};

pub(super) fn cidr() -> Vec<Case> {
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
            "pod-to-node-cidrpolicy",
            // Nodes have labels and entities; a prefix means none of them unless Cilium is told otherwise.
            about(
                "client",
                "  egress:\n  - toCIDR: [198.51.100.0/24, \"2001:db8:ffff::/64\"]",
            ),
            &[
                "client > remote tcp/8080 = egress 133",
                "client > host tcp/8080 = egress 133",
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

pub(super) fn entities() -> Vec<Case> {
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
            "to-entities-world-port-range",
            about(
                "client",
                "  egress:\n  - toEntities: [world]\n    \
                 toPorts: [{ports: [{port: \"8080\", endPort: 8090, protocol: TCP}]}]",
            ),
            &[
                "client > outside tcp/8090 = ok",
                "client > outside tcp/8091 = egress 133",
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
                "4: client > abroad tcp/8080 = egress 133",
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
            "pod-to-controlplane-host",
            about("client", "  egress:\n  - toEntities: [host, remote-node]"),
            &[
                "client > host tcp/8080 = ok",
                "client > remote tcp/8080 = ok",
                "client > outside tcp/8080 = egress 133",
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
