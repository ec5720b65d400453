//! At the limits: a full map, a flood of questions, a proxy that stands still.

use anyhow::{Context, Result, ensure};
use netns::{answered_by, connect, dig, get, knock, refused};
use nix::sys::signal::Signal;
use support::{World, world::address as at};

const HELPER: &str = env!("CARGO_BIN_EXE_resolve-connect");

#[test]
fn an_answer_that_does_not_fit_is_refused_with_a_reason() -> Result<()> {
    let world = World::new()?;
    let run = world
        .run_with_dns()?
        .option("--max-addresses", "2")
        .allow("huge.test:80")
        .allow("*.many.test:80");
    let mut pod = run.shell()?;
    let answer = pod.sh(&dig("+tcp huge.test"))?;
    ensure!(answer.stdout.contains("status: SERVFAIL"), "{answer:?}");
    ensure!(
        answer.stdout.contains("EDE: "),
        "an extended error says why: {answer:?}"
    );
    ensure!(
        !answer.stdout.contains("203.0.113.1"),
        "and no address comes with it: {answer:?}"
    );
    refused(&pod.sh(&knock("http://203.0.113.100/"))?)?;
    // What fits works, before and after.
    answered_by(&pod.sh(&get("http://m0.many.test/"))?, at::MANY[0])?;
    let done = pod.finish()?;
    let report = done.report()?;
    ensure!(
        report
            .lookups
            .failed
            .iter()
            .any(|row| row.to_string().contains("huge.test.")),
        "{report:?}"
    );
    done.says(&["huge.test"])
}

#[test]
fn a_quota_is_never_exceeded_and_an_answered_name_is_always_open() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .option("--max-addresses", "2")
        .allow("*.many.test:80")
        .shell()?;
    let mut answered = 0;
    for (number, address) in at::MANY.iter().enumerate() {
        let name = format!("m{number}.many.test");
        let answer = pod.sh(&dig(&format!("+short {name}")))?;
        if answer.stdout.contains(address) {
            answered += 1;
            answered_by(&pod.sh(&get(&format!("http://{address}/")))?, address)?;
        } else {
            let why = pod.sh(&dig(&name))?;
            ensure!(
                why.stdout.contains("status: SERVFAIL") && why.stdout.contains("EDE: "),
                "{why:?}"
            );
            refused(&pod.sh(&knock(&format!("http://{address}/")))?)?;
        }
        let rows = pod
            .client(&world.host)
            .json(&["fqdn", "cache", "list", "-s", "lookup"])?;
        let held = addresses_held(&rows)?;
        ensure!(held <= 2, "{held} addresses are held where 2 fit: {rows}");
    }
    ensure!(answered >= 2, "two fit");
    // Whoever is not held any more is closed.
    let mut open = 0;
    for address in at::MANY {
        if pod.sh(&connect(address, 80))?.status == 0 {
            open += 1;
        }
    }
    ensure!(open <= 2, "{open} addresses are open where 2 fit");
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn ten_thousand_questions_from_a_loop_cost_a_bounded_amount_and_nothing_else() -> Result<()> {
    let world = World::new()?;
    let mut pod = world.run_with_dns()?.allow("example.test").shell()?;
    let before = resident_kib(pod.pid())?;
    let line = pod.ok(&format!("{HELPER} flood 0 10000"))?;
    let told: serde_json::Value = serde_json::from_str(&line)?;
    let number = |key: &str| {
        told.get(key)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default()
    };
    ensure!(number("sent") > 5000, "the loop did send: {told}");
    ensure!(number("answered") > 0, "some were answered: {told}");
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    refused(&pod.sh(&connect("100.64.0.5", 443))?)?;
    let after = resident_kib(pod.pid())?;
    ensure!(
        after < before + 64 * 1024,
        "namegate grew from {before} to {after} KiB"
    );
    // Names that match nothing are kept in small numbers.
    let rows = pod.client(&world.host).json(&["fqdn", "cache", "list"])?;
    let names = rows.as_array().map_or(0, Vec::len);
    ensure!(names < 5000, "{names} names are kept");
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn five_thousand_allowed_names_stay_within_the_quota_and_the_newest_is_open() -> Result<()> {
    const QUOTA: usize = 500;
    let world = World::new()?;
    let run = world
        .run_with_dns()?
        .option("--max-addresses", QUOTA.to_string());
    let mut pod = run
        .allow("*.race.test:80")
        .allow("example.test:80")
        .shell()?;
    let before = resident_kib(pod.pid())?;
    // So many at a time that the listener's buffer holds them all on any machine.
    let mut answered = 0;
    for first in (0..5000).step_by(200) {
        let told: serde_json::Value =
            serde_json::from_str(&pod.ok(&format!("{HELPER} flood {first} 200"))?)?;
        answered += told
            .get("answered")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default();
    }
    ensure!(
        answered > 2 * QUOTA as u64,
        "enough came through to reach the quota: {answered}"
    );
    let after = resident_kib(pod.pid())?;
    ensure!(
        after < before + 64 * 1024,
        "namegate grew from {before} to {after} KiB"
    );
    let rows = pod.client(&world.host).json(&["fqdn", "cache", "list"])?;
    let held = addresses_held(&rows)?;
    ensure!(held > QUOTA / 2, "the quota was reached: {held}");
    ensure!(held <= QUOTA, "{held} addresses are held where {QUOTA} fit");
    // A newcomer pushes out the oldest, and what it was told is open at once.
    answered_by(&pod.sh(&get("-4 http://n5500.race.test/"))?, "100.64.22.1")?;
    answered_by(&pod.sh(&get("-4 http://example.test/"))?, at::EXAMPLE)?;
    pod.finish()?.expect(0)?;
    Ok(())
}

#[test]
fn while_the_proxy_stands_still_nothing_is_learned_and_nothing_opens() -> Result<()> {
    let world = World::new()?;
    let mut pod = world
        .run_with_dns()?
        .allow("example.test")
        .allow("api.example.test")
        .shell()?;
    answered_by(&pod.sh(&get("-4 https://example.test/"))?, at::EXAMPLE)?;
    pod.signal(Signal::SIGSTOP)?;
    let asked = world.arrived(at::RESOLVER, 53)?;
    for transport in ["+notcp", "+tcp"] {
        let answer = pod.sh(&format!(
            "dig +time=1 +tries=1 +short {transport} api.example.test"
        ))?;
        ensure!(!answer.stdout.contains(at::API), "{answer:?}");
    }
    refused(&pod.sh(&connect(at::API, 443))?)?;
    refused(&pod.sh(&connect(at::EVIL, 443))?)?;
    assert_eq!(
        world.arrived(at::RESOLVER, 53)?,
        asked,
        "no question slips past the proxy"
    );
    assert_eq!(
        world.arrived(at::API, 443)? + world.arrived(at::EVIL, 443)?,
        0
    );
    // What was learned before goes on working: the kernel needs nobody for it.
    answered_by(
        &pod.sh(&get(&format!("-k https://{}/", at::EXAMPLE)))?,
        at::EXAMPLE,
    )?;
    pod.signal(Signal::SIGCONT)?;
    answered_by(
        &pod.sh(&get("-4 --retry 3 https://api.example.test/"))?,
        at::API,
    )?;
    pod.finish()?.expect(0)?;
    Ok(())
}

/// Addresses in a list of the cache.
fn addresses_held(rows: &serde_json::Value) -> Result<usize> {
    let rows = rows.as_array().context("the cache is a list")?;
    Ok(rows
        .iter()
        .filter_map(|row| row.get("ips")?.as_array().map(Vec::len))
        .sum())
}

fn resident_kib(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
