//! The policies people read about, as files, unmodified: `examples/articles` and `examples/policies`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use netns::{answered_by, connect, dig, get, knock, refused};
use support::{World, tools, world::address as at};

fn article(name: &str) -> PathBuf {
    tools::workspace().join("examples/articles").join(name)
}

fn example(name: &str) -> PathBuf {
    tools::workspace().join("examples/policies").join(name)
}

#[test]
fn argocd_to_github_as_the_article_writes_it_leaves_out_the_apex() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .policy_file(&article("argocd-egress.yaml"))
        .namespace("argocd")
        .shell()?;
    answered_by(&pod.sh(&get("-4 https://api.github.com/"))?, at::GITHUB_API)?;
    answered_by(
        &pod.sh(&get("-4 https://raw.githubusercontent.com/"))?,
        at::GITHUB_API,
    )?;
    refused(&pod.sh(&knock("-4 https://github.com/"))?)?;
    refused(&pod.sh(&knock("-4 http://api.github.com/"))?)?;
    refused(&pod.sh(&knock("-4 https://evil.test/"))?)?;
    refused(&pod.sh(&connect(at::EVIL, 443))?)?;
    assert_eq!(
        world.arrived_at(at::GITHUB)? + world.arrived_at(at::EVIL)?,
        0
    );
    let done = pod.finish()?;
    let report = done.report()?;
    assert_eq!(report.policies.len(), 1);
    let denied = report
        .denied_to(at::GITHUB, 443)
        .expect("the apex was refused and reported");
    assert_eq!(denied.reason, 133);
    Ok(())
}

#[test]
fn argocd_to_github_with_the_apex_named() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .policy_file(&example("argocd-to-github.yaml"))
        .namespace("argocd")
        .shell()?;
    answered_by(&pod.sh(&get("-4 https://github.com/"))?, at::GITHUB)?;
    answered_by(&pod.sh(&get("-4 https://api.github.com/"))?, at::GITHUB_API)?;
    refused(&pod.sh(&knock("-4 http://github.com/"))?)?;
    refused(&pod.sh(&knock("-4 https://evil.test/"))?)?;
    let report = pod.finish()?.report()?;
    let allowed = report.allowed_to(at::GITHUB, 443).expect("reported");
    let rule = allowed.rules.first().expect("the rule is named");
    ensure!(
        rule.file.ends_with("argocd-to-github.yaml") && rule.line > 1,
        "{rule:?}"
    );
    ensure!(rule.policy.contains("argocd-to-github"), "{rule:?}");
    Ok(())
}

#[test]
fn default_deny_answers_dns_and_opens_nothing_else() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .policy_file(&article("default-deny.yaml"))
        .namespace("production")
        .shell()?;
    assert_eq!(pod.ok(&dig("+short example.test"))?, at::EXAMPLE);
    assert_eq!(pod.ok(&dig("+tcp +short example.test"))?, at::EXAMPLE);
    refused(&pod.sh(&knock("-4 https://example.test/"))?)?;
    refused(&pod.sh(&connect(at::EXAMPLE, 80))?)?;
    assert_eq!(world.arrived_at(at::EXAMPLE)?, 0);
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn an_external_api_works_together_with_the_rule_for_dns() -> Result<()> {
    let world = World::new()?;
    // The policy names no namespace, so it belongs to the one of the command, as with kubectl.
    let mut pod = world
        .run_with_dns()?
        .policy_file(&article("allow-external-api.yaml"))
        .policy_file(&article("default-deny.yaml"))
        .namespace("production")
        .label("app=backend")
        .shell()?;
    answered_by(&pod.sh(&get("-4 https://api.stripe.com/"))?, at::STRIPE)?;
    refused(&pod.sh(&knock("-4 https://example.test/"))?)?;
    refused(&pod.sh(&knock("-4 http://api.stripe.com/"))?)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn an_external_api_alone_has_no_way_to_ask_for_names_and_says_so() -> Result<()> {
    let world = World::new()?;
    let file = article("allow-external-api.yaml");
    let mut pod = world
        .run_with_dns()?
        .policy_file(&file)
        .label("app=backend")
        .shell()?;
    let answer = pod.sh("dig +time=1 +tries=1 +short api.stripe.com")?;
    ensure!(!answer.stdout.contains(at::STRIPE), "{answer:?}");
    refused(&pod.sh(&connect(at::STRIPE, 443))?)?;
    let done = pod.finish()?;
    done.says(&["allow-external-api", "DNS"])
}

#[test]
fn an_ingress_policy_leaves_egress_as_it_was() -> Result<()> {
    let world = World::new()?;
    for (file, namespace, label) in [
        ("blog-policy.yaml", "blog", "app.kubernetes.io/name=blog"),
        ("webapp-db-policy.yaml", "webapp", "app=postgres"),
    ] {
        let run = world
            .run_with_dns()?
            .policy_file(&article(file))
            .namespace(namespace)
            .label(label);
        let mut pod = run.shell()?;
        answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
        answered_by(
            &pod.sh(&get(&format!("-k https://{}/", at::EVIL)))?,
            at::EVIL,
        )?;
        pod.finish()?.expect(0)?;
    }
    Ok(())
}

#[test]
fn rules_that_are_not_supported_are_told_with_their_place() -> Result<()> {
    let world = World::new()?;
    for (place, namespace, label, rules) in [
        (
            "api-server-policy.yaml",
            "production",
            "app=api-server",
            "http",
        ),
        ("kafka.yaml", "production", "app=kafka", "kafka"),
    ] {
        let run = world
            .run_with_dns()?
            .policy_file(&article(place))
            .namespace(namespace)
            .label(label);
        let done = run.command(&["true"])?;
        assert_eq!(done.status, 0, "{done:?}");
        done.says(&[place, &format!("the {rules} rules need a proxy")])?;
    }
    Ok(())
}

#[test]
fn a_ci_runner_may_ask_for_its_own_names_only() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .policy_file(&example("ci-runner.yaml"))
        .shell()?;
    answered_by(&pod.sh(&get("-4 https://github.com/"))?, at::GITHUB)?;
    for name in ["evil.test", "api.github.com"] {
        let answer = pod.sh(&dig(name))?;
        ensure!(
            answer.stdout.contains("status: REFUSED") && answer.stdout.contains("ci-runner"),
            "{answer:?}"
        );
    }
    pod.finish()?.expect(0)?;
    Ok(())
}
