//! `namegate agent`: policies that change while it runs.

mod agent;

use std::time::{Duration, Instant};

use agent::{Node, Pod, answered, names};
use anyhow::{Result, ensure};
use netns::refused;
use support::{World, patience, until, world::address as at};

/// From the change of a file to the verdict it asks for.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How long until a bare connection succeeds, or fails, as wanted. A refused one is silent: a few
/// milliseconds tell, because nothing here is further away than two veth pairs.
fn until_open(pod: &Pod, address: &str, wanted: bool) -> Result<Duration> {
    let line = format!(
        "for i in $(seq 400); do if timeout {} bash -c 'exec 3<>/dev/tcp/{address}/443' 2>/dev/null; \
         then r=true; else r=false; fi; [ $r = {wanted} ] && exit 0; done; exit 1",
        patience(Duration::from_millis(80)).as_secs_f32()
    );
    let began = Instant::now();
    pod.ok(&line)?;
    Ok(began.elapsed())
}

#[test]
fn an_added_rule_opens_names_resolved_before_and_a_removed_one_closes_at_once() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    let other = Pod::routed(&world, 2)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}"), (&other, "{app: other}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    node.until_state(&other, "enforcing")?;
    for name in ["example.test", "api.example.test", "other.test"] {
        pod.resolve(name)?;
    }
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("api.example.test", at::API)?)?;

    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        // No new lookup in between.
        node.policy(
            "api.yaml",
            &names("api", "{matchLabels: {app: web}}", &["api.example.test"]),
        )?;
        slowest = slowest.max(until_open(&pod, at::API, true)?);
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        node.remove_policy("api.yaml")?;
        slowest = slowest.max(until_open(&pod, at::API, false)?);
    }
    println!("slowest change of policy: {slowest:?}");
    // How soon exactly is measured by `policy_latency`: here a probe takes longer than the agent.
    ensure!(
        slowest < patience(AT_ONCE + Duration::from_secs(3)),
        "{slowest:?}\n{}",
        node.log()
    );
    refused(&pod.knock("other.test", at::OTHER)?)?;
    assert_eq!(world.arrived(at::OTHER, 443)?, 0);
    // The other endpoint resolved nothing, so nothing of this opened anything for it.
    refused(&other.knock("example.test", at::EXAMPLE)?)?;
    Ok(())
}

#[test]
fn a_bad_file_keeps_the_last_good_policies_and_says_so() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    pod.resolve("example.test")?;
    pod.resolve("api.example.test")?;
    node.policy(
        "bad.yaml",
        &names("bad", "{}", &["api.example.test"]).replace("toFQDNs", "toFQDN"),
    )?;
    until(Duration::from_secs(5), "the mistake in `status`", || {
        let status = node.client().text(&["status"]).ok()?;
        (status.contains("bad.yaml") && status.contains("toFQDN")).then_some(())
    })?;
    ensure!(
        node.log().contains("last good policies stay in force"),
        "{}",
        node.log()
    );
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("api.example.test", at::API)?)?;
    // A folder that lost every file is a mistake too: no rules would mean no restriction.
    node.remove_policy("bad.yaml")?;
    node.remove_policy("web.yaml")?;
    until(
        Duration::from_secs(5),
        "the empty folder in `status`",
        || {
            let status = node.client().text(&["status"]).ok()?;
            status.contains("holds no .yaml").then_some(())
        },
    )?;
    refused(&pod.knock("api.example.test", at::API)?)?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    node.policy("web.yaml", &names("web", "{}", &["api.example.test"]))?;
    until_open(&pod, at::API, true)?;
    until_open(&pod, at::EXAMPLE, false)?;
    let status = node.client().json(&["status"])?;
    assert_eq!(
        status.pointer("/agent/problems"),
        Some(&serde_json::json!([])),
        "{status}"
    );
    Ok(())
}

#[test]
fn without_good_policies_from_the_start_nothing_passes() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("bad.yaml", "apiVersion: [")?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "refused")?;
    refused(&pod.knock("example.test", at::EXAMPLE)?)?;
    ensure!(
        pod.sh(&format!(
            "dig +time=1 +tries=1 @{} example.test",
            at::RESOLVER
        ))?
        .status
            != 0
    );
    let out = (
        world.arrived_at(at::EXAMPLE)?,
        world.arrived_at(at::RESOLVER)?,
    );
    assert_eq!(out, (0, 0), "not one packet gets out");
    node.policy("bad.yaml", &names("good", "{}", &["example.test"]))?;
    node.until_state(&pod, "enforcing")?;
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    Ok(())
}

#[test]
fn prefixes_that_come_and_go_cut_no_flow_that_stays_allowed() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    let wide = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: wide}\nspec:\n  \
                endpointSelector: {}\n  egress:\n  - toCIDR: [203.0.113.0/24]\n    toPorts:\n    \
                - ports: [{port: \"443\", protocol: TCP}]\n";
    node.policy("wide.yaml", wide)?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    // One connection that sends a request every few milliseconds while prefixes change.
    let flow = std::thread::scope(|scope| -> Result<_> {
        let flow = scope.spawn(|| {
            pod.ok(&format!(
                "exec 3<>/dev/tcp/{}/443; for i in $(seq 100); do timeout {} bash -c \
                 'exec 3<>/dev/tcp/{}/443' || exit 1; sleep 0.01; done; echo held",
                at::EXAMPLE,
                patience(Duration::from_millis(500)).as_secs_f32(),
                at::API
            ))
        });
        for round in 0..10 {
            let narrow = wide.replace("wide", "narrow").replace(
                "203.0.113.0/24",
                &format!("203.0.113.{round}/32, 203.0.113.11/32"),
            );
            node.policy("narrow.yaml", &narrow)?;
            std::thread::sleep(Duration::from_millis(120));
            node.remove_policy("narrow.yaml")?;
            std::thread::sleep(Duration::from_millis(120));
        }
        flow.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })?;
    assert_eq!(flow.trim(), "held", "{}", node.log());
    Ok(())
}
