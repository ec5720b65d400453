//! `namegate agent` killed a hundred times during traffic. Alone in its file: it loads every core.

mod agent;

use std::{net::SocketAddr, time::Duration};

use agent::{Node, Pod, names};
use anyhow::{Result, ensure};
use netns::{far::Far, traffic};
use support::{World, patience, rounds, until, world::address as at};

/// Every second one in the middle of starting.
const KILLS: u32 = 100;
/// Milliseconds: the longest time that starting is left alone.
const LONGEST: u32 = 300;

fn to(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(at::ip(address)?, port))
}

/// What the world may see of this node.
fn allowed() -> [String; 4] {
    [
        format!("ip daddr {} th dport 53", at::RESOLVER),
        format!("ip6 daddr {} th dport 53", at::RESOLVER6),
        format!(
            "ip daddr {{ {}, {} }} tcp dport {{ 7, 80 }}",
            at::EXAMPLE,
            at::RACE4
        ),
        format!("ip daddr {} udp dport 9", at::MARKER),
    ]
}

/// Names of the cache.
fn cached(node: &Node<'_>) -> Result<Vec<String>> {
    let rows = node.client().json(&["fqdn", "cache", "list"])?;
    let names = rows.as_array().into_iter().flatten().filter_map(|row| {
        let name = row.as_object()?.iter().find(|(key, _)| *key == "fqdn")?.1;
        name.as_str().map(str::to_owned)
    });
    Ok(names.collect())
}

#[test]
fn a_hundred_kills_cut_no_flow_lose_no_name_and_let_nothing_through() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    let policy = names("web", "{}", &["example.test", "*.race.test"]).replace(
        "{port: \"443\", protocol: TCP}",
        "{port: \"7\", protocol: TCP}, {port: \"80\", protocol: TCP}",
    );
    node.policy("web.yaml", &policy)?;
    // Room for every name that is learned here.
    node.configure(
        &[(&pod, "{app: web}")],
        "sizes: {endpoints: 8, learned: 65536}",
    )?;
    node.start()?;
    let id = node.until_state(&pod, "enforcing")?.get("id").cloned();
    let allowed = allowed();
    let far = Far::count(
        &world.world,
        "uplink",
        &allowed.each_ref().map(String::as_str),
    )?;
    // Questions end at the proxy, or nowhere.
    let past = Far::count_forwarded(&world.host, &pod.interface, &["th dport != 53"])?;
    pod.resolve("example.test")?;
    pod.resolve("evil.test")?;

    let held = traffic::held(&pod.netns, to(at::EXAMPLE, 7)?)?;
    let fresh = traffic::fresh(&pod.netns, to(at::RESOLVER, 53)?, 0, 80)?;
    let connects = traffic::connects(&pod.netns, to(at::EXAMPLE, 80)?)?;
    let knocks = traffic::knocks(
        &pod.netns,
        vec![
            to(at::EVIL, 443)?,
            to(at::EVIL6, 443)?,
            to(at::OTHER, 80)?,
            to(at::EXAMPLE, 8443)?,
        ],
    )?;
    let mut kills = 0;
    while kills < rounds(KILLS) {
        node.kill()?;
        node.launch()?;
        // Wherever starting is by then.
        std::thread::sleep(patience(Duration::from_millis(u64::from(
            kills * 37 % LONGEST,
        ))));
        node.kill()?;
        kills += 2;
        node.start()?;
        let row = node.until_state(&pod, "enforcing")?;
        assert_eq!(row.get("id"), id.as_ref(), "the same endpoint");
        // Everybody has got on while it was alive.
        let (before, old) = (fresh.steps(), held.steps());
        until(Duration::from_secs(20), "names to be learned", || {
            let ended = fresh.has_ended() || held.has_ended() || connects.has_ended();
            (ended || (fresh.steps() > before + 2 && held.steps() > old)).then_some(())
        })?;
        let ended = [
            fresh.has_ended(),
            held.has_ended(),
            connects.has_ended(),
            knocks.has_ended(),
        ];
        if ended != [false; 4] {
            break;
        }
        let names = cached(&node)?;
        ensure!(
            names.len() as u64 > before,
            "after {kills} kills {} names of {before} and more are left\n{}",
            names.len(),
            node.log()
        );
    }
    let log = node.log();
    let shown = |error: anyhow::Error| error.context(format!("after {kills} kills\n{log}"));
    let echoes = held.finish().map_err(shown)?;
    let fresh = fresh.finish().map_err(shown)?;
    let connected = connects.finish().map_err(shown)?;
    let knocked = knocks.finish().map_err(shown)?;
    let names = cached(&node)?;
    let lost: Vec<_> = fresh
        .names
        .iter()
        .filter(|(name, _)| !names.contains(&format!("{name}.")))
        .collect();
    ensure!(lost.is_empty(), "{} names were lost: {lost:?}", lost.len());
    println!(
        "{kills} kills: {echoes} echoes on one connection, {connected} connections, {} fresh names \
         ({} questions asked again), {knocked} packets where nobody may go",
        fresh.names.len(),
        fresh.asked_again
    );
    assert_eq!(far.forbidden()?, 0, "packets on the far side");
    assert_eq!(past.forbidden()?, 0, "questions past the proxy");
    // Of each, ten a kill.
    let least = u64::from(rounds(KILLS)) * 10;
    ensure!(knocked > least && echoes > least && fresh.names.len() as u64 > least / 10);
    Ok(())
}
