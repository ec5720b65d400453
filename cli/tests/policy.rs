//! `namegate policy` as people and pull-request checks run it: the binary, files, exit statuses.
//!
//! In:  the examples; files made here.
//! Out: what is printed, to the letter where programs read it.
//! Not here: what policies mean (`policy`, `agent::offline`).

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

struct Ran {
    status: i32,
    out: String,
    err: String,
}

/// Runs `namegate policy …` in the folder of the examples.
fn policy(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_namegate"))
        .arg("policy")
        .args(args)
        .current_dir(root())
        .output()
        .unwrap();
    Ran {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const WORLD: &str = "endpoints:\n- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1]}\n\
                     - {name: b, namespace: ci, labels: {app: b}, ips: [10.0.0.2]}\n";
const OPEN: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
    metadata: {name: open, namespace: ci}\n\
    spec:\n  endpointSelector: {matchLabels: {app: a}}\n  egress:\n  - toPorts: [{ports: [{port: '80', protocol: TCP}]}]\n";
const FLOW: &str = "- {from: ci/a, to: ci/b, protocol: TCP, port: 80}\n";

#[test]
fn json_is_as_documented_to_the_letter() {
    let dir = folder(&[
        ("world.yaml", WORLD),
        ("policy.yaml", OPEN),
        (
            "flows.yaml",
            "- {from: ci/a, to: ci/b, protocol: TCP, port: 80}\n\
             - {from: ci/a, to: 203.0.113.7, protocol: UDP, port: 443}\n",
        ),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let ran = policy(&[
        "verdict",
        "--world",
        &at("world.yaml"),
        "--policy",
        &at("policy.yaml"),
        "--flows",
        &at("flows.yaml"),
        "-o",
        "json",
    ]);
    assert_eq!((ran.status, &*ran.err), (0, ""));
    assert_eq!(
        ran.out,
        r#"[
  {
    "verdict": "FORWARDED",
    "egress": {
      "verdict": "FORWARDED",
      "reason": 0,
      "match": "L4-only",
      "l7": null,
      "rules": [
        "CiliumNetworkPolicy/ci/open"
      ],
      "reason_text": ""
    },
    "ingress": {
      "verdict": "FORWARDED",
      "reason": 0,
      "match": "none",
      "l7": null,
      "rules": [],
      "reason_text": ""
    }
  },
  {
    "verdict": "DROPPED",
    "egress": {
      "verdict": "DROPPED",
      "reason": 133,
      "match": "none",
      "l7": null,
      "rules": [],
      "reason_text": "Policy denied"
    },
    "ingress": null
  }
]
"#
    );
}

#[test]
fn the_table_of_the_examples() {
    let ran = policy(&[
        "verdict",
        "--world",
        "examples/world/world.yaml",
        "--policy",
        "examples/world/policies",
    ]);
    assert_eq!((ran.status, &*ran.err), (0, ""));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = ran.out.lines().map(words).collect();
    assert_eq!(
        lines.first().map(|l| &**l),
        Some("From To Flow Verdict Egress Ingress")
    );
    for expected in [
        "ci/runner 203.0.113.7 443/TCP FORWARDED FORWARDED L3-L4 -",
        "ci/runner argocd/server 8080/TCP DROPPED DROPPED none FORWARDED none",
        "node/n1 ci/runner 8080/TCP FORWARDED - FORWARDED L3-only",
        "ci/runner kube-system/coredns-0 53/UDP dns api.github.com REDIRECTED REDIRECTED L3-L4 dns FORWARDED none",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}\n{}",
            ran.out
        );
    }
}

#[test]
fn every_scenario_of_the_examples_holds() {
    let mut scenarios = vec![root().join("examples/world/scenario.yaml")];
    for entry in std::fs::read_dir(root().join("examples/world/articles")).unwrap() {
        scenarios.push(entry.unwrap().path());
    }
    assert!(scenarios.len() > 5);
    let args: Vec<_> = std::iter::once("test")
        .chain(scenarios.iter().map(|path| text(path)))
        .collect();
    let ran = policy(&args);
    assert_eq!((ran.status, &*ran.err), (0, ""), "{}", ran.out);
    let fine = ran
        .out
        .lines()
        .filter(|line| line.starts_with("ok "))
        .count();
    assert_eq!(fine, scenarios.len());
}

#[test]
fn a_wrong_expectation_is_a_readable_difference() {
    let dir = folder(&[
        ("world.yaml", WORLD),
        ("policy.yaml", OPEN),
        (
            "scenario.yaml",
            "world: world.yaml\npolicies: [policy.yaml]\nflows:\n\
             - {from: ci/a, to: ci/b, protocol: TCP, port: 80, expect: FORWARDED}\n\
             - from: ci/a\n  to: ci/b\n  protocol: TCP\n  port: 81\n  \
             expect: {verdict: FORWARDED, egress: {verdict: DROPPED, reason: 181, rules: [b, a]}, ingress: null}\n",
        ),
    ]);
    let scenario = dir.path().join("scenario.yaml");
    let ran = policy(&["test", text(&scenario)]);
    assert_eq!((ran.status, &*ran.err), (1, ""));
    let path = scenario.display();
    assert_eq!(
        ran.out,
        format!(
            "FAILED  {path}: 1 of 2 flows came out otherwise\n  \
             {path}:5: flows[1]: ci/a -> ci/b 81/TCP\n    \
             - verdict: FORWARDED\n    + verdict: DROPPED\n    \
             - egress.reason: 181\n    + egress.reason: 133\n    \
             - egress.rules: [a, b]\n    + egress.rules: []\n    \
             - ingress: null (not judged)\n    + ingress: FORWARDED\n"
        )
    );
}

#[test]
fn what_a_scenario_leaves_out_comes_from_the_command_line() {
    let dir = folder(&[
        ("world.yaml", WORLD),
        ("policy.yaml", OPEN),
        (
            "list.yaml",
            "- {from: ci/a, to: ci/b, protocol: TCP, port: 81, expect: DROPPED}\n",
        ),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let ran = policy(&[
        "test",
        &at("list.yaml"),
        "--world",
        &at("world.yaml"),
        "--policy",
        &at("policy.yaml"),
    ]);
    assert_eq!((ran.status, &*ran.err), (0, ""));
    let ran = policy(&["test", &at("list.yaml")]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.err
            .contains("has no `world`; write it, or give --world"),
        "{}",
        ran.err
    );
    let ran = policy(&["test", &at("list.yaml"), "--world", &at("world.yaml")]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("has no `policies`"), "{}", ran.err);
}

/// What is said about a world, and flows, that are wrong: `FILE: …` without the folder.
fn mistake(world: &str, flows: &str) -> String {
    let dir = folder(&[
        ("world.yaml", world),
        ("policy.yaml", OPEN),
        ("flows.yaml", flows),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let ran = policy(&[
        "verdict",
        "--world",
        &at("world.yaml"),
        "--policy",
        &at("policy.yaml"),
        "--flows",
        &at("flows.yaml"),
    ]);
    assert_eq!((ran.status, &*ran.out), (2, ""), "{}", ran.err);
    let prefix = format!("namegate: {}/", dir.path().display());
    ran.err.trim_end().replace(&prefix, "")
}

#[test]
fn mistakes_of_flows_name_file_line_field_and_cause() {
    for (flow, expected) in [
        (
            "{from: ci/c, to: ci/b, protocol: TCP, port: 80}",
            "flows.yaml:1:10: flows[0].from: the world has no endpoint `ci/c`; did you mean `ci/b`?",
        ),
        (
            "{from: ci/a, to: node/n1, protocol: TCP, port: 80}",
            "flows.yaml:1:20: flows[0].to: the world has no node `n1`",
        ),
        (
            "{from: ci/a, to: example.test, protocol: TCP, port: 80}",
            "flows.yaml:1:20: flows[0].to: `example.test` is not NAMESPACE/NAME of an endpoint, node/NAME or an address",
        ),
        (
            "{from: ci/a, to: '2001:db8::1', protocol: TCP, port: 80}",
            "flows.yaml:1:20: flows[0].to: `ci/a` and `2001:db8::1` have no addresses of a common family",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: ICMPv6}",
            "flows.yaml:1:20: flows[0].to: `ci/a` and `ci/b` have no addresses of a common family that ICMPv6 runs over",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP}",
            "flows.yaml:1:36: flows[0].port: TCP needs a `port`",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: ICMP, port: 8}",
            "flows.yaml:1:36: flows[0].port: ICMP has no ports; write `icmp: {type: …}`",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: UDP, port: 8, icmp: {type: 8}}",
            "flows.yaml:1:36: flows[0].icmp: only ICMP and ICMPv6 have types, not UDP",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: UDP, port: 8, http: {path: /}}",
            "flows.yaml:1:36: flows[0].http: `http` does not run over UDP",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP, port: 8, http: {path: /}, dns: {name: a.test}}",
            "flows.yaml:1:36: flows[0].http: a flow has one of `dns`, `http`, `kafka` and `sni`",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: UDP, port: 53, dns: {name: 'a..b'}}",
            "flows.yaml:1:36: flows[0].dns.name: `a..b` is not a DNS name",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: tcp, port: 80}",
            "flows.yaml:1:36: [0].protocol: ",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP, port: 65536}",
            "flows.yaml:1:47: [0].port: ",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP, prot: 1, port: 80}",
            "flows.yaml:1:41: [0].prot: unknown field `prot`",
        ),
        (
            "{from: ci/a, from: ci/a, to: ci/b, protocol: TCP, port: 80}",
            "flows.yaml:1:16: ",
        ),
        ("{from: ci/a, to: [", "flows.yaml:"),
    ] {
        let said = mistake(WORLD, &format!("- {flow}\n"));
        assert!(said.starts_with(expected), "{flow}\n  {said}\n  {expected}");
    }
}

#[test]
fn mistakes_of_worlds_name_file_line_field_and_cause() {
    let pods = "endpoints:\n- {name: a, namespace: ci, ips: [10.0.0.1]}\n- {name: b, namespace: ci, ips: [10.0.0.2]}\n";
    for (world, expected) in [
        ("nodes: []\n", "world.yaml:1:1: missing field `endpoints`"),
        (
            "endpoints: [{name: a, namespace: ci, ips: [10.0.0.256]}]\n",
            "world.yaml:1:44: endpoints[0].ips[0]: `10.0.0.256` is not an IP address",
        ),
        (
            "endpoints: [{name: a, namespace: ci, ip: []}]\n",
            "world.yaml:1:38: endpoints[0].ip: unknown field `ip`",
        ),
        (
            "endpoints: []\ncidrGroups: [{name: a, cidrs: [10.0.0.0/33]}]\n",
            "world.yaml:2:32: cidrGroups[0].cidrs[0]: `10.0.0.0/33` is not a CIDR prefix",
        ),
        (
            "endpoints: []\nconfig: {policyEnforcementMode: sometimes}\n",
            "world.yaml:2:33: config.policyEnforcementMode: ",
        ),
        (
            &format!("{pods}- {{name: a, namespace: ci, ips: [10.0.0.3]}}\n"),
            "world.yaml:4:3: endpoints[2].name: endpoint `ci/a` is there twice",
        ),
        (
            &format!("{pods}- {{name: c, namespace: ci, ips: [10.0.0.2]}}\n"),
            "world.yaml:4:3: endpoints[2].ips: the address 10.0.0.2 already belongs to ci/b",
        ),
        (
            &format!("{pods}- {{name: c, namespace: ci, node: n9, ips: [10.0.0.3]}}\n"),
            "world.yaml:4:3: endpoints[2].node: the world has no node `n9`",
        ),
        (
            &format!("{pods}- {{name: c, namespace: ci, labels: {{'reserved:': ''}}, ips: []}}\n"),
            "world.yaml:4:3: endpoints[2].labels: `reserved:` is not a label key",
        ),
        (
            &format!(
                "{pods}nodes: [{{name: n1, local: true, ips: []}}, {{name: n2, local: true, ips: []}}]\n"
            ),
            "world.yaml:4:43: nodes[1].local: `n2` is local too",
        ),
        (
            &format!("{pods}nodes: [{{name: n1, ips: []}}, {{name: n1, ips: []}}]\n"),
            "world.yaml:4:30: nodes[1].name: node `n1` is there twice",
        ),
        (
            &format!("{pods}services: [{{name: s, namespace: ci, backends: [ci/c]}}]\n"),
            "world.yaml:4:48: services[0].backends[0]: the world has no endpoint `ci/c`",
        ),
        (
            &format!(
                "{pods}services: [{{name: s, namespace: ci, ports: [{{port: 80, targetPort: 99999}}]}}]\n"
            ),
            "world.yaml:4:68: services[0].ports[0].targetPort: `99999` is neither a port",
        ),
        (
            &format!("{pods}kubeAPIServer: [10.0.0.1]\n"),
            "world.yaml:4:17: kubeAPIServer[0]: the address 10.0.0.1 already belongs to ci/a",
        ),
        (
            &format!("{pods}names: [{{endpoint: ci/z, name: a.test, ips: []}}]\n"),
            "world.yaml:4:20: names[0].endpoint: the world has no endpoint `ci/z`",
        ),
        (
            &format!("{pods}names: [{{endpoint: ci/a, name: 'a..b', ips: []}}]\n"),
            "world.yaml:4:32: names[0].name: `a..b` is not a DNS name",
        ),
        (
            &format!("{pods}namespaces: [{{name: ci}}, {{name: ci}}]\n"),
            "world.yaml:4:26: namespaces[1].name: namespace `ci` is there twice",
        ),
        (&format!("{pods}---\nendpoints: []\n"), "world.yaml:"),
        ("endpoints: &a [*a]\n", "world.yaml:"),
        ("\u{0}", "world.yaml:"),
    ] {
        let said = mistake(world, FLOW);
        assert!(
            said.starts_with(expected),
            "{world}\n  {said}\n  {expected}"
        );
    }
}

#[test]
fn a_bomb_of_aliases_a_deep_and_a_large_file_are_refused() {
    let labels: Vec<_> = (0..500).map(|i| format!("k{i}: v")).collect();
    let bomb = format!(
        "endpoints: []\nnamespaces:\n- &n {{name: a, labels: {{{}}}}}\n{}",
        labels.join(", "),
        "- *n\n".repeat(40_000)
    );
    let said = mistake(&bomb, FLOW);
    assert!(said.starts_with("world.yaml:"), "{said}");
    assert!(said.contains("alias"), "{said}");
    let deep = format!("endpoints: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let said = mistake(&deep, FLOW);
    assert!(said.contains("recursion limit"), "{said}");
    let large = format!("endpoints: []\n# {}\n", "x".repeat(9 << 20));
    assert!(mistake(&large, FLOW).contains("split it"));
}

#[test]
fn a_policy_that_is_broken_is_an_error_with_its_place() {
    let broken = OPEN.replace("toPorts", "toPort");
    let dir = folder(&[
        ("world.yaml", WORLD),
        ("policy.yaml", &broken),
        ("flows.yaml", FLOW),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let ran = policy(&[
        "verdict",
        "--world",
        &at("world.yaml"),
        "--policy",
        &at("policy.yaml"),
        "--flows",
        &at("flows.yaml"),
    ]);
    assert_eq!((ran.status, &*ran.out), (2, ""));
    let place = format!("{}:7:5: spec.egress[0]", at("policy.yaml"));
    assert!(ran.err.contains(&place), "{}", ran.err);
    assert!(ran.err.contains("unknown field `toPort`"), "{}", ran.err);
}

#[test]
fn what_is_no_policy_is_passed_over_with_a_note() {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\n".to_owned() + OPEN;
    let dir = folder(&[
        ("world.yaml", WORLD),
        ("policy.yaml", &config),
        ("flows.yaml", FLOW),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let ran = policy(&[
        "verdict",
        "--world",
        &at("world.yaml"),
        "--policy",
        &at("policy.yaml"),
        "--flows",
        &at("flows.yaml"),
    ]);
    assert_eq!(ran.status, 0);
    assert!(
        ran.err.contains("v1 ConfigMap is not a policy"),
        "{}",
        ran.err
    );
}

#[test]
fn missing_files_and_missing_flows_are_named() {
    let dir = folder(&[("world.yaml", WORLD), ("policy.yaml", OPEN)]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let ran = policy(&[
        "verdict",
        "--world",
        &at("world.yaml"),
        "--policy",
        &at("policy.yaml"),
    ]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("no flows to judge"), "{}", ran.err);
    let ran = policy(&[
        "verdict",
        "--world",
        &at("none.yaml"),
        "--policy",
        &at("policy.yaml"),
    ]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("none.yaml: cannot be read"), "{}", ran.err);
    let ran = policy(&["test", &at("none.yaml")]);
    assert_eq!(ran.status, 2);
}

#[test]
fn a_scenario_without_expectations_is_no_test() {
    let flows = [
        FLOW,
        "- {from: ci/a, to: ci/b, protocol: TCP, port: 80, expect: {}}\n",
    ];
    for flow in flows {
        let scenario = format!("world: world.yaml\npolicies: policy.yaml\nflows:\n{flow}");
        let dir = folder(&[
            ("world.yaml", WORLD),
            ("policy.yaml", OPEN),
            ("scenario.yaml", &scenario),
        ]);
        let ran = policy(&["test", text(&dir.path().join("scenario.yaml"))]);
        assert_eq!(ran.status, 2);
        assert!(
            ran.err
                .contains(":4:3: flows[0].expect: every flow of a scenario needs `expect`"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn one_broken_policy_among_many_hides_none_of_the_others() {
    let warned = OPEN.replace(
        "toPorts",
        "toFQDNs: [{matchPattern: '*github.com'}]\n    toPorts",
    );
    let broken = OPEN.replace("egress:", "egres:");
    let dir = folder(&[("a.yaml", OPEN), ("b.yaml", &broken), ("c.yaml", "{")]);
    let ran = policy(&["validate", text(dir.path())]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.out
            .contains("a.yaml: CiliumNetworkPolicy/ci/open is valid"),
        "{}",
        ran.out
    );
    assert!(
        ran.out
            .contains("b.yaml:6:3: spec.egres: unknown field `egres`"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("c.yaml:"), "{}", ran.out);

    let dir = folder(&[("a.yaml", OPEN), ("b.yaml", &warned)]);
    let ran = policy(&["validate", text(dir.path())]);
    assert_eq!(ran.status, 0, "{}", ran.out);
    assert!(
        ran.out.contains("warning: `*github.com` also matches"),
        "{}",
        ran.out
    );
    let ran = policy(&["validate", "--deny-warnings", text(dir.path())]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    let fine = dir.path().join("a.yaml");
    let ran = policy(&["validate", "--deny-warnings", text(&fine)]);
    assert_eq!(ran.status, 0, "{}", ran.out);
}

#[test]
fn the_policies_of_the_articles_are_valid_and_those_that_need_a_proxy_say_so() {
    let ran = policy(&["validate", "examples/articles", "examples/policies"]);
    assert_eq!((ran.status, &*ran.err), (0, ""), "{}", ran.out);
    for (file, proxy) in [("api-server-policy", "http"), ("kafka", "kafka")] {
        let line = ran
            .out
            .lines()
            .find(|line| line.contains(&format!("{file}.yaml")) && line.contains("warning"));
        assert!(line.is_some_and(|l| l.contains(proxy)), "{}", ran.out);
    }
    // Together with a policy that lets it ask a resolver the first one is complete, by itself not.
    let no_path = "without any allowed DNS traffic";
    assert!(!ran.out.contains(no_path), "{}", ran.out);
    let ran = policy(&["validate", "examples/articles"]);
    let lines: Vec<_> = ran.out.lines().filter(|l| l.contains(no_path)).collect();
    assert!(
        matches!(lines[..], [line] if line.contains("allow-external-api.yaml:11: warning")),
        "{}",
        ran.out
    );
}

#[test]
fn without_the_proxy_what_it_would_judge_is_refused() {
    let world = "endpoints:\n- {name: a, namespace: ci, ips: [10.0.0.1]}\n";
    let http = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
        metadata: {name: read, namespace: ci}\nspec:\n  endpointSelector: {}\n  egress:\n  \
        - toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]\n";
    let dir = folder(&[
        ("world.yaml", world),
        ("policy.yaml", http),
        (
            "flows.yaml",
            "- {from: ci/a, to: 203.0.113.7, protocol: TCP, port: 80, http: {method: GET}}\n",
        ),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let run = |more: &[&str]| {
        let (world, policies, flows) = (at("world.yaml"), at("policy.yaml"), at("flows.yaml"));
        let mut args = vec![
            "verdict", "--world", &world, "--policy", &policies, "--flows", &flows,
        ];
        args.extend(more);
        let ran = policy(&args);
        assert_eq!((ran.status, &*ran.err), (0, ""));
        ran.out.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let judged = run(&["-o", "json"]);
    assert!(
        judged
            .contains(r#""verdict": "REDIRECTED", "reason": 0, "match": "L4-only", "l7": "http""#),
        "{judged}"
    );
    let judged = run(&["-o", "json", "--datapath-only"]);
    assert!(
        judged.contains(
            r#""verdict": "DROPPED", "reason": 133, "match": "none", "l7": null, "rules": []"#
        ),
        "{judged}"
    );
    assert!(
        judged.contains("only the http proxy could let it pass"),
        "{judged}"
    );
}

#[test]
fn a_scenario_may_hold_its_world_and_be_json() {
    let scenario = r#"{
	"world": {"endpoints": [
		{"name": "a", "namespace": "ci", "labels": {"app": "a"}, "ips": ["10.0.0.1"]},
		{"name": "b", "namespace": "ci", "ips": ["10.0.0.2"]}
	]},
	"policy": "policy.yaml",
	"flows": [
		{"from": "ci/a", "to": "ci/b", "protocol": "TCP", "port": 80, "expect": {
			"verdict": "FORWARDED",
			"egress": {"verdict": "FORWARDED", "reason": 0, "match": "L4-only", "l7": null,
				"rules": ["CiliumNetworkPolicy/ci/open"], "reason_text": ""},
			"ingress": {"verdict": "FORWARDED", "reason": 0, "match": "none", "l7": null,
				"rules": [], "reason_text": ""}
		}},
		{"from": "ci/a", "to": "ci/b", "protocol": "TCP", "port": 81, "expect": "FORWARDED"}
	]
}
"#;
    let dir = folder(&[("policy.yaml", OPEN), ("scenario.json", scenario)]);
    let ran = policy(&["test", text(&dir.path().join("scenario.json"))]);
    assert_eq!((ran.status, &*ran.err), (1, ""));
    assert!(
        ran.out.contains(":15: flows[1]: ci/a -> ci/b 81/TCP"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("1 of 2 flows"), "{}", ran.out);
}

#[test]
fn yaml_and_json_hold_the_same() {
    let both = ["json", "yaml"].map(|format| {
        let ran = policy(&[
            "verdict",
            "--world",
            "examples/world/world.yaml",
            "--policy",
            "examples/world/policies",
            "--policy",
            "examples/articles/argocd-egress.yaml",
            "-o",
            format,
        ]);
        assert_eq!((ran.status, &*ran.err), (0, ""));
        ran.out
    });
    let json: serde_json::Value = serde_json::from_str(&both[0]).unwrap();
    let flows = json.as_array().unwrap();
    assert_eq!(flows.len(), 7);
    for flow in flows {
        let keys: Vec<_> = flow.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["egress", "ingress", "verdict"]);
    }
    let verdicts = both[1].matches("- verdict: ").count();
    assert_eq!(verdicts, flows.len());
}
