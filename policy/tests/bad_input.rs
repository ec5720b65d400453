//! Policy files with mistakes: each is found, at its place, and named.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

use identity::{Label, LocalIdentities};
use policy::{
    compile::{
        CompileError, CompileInput, EnforcementMode, Identities, SelectorTable, compile, prefixes,
    },
    model::Policy,
    parse::{Limits, Problem, bytes, documents},
};
use proptest::prelude::*;

const HEAD: &str =
    "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: n}\n";

fn errors(text: &str) -> Vec<String> {
    match documents("p.yaml", text) {
        Ok(parsed) => panic!("accepted: {parsed:#?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// A policy whose spec is `{endpointSelector: {}, egress: [RULE]}`.
fn egress(rule: &str) -> String {
    format!("{HEAD}spec: {{endpointSelector: {{}}, egress: [{rule}]}}\n")
}

#[track_caller]
fn check_egress(rule: &str, field: &str, message: &str) {
    let errors = errors(&egress(rule));
    assert_eq!(errors.len(), 1, "{rule}: {errors:#?}");
    let place = format!(": spec.egress[0]{field}: ");
    assert!(errors[0].contains(&place), "{rule}: {}", errors[0]);
    assert!(errors[0].contains(message), "{rule}: {}", errors[0]);
}

#[test]
fn what_is_valid_is_accepted() {
    for rule in [
        "{}",
        "{toFQDNs: []}",
        "{toEndpoints: [], toCIDR: [10.0.0.0/8]}",
        "{toPorts: []}",
        "{toPorts: [{}]}",
        "{toEntities: [world, host, all, cluster, none]}",
        "{toCIDR: [10.1.2.3/8, '2001:db8::/32']}",
        "{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}",
        "{toPorts: [{ports: [{port: '0', protocol: TCP}, {port: '80', endPort: 79}, {port: '010'}]}]}",
        "{icmps: [{fields: [{type: 8}, {family: IPv6, type: EchoRequest}, {type: EchoReply}]}]}",
        "{toFQDNs: [{matchName: a.b}], toPorts: [{ports: [{port: '443', protocol: TCP}], rules: {}}]}",
        "{toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchName: a.b, matchPattern: '*'}]}}]}",
        "{toPorts: [{ports: [{port: '53'}], rules: {dns: []}}]}",
        "{toEndpoints: [{matchExpressions: [{key: 'k8s:a', operator: In, values: [b, c]}, {key: d, operator: DoesNotExist}]}]}",
        "{toEndpoints: [{matchLabels: {'reserved:host': ''}}]}",
    ] {
        if let Err(errors) = documents("p.yaml", &egress(rule)) {
            panic!("{rule}: {errors:#?}");
        }
    }
}

#[test]
fn every_mistake_in_a_rule_has_its_place() {
    for (rule, field, message) in [
        (
            "{toFQDNs: [{matchName: a}, {matchName: 'a*b'}]}",
            ".toFQDNs[1].matchName",
            "no wildcard",
        ),
        (
            "{toFQDNs: [{matchPattern: '[a-z]*.x'}]}",
            ".toFQDNs[0].matchPattern",
            "contains '['",
        ),
        (
            "{toFQDNs: [{matchName: ''}]}",
            ".toFQDNs[0].matchName",
            "must not be empty",
        ),
        (
            "{toFQDNs: [{matchName: '.'}]}",
            ".toFQDNs[0].matchName",
            "empty label",
        ),
        (
            "{toFQDNs: [{matchName: a, matchPattern: b}]}",
            ".toFQDNs[0]",
            "exactly one of",
        ),
        ("{toFQDNs: [{}]}", ".toFQDNs[0]", "exactly one of"),
        (
            "{toFQDNs: {}}",
            ".toFQDNs",
            "expected a list, found a mapping",
        ),
        (
            "{toFQDNs: }",
            ".toFQDNs",
            "missing (null); write a value, `[]`",
        ),
        (
            "{toFQDNs: [{matchName: 1.5}]}",
            ".toFQDNs[0].matchName",
            "found a number; put it in quotes",
        ),
        (
            "{toFQDNs: [{matchname: a}]}",
            ".toFQDNs[0].matchname",
            "did you mean `matchName`?",
        ),
        ("{toFqdns: []}", ".toFqdns", "did you mean `toFQDNs`?"),
        (
            "{toServices: [{}]}",
            ".toServices[0]",
            "exactly one of `k8sService` and `k8sServiceSelector`",
        ),
        ("{toGroups: [{}]}", ".toGroups", "asks a cloud provider"),
        (
            "{authentication: {mode: required}}",
            ".authentication.mode",
            "needs mutual authentication",
        ),
        (
            "{fromEndpoints: []}",
            ".fromEndpoints",
            "unknown field `fromEndpoints`",
        ),
        (
            "{toFQDNs: [{matchName: a}], toCIDR: [10.0.0.0/8]}",
            "",
            "`toFQDNs` and `toCIDR` cannot be combined",
        ),
        (
            "{toEntities: [World]}",
            ".toEntities[0]",
            "`World` is not one of all, world, cluster",
        ),
        (
            "{toEntities: [world-ipv4]}",
            ".toEntities[0]",
            "is not one of",
        ),
        ("{toCIDR: [10.0.0.1]}", ".toCIDR[0]", "write `10.0.0.1/32`"),
        (
            "{toCIDR: ['2001:db8::1']}",
            ".toCIDR[0]",
            "write `2001:db8::1/128`",
        ),
        (
            "{toCIDR: [10.0.0.0/33]}",
            ".toCIDR[0]",
            "is not a CIDR prefix",
        ),
        (
            "{toCIDR: ['::ffff:10.0.0.0/104']}",
            ".toCIDR[0]",
            "write the IPv4 prefix",
        ),
        (
            "{toCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}",
            ".toCIDRSet[0].except[0]",
            "is not inside",
        ),
        (
            "{toCIDRSet: [{cidr: 10.0.0.0/8, except: ['::/0']}]}",
            ".toCIDRSet[0].except[0]",
            "is not inside",
        ),
        (
            "{toCIDRSet: [{}]}",
            ".toCIDRSet[0]",
            "exactly one of `cidr`, `cidrGroupRef` and `cidrGroupSelector`",
        ),
        (
            "{toCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]}",
            ".toCIDRSet[0]",
            "exactly one of",
        ),
        (
            "{toCIDRSet: [{cidrGroupRef: A_b}]}",
            ".toCIDRSet[0].cidrGroupRef",
            "is not a valid name",
        ),
        (
            "{toPorts: [{ports: [{port: 53}]}]}",
            ".toPorts[0].ports[0].port",
            "found a number; put it in quotes",
        ),
        (
            "{toPorts: [{ports: [{port: http--alt}]}]}",
            ".toPorts[0].ports[0].port",
            "is not a port number",
        ),
        (
            "{toPorts: [{ports: [{port: '65536'}]}]}",
            ".toPorts[0].ports[0].port",
            "is not a port number",
        ),
        (
            "{toPorts: [{ports: [{port: '08'}]}]}",
            ".toPorts[0].ports[0].port",
            "is not a port number",
        ),
        (
            "{toPorts: [{ports: [{port: ''}]}]}",
            ".toPorts[0].ports[0].port",
            "is not a port number",
        ),
        (
            "{toPorts: [{ports: [{protocol: TCP}]}]}",
            ".toPorts[0].ports[0]",
            "`port` is required",
        ),
        (
            "{toPorts: [{ports: [{port: '1', protocol: tcp}]}]}",
            ".toPorts[0].ports[0].protocol",
            "is not one of TCP",
        ),
        (
            "{toPorts: [{ports: [{port: '1', protocol: ICMP}]}]}",
            ".toPorts[0].ports[0].protocol",
            "is not one of",
        ),
        (
            "{toPorts: [{ports: [{port: '0', protocol: GRE}]}]}",
            ".toPorts[0].ports[0].protocol",
            "cannot be told apart",
        ),
        (
            "{toPorts: [{ports: [{port: '1', endPort: 65536}]}]}",
            ".toPorts[0].ports[0].endPort",
            "out of range",
        ),
        (
            "{toPorts: [{serverNames: []}]}",
            ".toPorts[0].serverNames",
            "at least one name",
        ),
        (
            "{toPorts: [{listener: {}}]}",
            ".toPorts[0].listener",
            "an Envoy that somebody else configures",
        ),
        (
            "{toPorts: [{rules: {l7proto: r2d2}}]}",
            ".toPorts[0].rules.l7proto",
            "not supported yet",
        ),
        (
            "{toPorts: [{rules: {dns: [{matchName: a}]}}]}",
            ".toPorts[0].rules.dns",
            "need at least one port",
        ),
        (
            "{toPorts: [{ports: [{port: '53', endPort: 54}], rules: {dns: [{matchName: a}]}}]}",
            ".toPorts[0].rules.dns",
            "port ranges",
        ),
        (
            "{toPorts: [{ports: [{port: '0'}], rules: {dns: [{matchName: a}]}}]}",
            ".toPorts[0].rules.dns",
            "port 0",
        ),
        (
            "{toPorts: [{ports: [{port: '53', protocol: SCTP}], rules: {dns: [{matchName: a}]}}]}",
            ".toPorts[0].rules.dns",
            "UDP, TCP or ANY",
        ),
        (
            "{toPorts: [{ports: [{port: '53'}], rules: {dns: [{}]}}]}",
            ".toPorts[0].rules.dns[0]",
            "is needed",
        ),
        (
            "{toPorts: [{ports: [{port: '53'}]}], icmps: [{fields: [{type: 8}]}]}",
            ".icmps",
            "cannot stand beside",
        ),
        (
            "{icmps: [{fields: [{type: Ping}]}]}",
            ".icmps[0].fields[0].type",
            "is not one of EchoReply",
        ),
        (
            "{icmps: [{fields: [{type: 256}]}]}",
            ".icmps[0].fields[0].type",
            "out of range",
        ),
        (
            "{icmps: [{fields: [{family: v6, type: 1}]}]}",
            ".icmps[0].fields[0].family",
            "is not one of IPv4",
        ),
        (
            "{toEndpoints: [{matchLabels: {a: yes}}]}",
            ".toEndpoints[0].matchLabels.a",
            "found a boolean; put it in quotes",
        ),
        (
            "{toEndpoints: [{matchLabels: {'-a': b}}]}",
            ".toEndpoints[0].matchLabels.-a",
            "not a valid label key",
        ),
        (
            "{toEndpoints: [{matchLabels: {a: 'b c'}}]}",
            ".toEndpoints[0].matchLabels.a",
            "not a valid label value",
        ),
        (
            "{toEndpoints: [{matchExpressions: [{key: a, operator: In}]}]}",
            ".toEndpoints[0].matchExpressions[0].operator",
            "at least one value",
        ),
        (
            "{toEndpoints: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]}",
            ".toEndpoints[0].matchExpressions[0].operator",
            "takes no values",
        ),
        (
            "{toEndpoints: [{matchExpressions: [{key: a, operator: Equals}]}]}",
            ".toEndpoints[0].matchExpressions[0].operator",
            "is not one of In",
        ),
    ] {
        check_egress(rule, field, message);
    }
}

#[test]
fn mistakes_outside_of_rules_have_their_place() {
    let spec = |spec: &str| format!("{HEAD}spec: {spec}\n");
    for (text, expected) in [
        (spec("{egress: [{}]}"), "spec: the field `endpointSelector` is required"),
        (spec("{endpointSelector: null, egress: [{}]}"), "spec.endpointSelector: the value is missing (null)"),
        (spec("{endpointSelector: {}}"), "spec: the rule has no `ingress`"),
        (spec("{endpointSelector: {}, egress: []}"), "spec: the rule has no `ingress`"),
        (spec("{nodeSelector: {}, endpointSelector: {}, egress: [{}]}"), "spec: exactly one of `endpointSelector` and `nodeSelector`"),
        (spec("{nodeSelector: {}, egress: [{}]}"), "spec.nodeSelector: `nodeSelector` belongs into a CiliumClusterwideNetworkPolicy"),
        (spec("{endpointSelector: {}, egressDeny: [{toFQDNs: [{matchName: a.b}]}]}"), "spec.egressDeny[0].toFQDNs: unknown field `toFQDNs`"),
        (spec("{endpointSelector: {}, egressDeny: [{toPorts: [{rules: {}}]}]}"), "spec.egressDeny[0].toPorts[0].rules: unknown field `rules`"),
        (spec("{endpointSelector: {}, ingressDeny: [{authentication: {mode: disabled}}]}"), "spec.ingressDeny[0].authentication: unknown field"),
        (spec("{endpointSelector: {}, egress: [{}], enableDefaultDeny: {egress: 'no'}}"), "spec.enableDefaultDeny.egress: expected true or false, found a string"),
        (spec("{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a}]}}]}]}"), "spec.ingress[0].toPorts[0].rules.dns: DNS rules are not allowed on ingress"),
        (spec("{endpointSelector: {}, ingress: [{toFQDNs: []}]}"), "spec.ingress[0].toFQDNs: unknown field"),
        (spec("{endpointSelector: {}, egress: [{}], log: {value: 123456789012345678901234567890123}}"), "spec.log.value: expected a string"),
        (HEAD.to_owned(), "neither `spec` nor `specs`"),
        (format!("{HEAD}specs: []\n"), "neither `spec` nor `specs`"),
        (format!("{HEAD}sepc: {{}}\n"), "sepc: unknown field `sepc`; did you mean `spec`?"),
        ("kind: CiliumNetworkPolicy\napiVersion: cilium.io/v1\n".into(), "`CiliumNetworkPolicy` of `cilium.io/v1` is not understood; write `apiVersion: cilium.io/v2`"),
        ("kind: CiliumNetworkPolicies\napiVersion: cilium.io/v2\n".into(), "unknown kind `CiliumNetworkPolicies`"),
        ("kind: NetworkPolicy\napiVersion: networking.k8s.io/v1beta1\n".into(), "write `apiVersion: networking.k8s.io/v1`"),
        ("kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\n".into(), "the field `metadata` is required"),
        ("kind: AdminNetworkPolicy\napiVersion: policy.networking.k8s.io/v1alpha1\n".into(), "was replaced by ClusterNetworkPolicy"),
        ("kind: CiliumCIDRGroup\napiVersion: cilium.io/v2\nmetadata: {name: g}\nspec: {externalCIDRs: [10.0.0.1]}\n".into(), "spec.externalCIDRs[0]: `10.0.0.1` is not a CIDR prefix; write `10.0.0.1/32`"),
        ("- a\n".into(), "not a Kubernetes object"),
        ("just text\n".into(), "not a Kubernetes object"),
        ("a: b\n".into(), "not a Kubernetes object"),
        ("a: b\na: c\n".into(), "the key `a` appears twice; keep one"),
        ("a: [b\n".into(), "not valid YAML"),
        ("a:\n\tb: c\n".into(), "not valid YAML"),
        ("a: !!binary aGk=\n".into(), "is not supported"),
        ("a: &x [*x]\n".into(), "alias"),
        ("? [a]\n: b\n".into(), "a key has to be text"),
        ("base: &b {x: y}\na:\n  <<: *b\n".into(), "merge key `<<`"),
        ("kind: CiliumClusterwideNetworkPolicy\napiVersion: cilium.io/v2\nmetadata: {name: a, namespace: b}\nspec: {endpointSelector: {}, egress: [{}]}\n".into(), "metadata.namespace: a cluster-wide policy has no namespace"),
        ("kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nmetadata: {}\nspec: {endpointSelector: {}, egress: [{}]}\n".into(), "metadata: the field `name` is required"),
        ("kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nmetadata: {name: A_b}\nspec: {endpointSelector: {}, egress: [{}]}\n".into(), "`A_b` is not a valid name"),
    ] {
        let errors = errors(&text);
        assert!(errors.iter().any(|e| e.contains(expected)), "{text}\n{errors:#?}");
    }
}

#[test]
fn line_and_column_are_those_of_the_value() {
    let text = format!(
        "{HEAD}spec:\n  endpointSelector: {{}}\n  egress:\n  - toFQDNs:\n    - matchName: \"a b\"\n"
    );
    let error = documents("dir/p.yaml", &text).unwrap_err().remove(0);
    assert_eq!(
        (&*error.file, error.line, error.column),
        ("dir/p.yaml", 8, 18)
    );
    assert_eq!(error.field, "spec.egress[0].toFQDNs[0].matchName");
}

#[test]
fn several_mistakes_are_reported_at_once_up_to_a_limit() {
    let bad = "{toFQDNs: [{matchName: '?'}]},".repeat(30);
    assert_eq!(errors(&egress(bad.trim_end_matches(','))).len(), 20);
    let two = errors(&egress(
        "{toFQDNs: [{matchName: '?'}], toPorts: [{ports: [{port: 1}]}]}, {toServices: []}",
    ));
    assert!(two.len() >= 2, "{two:?}");
}

#[test]
fn one_bad_document_fails_the_file() {
    let good = egress("{}");
    assert_eq!(
        documents("p", &format!("{good}---\n{good}"))
            .unwrap()
            .policies
            .len(),
        2
    );
    assert!(documents("p", &format!("{good}---\n{}", egress("{x: y}"))).is_err());
}

#[test]
fn of_several_documents_the_wrong_one_is_named() {
    let good = egress("{}");
    let text = format!("{good}---\n{}---\n{good}", egress("{x: y}"));
    let found = errors(&text);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains(": document 2: spec.egress[0].x: unknown field"),
        "{found:?}"
    );
    let alone = errors(&egress("{x: y}"));
    assert!(!alone[0].contains("document"), "{alone:?}");
}

/// A megabyte of policy is work, not a way to stop anybody; far more than is meant is refused.
#[test]
fn large_policies_are_bounded() {
    let ports = |count: u32| {
        let ports: Vec<_> = (1..=count).map(|p| format!("{{port: '{p}'}}")).collect();
        egress(&format!("{{toPorts: [{{ports: [{}]}}]}}", ports.join(", ")))
    };
    assert!(documents("p", &ports(40)).is_ok());
    let many = errors(&ports(5000));
    assert!(many[0].contains("40"), "{many:?}");
    let rule = "{toCIDR: [10.0.0.0/8], toPorts: [{ports: [{port: '1', endPort: 65534}]}]},";
    let count = ((1 << 20) - 4096) / rule.len();
    let text = egress(rule.repeat(count).trim_end_matches(','));
    assert!(text.len() > 900_000);
    match documents("p", &text) {
        Ok(parsed) => compile_all(&parsed.policies),
        Err(errors) => {
            let limited = matches!(errors[0].problem, Problem::TooManyNodes { .. });
            assert!(limited, "{}", errors[0]);
        }
    }
    // Fewer rules that are read: what they come to is bounded too.
    let text = egress(rule.repeat(2000).trim_end_matches(','));
    compile_all(&documents("p", &text).unwrap().policies);
}

/// What was read compiles, or is refused with the reason that there is too much of it.
fn compile_all(policies: &[Policy]) {
    let mut locals = LocalIdentities::default();
    let cidrs: Vec<_> = prefixes(policies)
        .into_iter()
        .map(|prefix| (locals.cidr(prefix).unwrap(), prefix))
        .collect();
    let subject = [Label::k8s("io.kubernetes.pod.namespace", "n")];
    let input = CompileInput {
        policies,
        subject: &subject.into_iter().collect(),
        identities: &Identities::new("default", [], cidrs),
        mode: EnforcementMode::Default,
        allow_local_host: true,
        steer_dns: false,
    };
    match compile(&input, &mut SelectorTable::default()) {
        // The same rule a thousand times is one rule.
        Ok(policy) => assert!(policy.entries.len() < 200),
        Err(CompileError::TooMany { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn documents_that_are_no_policies_are_noted() {
    let text = format!(
        "---\n---\nkind: ConfigMap\napiVersion: v1\n---\n{}---\nkind: CiliumNode\napiVersion: cilium.io/v2\n",
        egress("{}")
    );
    let parsed = documents("p.yaml", &text).unwrap();
    assert_eq!(parsed.policies.len(), 1);
    let notes: Vec<_> = parsed.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "p.yaml:3: v1 ConfigMap is not a policy and was passed over",
            "p.yaml:11: cilium.io/v2 CiliumNode is not a policy and was passed over",
        ]
    );
}

#[test]
fn lists_and_json_are_read() {
    let json = r#"{"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [
	{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "a"},
	 "spec": {"endpointSelector": {}, "egress": [{"toPorts": [{"ports": [{"port": "443", "endPort": 444}]}]}]},
	 "specs": [{"endpointSelector": {}, "ingress": [{}], "description": "x", "labels": []}]}]}"#;
    let parsed = documents("p.json", json).unwrap();
    assert_eq!(parsed.policies[0].rules.len(), 2);
    assert_eq!(&*parsed.policies[0].reference.namespace, "default");
    let wrong = json.replace("443\"", "70000\"");
    let error = documents("p.json", &wrong).unwrap_err().remove(0);
    assert_eq!(
        error.field,
        "items[0].spec.egress[0].toPorts[0].ports[0].port"
    );
    assert_eq!(error.line, 3);
}

#[test]
fn hostile_files_are_refused_quickly() {
    let limits = Limits::default();
    let problem = |bytes_: &[u8]| bytes("p", bytes_, &limits).unwrap_err().remove(0).problem;
    assert!(matches!(problem(b"a: \xff\n"), Problem::NotUtf8 { at: 3 }));
    assert!(matches!(
        problem(&vec![b'a'; (1 << 20) + 1]),
        Problem::TooLarge { .. }
    ));
    assert!(matches!(
        problem("[".repeat(200).as_bytes()),
        Problem::TooDeep { limit: 64 }
    ));
    assert!(matches!(
        problem("- ".repeat(100_000).as_bytes()),
        Problem::TooDeep { .. }
    ));
    let wide = format!("a: [{}]", "1,".repeat(200_000));
    assert!(matches!(
        problem(wide.as_bytes()),
        Problem::TooManyNodes { .. }
    ));
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let uses = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{uses}]\n"));
    }
    assert!(matches!(
        problem(laughs.as_bytes()),
        Problem::TooManyNodes { .. }
    ));
    // Aliases that nest would double the depth each time.
    let mut deep = String::from("a0: &a0 [x]\n");
    for i in 1..200 {
        deep.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(matches!(problem(deep.as_bytes()), Problem::TooDeep { .. }));
    let keys: String = (0..90_000).map(|i| format!("k{i}: \n")).collect();
    assert!(bytes("p", keys.as_bytes(), &limits).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_text_panics(text in "[-a-z0-9:,{}\\[\\]&*!|>'\"%@`#?~ \n\t.]{0,80}") {
        let _ = documents("p", &text);
    }

    #[test]
    fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = bytes("p", &data, &Limits::default());
    }

    #[test]
    fn a_valid_policy_with_a_piece_replaced_never_panics(at in 0usize..400, with in "[-a-z0-9:,{}\\[\\]&*! \n]{0,6}") {
        let mut text = egress("{toFQDNs: [{matchName: a.b}], toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchPattern: '*'}]}}]}");
        let at = at % text.len();
        text.replace_range(at..(at + with.len()).min(text.len()), &with);
        let _ = documents("p", &text);
    }
}
