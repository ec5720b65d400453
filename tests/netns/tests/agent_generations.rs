//! `namegate agent`: other maps than the predecessor's take over without a gap, foreign ones never.

mod agent;

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use agent::{Node, Pod, answered, names};
use anyhow::{Context, Result, ensure};
use netns::{far::Far, refused, traffic};
use support::{World, world::address as at};

/// Where datagrams go that no name is needed for.
const BEATS: u16 = 9;

fn to(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(at::ip(address)?, port))
}

/// A name on 443 and 7, and one address whatever it is called.
fn policy() -> String {
    names("web", "{}", &["example.test"]).replace(
        "{port: \"443\", protocol: TCP}",
        "{port: \"443\", protocol: TCP}, {port: \"7\", protocol: TCP}",
    ) + &format!(
        "  - toCIDR: [{}/32]\n    toPorts:\n    - ports: [{{port: \"{BEATS}\", \
         protocol: UDP}}]\n",
        at::EXAMPLE
    )
}

/// The folder of the maps.
fn generation(node: &Node<'_>) -> Result<PathBuf> {
    let folders: Vec<_> = fs::read_dir(node.pins())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    let mut maps = folders.into_iter().filter(|path| !path.ends_with("links"));
    let one = maps.next().context("no maps are pinned")?;
    ensure!(maps.next().is_none(), "maps are pinned twice");
    Ok(one)
}

/// A predecessor that was killed, then a successor whose maps are others: what is refused stays
/// refused, what is allowed without a name loses nothing. Whether the name is still known, too.
fn succession(
    attach: &str,
    between: impl Fn(&Node<'_>, &Pod) -> Result<()>,
    keeps: bool,
) -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], &format!("attach: {attach}"))?;
    node.start()?;
    let id = node.until_state(&pod, "enforcing")?.get("id").cloned();
    pod.resolve("example.test")?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    let before = generation(&node)?;
    let far = Far::count(
        &world.world,
        "uplink",
        &[
            &format!("ip daddr {} th dport 53", at::RESOLVER),
            &format!("ip daddr {} tcp dport {{ 7, 443 }}", at::EXAMPLE),
            &format!(
                "ip daddr {{ {}, {} }} udp dport {BEATS}",
                at::EXAMPLE,
                at::MARKER
            ),
        ],
    )?;
    let beats = traffic::beats(&pod.netns, to(at::EXAMPLE, BEATS)?)?;
    let held = traffic::held(&pod.netns, to(at::EXAMPLE, 7)?)?;
    let knocks = traffic::knocks(&pod.netns, vec![to(at::EVIL, 443)?, to(at::EXAMPLE, 8443)?])?;
    node.kill()?;
    between(&node, &pod)?;
    node.start()?;
    let row = node.until_state(&pod, "enforcing")?;
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    if keeps {
        assert_eq!(row.get("id"), id.as_ref(), "the same endpoint");
        let names = node.client().json(&["fqdn", "cache", "list"])?.to_string();
        ensure!(names.contains("example.test."), "{names}\n{}", node.log());
    } else {
        ensure!(row.get("id") != id.as_ref(), "no number is used again");
        pod.resolve("example.test")?;
    }
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    let after = generation(&node)?;
    ensure!(!keeps || after != before, "the same maps");
    let beaten = beats.finish()?;
    let arrived = world.arrived(at::EXAMPLE, BEATS)? as u64;
    ensure!(
        arrived == beaten && beaten > 100,
        "{arrived} of {beaten} datagrams arrived\n{}",
        node.log()
    );
    let log = node.log();
    let knocked = knocks
        .finish()
        .map_err(|error| error.context(log.clone()))?;
    let echoes = held.finish();
    if keeps {
        let echoes = echoes.map_err(|error| error.context(log))?;
        ensure!(echoes > 100, "{echoes}");
    }
    assert_eq!(far.forbidden()?, 0, "packets on the far side");
    ensure!(knocked > 20, "{knocked}");
    Ok(())
}

#[test]
fn maps_of_other_sizes_take_over_what_the_old_ones_hold_without_a_gap() -> Result<()> {
    let sizes = "sizes: {endpoints: 64, learned: 65536, flows: 4096}";
    for attach in ["auto", "clsact"] {
        let other = format!("attach: {attach}\n{sizes}");
        succession(
            attach,
            |node, pod| node.configure(&[(pod, "{app: web}")], &other),
            true,
        )?;
    }
    Ok(())
}

#[test]
fn maps_of_another_abi_enforce_until_the_new_ones_are_filled() -> Result<()> {
    for attach in ["auto", "clsact"] {
        succession(
            attach,
            |node, _| {
                // The name of the folder says how its records are laid out.
                let ours = generation(node)?;
                let name = ours.file_name().unwrap_or_default().to_string_lossy();
                let (_, sizes) = name.split_once('-').context("a generation")?;
                Ok(fs::rename(
                    &ours,
                    ours.with_file_name(format!("abi1-{sizes}")),
                )?)
            },
            false,
        )?;
    }
    Ok(())
}

#[test]
fn pinned_maps_of_another_program_are_refused_and_left_alone() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy())?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    node.stop()?;
    let learned = generation(&node)?.join("LEARNED");
    let pinned = learned.display().to_string();
    let others = [
        ["hash", "4", "64", "131072"],
        ["lru_hash", "24", "64", "131072"],
        ["hash", "24", "64", "1000"],
    ];
    for [kind, key, value, entries] in others {
        fs::remove_file(&learned)?;
        let words = format!(
            "map create {pinned} type {kind} key {key} value {value} entries {entries} name LEARNED"
        );
        let made = Command::new("bpftool").args(words.split(' ')).output()?;
        ensure!(made.status.success(), "{made:?}");
        node.launch()?;
        let ended = node.agent()?.wait(Duration::from_secs(30))?;
        ensure!(
            ended.status != 0
                && ended.stderr.contains(&pinned)
                && ended.stderr.contains("another program"),
            "{kind} {key} {value} {entries}: {ended:?}"
        );
        // What a predecessor attached goes on, and so does the other program's map.
        refused(&pod.knock("evil.test", at::EVIL)?)?;
        ensure!(learned.exists());
    }
    Ok(())
}
