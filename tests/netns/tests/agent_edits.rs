//! `namegate agent`: policy edits during resolve and connect. Alone in its file: it loads every core.

mod agent;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use agent::{Node, Pod, names};
use anyhow::{Result, ensure};
use support::{World, patience, slowness, world::address as at};

#[test]
fn an_edit_every_10_ms_while_names_are_resolved_and_connected_is_never_a_wrong_verdict()
-> Result<()> {
    const CYCLES: u32 = 60;
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy(
        "web.yaml",
        &names("web", "{}", &["example.test", "api.example.test"]),
    )?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    let (done, edits) = (AtomicBool::new(false), AtomicU32::new(0));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let number = edits.fetch_add(1, Ordering::Relaxed);
                let other = format!("n{number}.elsewhere.test");
                if node
                    .policy("edited.yaml", &names("edited", "{}", &[&other]))
                    .is_err()
                {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // Look up, connect at once; the address that nobody allowed is tried each time too.
        let line = format!(
            "for i in $(seq {CYCLES}); do for name in example.test api.example.test; do \
             address=$(dig +time={} +tries=1 +short @{} $name | head -1); \
             timeout {} bash -c \"exec 3<>/dev/tcp/$address/443\" || {{ echo \"$i $name $address\"; exit 1; }}; \
             done; timeout {} bash -c 'exec 3<>/dev/tcp/{}/443' 2>/dev/null && exit 2; done; true",
            2 * slowness(),
            at::RESOLVER,
            patience(Duration::from_millis(800)).as_secs_f32(),
            patience(Duration::from_millis(20)).as_secs_f32(),
            at::EVIL
        );
        let result = pod.sh(&line);
        done.store(true, Ordering::Relaxed);
        result
    })?;
    assert_eq!(result.status, 0, "{result:?}\n{}", node.log());
    assert_eq!(world.arrived(at::EVIL, 443)?, 0);
    let edits = edits.load(Ordering::Relaxed);
    let applied = node.log().matches("policies in force").count();
    println!("{CYCLES} cycles, {edits} edits, {applied} changes of policy, 0 wrong verdicts");
    ensure!(
        edits > 50 && applied > 20,
        "{edits} edits, {applied} applied"
    );
    Ok(())
}
