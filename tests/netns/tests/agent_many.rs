//! `namegate agent`: a thousand endpoints that come and go. Alone in its file: it loads every core.

mod agent;

use std::{collections::BTreeMap, fs, io::Write, path::Path, time::Duration, time::Instant};

use agent::{Node, names};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use support::{Netns, World, rounds, until};

/// All of them together.
const ENDPOINTS: u32 = 1000;
/// At a time.
const BATCH: u32 = 100;
/// Of interfaces that go at once: one by one, the kernel takes longer than everything else here.
const GROUP: &str = "7";
/// KiB that the agent may have grown by in the end.
const MOST_MORE: u64 = 24 << 10;

fn batch(netns: &Netns, lines: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(lines.as_bytes())?;
    netns
        .ip(&["-batch", &file.path().to_string_lossy()])
        .map(drop)
}

/// What an agent holds: memory in KiB, descriptors, pinned links, records in maps, links it asked for.
fn holds(node: &mut Node<'_>) -> Result<BTreeMap<&'static str, u64>> {
    let pid = node.agent()?.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("VmRSS")?;
    let entries = |path: &Path| fs::read_dir(path).map_or(0, |entries| entries.count() as u64);
    let rows = |node: &Node<'_>, words: &[&str]| -> Result<u64> {
        Ok(node.client().json(words)?.as_array().map_or(0, Vec::len) as u64)
    };
    let links = node.pins().join("links");
    Ok(BTreeMap::from([
        ("memory", memory),
        (
            "descriptors",
            entries(Path::new(&format!("/proc/{pid}/fd"))),
        ),
        ("pinned links", entries(&links)),
        ("learned", rows(node, &["bpf", "learned", "list"])?),
        ("policy", rows(node, &["bpf", "policy", "list"])?),
        ("flows", rows(node, &["bpf", "ct", "list"])?),
    ]))
}

fn until_count(node: &Node<'_>, state: &str, count: u32) -> Result<()> {
    until(Duration::from_secs(60), &format!("{count} {state}"), || {
        let status = node.client().json(&["status"]).ok()?;
        let rows = status
            .pointer("/agent/endpoints")
            .and_then(Value::as_array)?;
        let of = rows
            .iter()
            .filter(|row| row.get("state") == Some(&Value::from(state)));
        (of.count() == count as usize).then_some(())
    })
    .with_context(|| node.log())
}

#[test]
fn a_thousand_endpoints_come_and_go_and_leave_nothing() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pods = Netns::new("pods")?;
    node.policy("web.yaml", &names("web", "{}", &["example.test"]))?;
    let endpoints: String = (0..BATCH)
        .map(|n| {
            format!(
                "- {{interface: many{n}, addresses: [10.90.0.{}], labels: {{app: a{n}}}}}\n",
                n + 1
            )
        })
        .collect();
    node.configure(&[], "sizes: {endpoints: 128, flows: 256, learned: 8192}")?;
    let text = fs::read_to_string(node.config())?
        .replace("endpoints:\n", &format!("endpoints:\n{endpoints}"));
    fs::write(node.config(), text)?;
    node.start()?;
    until_count(&node, "absent", BATCH)?;
    let mut after_first = None;
    let (mut adding, mut removing) = (Duration::ZERO, Duration::ZERO);
    let mut highest = 0;
    let batches = rounds(ENDPOINTS / BATCH);
    for round in 0..batches {
        let add: String = (0..BATCH)
            .map(|n| {
                format!(
                    "link add many{n} group {GROUP} type veth peer name p{n} netns {}\n\
                     link set many{n} up\n",
                    pods.name()
                )
            })
            .collect();
        let began = Instant::now();
        batch(&world.host, &add)?;
        until_count(&node, "enforcing", BATCH)?;
        adding += began.elapsed();
        let status = node.client().json(&["status"])?;
        let ids = status
            .pointer("/agent/endpoints")
            .and_then(Value::as_array)
            .context("endpoints")?;
        let ids: Vec<_> = ids
            .iter()
            .filter_map(|row| row.get("id")?.as_u64())
            .collect();
        let lowest = ids.iter().min().copied().unwrap_or(0);
        ensure!(
            lowest > highest,
            "numbers are never used again: {lowest} after {highest}"
        );
        highest = ids.iter().max().copied().unwrap_or(0);
        let began = Instant::now();
        world.host.ip(&["link", "del", "group", GROUP])?;
        until_count(&node, "absent", BATCH)?;
        removing += began.elapsed();
        if round == 0 {
            after_first = Some(holds(&mut node)?);
        }
    }
    let (before, after) = (after_first.context("a round")?, holds(&mut node)?);
    let endpoints = batches * BATCH;
    println!(
        "{endpoints} endpoints: {:?} to add one, {:?} to remove one; {before:?} after the first {BATCH}, \
         {after:?} in the end",
        adding / endpoints,
        removing / endpoints
    );
    for (what, count) in &after {
        let most = before.get(what).copied().unwrap_or(0);
        match *what {
            "memory" => ensure!(*count <= most + MOST_MORE, "memory: {before:?}, {after:?}"),
            // A client of ours may be on its way out.
            "descriptors" => ensure!(*count <= most + 2, "descriptors: {before:?}, {after:?}"),
            _ => ensure!(*count <= most, "{what}: {before:?}, {after:?}"),
        }
    }
    assert_eq!(after.get("pinned links"), Some(&0));
    node.stop()?;
    Ok(())
}
