//! Policies that are wrong: told with file, line and field, and nothing runs.

use anyhow::{Result, ensure};
use netns::policies::{DNS, policy, to_name};
use support::World;

/// A policy that must not load, and what its error must name.
fn rejected(world: &World, text: &str, expected: &[&str]) -> Result<()> {
    let marker = world.files().join("it-ran");
    let done = world
        .run_with_dns()?
        .policy(text)?
        .command(&["touch", &marker.to_string_lossy()])?;
    ensure!(
        done.status == 125,
        "{text}\nended with {}: {}",
        done.status,
        done.stderr
    );
    ensure!(
        !marker.exists(),
        "the command ran under a broken policy:\n{text}"
    );
    ensure!(
        done.stderr.contains("policy-1.yaml"),
        "the file is named: {}",
        done.stderr
    );
    done.says(expected)
}

#[test]
fn broken_yaml_is_told_with_its_line() -> Result<()> {
    let world = World::new()?;
    rejected(
        &world,
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: [unclosed\n",
        &["policy-1.yaml:"],
    )?;
    rejected(&world, "a: 1\nb: @reserved\n", &["policy-1.yaml:2"])
}

#[test]
fn a_duplicate_key_is_an_error_and_not_the_last_one() -> Result<()> {
    let world = World::new()?;
    let text = policy("twice", &[DNS]).replace(
        "  endpointSelector: {}\n",
        "  endpointSelector: {}\n  endpointSelector: {}\n",
    );
    rejected(&world, &text, &["policy-1.yaml:8", "endpointSelector"])
}

#[test]
fn a_file_without_any_policy_is_told() -> Result<()> {
    let world = World::new()?;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n";
    let done = world.run_with_dns()?.policy(text)?.command(&["true"])?;
    assert_eq!(done.status, 125, "{done:?}");
    done.says(&["no policy in", "policy-1.yaml"])
}

#[test]
fn an_unknown_kind_of_the_group_is_told() -> Result<()> {
    let world = World::new()?;
    let text =
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicyy\nmetadata:\n  name: x\nspec: {}\n";
    let done = world.run_with_dns()?.policy(text)?.command(&["true"])?;
    assert_eq!(done.status, 125, "{done:?}");
    done.says(&["CiliumNetworkPolicyy"])
}

#[test]
fn an_unsupported_field_is_told_with_line_and_path_and_never_ignored() -> Result<()> {
    let world = World::new()?;
    let cases = [
        // (what follows the rule's first line, line of the field, path)
        (
            policy(
                "x",
                &["- toFQDNs:\n  - matchName: a.test\n  authentication: { mode: required }\n"],
            ),
            "policy-1.yaml:11",
            "spec.egress[0].authentication.mode",
        ),
        (
            policy(
                "x",
                &[
                    DNS,
                    &format!("{}    rules:\n      l7proto: r2d2\n", to_name("a.test")),
                ],
            ),
            "policy-1.yaml:20",
            "spec.egress[1].toPorts[0].rules.l7proto",
        ),
        (
            policy("x", &[DNS, "- nonsense: true\n"]),
            "policy-1.yaml:15",
            "spec.egress[1].nonsense",
        ),
        (
            policy("x", &[DNS]).replace(
                "  egress:",
                "  egressDeny:\n  - toFQDNs: [{ matchName: a.test }]\n  egress:",
            ),
            "policy-1.yaml:9",
            "spec.egressDeny[0].toFQDNs",
        ),
    ];
    for (text, place, path) in cases {
        rejected(&world, &text, &[place, path])?;
    }
    Ok(())
}

#[test]
fn bad_names_and_patterns_are_told() -> Result<()> {
    let world = World::new()?;
    for name in [
        "a{1,2}.cilium.io.",
        "%%",
        "",
        "exämple.test",
        "a..b",
        "*.cilium.io",
    ] {
        let text = policy("names", &[DNS, &to_name(name)]);
        rejected(&world, &text, &["spec.egress[1].toFQDNs[0].matchName"])?;
    }
    for pattern in ["[a-z]*.cilium.io.", "%$*.*", "", "a..*"] {
        let text = policy(
            "patterns",
            &[
                DNS,
                &format!("- toFQDNs:\n  - matchPattern: \"{pattern}\"\n"),
            ],
        );
        rejected(&world, &text, &["spec.egress[1].toFQDNs[0].matchPattern"])?;
    }
    let both = policy(
        "both",
        &[
            DNS,
            "- toFQDNs:\n  - matchName: a.test\n    matchPattern: \"*.a.test\"\n",
        ],
    );
    rejected(&world, &both, &["spec.egress[1].toFQDNs[0]"])
}

#[test]
fn a_policy_that_selects_nothing_is_told_with_the_labels_the_command_has() -> Result<()> {
    let world = World::new()?;
    let text = policy("selective", &[DNS]).replace(
        "endpointSelector: {}",
        "endpointSelector: { matchLabels: { app: somebody-else } }",
    );
    let done = world
        .run_with_dns()?
        .policy(&text)?
        .label("app=me")
        .command(&["true"])?;
    assert_eq!(done.status, 125, "{done:?}");
    done.says(&["selective", "app=me", "somebody-else"])?;
    let elsewhere =
        policy("elsewhere", &[DNS]).replace("namespace: default", "namespace: production");
    let done = world
        .run_with_dns()?
        .policy(&elsewhere)?
        .command(&["true"])?;
    assert_eq!(done.status, 125, "{done:?}");
    done.says(&["elsewhere", "production", "default"])?;
    world
        .run_with_dns()?
        .policy(&elsewhere)?
        .namespace("production")
        .command(&["true"])?
        .expect(0)?;
    world
        .run_with_dns()?
        .policy(&text)?
        .label("app=somebody-else")
        .command(&["true"])?
        .expect(0)?;
    Ok(())
}

#[test]
fn several_mistakes_are_told_at_once() -> Result<()> {
    let world = World::new()?;
    let text = policy(
        "many",
        &[&to_name("%%"), "- nonsense: true\n", &to_name("a{1}")],
    );
    rejected(
        &world,
        &text,
        &[
            "spec.egress[0].toFQDNs[0].matchName",
            "spec.egress[1].nonsense",
            "spec.egress[2].toFQDNs[0].matchName",
        ],
    )
}
