//! `namegate agent`: when endpoints are restricted, and when they are only watched.

mod agent;

use agent::{Node, Pod, answered, names};
use anyhow::{Result, ensure};
use netns::refused;
use serde_json::Value;
use support::{World, world::address as at};

/// An agent that enforces `names` for whoever has `selector`, and the only endpoint `{app: web}`.
fn node<'w>(world: &'w World, selector: &str, setting: &str) -> Result<(Node<'w>, Pod)> {
    let mut node = Node::new(world)?;
    let pod = Pod::routed(world, 1)?;
    node.policy("web.yaml", &names("web", selector, &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], setting)?;
    node.start()?;
    Ok((node, pod))
}

#[test]
fn always_restricts_who_is_selected_by_nothing() -> Result<()> {
    let world = World::new()?;
    let other = "{matchLabels: {app: other}}";
    let (node, pod) = node(&world, other, "enforcement: always")?;
    node.until_state(&pod, "enforcing")?;
    refused(&pod.knock("example.test", at::EXAMPLE)?)?;
    ensure!(world.arrived(at::EXAMPLE, 443)? == 0);
    // One rule about it counts as it does otherwise.
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    support::until(std::time::Duration::from_secs(30), "the policy", || {
        let answer = pod.resolve("example.test").ok()?;
        answer.contains(at::EXAMPLE).then_some(())
    })?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("evil.test", at::EVIL)?)
}

#[test]
fn by_default_only_who_is_selected_is_restricted() -> Result<()> {
    let world = World::new()?;
    let (node, pod) = node(&world, "{matchLabels: {app: other}}", "")?;
    node.until_state(&pod, "enforcing")?;
    answered(&node, &pod.get("evil.test", at::EVIL)?, at::EVIL)
}

#[test]
fn never_restricts_nobody() -> Result<()> {
    let world = World::new()?;
    let (node, pod) = node(&world, "{}", "enforcement: never")?;
    node.until_state(&pod, "enforcing")?;
    ensure!(pod.resolve("evil.test")?.contains(at::EVIL));
    answered(&node, &pod.get("evil.test", at::EVIL)?, at::EVIL)
}

#[test]
fn audit_of_all_refuses_nothing_tells_everything_and_ends_without_a_restart() -> Result<()> {
    let world = World::new()?;
    let (mut node, pod) = node(&world, "{}", "audit: true")?;
    node.until_state(&pod, "audit")?;
    ensure!(pod.resolve("evil.test")?.contains(at::EVIL));
    answered(&node, &pod.get("evil.test", at::EVIL)?, at::EVIL)?;
    let records = node
        .client()
        .json_lines(&["observe", "--last", "1000", "--verdict", "AUDIT"])?;
    let audited =
        |record: &Value| record.pointer("/IP/destination") == Some(&Value::from(at::EVIL));
    ensure!(
        !records.is_empty() && records.iter().all(audited),
        "{records:?}"
    );

    node.configure(&[(&pod, "{app: web}")], "")?;
    node.agent()?.signal(nix::sys::signal::Signal::SIGHUP)?;
    node.until_state(&pod, "enforcing")?;
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    ensure!(pod.resolve("example.test")?.contains(at::EXAMPLE));
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)
}
