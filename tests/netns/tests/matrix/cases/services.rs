//! Nodes by label and services by their backends.
//!
//! In:  nothing.
//! Out: rows of the matrix.
//! Not here: the form of a row (`super`).

use super::{Case, about, allow_all, case};

pub(super) fn nodes_and_services() -> Vec<Case> {
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
