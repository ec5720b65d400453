//! `namegate agent`: policy edits during resolve and connect. Alone in its file: it loads every core.

mod agent;

use std::{net::SocketAddr, thread::sleep, time::Duration};

use agent::{Node, Pod, names};
use anyhow::{Context, Result, ensure};
use netns::traffic;
use support::{
    World,
    capture::{Capture, repeated_syns},
    patience, rounds,
    world::address as at,
};

/// Fresh names that are resolved and connected to meanwhile, at the least.
const CYCLES: u32 = 200;
/// Edits meanwhile, at the least.
const EDITS: u32 = 200;
/// Changes of policy put in force meanwhile, at the least: edits of the same moment are one change.
const CHANGES: u32 = 20;
/// Between two edits.
const PAUSE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(80);

#[test]
fn an_edit_every_10_ms_while_names_are_resolved_and_connected_is_never_a_wrong_verdict()
-> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    let policy = names("web", "{}", &["*.race.test"]).replace("\"443\"", "\"80\"");
    node.policy("web.yaml", &policy)?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    let evil = at::ip(at::EVIL)?;
    // A SYN that was dropped by mistake would come again a second later, and be let through.
    let syns = Capture::start(
        &pod.netns,
        "eth0",
        &format!("tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn and not host {evil}"),
    )?;
    let resolver = SocketAddr::new(at::ip(at::RESOLVER)?, 53);
    let fresh = traffic::fresh(&pod.netns, resolver, 0, 80)?;
    let knocks = traffic::knocks(&pod.netns, vec![SocketAddr::new(evil, 80)])?;
    let applied = || node.log().matches("policies in force").count();
    let (before, began) = (applied(), std::time::Instant::now());
    let mut edits = 0;
    let cycles = u64::from(rounds(CYCLES));
    let changes = before + usize::try_from(rounds(CHANGES))?;
    while !fresh.has_ended()
        && !knocks.has_ended()
        && (edits < rounds(EDITS) || fresh.steps() < cycles || applied() < changes)
    {
        ensure!(
            began.elapsed() < patience(LIMIT),
            "{edits} edits, {} names\n{}",
            fresh.steps(),
            node.log()
        );
        let other = format!("n{edits}.elsewhere.test");
        node.policy("edited.yaml", &names("edited", "{}", &[&other]))?;
        edits += 1;
        sleep(PAUSE);
    }
    let shown = |error: anyhow::Error| error.context(node.log());
    let fresh = fresh.finish().map_err(shown)?;
    let knocked = knocks.finish().map_err(shown)?;
    let syns = syns.finish()?;
    println!(
        "{} names resolved and connected to, {knocked} packets where nobody may go, {edits} edits, {} \
         changes of policy",
        fresh.names.len(),
        applied() - before
    );
    assert_eq!(repeated_syns(&syns), 0, "SYNs sent again\n{}", node.log());
    ensure!(syns.len() >= fresh.names.len(), "{} SYNs seen", syns.len());
    assert_eq!(world.arrived_at(at::EVIL)?, 0);
    node.stop().context("the end").map(drop)
}
