//! `namegate agent`: endpoints on a plain host, routed and on a bridge, that come and go.

mod agent;

use std::time::Duration;

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::{
    echo::{What, ask},
    refused,
};
use support::{World, world::address as at};

#[test]
fn a_routed_endpoint_reaches_what_policy_names_and_nothing_else() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy(
        "web.yaml",
        &names("web", "{matchLabels: {app: web}}", &["example.test"]),
    )?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    let row = node.until_state(&pod, "enforcing")?;
    ensure!(
        row.to_string().contains("CiliumNetworkPolicy/default/web"),
        "{row}"
    );

    refused(&pod.knock("example.test", at::EXAMPLE)?)?;
    assert_eq!(
        world.arrived(at::EXAMPLE, 443)?,
        0,
        "not before it was resolved"
    );
    ensure!(
        pod.resolve("example.test")?.contains(at::EXAMPLE),
        "{}",
        node.log()
    );
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    ensure!(
        pod.resolve("evil.test")?.contains(at::EVIL),
        "any name may be asked"
    );
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    // IPv6, and DNS over TCP.
    let six = pod.ok(&format!(
        "dig +tcp +short @{} AAAA example.test",
        at::RESOLVER6
    ))?;
    ensure!(six.contains(at::EXAMPLE6), "{six}");
    answered(
        &node,
        &pod.get("example.test", &format!("[{}]", at::EXAMPLE6))?,
        at::EXAMPLE6,
    )?;
    // A resolver of the pod's own choosing is not even reached.
    ensure!(
        pod.sh(&format!("dig +time=1 +tries=1 @{} example.test", at::LIAR))?
            .status
            != 0
    );

    let cache = node.client().text(&["fqdn", "cache", "list"])?;
    ensure!(
        cache.contains("example.test.") && cache.contains(at::EXAMPLE),
        "{cache}"
    );
    let dropped = node
        .client()
        .json_lines(&["observe", "--verdict", "DROPPED"])?;
    ensure!(
        dropped
            .iter()
            .any(|record| record.to_string().contains(at::EVIL)),
        "{dropped:?}"
    );
    let status = node.stop()?;
    assert_eq!(status.status, 0, "{status:?}");
    Ok(())
}

#[test]
fn a_bridge_port_is_enforced_for_resolvers_beyond_and_beside_it() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    node.bridge("br0")?;
    let pod = Pod::bridged(&world, 1, "br0")?;
    let neighbour = Pod::bridged(&world, 2, "br0")?;
    node.policy(
        "web.yaml",
        &names("web", "{matchLabels: {app: web}}", &["example.test"]),
    )?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    ensure!(
        pod.resolve("example.test")?.contains(at::EXAMPLE),
        "{}",
        node.log()
    );
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    // Inside the bridge too: a neighbour that nobody allowed is not reached, not by any port.
    let ping = |from, patience| ask(from, None, neighbour.v4.parse()?, What::Ping, patience);
    ensure!(
        ping(&world.host, Duration::from_secs(8))?,
        "it answers who may ask"
    );
    ensure!(!ping(&pod.netns, Duration::from_millis(500))?);
    Ok(())
}

#[test]
fn interfaces_come_and_go_and_a_successor_inherits_nothing() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::unplugged(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "absent")?;
    let mut before = 0;
    for _ in 0..5 {
        pod.plug(&world.host)?;
        let row = node.until_state(&pod, "enforcing")?;
        let id = row
            .get("id")
            .and_then(serde_json::Value::as_u64)
            .context("a number")?;
        ensure!(
            id > before,
            "numbers are never used again: {id} after {before}"
        );
        before = id;
        refused(&pod.knock("example.test", at::EXAMPLE)?)?;
        ensure!(
            pod.resolve("example.test")?.contains(at::EXAMPLE),
            "{}",
            node.log()
        );
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        pod.unplug(&world.host)?;
        node.until_state(&pod, "absent")?;
        let cache = node.client().json(&["fqdn", "cache", "list"])?;
        assert_eq!(cache, serde_json::json!([]), "its names went with it");
    }
    Ok(())
}

#[test]
fn what_passes_no_hook_is_refused_with_a_reason_and_its_traffic_stays_dropped() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::unplugged(&world, 1)?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    // By the name of the endpoint there is now a macvlan of the uplink.
    let host = &world.host;
    host.ip(&[
        "link",
        "add",
        "link",
        "eth0",
        "name",
        &pod.interface,
        "type",
        "macvlan",
    ])?;
    host.ip(&["link", "set", &pod.interface, "up"])?;
    let row = node.until_state(&pod, "refused")?;
    ensure!(row.to_string().contains("macvlan"), "{row}");
    let status = node.client().text(&["status"])?;
    ensure!(
        status.contains("problem") && status.contains("macvlan") && status.contains("1 refused"),
        "{status}"
    );
    pod.unplug(host)?;
    pod.plug(host)?;
    node.until_state(&pod, "enforcing")?;
    ensure!(
        pod.resolve("example.test")?.contains(at::EXAMPLE),
        "{}",
        node.log()
    );
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    Ok(())
}
