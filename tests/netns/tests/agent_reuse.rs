//! `namegate agent`: whoever comes after an endpoint, by whatever is the same, inherits nothing.

mod agent;

use std::{io::Write, net::SocketAddr, time::Duration};

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::refused;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    World,
    frame::{self, Ethernet, inject_in},
    until,
    world::address as at,
};

/// Where the echo of UDP is.
const ECHO: u16 = 7;

fn policy() -> String {
    names("web", "{}", &["example.test", "*.race.test"]).replace(
        "{port: \"443\", protocol: TCP}",
        "{port: \"443\", protocol: TCP}, {port: \"7\", protocol: UDP}",
    )
}

/// One datagram from a port of its own to the echo, whether it came back.
fn echo(pod: &Pod, from: u16) -> Result<bool> {
    let line = format!(
        "echo hello | timeout 5 socat -t 1 - UDP4:{}:{ECHO},sourceport={from}",
        at::EXAMPLE
    );
    Ok(pod.sh(&line)?.stdout.contains("hello"))
}

/// Waits until an endpoint is enforced by another number than this.
fn another(node: &Node<'_>, pod: &Pod, old: u64) -> Result<u64> {
    until(Duration::from_secs(20), "another endpoint", || {
        let row = node.endpoint(pod).ok()?;
        let id = row.get("id").and_then(Value::as_u64)?;
        (id != old && row.get("state") == Some(&json!("enforcing"))).then_some(id)
    })
    .with_context(|| format!("{:?}\n{}", node.endpoint(pod), node.log()))
}

fn number(node: &Node<'_>, pod: &Pod) -> Result<u64> {
    another(node, pod, 0)
}

/// What a predecessor would have left, and none of it is there.
fn has_nothing(node: &Node<'_>, pod: &Pod) -> Result<()> {
    for list in [
        ["fqdn", "cache", "list"],
        ["bpf", "learned", "list"],
        ["bpf", "ct", "list"],
    ] {
        let rows = node.client().json(&list)?;
        ensure!(rows == json!([]), "{list:?}: {rows}\n{}", node.log());
    }
    let arrived = node.world.arrived_at(at::EXAMPLE)?;
    refused(&pod.knock("example.test", at::EXAMPLE)?)?;
    ensure!(!echo(pod, 4000)?, "a flow went on\n{}", node.log());
    assert_eq!(
        node.world.arrived_at(at::EXAMPLE)?,
        arrived,
        "packets of a successor"
    );
    Ok(())
}

/// Resolves, connects, keeps a flow of UDP: what there is to inherit.
fn settle_in(node: &Node<'_>, pod: &Pod) -> Result<()> {
    ensure!(
        pod.resolve("example.test")?.contains(at::EXAMPLE),
        "{}",
        node.log()
    );
    answered(node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    // One socket waits for a second: a busy machine may take another.
    until(Duration::from_secs(30), "the echo", || {
        echo(pod, 4000).is_ok_and(|came| came).then_some(())
    })
    .with_context(|| node.log())
}

#[test]
fn another_interface_by_the_same_name_number_and_addresses_inherits_nothing() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    // Addresses for exactly what one of them learns: a quota that was inherited would be used up.
    node.configure(&[(&pod, "{app: web}")], "limits: {addresses: 4}")?;
    node.start()?;
    let mut id = number(&node, &pod)?;
    for round in 0..6 {
        settle_in(&node, &pod)?;
        for name in 0..3 {
            let name = format!("n{}.race.test", round * 3 + name);
            let address = pod.resolve(&name)?.trim().to_owned();
            ensure!(!address.is_empty(), "{name}: {}", node.log());
            answered(&node, &pod.get(&name, &address)?, &address)?;
        }
        let index = pod.index(&world.host)?;
        assert_eq!(pod.replace(&world.host)?, index);
        let next = another(&node, &pod, id)?;
        ensure!(next > id, "{next} after {id}");
        id = next;
        has_nothing(&node, &pod)?;
    }
    Ok(())
}

#[test]
fn the_rest_of_a_predecessors_datagram_is_not_let_through() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    let id = number(&node, &pod)?;
    settle_in(&node, &pod)?;
    let parts = |identification: u16| -> Result<[Vec<u8>; 2]> {
        let shown = pod.ok("ip -o link show dev eth0")?;
        let gateway = world
            .host
            .ip(&["-o", "link", "show", "dev", &pod.interface])?;
        frame::udp_fragments(
            Ethernet {
                to: mac(&gateway)?,
                from: mac(&shown)?,
            },
            SocketAddr::new(at::ip(&pod.v4)?, 4001),
            SocketAddr::new(at::ip(at::EXAMPLE)?, ECHO),
            identification,
        )
    };
    let send = |frame: &[u8]| inject_in(&pod.netns, "eth0", frame);
    // Both parts of one sender arrive.
    let before = world.arrived(at::EXAMPLE, ECHO)?;
    let [first, later] = parts(1)?;
    send(&first)?;
    send(&later)?;
    until(Duration::from_secs(30), "the datagram in the world", || {
        (world.arrived(at::EXAMPLE, ECHO).ok()? > before).then_some(())
    })
    .with_context(|| node.log())?;
    // Of a datagram that the predecessor began, the successor cannot send the rest.
    let [first, _] = parts(2)?;
    send(&first)?;
    pod.replace(&world.host)?;
    another(&node, &pod, id)?;
    settle_in(&node, &pod)?;
    let before = world.arrived_at(at::EXAMPLE)?;
    let [_, later] = parts(2)?;
    send(&later)?;
    let metrics = until(Duration::from_secs(30), "the rest to be dropped", || {
        let metrics = node.client().text(&["bpf", "metrics", "list"]).ok()?;
        metrics
            .to_lowercase()
            .contains("fragment")
            .then_some(metrics)
    })
    .with_context(|| node.log())?;
    assert_eq!(world.arrived_at(at::EXAMPLE)?, before, "{metrics}");
    Ok(())
}

fn mac(shown: &str) -> Result<[u8; 6]> {
    let text = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .context("no hardware address")?;
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("no hardware address")
}

#[test]
fn an_interface_that_was_replaced_while_nobody_watched_inherits_nothing() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    let mut id = number(&node, &pod)?;
    for round in 0..3 {
        settle_in(&node, &pod)?;
        if round == 1 {
            node.stop()?;
        } else {
            node.kill()?;
        }
        pod.replace(&world.host)?;
        node.start()?;
        id = another(&node, &pod, id)?;
        has_nothing(&node, &pod)?;
    }
    Ok(())
}

#[test]
fn an_interface_that_was_replaced_among_more_changes_than_fit_inherits_nothing() -> Result<()> {
    /// More notices than the agent's socket has room for.
    const CHANGES: u32 = 20_000;
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    let id = number(&node, &pod)?;
    settle_in(&node, &pod)?;
    node.agent()?.signal(Signal::SIGSTOP)?;
    let changes: String = (0..CHANGES)
        .map(|change| format!("link set dev {} alias a{change}\n", pod.interface))
        .collect();
    let mut batch = tempfile::NamedTempFile::new()?;
    batch.write_all(changes.as_bytes())?;
    world
        .host
        .ip(&["-batch", &batch.path().to_string_lossy()])?;
    pod.replace(&world.host)?;
    node.agent()?.signal(Signal::SIGCONT)?;
    let next = another(&node, &pod, id)?;
    ensure!(next > id, "{next} after {id}");
    ensure!(node.log().contains("too many changes"), "{}", node.log());
    has_nothing(&node, &pod)?;
    settle_in(&node, &pod)
}

#[test]
fn an_address_that_moves_to_another_endpoint_takes_nothing_along() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let (one, mut two) = (Pod::routed(&world, 1)?, Pod::unplugged(&world, 2)?);
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&one, "{app: web}")], "")?;
    node.start()?;
    let first = number(&node, &one)?;
    settle_in(&node, &one)?;
    node.stop()?;
    // The address is now behind another interface, and the first one has another address.
    one.unplug(&world.host)?;
    (two.v4, two.v6) = (one.v4.clone(), one.v6.clone());
    two.plug(&world.host)?;
    node.configure(&[(&two, "{app: web}")], "")?;
    node.start()?;
    let second = another(&node, &two, first)?;
    ensure!(second > first, "{second} after {first}");
    has_nothing(&node, &two)?;
    settle_in(&node, &two)?;
    // Taken out of the configuration and put in again: the same endpoint by every mark.
    node.stop()?;
    node.configure(&[], "")?;
    node.start()?;
    node.stop()?;
    node.configure(&[(&two, "{app: web}")], "")?;
    node.start()?;
    let third = another(&node, &two, second)?;
    ensure!(third > second, "{third} after {second}");
    has_nothing(&node, &two)
}
