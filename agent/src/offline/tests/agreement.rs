//! The kernel's function and the explanation of it never contradict each other.

use std::net::IpAddr;

use fqdn_ebpf_common::policy::Action;
use identity::{IdentityId, Label, LabelSet, LocalIdentities, reserved};
use policy::{
    compile::{
        CompileInput, EnforcementMode, Identities, SelectorTable, Surroundings, prefixes_in,
    },
    compiled::{Direction, Outcome, Protocol},
    fqdn::Fqdn,
    parse,
};

use super::super::compiled::{Compiled, Taught};

/// Sections that are put together in every way, three at a time.
const SECTIONS: [&str; 14] = [
    "egress: [{toEndpoints: [{matchLabels: {app: b}}]}]",
    "egress: [{toEndpoints: [{matchLabels: {app: b}}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]",
    "egress: [{toPorts: [{ports: [{port: '64', endPort: 90, protocol: TCP}]}]}]",
    "egress: [{toPorts: [{ports: [{port: '0', protocol: UDP}]}]}]",
    "egress: [{toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchName: a.test}]}}]}]",
    "egress: [{toFQDNs: [{matchName: a.test}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]",
    "egress: [{toFQDNs: [{matchPattern: '*.test'}]}]",
    "egress: [{toCIDRSet: [{cidr: 203.0.113.0/24, except: [203.0.113.128/25]}]}]",
    "egress: [{toEntities: [all]}]",
    "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]}]",
    "egressDeny: [{toEndpoints: [{matchLabels: {app: b}}]}]",
    "egressDeny: [{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]",
    "egressDeny: [{toCIDR: [203.0.113.0/25]}]",
    "enableDefaultDeny: {egress: false}\n  egress: [{toEntities: [world], toPorts: [{ports: [{port: '53', protocol: UDP}]}]}]",
];

fn policies(sections: &[&str]) -> String {
    sections
        .iter()
        .enumerate()
        .map(|(at, section)| {
            format!(
                "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
                 metadata: {{name: p{at}, namespace: ci}}\nspec:\n  endpointSelector: {{}}\n  {section}\n"
            )
        })
        .collect()
}

#[test]
fn what_is_decided_is_what_is_explained() {
    let pod = |app: &str| -> LabelSet {
        [
            Label::k8s("io.kubernetes.pod.namespace", "ci"),
            Label::k8s("app", app),
        ]
        .into_iter()
        .collect()
    };
    let known = [
        (IdentityId::from_raw(256), pod("a")),
        (IdentityId::from_raw(257), pod("b")),
    ];
    let mut judged = 0;
    for (at, first) in SECTIONS.iter().enumerate() {
        for (next, second) in SECTIONS.iter().enumerate().skip(at) {
            for third in SECTIONS.iter().skip(next) {
                let text = policies(&[first, second, third]);
                let parsed = parse::documents("p.yaml", &text).unwrap();
                let around = Surroundings::default();
                let mut locals = LocalIdentities::default();
                let cidrs: Vec<_> = prefixes_in(&parsed.policies, &around)
                    .into_iter()
                    .map(|prefix| (locals.cidr(prefix).unwrap(), prefix))
                    .collect();
                let identities = Identities::new("default", known.clone(), cidrs.clone());
                let input = CompileInput {
                    policies: &parsed.policies,
                    subject: &known[0].1,
                    identities: &identities,
                    mode: EnforcementMode::Default,
                    allow_local_host: true,
                    steer_dns: false,
                };
                let address: IpAddr = "203.0.113.1".parse().unwrap();
                let taught = ["a.test", "b.test"].map(|name| Taught {
                    name: Fqdn::parse(name).unwrap(),
                    addresses: vec![address],
                });
                let compiled = Compiled::new(
                    &input,
                    &around,
                    false,
                    &taught,
                    &mut SelectorTable::default(),
                    &mut locals,
                )
                .unwrap();
                let peers = [reserved::WORLD_IPV4, reserved::HOST, known[1].0]
                    .into_iter()
                    .chain(cidrs.iter().map(|(id, _)| *id));
                for peer in peers.map(|id| compiled.peer(id, address)) {
                    for proto in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                        for port in [22, 53, 64, 80, 90, 91] {
                            let layer = &compiled.enforced;
                            let decided = layer.judge(Direction::Egress, &peer, proto, port).action;
                            let explained = layer
                                .explain(Direction::Egress, &peer, proto, port)
                                .datapath;
                            let expected = match explained {
                                Outcome::AllowedByDefault | Outcome::Allowed => Action::Allow,
                                Outcome::RedirectedDns => Action::RedirectDns,
                                Outcome::Redirected(_) => Action::NeedsProxy,
                                Outcome::NotAllowed | Outcome::Denied => Action::Deny,
                            };
                            assert_eq!(decided, expected, "{peer:?} {port}/{proto}\n{text}");
                            judged += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(judged > 30_000, "{judged}");
}
