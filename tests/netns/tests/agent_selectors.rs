//! `namegate agent`: a name is selected in another way while flows through it are alive.

mod agent;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use agent::{Node, Pod, names};
use anyhow::{Result, ensure};
use support::{World, rounds, slowness, until, world::address as at};

/// Where the world echoes what it is sent.
const ECHO: u16 = 5000;
/// The ways to write a policy that allows `example.test`, each wide enough and none like the other.
const WAYS: [&[&str]; 4] = [
    &["example.test"],
    &["ex*.test"],
    &["*.test", "api.example.test"],
    &["exampl*.test", "example.test"],
];
const EDITS: u32 = 40;

fn policy(names_: &[&str]) -> String {
    names("web", "{}", names_).replace("\"443\"", &format!("\"{ECHO}\""))
}

#[test]
fn another_selector_for_the_same_name_cuts_no_flow_and_fails_no_connection() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("web.yaml", &policy(WAYS[0]))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    pod.resolve("example.test")?;
    let retransmits = "grep -A1 '^TcpExt' /proc/net/netstat | tr ' ' '\\n' | awk \
                       '/TcpExt/{n++; i=0} {i++; if (n==1) name[i]=$0; else if (name[i]==\"TCPSynRetrans\") print}'";
    let before = pod.ok(retransmits)?;
    let edits = usize::try_from(rounds(EDITS))?;
    let done = AtomicBool::new(false);
    let stop = node.files().join("stop");
    let (flow, connects, edited) = std::thread::scope(|scope| -> Result<_> {
        // A line goes there and back every few milliseconds.
        let flow = scope.spawn(|| {
            pod.sh(&format!(
                "exec 3<>/dev/tcp/{}/{ECHO}; n=0; while [ ! -e {} ]; do n=$((n+1)); echo $n >&3; \
                 read -t {} -u 3 line || exit 1; [ \"$line\" = $n ] || exit 2; sleep 0.002; done; echo $n",
                at::EXAMPLE,
                stop.display(),
                5 * slowness(),
            ))
        });
        let connects = scope.spawn(|| {
            pod.sh(&format!(
                "n=0; while [ ! -e {} ]; do n=$((n+1)); timeout {} bash -c 'exec 3<>/dev/tcp/{}/{ECHO}' || exit 1; \
                 echo knock >/dev/udp/{}/{ECHO}; done; echo $n",
                stop.display(),
                5 * slowness(),
                at::EXAMPLE,
                at::EVIL
            ))
        });
        let edited = scope.spawn(|| -> Result<()> {
            for edit in 1..=edits {
                let way = WAYS.get(edit % WAYS.len()).copied().unwrap_or_default();
                node.policy("web.yaml", &policy(way))?;
                until(Duration::from_secs(30), "the edit in force", || {
                    let applied = node.log().matches("policies in force").count();
                    (applied > edit || done.load(Ordering::Relaxed)).then_some(())
                })?;
            }
            Ok(())
        });
        let edited = edited.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        std::fs::write(&stop, "")?;
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<support::Output>>| {
            thread.join().map_err(|_| anyhow::anyhow!("panicked"))?
        };
        Ok((join(flow)?, join(connects)?, edited))
    })?;
    edited?;
    assert_eq!(flow.status, 0, "the flow was cut: {flow:?}\n{}", node.log());
    assert_eq!(connects.status, 0, "{connects:?}\n{}", node.log());
    // A SYN that was dropped and sent again would have been let through a second later.
    assert_eq!(pod.ok(retransmits)?, before, "SYNs sent again");
    assert_eq!(world.arrived(at::EVIL, ECHO)?, 0);
    let count = |output: &support::Output| output.stdout.trim().parse::<u32>();
    let (lines, connections) = (count(&flow)?, count(&connects)?);
    println!("{edits} edits, {lines} lines echoed, {connections} connections");
    ensure!(lines > 10 && connections > 3, "{lines} {connections}");
    Ok(())
}
