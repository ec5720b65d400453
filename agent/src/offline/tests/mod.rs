//! Worlds, modes and forms of flows, each as small as it can be.

mod agreement;
mod language;

use policy::parse;

use super::{Decision, Options, Outcome, Verdict, flow::Flows, judge};
use crate::{
    facts::{self, World},
    policies::Loaded,
};

/// The outcomes of flows, one per line, in a world with policies.
fn outcomes(world: &str, policies: &str, flows: &str) -> Vec<Outcome> {
    let world = facts::text::<World>("world.yaml", world).unwrap();
    let limits = parse::Limits {
        cluster: world.value.config.cluster.clone(),
        ..parse::Limits::default()
    };
    let parsed = parse::bytes("policies.yaml", policies.as_bytes(), &limits).unwrap();
    let policies = Loaded {
        policies: parsed.policies,
        groups: parsed.groups,
        notes: parsed.notes,
    };
    let flows = facts::text::<Flows>("flows.yaml", flows).unwrap();
    let flows = flows.with(flows.value.0.clone());
    judge(&world, &policies, &flows, Options::default()).unwrap()
}

/// Each flow in short: `FORWARDED`, or with what decided, `egress/ingress`.
fn verdicts(world: &str, policies: &str, flows: &str) -> Vec<String> {
    outcomes(world, policies, flows)
        .iter()
        .map(|outcome| outcome.verdict.to_string())
        .collect()
}

/// One direction in short: `DROPPED 133 none`.
fn short(decision: Option<&Decision>) -> String {
    decision.map_or_else(
        || "-".to_owned(),
        |d| format!("{} {} {}", d.verdict, d.reason, d.match_type),
    )
}

const PODS: &str = "
endpoints:
- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1, 'fd00::1']}
- {name: b, namespace: ci, labels: {app: b}, ips: [10.0.0.2]}
- {name: six, namespace: ci, labels: {app: six}, ips: ['fd00::6']}
";

fn cnp(name: &str, spec: &str) -> String {
    cnp_in("ci", name, spec)
}

fn cnp_in(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn the_mode_decides_about_endpoints_without_a_policy() {
    let flows = "
- {from: ci/a, to: ci/b, protocol: TCP, port: 80}
- {from: 203.0.113.1, to: ci/a, protocol: TCP, port: 80}
";
    let closed = cnp(
        "closed",
        "{endpointSelector: {}, egress: [{}], ingress: [{}]}",
    );
    for (mode, policies, expected) in [
        ("default", "", ["FORWARDED", "FORWARDED"]),
        ("default", &*closed, ["DROPPED", "DROPPED"]),
        ("always", "", ["DROPPED", "DROPPED"]),
        ("never", &*closed, ["FORWARDED", "FORWARDED"]),
    ] {
        let world = format!("config: {{policyEnforcementMode: {mode}}}\n{PODS}");
        assert_eq!(verdicts(&world, policies, flows), expected, "{mode}");
    }
}

#[test]
fn audit_mode_lets_through_what_it_names() {
    let world = format!("config: {{policyAuditMode: true}}\n{PODS}");
    let policies = cnp(
        "web",
        "{endpointSelector: {matchLabels: {app: a}}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}, \
         {toPorts: [{ports: [{port: '53', protocol: UDP}], rules: {dns: [{matchName: a.test}]}}]}]}",
    );
    let outcomes = outcomes(
        &world,
        &policies,
        "
- {from: ci/a, to: ci/b, protocol: TCP, port: 80}
- {from: ci/a, to: ci/b, protocol: TCP, port: 81}
- {from: ci/a, to: ci/b, protocol: UDP, port: 53, dns: {name: a.test}}
- {from: ci/a, to: ci/b, protocol: UDP, port: 53, dns: {name: b.test}}
",
    );
    let found: Vec<_> = outcomes
        .iter()
        .map(|o| (o.verdict, short(o.egress.as_ref())))
        .collect();
    assert_eq!(
        found,
        [
            (Verdict::Forwarded, "FORWARDED 0 L4-only".into()),
            (Verdict::Audit, "AUDIT 0 none".into()),
            (Verdict::Redirected, "REDIRECTED 0 L4-only".into()),
            (Verdict::Audit, "AUDIT 0 L4-only".into()),
        ]
    );
    let text = &outcomes[1].egress.as_ref().unwrap().reason_text;
    assert_eq!(text, "audit lets it through: Policy denied");
}

/// A policy in audit refuses nothing and is named; one that is enforced beside it still refuses.
#[test]
fn one_policy_in_audit_is_watched_and_the_others_are_enforced() {
    let watched = cnp(
        "watched",
        "{endpointSelector: {matchLabels: {app: a}}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}], \
         egressDeny: [{toPorts: [{ports: [{port: '82', protocol: TCP}]}]}]}",
    )
    .replace(
        "metadata: {",
        "metadata: {annotations: {namegate.io/mode: audit}, ",
    );
    assert!(watched.contains("namegate.io/mode"), "{watched}");
    let fence = cnp(
        "fence",
        "{endpointSelector: {matchLabels: {app: a}}, enableDefaultDeny: {egress: false}, \
         egressDeny: [{toPorts: [{ports: [{port: '83', protocol: TCP}]}]}]}",
    );
    let outcomes = outcomes(
        PODS,
        &(watched + &fence),
        "
- {from: ci/a, to: ci/b, protocol: TCP, port: 80}
- {from: ci/a, to: ci/b, protocol: TCP, port: 81}
- {from: ci/a, to: ci/b, protocol: TCP, port: 82}
- {from: ci/a, to: ci/b, protocol: TCP, port: 83}
",
    );
    let found: Vec<_> = outcomes
        .iter()
        .map(|o| {
            let egress = o.egress.as_ref().unwrap();
            (o.verdict, egress.reason, egress.rules.join(" "))
        })
        .collect();
    assert_eq!(
        found,
        [
            (Verdict::Forwarded, 0, String::new()),
            (Verdict::Audit, 0, String::new()),
            (Verdict::Audit, 0, "CiliumNetworkPolicy/ci/watched".into()),
            (Verdict::Dropped, 181, "CiliumNetworkPolicy/ci/fence".into()),
        ]
    );
    let text = &outcomes[1].egress.as_ref().unwrap().reason_text;
    assert_eq!(
        text,
        "audit lets it through: Policy denied by CiliumNetworkPolicy/ci/watched"
    );
}

#[test]
fn the_family_is_the_first_both_ends_have() {
    let policies = cnp(
        "v6",
        "{endpointSelector: {}, egress: [{toCIDR: ['2001:db8::/32']}, {toEndpoints: [{}], icmps: [{fields: [{family: IPv6, type: 128}]}]}]}",
    );
    let flows = "
- {from: ci/a, to: '2001:db8::9', protocol: TCP, port: 80}
- {from: ci/a, to: 203.0.113.9, protocol: TCP, port: 80}
- {from: ci/a, to: ci/six, protocol: ICMPv6}
- {from: ci/a, to: ci/b, protocol: ICMP}
- {from: ci/six, to: '2001:db8::9', protocol: UDP, port: 443}
- {from: ci/a, to: '::ffff:203.0.113.9', protocol: TCP, port: 80}
";
    assert_eq!(
        verdicts(PODS, &policies, flows),
        [
            "FORWARDED",
            "DROPPED",
            "FORWARDED",
            "DROPPED",
            "FORWARDED",
            "DROPPED"
        ]
    );
}

#[test]
fn an_address_is_whoever_it_belongs_to() {
    let world = format!(
        "{PODS}nodes: [{{name: n1, local: true, ips: [192.0.2.1]}}, {{name: n2, ips: [192.0.2.2]}}]\n"
    );
    let policies = cnp(
        "subnets",
        "{endpointSelector: {matchLabels: {app: a}}, egress: [{toCIDR: [10.0.0.0/8, 192.0.2.0/24]}, {toEndpoints: [{matchLabels: {app: six}}]}]}",
    );
    // A CIDR rule is about neither pods nor nodes.
    let flows = "
- {from: ci/a, to: 10.0.0.2, protocol: TCP, port: 80}
- {from: ci/a, to: 10.9.9.9, protocol: TCP, port: 80}
- {from: ci/a, to: 192.0.2.2, protocol: TCP, port: 80}
- {from: ci/a, to: 192.0.2.3, protocol: TCP, port: 80}
- {from: 10.0.0.1, to: 'fd00::6', protocol: TCP, port: 80}
";
    let error = {
        let world = facts::text::<World>("w", &world).unwrap();
        let flows = facts::text::<Flows>("f", flows).unwrap();
        let flows = flows.with(flows.value.0.clone());
        judge(&world, &Loaded::default(), &flows, Options::default())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error,
        "f:6:24: flows[4].to: `10.0.0.1` and `fd00::6` have no addresses of a common family"
    );
    let flows = flows.replace("- {from: 10.0.0.1, to", "- {from: 'fd00::1', to");
    let outcomes = outcomes(&world, &policies, &flows);
    let found: Vec<_> = outcomes.iter().map(|o| o.verdict.to_string()).collect();
    assert_eq!(
        found,
        ["DROPPED", "FORWARDED", "DROPPED", "FORWARDED", "FORWARDED"]
    );
    assert!(outcomes[0].ingress.is_some() && outcomes[1].ingress.is_none());
}

#[test]
fn a_pod_on_another_node_has_another_host() {
    let world = "
nodes: [{name: n1, local: true, ips: [192.0.2.1]}, {name: n2, ips: [192.0.2.2]}, {name: n3, ips: [192.0.2.3]}]
endpoints:
- {name: here, namespace: ci, ips: [10.0.0.1]}
- {name: there, namespace: ci, node: n2, ips: [10.0.0.2]}
- {name: elsewhere, namespace: ci, local: false, ips: [10.0.0.3]}
";
    let closed = cnp("closed", "{endpointSelector: {}, ingress: [{}]}");
    let mut flows = String::new();
    for pod in ["here", "there", "elsewhere"] {
        for node in ["n1", "n2", "n3"] {
            flows += &format!("- {{from: node/{node}, to: ci/{pod}, protocol: TCP, port: 80}}\n");
        }
    }
    let (yes, no) = ("FORWARDED", "DROPPED");
    assert_eq!(
        verdicts(world, &closed, &flows),
        [yes, no, no, no, yes, no, no, no, no]
    );
    let entity = cnp(
        "remote",
        "{endpointSelector: {}, ingress: [{fromEntities: [remote-node]}]}",
    );
    assert_eq!(
        verdicts(world, &entity, &flows),
        [yes, yes, yes, yes, yes, yes, yes, yes, yes]
    );
    // With one other node there is no doubt where the pod is.
    let two = world.replace(", {name: n3, ips: [192.0.2.3]}", "");
    let flows = "- {from: node/n2, to: ci/elsewhere, protocol: TCP, port: 80}\n";
    assert_eq!(verdicts(&two, &closed, flows), [yes]);
}

#[test]
fn the_api_server_is_a_node_or_a_named_part_of_the_world() {
    let world = format!(
        "{PODS}nodes: [{{name: n1, local: true, ips: [192.0.2.1]}}, {{name: n2, ips: [192.0.2.2]}}]\n\
         kubeAPIServer: [192.0.2.2, 198.51.100.1]\n"
    );
    let flows = "
- {from: ci/a, to: 192.0.2.2, protocol: TCP, port: 6443}
- {from: ci/a, to: 198.51.100.1, protocol: TCP, port: 6443}
- {from: ci/a, to: 192.0.2.1, protocol: TCP, port: 6443}
- {from: ci/a, to: 198.51.100.2, protocol: TCP, port: 6443}
";
    let to = |rule: &str| {
        cnp(
            "p",
            &format!("{{endpointSelector: {{}}, egress: [{{{rule}}}]}}"),
        )
    };
    let (yes, no) = ("FORWARDED", "DROPPED");
    for (rule, expected) in [
        ("toEntities: [kube-apiserver]", [yes, yes, no, no]),
        ("toEntities: [remote-node]", [yes, no, no, no]),
        ("toEntities: [host]", [no, no, yes, no]),
        ("toEntities: [world]", [no, yes, no, yes]),
        ("toEntities: [cluster]", [yes, yes, yes, no]),
        ("toCIDR: [198.51.100.0/24]", [no, yes, no, yes]),
        (
            "toCIDRSet: [{cidr: 198.51.100.0/24, except: [198.51.100.1/32]}]",
            [no, no, no, yes],
        ),
    ] {
        assert_eq!(verdicts(&world, &to(rule), flows), expected, "{rule}");
    }
}

#[test]
fn namespaces_service_accounts_and_the_cluster_are_labels() {
    let world = "
config: {cluster: east}
namespaces: [{name: ci, labels: {team: build}}]
endpoints:
- {name: a, namespace: ci, labels: {app: a}, serviceAccount: builder, ips: [10.0.0.1]}
- {name: b, namespace: other, labels: {app: b}, ips: [10.0.0.2]}
- {name: new, namespace: other, labels: {'reserved:init': ''}, ips: [10.0.0.3]}
";
    let flows = "
- {from: ci/a, to: other/b, protocol: TCP, port: 80}
- {from: other/b, to: other/b, protocol: TCP, port: 80}
- {from: other/new, to: other/b, protocol: TCP, port: 80}
";
    let (yes, no) = ("FORWARDED", "DROPPED");
    for (peer, expected) in [
        (
            "fromEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.team: build}}]",
            [yes, no, no],
        ),
        (
            "fromEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name: ci}}]",
            [yes, no, no],
        ),
        (
            "fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: builder, io.kubernetes.pod.namespace: ci}}]",
            [yes, no, no],
        ),
        (
            "fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: default, io.kubernetes.pod.namespace: other}}]",
            [no, yes, no],
        ),
        (
            "fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: west}}]",
            [no, no, no],
        ),
        (
            "fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: east}}]",
            [no, yes, no],
        ),
        ("fromEndpoints: [{}]", [no, yes, no]),
        ("fromEntities: [cluster]", [yes, yes, no]),
    ] {
        let spec = format!("{{endpointSelector: {{}}, ingress: [{{{peer}}}]}}");
        let policy = cnp_in("other", "p", &spec);
        // An endpoint that is only beginning is closed in both directions whatever is said.
        assert_eq!(verdicts(world, &policy, flows), expected, "{peer}");
    }
}

const SERVICES: &str = "
endpoints:
- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1]}
- {name: web, namespace: ci, labels: {app: web}, ips: [10.0.0.2], ports: [{name: http, port: 8080}]}
- {name: new, namespace: ci, labels: {app: web, tier: new}, ips: [10.0.0.3], ports: [{name: http, port: 9090}]}
services:
- {name: one, namespace: ci, ips: [10.96.0.1], ports: [{port: 80, targetPort: 8080}], backends: [ci/web]}
- {name: both, namespace: ci, ips: [10.96.0.2], ports: [{port: 80, targetPort: http}], backends: [ci/web, ci/new]}
- {name: none, namespace: ci, ips: [10.96.0.3], ports: [{port: 80}]}
- {name: out, namespace: ci, ips: [10.96.0.4], ports: [{port: 443}], backends: [203.0.113.1]}
";

#[test]
fn a_frontend_is_open_when_every_backend_is() {
    let flows = "
- {from: ci/a, to: 10.96.0.1, protocol: TCP, port: 80}
- {from: ci/a, to: 10.96.0.1, protocol: TCP, port: 8080}
- {from: ci/a, to: 10.96.0.1, protocol: UDP, port: 80}
- {from: ci/a, to: 10.96.0.2, protocol: TCP, port: 80}
- {from: ci/a, to: 10.96.0.3, protocol: TCP, port: 80}
- {from: ci/a, to: 10.96.0.4, protocol: TCP, port: 443}
";
    let to = |rule: &str| {
        cnp(
            "p",
            &format!("{{endpointSelector: {{matchLabels: {{app: a}}}}, egress: [{rule}]}}"),
        )
    };
    let (yes, no) = ("FORWARDED", "DROPPED");
    for (rule, expected) in [
        (
            "{toEndpoints: [{matchLabels: {app: web}}]}",
            [yes, no, no, yes, no, no],
        ),
        (
            "{toEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '8080', protocol: TCP}]}]}",
            [yes, no, no, no, no, no],
        ),
        (
            "{toEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}",
            [no, no, no, no, no, no],
        ),
        (
            "{toEndpoints: [{matchLabels: {tier: new}}]}",
            [no, no, no, no, no, no],
        ),
        // A frontend is no part of the world, whatever prefix it is in.
        (
            "{toCIDR: [10.96.0.0/16, 203.0.113.0/24]}",
            [no, no, no, no, no, yes],
        ),
        ("{toEntities: [all]}", [yes; 6]),
    ] {
        assert_eq!(verdicts(SERVICES, &to(rule), flows), expected, "{rule}");
    }
    // Without a policy nothing is closed, backends or not.
    assert_eq!(verdicts(SERVICES, "", flows), [yes; 6]);
    let mixed = outcomes(
        SERVICES,
        &to("{toEndpoints: [{matchLabels: {tier: new}}]}"),
        flows,
    );
    let egress = mixed[3].egress.as_ref().unwrap();
    assert_eq!(short(Some(egress)), "DROPPED 133 none");
    assert_eq!(
        egress.reason_text,
        "Policy denied: ci/web behind the service ci/both is out of bounds, and the frontend may lead there"
    );
    assert_eq!(mixed[3].ingress, None);
}

#[test]
fn dns_at_a_frontend_goes_through_the_proxy_whatever_port_is_behind_it() {
    let world = "
endpoints:
- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1]}
- {name: dns, namespace: ci, labels: {app: dns}, ips: [10.0.0.2]}
services:
- {name: dns, namespace: ci, ips: [10.96.0.10], ports: [{port: 53, targetPort: 5353, protocol: UDP}], backends: [ci/dns]}
";
    let policy = |names: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{matchLabels: {{app: a}}}}, egress: [{names}{{toEndpoints: [{{matchLabels: {{app: dns}}}}]}}]}}"
            ),
        )
    };
    let flows = "- {from: ci/a, to: 10.96.0.10, protocol: UDP, port: 53, dns: {name: x.test}}\n";
    let by_name = policy("{toFQDNs: [{matchName: a.test}]}, ");
    assert_eq!(verdicts(world, &by_name, flows), ["REDIRECTED"]);
    assert_eq!(verdicts(world, &policy(""), flows), ["FORWARDED"]);
}

#[test]
fn what_dns_taught_counts_for_its_endpoint_its_names_and_the_world_only() {
    let world = format!(
        "{PODS}names:\n\
         - {{endpoint: ci/a, name: api.a.test, ips: [203.0.113.1, 10.0.0.2]}}\n\
         - {{endpoint: ci/a, name: other.test, ips: [203.0.113.2]}}\n\
         - {{endpoint: ci/b, name: other.test, ips: [203.0.113.1]}}\n"
    );
    let policies = cnp(
        "names",
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: '*.a.test'}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]}",
    );
    let flows = "
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 443}
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 80}
- {from: ci/a, to: 203.0.113.2, protocol: TCP, port: 443}
- {from: ci/b, to: 203.0.113.1, protocol: TCP, port: 443}
- {from: ci/a, to: ci/b, protocol: TCP, port: 443}
";
    let (yes, no) = ("FORWARDED", "DROPPED");
    assert_eq!(verdicts(&world, &policies, flows), [yes, no, no, no, no]);
}

#[test]
fn more_names_than_slots_lose_nothing() {
    let mut names = String::from("names:\n");
    let mut rules = String::new();
    let mut flows = String::new();
    for i in 0..9 {
        names += &format!("- {{endpoint: ci/a, name: n{i}.test, ips: [203.0.113.1]}}\n");
        rules += &format!(
            "{{toFQDNs: [{{matchName: n{i}.test}}], toPorts: [{{ports: [{{port: '{}', protocol: TCP}}]}}]}}, ",
            8000 + i
        );
        flows += &format!(
            "- {{from: ci/a, to: 203.0.113.1, protocol: TCP, port: {}}}\n",
            8000 + i
        );
    }
    flows += "- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 8009}\n";
    let policies = cnp(
        "names",
        &format!("{{endpointSelector: {{}}, egress: [{rules}]}}"),
    );
    let found = verdicts(&format!("{PODS}{names}"), &policies, &flows);
    assert_eq!(found.iter().filter(|v| *v == "FORWARDED").count(), 9);
    assert_eq!(found.last().map(String::as_str), Some("DROPPED"));
}

#[test]
fn ranges_are_judged_by_their_longest_prefix() {
    let policies = cnp(
        "range",
        "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '8000', endPort: 8090, protocol: TCP}]}]}]}",
    );
    let ports = [7999, 8000, 8064, 8090, 8091];
    let flows: String = ports
        .iter()
        .map(|port| format!("- {{from: ci/a, to: 203.0.113.1, protocol: TCP, port: {port}}}\n"))
        .collect();
    let found = verdicts(PODS, &policies, &flows);
    assert_eq!(
        found,
        ["DROPPED", "FORWARDED", "FORWARDED", "FORWARDED", "DROPPED"]
    );
}
