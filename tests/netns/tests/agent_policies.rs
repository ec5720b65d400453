//! `namegate agent`: policies that change while it runs.

mod agent;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::{refused, traffic};
use support::{
    World,
    capture::{Capture, repeated_syns},
    patience, until,
    world::address as at,
};

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
        refused(&pod.knock("api.example.test", at::API)?)?;
    }
    println!("slowest change of policy: {slowest:?}");
    // How soon exactly is measured by `policy_latency`: here a probe takes longer than the agent.
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
    until(Duration::from_secs(30), "the mistake in `status`", || {
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
        Duration::from_secs(30),
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
                - ports: [{port: \"7\", protocol: TCP}]\n";
    node.policy("wide.yaml", wide)?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    // A SYN that was dropped would come again a second later, and be let through.
    let syns = Capture::start(
        &pod.netns,
        "eth0",
        "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    )?;
    let to = |address: &str| at::ip(address).map(|ip| SocketAddr::new(ip, 7));
    let held = traffic::held(&pod.netns, to(at::EXAMPLE)?)?;
    let connects = traffic::connects(&pod.netns, to(at::API)?)?;
    let applied = || node.log().matches("policies in force").count();
    for round in 0..10 {
        let narrow = wide.replace("wide", "narrow").replace(
            "203.0.113.0/24",
            &format!("203.0.113.{round}/32, 203.0.113.11/32"),
        );
        for change in [Some(narrow), None] {
            let (before, flowed) = (applied(), (held.steps(), connects.steps()));
            match change {
                Some(narrow) => node.policy("narrow.yaml", &narrow)?,
                None => node.remove_policy("narrow.yaml")?,
            }
            until(Duration::from_secs(30), "the change and traffic", || {
                let ended = held.has_ended() || connects.has_ended();
                let flows = held.steps() > flowed.0 && connects.steps() > flowed.1;
                (ended || (applied() > before && flows)).then_some(())
            })
            .with_context(|| node.log())?;
        }
    }
    let shown = |error: anyhow::Error| error.context(node.log());
    let (echoes, connections) = (
        held.finish().map_err(shown)?,
        connects.finish().map_err(shown)?,
    );
    println!("{echoes} echoes on one connection, {connections} connections");
    assert_eq!(repeated_syns(&syns.finish()?), 0, "{}", node.log());
    Ok(())
}
