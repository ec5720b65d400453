//! How long an answer counts: to the second, per name, and never for a flow that is alive.

use std::time::Duration;

use anyhow::{Result, ensure};
use netns::{answered_by, connect, dig, get, knock, refused};
use support::{Run, World, world::address as at};

/// Longer than a TTL of one second, a grace of two seconds (so that a busy machine has time to use
/// what it looked up), and a margin.
const PAST: Duration = Duration::from_millis(4600);

fn exact(world: &World) -> Result<Run<'_>> {
    Ok(world
        .run_with_dns()?
        .option("--min-ttl", "1")
        .option("--ttl-grace", "2"))
}

#[test]
fn two_names_with_different_ttls_on_one_address_end_separately() -> Result<()> {
    let world = World::new()?;
    let mut pod = exact(&world)?
        .allow("short.ttl.test:80")
        .allow("long.ttl.test:443")
        .shell()?;
    assert_eq!(pod.ok(&dig("+short long.ttl.test"))?, at::SHARED);
    // Looked up and used by one program: nothing comes in between.
    answered_by(&pod.sh(&get("http://short.ttl.test/"))?, at::SHARED)?;
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::SHARED)))?,
        at::SHARED,
    )?;
    std::thread::sleep(PAST);
    refused(&pod.sh(&knock(&format!("http://{}/", at::SHARED)))?)?;
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::SHARED)))?,
        at::SHARED,
    )?;
    // Asked again, the short one counts again.
    answered_by(&pod.sh(&get("http://short.ttl.test/"))?, at::SHARED)?;
    let done = pod.finish()?;
    assert!(done.report()?.denied_to(at::SHARED, 80).is_some());
    Ok(())
}

#[test]
fn expiry_closes_new_connections_while_a_live_one_keeps_flowing() -> Result<()> {
    let world = World::new()?;
    let mut pod = exact(&world)?.allow("brief.test:5000").shell()?;
    pod.ok("exec 9<>/dev/tcp/brief.test/5000")?;
    pod.ok("echo early >&9; read -t 5 -u 9 reply; test \"$reply\" = early")?;
    for turn in 1..=3 {
        std::thread::sleep(PAST / 2);
        pod.ok(&format!(
            "echo turn{turn} >&9; read -t 5 -u 9 reply; test \"$reply\" = turn{turn}"
        ))?;
    }
    refused(&pod.sh(&connect(at::BRIEF, 5000))?)?;
    pod.ok("echo late >&9; read -t 5 -u 9 reply; test \"$reply\" = late")?;
    pod.ok("exec 8<>/dev/tcp/brief.test/5000")?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_live_udp_flow_outlives_the_ttl_too() -> Result<()> {
    let world = World::new()?;
    let mut pod = exact(&world)?.allow("brief.test:5001/UDP").shell()?;
    let server = support::Process::spawn(
        "socat",
        world.world.command("socat").args([
            &format!("UDP4-RECVFROM:5001,bind={},fork", at::BRIEF),
            "PIPE",
        ]),
    )?;
    let ask = format!("echo ready | socat -t1 - UDP4:{}:5001", at::BRIEF);
    support::wait::until_true(Duration::from_secs(30), "the echo", || {
        world
            .host
            .output("bash", &["-c", &ask])
            .is_ok_and(|output| output.stdout.contains("ready"))
    })?;
    // One socat is one socket: one flow from its first datagram to its last.
    pod.ok("coproc FLOW { exec socat - UDP4:brief.test:5001; } 2>/dev/null")?;
    let say = |word: &str| {
        format!(
            "echo {word} >&${{FLOW[1]}}; read -t 5 -u ${{FLOW[0]}} reply; test \"$reply\" = {word}"
        )
    };
    pod.ok(&say("early"))?;
    std::thread::sleep(PAST);
    pod.ok(&say("late"))?;
    let again = pod.sh(&format!(
        "echo new | timeout 3 socat -t1 - UDP4:{}:5001",
        at::BRIEF
    ))?;
    ensure!(
        !again.stdout.contains("new"),
        "a new flow is refused: {again:?}"
    );
    drop(server);
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn a_short_ttl_counts_for_a_minute_unless_told_otherwise() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("brief.test").shell()?;
    pod.ok(&dig("+short brief.test"))?;
    std::thread::sleep(PAST);
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::BRIEF)))?,
        at::BRIEF,
    )?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn an_answer_is_never_released_with_a_longer_ttl_than_it_opens() -> Result<()> {
    let world = World::new()?;
    let mut pod = exact(&world)?
        .allow("long.ttl.test")
        .allow("brief.test")
        .shell()?;
    for name in ["long.ttl.test", "brief.test"] {
        let answer = pod.ok(&dig(&format!("+noall +answer {name}")))?;
        let released: i64 = answer
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .parse()?;
        let rows = pod
            .client(&world.host)
            .json(&["fqdn", "cache", "list", "-p", name])?;
        let text = |key: &str| {
            rows.pointer(&format!("/0/{key}"))
                .and_then(|value| value.as_str())
                .unwrap_or_default()
        };
        let granted = seconds(text("expiration-time"))? - seconds(text("lookup-time"))?;
        ensure!(
            released <= granted,
            "{name}: {released} s were promised, {granted} s are open: {rows}"
        );
    }
    pod.finish()?.expect(0)?;
    Ok(())
}

/// Seconds since the epoch of an RFC 3339 time, rounded up, by the clock's own program.
fn seconds(time: &str) -> Result<i64> {
    let output = support::process::output_of(
        std::process::Command::new("date").args(["-u", "-d", time, "+%s"]),
    )?;
    Ok(output.ok("date")?.trim().parse::<i64>()?)
}
