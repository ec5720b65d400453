//! Protocols, ICMP types, ports, ranges and names of ports.
//!
//! In:  nothing.
//! Out: rows of the matrix.
//! Not here: the form of a row (`super`).

use super::{Case, about, allow_all, case};

pub(super) fn icmp_and_protocols() -> Vec<Case> {
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

pub(super) fn ports() -> Vec<Case> {
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
