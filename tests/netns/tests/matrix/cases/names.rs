//! Rules by name, and what they need of DNS.
//!
//! In:  nothing.
//! Out: rows of the matrix.
//! Not here: the form of a row (`super`); patterns, TTLs, answers (`tests/names.rs` and its neighbours).

use super::{Case, about, case};

/// Questions to the cluster's resolver, about these names.
fn questions(names: &str) -> String {
    format!(
        "  - toEndpoints: [{{matchLabels: {{k8s:io.kubernetes.pod.namespace: kube-system, \
         k8s:k8s-app: kube-dns}}}}]\n    toPorts: [{{ports: [{{port: \"53\", protocol: ANY}}], \
         rules: {{dns: [{names}]}}}}]\n"
    )
}

/// What the client may do besides asking for any name.
fn egress(rules: &str) -> String {
    let any = questions("{matchPattern: \"*\"}");
    about("client", &format!("  egress:\n{any}{rules}"))
}

pub(super) fn names() -> Vec<Case> {
    vec![
        case(
            "dns-only",
            egress(""),
            &[
                "client > example.test dns = ok",
                "client > example.test tcp/8080 = egress 133",
                "client > echo tcp/8080 = egress 133",
                "client > host tcp/8080 = egress 133",
            ],
        ),
        case(
            "dns-of-some-names",
            about(
                "client",
                &format!(
                    "  egress:\n{}",
                    questions("{matchName: example.test}, {matchPattern: \"*.example.test\"}")
                ),
            ),
            &[
                "client > example.test dns = ok",
                "4: client > api.example.test dns = ok",
                "client > other.test dns = refused",
            ],
        ),
        case(
            "to-fqdns",
            egress(
                "  - toFQDNs: [{matchName: example.test}]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "client > example.test tcp/8080 = ok",
                "client > example.test tcp/8081 = egress 133",
                "client > example.test ping = egress 133",
                "client > other.test tcp/8080 = egress 133",
                "client > outside2 tcp/8080 = egress 133",
                // What one workload resolved is nothing to another.
                "client2 > echo tcp/8080 = ok",
            ],
        ),
        case(
            "to-fqdns-by-pattern",
            egress("  - toFQDNs: [{matchPattern: \"*.test\"}]"),
            &[
                "client > example.test tcp/8080 = ok",
                "client > example.test ping = ok",
                "client > other.test tcp/8081 = ok",
                "4: client > api.example.test tcp/8080 = egress 133",
                "client > echo tcp/8080 = egress 133",
            ],
        ),
        case(
            "to-fqdns-beside-a-deny",
            egress(
                "  - toFQDNs: [{matchName: example.test}]\n  \
                 egressDeny:\n  - toCIDR: [203.0.113.0/24, \"2001:db8:113::/64\"]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "client > example.test tcp/8080 = egress 181",
                "client > example.test tcp/8081 = ok",
            ],
        ),
        // Nobody here can look inside, so nothing passes that only an L7 rule would let.
        case(
            "to-fqdns-with-proxy",
            egress(
                "  - toFQDNs: [{matchName: example.test}]\n    toPorts: [{ports: \
                 [{port: \"8080\", protocol: TCP}], rules: {http: [{method: GET, path: /}]}}]",
            ),
            &[
                "client > example.test tcp/8080 = egress 247",
                "client > other.test tcp/8080 = egress 133",
            ],
        ),
        case(
            "client-egress-l7",
            egress(
                "  - toFQDNs: [{matchName: example.test}]\n    toPorts: [{ports: \
                 [{port: \"8080\", protocol: TCP}], rules: {http: [{method: GET, path: /}]}}]\n  \
                 - toEndpoints: [{matchLabels: {kind: echo}}]\n    toPorts: [{ports: \
                 [{port: \"8080\", protocol: TCP}], rules: {http: [{method: GET, path: /}]}}]",
            ),
            &[
                "client > example.test tcp/8080 = egress 247",
                "client > echo tcp/8080 = egress 247",
                "client > echo tcp/8081 = egress 133",
            ],
        ),
        case(
            "to-entities-world",
            egress(
                "  - toEntities: [world]\n    \
                 toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]",
            ),
            &[
                "client > example.test tcp/8080 = ok",
                "client > example.test tcp/8081 = egress 133",
                "client > echo tcp/8080 = egress 133",
            ],
        ),
    ]
}
