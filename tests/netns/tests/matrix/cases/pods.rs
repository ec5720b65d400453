//! Whole policies and peers by label.
//!
//! In:  nothing.
//! Out: rows of the matrix.
//! Not here: the form of a row (`super`).

use super::{Case, about, case, ccnp, cnp};

pub(super) fn open() -> Vec<Case> {
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

pub(super) fn pods() -> Vec<Case> {
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
            "client-with-service-account-egress-to-echo-port-range",
            cnp(
                "row",
                "  endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: client}}\n  \
                 egress:\n  - toEndpoints: [{matchLabels: {kind: echo}}]\n    \
                 toPorts: [{ports: [{port: \"8080\", endPort: 8090, protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8090 = ok",
                "client > echo tcp/8091 = egress 133",
                "client2 > echo tcp/8091 = ok",
            ],
        ),
        case(
            "client-egress-to-echo-service-account-port-range",
            about(
                "client",
                "  egress:\n  - toEndpoints: \
                 [{matchLabels: {io.cilium.k8s.policy.serviceaccount: echo}}]\n    \
                 toPorts: [{ports: [{port: \"8080\", endPort: 8090, protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo tcp/8091 = egress 133",
                "client > client2 tcp/8080 = egress 133",
            ],
        ),
        case(
            "policy-local-cluster-egress",
            about(
                "client",
                "  egress:\n  - toEndpoints: [{matchLabels: {name: abroad}}, {matchLabels: {name: far}}]",
            ),
            &[
                "4: client > far tcp/8080 = ok",
                "4: client > abroad tcp/8080 = egress 133",
            ],
        ),
        case(
            "another-cluster-by-its-name",
            about(
                "client",
                "  egress:\n  - toEndpoints: \
                 [{matchLabels: {name: abroad, io.cilium.k8s.policy.cluster: west}}]",
            ),
            &[
                "4: client > abroad tcp/8080 = ok",
                "4: client > far tcp/8080 = egress 133",
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
