//! `namegate policy` as people and pull-request checks run it: the binary, files, exit statuses.
//!
//! In:  the examples; files made here.
//! Out: what is printed, to the letter where programs read it.
//! Not here: what policies mean (`policy`, `agent::offline`).

mod command;
mod mistakes;

use command::{FLOW, OPEN, WORLD, folder, policy, root, text};

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
            r#""verdict": "DROPPED", "reason": 247, "match": "L4-only", "l7": null, "rules": ["#
        ),
        "{judged}"
    );
    assert!(
        judged.contains("Needs the L7 proxy, which this version does not have"),
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

#[test]
fn what_checking_and_testing_found_is_there_for_programs_too() {
    let broken = OPEN.replace("egress:", "egres:");
    let scenario = "world: {endpoints: [{name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1]}, \
                    {name: b, namespace: ci, ips: [10.0.0.2]}]}\npolicy: open.yaml\nflows:\n\
                    - {from: ci/a, to: ci/b, protocol: TCP, port: 81, expect: FORWARDED}\n";
    let dir = folder(&[
        ("open.yaml", OPEN),
        ("b.yaml", &broken),
        ("other.yaml", "apiVersion: v1\nkind: ConfigMap\n"),
    ]);
    let ran = policy(&["validate", "-o", "json", text(dir.path())]);
    assert_eq!((ran.status, &*ran.err), (2, ""));
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["valid"], false);
    let of = |severity: &str| {
        let all = found["findings"].as_array().unwrap();
        let mut all = all.iter().filter(|one| one["severity"] == severity);
        all.next().unwrap().clone()
    };
    let error = of("error");
    assert_eq!(
        (&error["line"], &error["field"]),
        (&6.into(), &"spec.egres".into())
    );
    assert!(error["file"].as_str().unwrap().ends_with("b.yaml"));
    assert!(
        of("note")["message"]
            .as_str()
            .unwrap()
            .contains("ConfigMap")
    );
    assert_eq!(
        found["policies"][0]["name"], "CiliumNetworkPolicy/ci/open",
        "{found}"
    );
    let dir = folder(&[("open.yaml", OPEN), ("scenario.yaml", scenario)]);
    let ran = policy(&[
        "test",
        "-o",
        "yaml",
        text(&dir.path().join("scenario.yaml")),
    ]);
    assert_eq!((ran.status, &*ran.err), (1, ""));
    for line in [
        "ok: false",
        "flows: 1",
        "field: verdict",
        "expected: FORWARDED",
    ] {
        assert!(ran.out.contains(line), "{line} in {}", ran.out);
    }
}
