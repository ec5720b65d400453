//! Attachment by clsact where it is asked for, and programs that stay in their place.

mod agent;

use std::{net::SocketAddr, time::Duration};

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::{answered_by, far::Far, get, knock, refused, traffic};
use support::{Netns, World, until, wait::until_true, world::address as at};

const PATIENCE: Duration = Duration::from_secs(20);

fn to(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(at::ip(address)?, port))
}

/// The names of the filters at a hook, in the order in which they run.
fn filters(host: &Netns, interface: &str, hook: &str) -> Result<Vec<String>> {
    let shown = host
        .output("tc", &["filter", "show", "dev", interface, hook])?
        .ok("tc filter show")?;
    Ok(shown
        .lines()
        .filter_map(|line| line.split_once(" handle ")?.1.split(' ').nth(1))
        .map(str::to_owned)
        .collect())
}

/// Exactly one program of ours at each hook, and no other.
fn ours_alone(host: &Netns, interface: &str) -> Result<()> {
    let both = [
        filters(host, interface, "ingress")?,
        filters(host, interface, "egress")?,
    ];
    ensure!(
        both == [["tc_from_pod"], ["tc_to_pod"]],
        "at the hooks are {both:?}"
    );
    Ok(())
}

fn policy() -> String {
    names("web", "{}", &["example.test"]).replace(
        "{port: \"443\", protocol: TCP}",
        "{port: \"443\", protocol: TCP}, {port: \"7\", protocol: TCP}",
    )
}

#[test]
fn a_command_is_locked_in_by_clsact_too() -> Result<()> {
    let world = World::new()?;
    let mut command = world
        .run_with_dns()?
        .allow("example.test")
        .option("--attach", "clsact")
        .shell()?;
    answered_by(&command.sh(&get("https://example.test/"))?, at::EXAMPLE)?;
    refused(&command.sh(&knock(&format!("https://{}/", at::EVIL)))?)?;
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    let status = command.client(&world.host).text(&["status"])?;
    ensure!(status.contains("clsact"), "{status}");
    command.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn filters_outlive_their_agent_and_a_successor_replaces_them() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "attach: clsact")?;
    node.start()?;
    let id = node.until_state(&pod, "enforcing")?.get("id").cloned();
    ours_alone(&world.host, &pod.interface)?;
    pod.resolve("example.test")?;
    let far = Far::count(
        &world.world,
        "uplink",
        &[
            &format!("ip daddr {} th dport 53", at::RESOLVER),
            &format!("ip daddr {} tcp dport {{ 7, 443 }}", at::EXAMPLE),
        ],
    )?;
    let held = traffic::held(&pod.netns, to(at::EXAMPLE, 7)?)?;
    let knocks = traffic::knocks(&pod.netns, vec![to(at::EVIL, 443)?, to(at::EXAMPLE, 8443)?])?;
    for round in 0..6 {
        if round % 2 == 0 {
            node.kill()?;
        } else {
            node.stop()?;
        }
        ours_alone(&world.host, &pod.interface)?;
        answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
        node.start()?;
        let row = node.until_state(&pod, "enforcing")?;
        assert_eq!(row.get("id"), id.as_ref(), "the same endpoint");
        ours_alone(&world.host, &pod.interface)?;
    }
    let log = node.log();
    let shown = |error: anyhow::Error| error.context(log.clone());
    let echoes = held.finish().map_err(shown)?;
    let knocked = knocks.finish().map_err(shown)?;
    println!("6 restarts: {echoes} echoes on one connection, {knocked} knocks");
    assert_eq!(far.forbidden()?, 0, "packets on the far side");
    ensure!(knocked > 50 && echoes > 100);
    node.stop()?;
    let removed = node.remove()?;
    assert_eq!(removed.status, 0, "{removed:?}");
    for hook in ["ingress", "egress"] {
        let left = filters(&world.host, &pod.interface, hook)?;
        ensure!(left.is_empty(), "{left:?}");
    }
    answered(&node, &pod.get("evil.test", at::EVIL)?, at::EVIL)?;
    Ok(())
}

#[test]
fn what_others_remove_is_put_back_counted_and_logged() -> Result<()> {
    let world = World::new()?;
    let host = &world.host;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "attach: clsact")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    let removals: [&[&str]; 3] = [
        &["filter", "del", "dev", &pod.interface, "ingress"],
        &["filter", "del", "dev", &pod.interface, "egress"],
        &["qdisc", "del", "dev", &pod.interface, "clsact"],
    ];
    for removal in removals {
        host.output("tc", removal)?.ok("tc")?;
        until_true(PATIENCE, "the programs to be back", || {
            ours_alone(host, &pod.interface).is_ok()
        })
        .with_context(|| node.log())?;
    }
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    // Somebody's filter that lets everything pass, before ours.
    let intruder = ["filter", "add", "dev", &pod.interface, "ingress"];
    let passing = "prio 1 protocol all bpf da bytecode";
    let mut words: Vec<_> = intruder.into_iter().chain(passing.split(' ')).collect();
    words.push("1,6 0 0 0");
    host.output("tc", &words)?.ok("tc")?;
    until_true(PATIENCE, "ours to be first again", || {
        filters(host, &pod.interface, "ingress")
            .is_ok_and(|all| all.len() == 2 && all.first().is_some_and(|f| f == "tc_from_pod"))
    })
    .with_context(|| node.log())?;
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    let count = until(PATIENCE, "the count", || {
        let metrics = host
            .output("curl", &["-sS", "http://127.0.0.1:9963/metrics"])
            .ok()?;
        let line = metrics
            .stdout
            .lines()
            .find(|line| line.starts_with("namegate_attachments_restored_total"))?;
        line.split(' ').nth(1)?.parse::<u64>().ok()
    })
    .with_context(|| node.log())?;
    assert_eq!(count, 5, "two filters, a qdisc with two, one in front");
    ensure!(
        node.log().contains("put back in its place"),
        "{}",
        node.log()
    );
    Ok(())
}

#[test]
fn what_shares_a_device_is_refused_by_name() -> Result<()> {
    let world = World::new()?;
    let host = &world.host;
    let mut node = Node::new(&world)?;
    let pod = Pod::unplugged(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    for kind in ["macvlan", "ipvlan"] {
        let name = pod.interface.as_str();
        let add = ["link", "add", "link", "eth0", "name", name, "type", kind];
        let added = host.output("ip", &add)?;
        if kind == "ipvlan" && added.stderr.contains("Unknown device type") {
            // A kernel that cannot make any has none to refuse.
            println!("this kernel has no ipvlan");
            continue;
        }
        added.ok("ip link add")?;
        host.ip(&["link", "set", name, "up"])?;
        let row = node.until_state(&pod, "refused")?;
        ensure!(
            row.to_string().contains(kind) && row.to_string().contains("pass no tc hook"),
            "{row}"
        );
        pod.unplug(host)?;
        node.until_state(&pod, "absent")?;
    }
    Ok(())
}
