//! `namegate agent`: what survives its end, and its sudden end.

mod agent;

use std::time::Duration;

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::refused;
use serde_json::Value;
use support::{Process, World, world::address as at};

/// One HTTP connection that asks again and again; it ends with status 0 only if no answer failed.
fn held_open(pod: &Pod, address: &str, stop: &std::path::Path) -> Result<Process> {
    let script = format!(
        "exec 3<>/dev/tcp/{address}/80 || exit 3; n=0; while [ ! -e {stop} ]; do \
         printf 'GET / HTTP/1.1\\r\\nHost: example.test\\r\\n\\r\\n' >&3 || exit 4; \
         IFS= read -t 3 -r -u 3 line || exit 5; [[ $line == *200* ]] || exit 6; \
         IFS= read -t 0.1 -r -N 100000 -u 3 rest; n=$((n+1)); done; echo $n",
        stop = stop.display()
    );
    Process::spawn(
        "a held connection",
        pod.netns.command("bash").args(["-c", &script]),
    )
}

fn policy() -> String {
    names("web", "{}", &["example.test"]).replace(
        "    - ports: [{port: \"443\", protocol: TCP}]",
        "    - ports: [{port: \"443\", protocol: TCP}, {port: \"80\", protocol: TCP}]",
    )
}

fn cache(node: &Node<'_>) -> Result<Value> {
    node.client().json(&["fqdn", "cache", "list"])
}

/// Endpoint, name and addresses of each row, and when it ends in seconds of the day: the wall
/// clock is read anew by every process.
fn rows(cache: &Value, key: &str) -> Vec<(String, u64)> {
    cache
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let mut row = row.clone();
            let end = row.get(key).and_then(Value::as_str).unwrap_or_default();
            let clock = end.split('T').nth(1).unwrap_or_default();
            let seconds = clock
                .split([':', '.', 'Z'])
                .take(3)
                .filter_map(|part| part.parse::<u64>().ok())
                .fold(0, |sum, part| sum * 60 + part);
            if let Some(row) = row.as_object_mut() {
                row.retain(|key, _| !key.to_lowercase().contains("time") && key != "Expires");
            }
            (row.to_string(), seconds)
        })
        .collect()
}

fn same(before: &[(String, u64)], after: &[(String, u64)]) -> bool {
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(a, b)| a.0 == b.0 && a.1.abs_diff(b.1) <= 1)
}

fn number(node: &Node<'_>, pod: &Pod) -> Result<u64> {
    node.until_state(pod, "enforcing")?
        .get("id")
        .and_then(Value::as_u64)
        .context("a number")
}

#[test]
fn a_restart_keeps_flows_names_and_remaining_ttls() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    let id = number(&node, &pod)?;
    pod.resolve("example.test")?;
    let stop = node.files().join("stop");
    let mut flow = held_open(&pod, at::EXAMPLE, &stop)?;
    let before = rows(&cache(&node)?, "expiration-time");
    ensure!(before.len() == 1, "{before:?}");
    let learned = rows(&node.client().json(&["bpf", "learned"])?, "Expires");
    for _ in 0..3 {
        node.stop()?;
        // Nobody is there, and nothing is open: what was learned counts, what was not does not.
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        refused(&pod.knock("evil.test", at::EVIL)?)?;
        ensure!(
            pod.sh(&format!("dig +time=1 +tries=1 @{} evil.test", at::RESOLVER))?
                .status
                != 0
        );
        node.start()?;
        assert_eq!(number(&node, &pod)?, id, "the same endpoint");
        let now = (
            rows(&cache(&node)?, "expiration-time"),
            rows(&node.client().json(&["bpf", "learned"])?, "Expires"),
        );
        ensure!(
            same(&before, &now.0) && same(&learned, &now.1),
            "{before:?} {learned:?}\n{now:?}\n{}",
            node.log()
        );
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        refused(&pod.knock("evil.test", at::EVIL)?)?;
    }
    std::fs::write(&stop, "")?;
    let ended = flow.wait(Duration::from_secs(30))?;
    assert_eq!(
        ended.status,
        0,
        "the flow was cut: {ended:?}\n{}",
        node.log()
    );
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    Ok(())
}

#[test]
fn what_changed_while_nobody_watched_counts_from_the_start() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let (one, two) = (Pod::routed(&world, 1)?, Pod::routed(&world, 2)?);
    node.policy(
        "web.yaml",
        &names("web", "{}", &["example.test", "api.example.test"]),
    )?;
    node.configure(&[(&one, "{app: web}"), (&two, "{app: web}")], "")?;
    node.start()?;
    let (first, second) = (number(&node, &one)?, number(&node, &two)?);
    for name in ["example.test", "api.example.test"] {
        one.resolve(name)?;
        two.resolve(name)?;
    }
    node.kill()?;
    // A rule less, and the second interface is another one now.
    node.policy("web.yaml", &names("web", "{}", &["api.example.test"]))?;
    two.unplug(&world.host)?;
    two.plug(&world.host)?;
    node.start()?;
    assert_eq!(number(&node, &one)?, first);
    let id = number(&node, &two)?;
    ensure!(id > second.max(first), "{id}: no number is used again");
    answered(&node, &one.get("api.example.test", at::API)?, at::API)?;
    refused(&one.knock("example.test", at::EXAMPLE)?)?;
    refused(&two.knock("api.example.test", at::API)?)?;
    let learned = node.client().json(&["bpf", "learned"])?.to_string();
    ensure!(
        !learned.contains(&format!("\"Endpoint\":{second},")),
        "{learned}"
    );
    Ok(())
}

#[test]
fn a_journal_that_is_gone_or_foreign_closes_and_never_opens() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    for foreign in [
        "",
        "not ours\n",
        "{\"namegate\":{\"format\":1,\"boot\":\"another\"}}\n",
    ] {
        node.start()?;
        let id = number(&node, &pod)?;
        pod.resolve("example.test")?;
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        node.kill()?;
        std::fs::write(node.files().join("state/journal"), foreign)?;
        node.start()?;
        assert_eq!(number(&node, &pod)?, id, "maps say who is who");
        refused(&pod.knock("example.test", at::EXAMPLE)?)?;
        ensure!(pod.resolve("example.test")?.contains(at::EXAMPLE));
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        node.stop()?;
    }
    Ok(())
}

#[test]
fn other_map_sizes_and_removal_leave_nothing_of_the_old_ones() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    node.stop()?;
    node.configure(&[(&pod, "{app: web}")], "sizes: {learned: 65536}")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    let generations = std::fs::read_dir(node.pins())?.count();
    assert_eq!(generations, 2, "one of maps and one of links");
    node.stop()?;
    let removed = node.remove()?;
    assert_eq!(removed.status, 0, "{removed:?}");
    ensure!(!node.pins().exists());
    let rules = world.host.ip(&["rule"])?;
    ensure!(!rules.contains("2004"), "{rules}");
    // Nothing is enforced any more, and nothing is left in the way.
    answered(&node, &pod.get("evil.test", at::EVIL)?, at::EVIL)?;
    Ok(())
}
