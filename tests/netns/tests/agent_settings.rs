//! `namegate agent` when its operator changes his mind: the configuration read again, names forgotten.

mod agent;

use agent::{Node, Pod, answered, names};
use anyhow::{Result, ensure};
use netns::refused;
use support::{World, until, world::address as at};

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

fn reload(node: &mut Node<'_>) -> Result<()> {
    node.agent()?.signal(nix::sys::signal::Signal::SIGHUP)
}

#[test]
fn endpoints_of_the_configuration_come_go_and_change_without_a_restart() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let (one, two) = (Pod::routed(&world, 1)?, Pod::routed(&world, 2)?);
    let selector = "{matchLabels: {app: web}}";
    node.policy("web.yaml", &names("web", selector, &["example.test"]))?;
    let others = "{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}";
    node.policy("other.yaml", &names("other", others, &["api.example.test"]))?;
    node.configure(&[(&one, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&one, "enforcing")?;
    one.resolve("example.test")?;
    answered(&node, &one.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;

    // A second one: the first keeps its number and what it learned.
    let before = node.endpoint(&one)?;
    node.configure(&[(&one, "{app: web}"), (&two, "{app: db}")], "")?;
    reload(&mut node)?;
    until(SOON, "the second endpoint", || {
        let row = node.endpoint(&two).ok()?;
        (row.get("state")? == "enforcing").then_some(())
    })?;
    assert_eq!(node.endpoint(&one)?.get("id"), before.get("id"));
    answered(&node, &one.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    two.resolve("api.example.test")?;
    answered(&node, &two.get("api.example.test", at::API)?, at::API)?;
    two.resolve("example.test")?;
    refused(&two.knock("example.test", at::EXAMPLE)?)?;

    // It changes its label: another policy holds, and nothing learned before counts.
    node.configure(&[(&one, "{app: web}"), (&two, "{app: web}")], "")?;
    reload(&mut node)?;
    until(SOON, "the other policy", || {
        let row = node.endpoint(&two).ok()?;
        let named = row.get("policies")?.to_string().contains("default/web");
        (named && row.get("state")? == "enforcing").then_some(())
    })?;
    refused(&two.knock("api.example.test", at::API)?)?;
    two.resolve("example.test")?;
    answered(&node, &two.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;

    // A file with a mistake changes nothing and is told; so is what takes a restart.
    node.configure(&[(&one, "{app: web}"), (&one, "{app: web}")], "")?;
    reload(&mut node)?;
    until(SOON, "the mistake in `status`", || {
        let status = node.client().text(&["status"]).ok()?;
        (status.contains("stays as it was") && status.contains("another endpoint")).then_some(())
    })?;
    answered(&node, &two.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;

    // The first one leaves: its interface is no longer ours.
    node.configure(&[(&two, "{app: web}")], "limits: {inFlight: 7}")?;
    reload(&mut node)?;
    until(SOON, "the first endpoint to leave", || {
        node.endpoint(&one).is_err().then_some(())
    })?;
    until(SOON, "the word about the limits", || {
        let log = node.log();
        (log.contains("take a restart") && log.contains("limits")).then_some(())
    })?;
    answered(&node, &two.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    answered(&node, &one.get("evil.test", at::EVIL)?, at::EVIL)?;
    let problems = node.client().json(&["status"])?;
    assert_eq!(
        problems.pointer("/agent/problems"),
        Some(&serde_json::json!([]))
    );
    Ok(())
}

#[test]
fn names_that_are_forgotten_are_closed_and_a_restart_remembers_none() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let (one, two) = (Pod::routed(&world, 1)?, Pod::routed(&world, 2)?);
    let both = ["example.test", "*.example.test"];
    node.policy("web.yaml", &names("web", "{}", &both))?;
    node.configure(&[(&one, "{app: web}"), (&two, "{app: web}")], "")?;
    node.start()?;
    for pod in [&one, &two] {
        node.until_state(pod, "enforcing")?;
        pod.resolve("example.test")?;
        pod.resolve("api.example.test")?;
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    }
    let client = node.client();
    let row = node.endpoint(&one)?;
    let id = row.get("id").map(ToString::to_string).unwrap_or_default();
    let clean = ["fqdn", "cache", "clean", "-e", &id, "-p", "*.example.test"];
    let said = client.json(&clean)?;
    assert_eq!(said, serde_json::json!({"names": 1, "addresses": 1}));
    refused(&one.knock("api.example.test", at::API)?)?;
    answered(&node, &one.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    answered(&node, &two.get("api.example.test", at::API)?, at::API)?;
    let wrong = client.output(&["fqdn", "cache", "clean", "-p", "%%"])?;
    ensure!(
        wrong.status != 0 && wrong.stderr.contains("%%"),
        "{wrong:?}"
    );

    let said = client.text(&["fqdn", "cache", "clean"])?;
    ensure!(
        said.contains("3 names forgotten, 3 addresses closed"),
        "{said}"
    );
    for pod in [&one, &two] {
        refused(&pod.knock("example.test", at::EXAMPLE)?)?;
    }
    node.kill()?;
    node.start()?;
    for pod in [&one, &two] {
        node.until_state(pod, "enforcing")?;
        refused(&pod.knock("example.test", at::EXAMPLE)?)?;
    }
    let cache = node.client().json(&["fqdn", "cache", "list"])?;
    assert_eq!(cache, serde_json::json!([]));
    one.resolve("example.test")?;
    answered(&node, &one.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    Ok(())
}
