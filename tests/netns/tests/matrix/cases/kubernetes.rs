//! Policies of Kubernetes, and the tiers of its cluster-wide ones.
//!
//! In:  nothing.
//! Out: rows of the matrix.
//! Not here: the form of a row (`super`).

use super::{Case, about, case, kcnp, knp};

pub(super) fn kubernetes() -> Vec<Case> {
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
            "echo-ingress-knp",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: echo}}\n  policyTypes: [Ingress]\n  \
                 ingress: [{from: [{podSelector: {matchLabels: {name: client2}}}], \
                 ports: [{port: 8080, protocol: TCP}]}]",
            ),
            &[
                "client2 > echo tcp/8080 = ok",
                "client2 > echo tcp/8081 = ingress 133",
                "client > echo tcp/8080 = ingress 133",
                "outside > echo tcp/8080 = ingress 133",
            ],
        ),
        case(
            "client-egress-knp",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: client}}\n  policyTypes: [Egress]\n  \
                 egress: [{to: [{podSelector: {matchLabels: {kind: echo}}}], \
                 ports: [{port: 8080, protocol: TCP}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo tcp/8081 = egress 133",
                "client > outside tcp/8080 = egress 133",
            ],
        ),
        case(
            "client-egress-expression-knp",
            knp(
                "row",
                "  podSelector: {matchLabels: {name: client}}\n  policyTypes: [Egress]\n  \
                 egress: [{to: [{podSelector: {matchExpressions: \
                 [{key: kind, operator: In, values: [echo]}]}}]}]",
            ),
            &[
                "client > echo tcp/8080 = ok",
                "client > echo ping = ok",
                "client > client2 tcp/8080 = egress 133",
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

pub(super) fn tiers() -> Vec<Case> {
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
            "echo-ingress-from-client-tiered-wildcard-pass-l7",
            kcnp(
                "row",
                &format!(
                    "  tier: Admin\n  priority: 10\n{SUBJECT}  ingress:\n  \
                     - name: one\n    action: Deny\n    from: [{{pods: {{namespaceSelector: {{}}, \
                     podSelector: {{matchLabels: {{name: client2}}}}}}}}]\n  \
                     - name: rest\n    action: Pass\n    from: [{{namespaces: {{}}}}]"
                ),
            ) + &about(
                "echo",
                "  ingress:\n  - fromEndpoints: [{matchLabels: {kind: client}}]\n    toPorts: \
                 [{ports: [{port: \"8080\", protocol: TCP}], rules: {http: [{method: GET, path: /}]}}]",
            ),
            &[
                "client2 > echo tcp/8080 = ingress 181",
                "client > echo tcp/8080 = ingress 247",
                "client > echo tcp/8081 = ingress 133",
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
