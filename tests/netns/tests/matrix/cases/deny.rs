//! Deny rules, default deny, and what only an L7 rule would allow.
//!
//! In:  nothing.
//! Out: rows of the matrix.
//! Not here: the form of a row (`super`).

use super::{Case, about, allow_all, case, cnp};

pub(super) fn deny() -> Vec<Case> {
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
            "client-egress-to-echo-expression-deny",
            allow_all()
                + &about(
                    "client",
                    "  egressDeny:\n  - toEndpoints: [{matchExpressions: \
                     [{key: kind, operator: In, values: [echo]}]}]",
                ),
            &[
                "client > echo tcp/8080 = egress 181",
                "client > client2 tcp/8080 = ok",
                "client > outside tcp/8080 = ok",
            ],
        ),
        case(
            "client-egress-to-echo-expression-deny-port-range",
            allow_all()
                + &about(
                    "client",
                    "  egressDeny:\n  - toEndpoints: [{matchExpressions: \
                     [{key: kind, operator: In, values: [echo]}]}]\n    \
                     toPorts: [{ports: [{port: \"8080\", endPort: 8090, protocol: TCP}]}]",
                ),
            &[
                "client > echo tcp/8081 = egress 181",
                "client > echo tcp/8091 = ok",
            ],
        ),
        case(
            "client-with-service-account-egress-to-echo-deny-port-range",
            allow_all()
                + &cnp(
                    "row",
                    "  endpointSelector: \
                     {matchLabels: {io.cilium.k8s.policy.serviceaccount: client}}\n  \
                     egressDeny:\n  - toEndpoints: [{matchLabels: {name: echo}}]\n    \
                     toPorts: [{ports: [{port: \"8080\", endPort: 8090, protocol: TCP}]}]",
                ),
            &[
                "client > echo tcp/8090 = egress 181",
                "client > echo tcp/8091 = ok",
                "client2 > echo tcp/8090 = ok",
            ],
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

pub(super) fn modes() -> Vec<Case> {
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
            "echo-ingress-l7-named-port",
            about(
                "echo",
                "  ingress:\n  - fromEndpoints: [{matchLabels: {name: client2}}]\n    toPorts: \
                 [{ports: [{port: http-8080, protocol: TCP}], rules: {http: [{method: GET, path: /public}]}}]",
            ),
            &[
                "client2 > echo tcp/8080 = ingress 247",
                "client2 > echo tcp/8081 = ingress 133",
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
