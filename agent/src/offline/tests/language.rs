//! Every part of the policy language once, through files to a verdict.

use super::{PODS, cnp, outcomes, short, verdicts};

const YES: &str = "FORWARDED";
const NO: &str = "DROPPED";

/// Verdict, reason and match of the egress of every flow.
fn egress(world: &str, policies: &str, flows: &str) -> Vec<String> {
    let outcomes = outcomes(world, policies, flows);
    outcomes.iter().map(|o| short(o.egress.as_ref())).collect()
}

#[test]
fn deny_rules_win_and_have_a_reason_of_their_own() {
    let policies = cnp(
        "open",
        "{endpointSelector: {matchLabels: {app: a}}, egress: [{toEntities: [all]}]}",
    ) + &cnp(
        "shut",
        "{endpointSelector: {matchLabels: {app: a}}, egressDeny: [{toCIDRSet: [{cidr: 203.0.113.0/24, except: [203.0.113.9/32]}]}, \
         {toPorts: [{ports: [{port: '22', protocol: TCP}]}]}]}",
    );
    let flows = "
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 443}
- {from: ci/a, to: 203.0.113.9, protocol: TCP, port: 443}
- {from: ci/a, to: ci/b, protocol: TCP, port: 22}
- {from: ci/a, to: ci/b, protocol: TCP, port: 23}
";
    assert_eq!(
        egress(PODS, &policies, flows),
        [
            "DROPPED 181 L3-only",
            "FORWARDED 0 all",
            "DROPPED 181 L4-only",
            "FORWARDED 0 all"
        ]
    );
    let found = outcomes(PODS, &policies, flows);
    let rules = &found[0].egress.as_ref().unwrap().rules;
    assert_eq!(rules[..], ["CiliumNetworkPolicy/ci/shut"]);
    // By itself a deny rule closes everything else too.
    let only = policies.split("---\n").last().unwrap();
    assert_eq!(egress(PODS, only, flows)[1], "DROPPED 133 none");
}

#[test]
fn named_ports_are_those_of_the_receiving_side() {
    let world = "
endpoints:
- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1], ports: [{name: web, port: 8080}]}
- {name: b, namespace: ci, labels: {app: b}, ips: [10.0.0.2], ports: [{name: web, port: 9090}]}
- {name: c1, namespace: ci, labels: {app: c}, ips: [10.0.0.3], ports: [{name: web, port: 1000}]}
- {name: c2, namespace: ci, labels: {app: c}, ips: [10.0.0.4], ports: [{name: web, port: 2000}]}
";
    let policies = cnp(
        "web",
        "{endpointSelector: {}, egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: web, protocol: TCP}]}]}], \
         ingress: [{toPorts: [{ports: [{port: web, protocol: TCP}]}]}]}",
    );
    let flows = "
- {from: ci/a, to: ci/b, protocol: TCP, port: 9090}
- {from: ci/a, to: ci/b, protocol: TCP, port: 8080}
- {from: ci/b, to: ci/a, protocol: TCP, port: 8080}
- {from: ci/a, to: ci/c1, protocol: TCP, port: 1000}
";
    // Two pods of one identity that disagree: nobody can tell which is meant.
    assert_eq!(verdicts(world, &policies, flows), [YES, NO, YES, NO]);
}

#[test]
fn services_groups_and_nodes_are_what_the_world_says() {
    let world = "
nodes:
- {name: n1, local: true, ips: [192.0.2.1], labels: {role: worker}}
- {name: n2, ips: [192.0.2.2], labels: {role: worker}}
- {name: n3, ips: [192.0.2.3], labels: {role: control-plane}}
endpoints:
- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1]}
- {name: web, namespace: ci, labels: {app: web}, ips: [10.0.0.2]}
services:
- {name: web, namespace: ci, labels: {kind: front}, ips: [10.96.0.1], ports: [{port: 80, targetPort: 8080}], backends: [ci/web]}
- {name: far, namespace: ci, ips: [10.96.0.2], ports: [{port: 443}], backends: [203.0.113.1]}
cidrGroups:
- {name: partners, labels: {tier: a}, cidrs: [198.51.100.0/24]}
";
    let flows = "
- {from: ci/a, to: 10.96.0.1, protocol: TCP, port: 80}
- {from: ci/a, to: ci/web, protocol: TCP, port: 9}
- {from: ci/a, to: 10.96.0.2, protocol: TCP, port: 443}
- {from: ci/a, to: 203.0.113.2, protocol: TCP, port: 443}
- {from: ci/a, to: 198.51.100.7, protocol: TCP, port: 443}
- {from: ci/a, to: node/n1, protocol: TCP, port: 443}
- {from: ci/a, to: node/n2, protocol: TCP, port: 443}
- {from: ci/a, to: node/n3, protocol: TCP, port: 443}
";
    for (rule, expected) in [
        (
            "toServices: [{k8sService: {serviceName: web, namespace: ci}}]",
            [YES, YES, NO, NO, NO, NO, NO, NO],
        ),
        (
            "toServices: [{k8sServiceSelector: {selector: {matchLabels: {kind: front}}}}]",
            [YES, YES, NO, NO, NO, NO, NO, NO],
        ),
        // What is behind it outside of the cluster is that address, not the world.
        (
            "toServices: [{k8sService: {serviceName: far}}]",
            [NO, NO, YES, NO, NO, NO, NO, NO],
        ),
        ("toServices: [{k8sService: {serviceName: none}}]", [NO; 8]),
        (
            "toCIDRSet: [{cidrGroupRef: partners}]",
            [NO, NO, NO, NO, YES, NO, NO, NO],
        ),
        (
            "toCIDRSet: [{cidrGroupSelector: {matchLabels: {tier: a}}}]",
            [NO, NO, NO, NO, YES, NO, NO, NO],
        ),
        ("toCIDRSet: [{cidrGroupRef: others}]", [NO; 8]),
        (
            "toNodes: [{matchLabels: {role: worker}}]",
            [NO, NO, NO, NO, NO, NO, YES, NO],
        ),
        (
            "toEntities: [remote-node]",
            [NO, NO, NO, NO, NO, NO, YES, YES],
        ),
    ] {
        let policy = cnp(
            "p",
            &format!(
                "{{endpointSelector: {{}}, egress: [{{{rule}}}], ingress: [{{fromEntities: [all]}}]}}"
            ),
        );
        assert_eq!(verdicts(world, &policy, flows), expected, "{rule}");
    }
    // A group may also stand beside the policies.
    let group = "---\napiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: others}\n\
        spec: {externalCIDRs: [203.0.113.0/24]}\n";
    let policy = cnp(
        "p",
        "{endpointSelector: {}, egress: [{toCIDRSet: [{cidrGroupRef: others}]}]}",
    );
    let found = verdicts(world, &(policy + group), flows);
    assert_eq!(found[3], YES);
}

#[test]
fn requests_are_judged_by_the_rules_of_their_proxy() {
    let policies = cnp(
        "l7",
        "{endpointSelector: {matchLabels: {app: a}}, egress: [\
         {toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET, path: '/v1/.*', headers: ['X-Token: abc']}]}}]}, \
         {toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: ['*.a.test']}]}, \
         {toPorts: [{ports: [{port: '9092', protocol: TCP}], rules: {kafka: [{role: produce, topic: orders}]}}]}]}",
    );
    let flows = "
- {from: ci/a, to: ci/b, protocol: TCP, port: 80, http: {method: GET, path: /v1/x, headers: {x-token: abc}}}
- {from: ci/a, to: ci/b, protocol: TCP, port: 80, http: {method: GET, path: /v1/x}}
- {from: ci/a, to: ci/b, protocol: TCP, port: 80, http: {method: GET, path: /v2/x, headers: {X-Token: abc}}}
- {from: ci/a, to: ci/b, protocol: TCP, port: 80}
- {from: ci/a, to: ci/b, protocol: TCP, port: 443, sni: api.a.test}
- {from: ci/a, to: ci/b, protocol: TCP, port: 443, sni: {name: a.test}}
- {from: ci/a, to: ci/b, protocol: TCP, port: 9092, kafka: {apiKey: '0', topic: orders}}
- {from: ci/a, to: ci/b, protocol: TCP, port: 9092, kafka: {apiKey: fetch, topic: orders}}
- {from: ci/a, to: ci/b, protocol: TCP, port: 8080, http: {}}
";
    let redirected = "REDIRECTED 0 L4-only";
    let refused = "DROPPED 0 L4-only";
    assert_eq!(
        egress(PODS, &policies, flows),
        [
            redirected,
            refused,
            refused,
            redirected,
            redirected,
            refused,
            redirected,
            refused,
            "DROPPED 133 none"
        ]
    );
    // A plain rule about the port lets every request pass, through the proxy.
    let lifted = policies
        + &cnp(
            "plain",
            "{endpointSelector: {matchLabels: {app: a}}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]}",
        );
    let found = outcomes(PODS, &lifted, flows);
    let second = found[1].egress.as_ref().unwrap();
    assert_eq!(short(Some(second)), redirected);
    assert_eq!(
        second.rules[..],
        ["CiliumNetworkPolicy/ci/l7", "CiliumNetworkPolicy/ci/plain"]
    );
}

#[test]
fn policies_of_kubernetes_and_tiers() {
    let network_policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
        metadata: {name: np, namespace: ci}\nspec:\n  podSelector: {matchLabels: {app: a}}\n  policyTypes: [Egress]\n  \
        egress:\n  - to: [{podSelector: {matchLabels: {app: b}}}, {ipBlock: {cidr: 203.0.113.0/24}}]\n    ports: [{port: 80}]\n";
    let flows = "
- {from: ci/a, to: ci/b, protocol: TCP, port: 80}
- {from: ci/a, to: ci/b, protocol: UDP, port: 80}
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 80}
- {from: ci/a, to: 198.51.100.1, protocol: TCP, port: 80}
";
    assert_eq!(
        egress(PODS, network_policy, flows),
        [
            "FORWARDED 0 L3-L4",
            "DROPPED 133 none",
            "FORWARDED 0 L3-L4",
            "DROPPED 133 none"
        ]
    );
    let tier = |tier: &str, action: &str| {
        format!(
            "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
             metadata: {{name: {}}}\nspec:\n  tier: {tier}\n  priority: 10\n  subject: {{namespaces: {{}}}}\n  \
             egress:\n  - {{action: {action}, to: [{{networks: [0.0.0.0/0]}}]}}\n",
            action.to_lowercase()
        )
    };
    let denied = network_policy.to_owned() + &tier("Admin", "Deny");
    assert_eq!(egress(PODS, &denied, flows)[0], "DROPPED 181 L3-only");
    let accepted = network_policy.to_owned() + &tier("Admin", "Accept");
    assert_eq!(verdicts(PODS, &accepted, flows), [YES; 4]);
    let passed = network_policy.to_owned() + &tier("Admin", "Pass");
    assert_eq!(verdicts(PODS, &passed, flows), [YES, NO, YES, NO]);
    // The baseline speaks where no policy of a namespace does.
    assert_eq!(verdicts(PODS, &tier("Baseline", "Deny"), flows), [NO; 4]);
    let overruled = network_policy.to_owned() + &tier("Baseline", "Accept");
    assert_eq!(verdicts(PODS, &overruled, flows), [YES, NO, YES, NO]);
}

#[test]
fn rules_that_contradict_each_other_are_an_error() {
    use crate::policies::Loaded;
    let policies = cnp(
        "both",
        "{endpointSelector: {}, egress: [\
         {toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}, \
         {toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {kafka: [{topic: a}]}}]}]}",
    );
    let parsed = policy::parse::documents("p.yaml", &policies).unwrap();
    let loaded = Loaded {
        policies: parsed.policies,
        ..Loaded::default()
    };
    let world = super::facts::text("w.yaml", PODS).unwrap();
    let flows: super::super::Sourced<super::Flows> = super::facts::text(
        "f.yaml",
        "- {from: ci/a, to: ci/b, protocol: TCP, port: 80}\n",
    )
    .unwrap();
    let flows = flows.with(flows.value.0.clone());
    let error = super::judge(&world, &loaded, &flows, super::Options::default()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("p.yaml:5") && text.contains("cannot be read as both"),
        "{text}"
    );
}
