//! No race between an answer and the entry that it needs: resolve, connect at once, a thousand times.
//!
//! Alone in its file: other tests on the same two cores would be load that nobody asked for.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use support::capture::{Capture, Packet, repeated_syns};
use support::{Process, World, counter, until};

const HELPER: &str = env!("CARGO_BIN_EXE_resolve-connect");
const CYCLES: usize = 1000;

#[test]
fn a_thousand_fresh_names_resolved_and_connected_at_once_under_load() -> Result<()> {
    let world = World::new()?;
    let cores = std::thread::available_parallelism()?.get();
    let mut running = world
        .run_with_dns()?
        .allow("*.race.test:80")
        .limit(Duration::from_secs(300))
        .start(
            &[HELPER, "cycles", "1000", &CYCLES.to_string(), "80"],
            Stdio::piped(),
        )?;
    let inside = running.command_pid(&format!("{HELPER} cycles"))?;
    let syns = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn or (ip6 and ip6[6] == 6 and ip6[53] & 0x12 == 2)";
    // What the pod sends, before anything of ours could drop it; and what reaches the world.
    let sent = Capture::beside(inside, &pod_interface(inside)?, syns)?;
    let arrived = Capture::start(&world.world, "uplink", syns)?;
    let load: Vec<Process> = (0..cores)
        .map(|_| {
            Process::spawn(
                "load",
                Command::new("sh").args(["-c", "while :; do :; done"]),
            )
        })
        .collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_millis(300));

    let mut go = running.process().child().stdin.take().context("a pipe")?;
    std::io::Write::write_all(&mut go, b"go\n")?;
    let before = (retransmissions(inside)?, connects(inside)?);
    // The helper ends with the last cycle, and its network with it: read the counters until then.
    let mut last = before;
    until(Duration::from_secs(240), "the cycles", || {
        if let (Ok(retransmissions), Ok(connects)) = (retransmissions(inside), connects(inside)) {
            last = (retransmissions, connects);
        }
        (!support::process::is_alive(inside)).then_some(())
    })?;
    let done = running.finish()?;
    drop(load);
    assert_eq!(done.status, 0, "{}{}", done.stdout, done.stderr);
    println!("{}", done.stdout.trim());

    let race = |packets: Vec<Packet>| -> Vec<Packet> {
        packets
            .into_iter()
            .filter(|packet| packet.is_syn() && packet.to_port == 80)
            .collect()
    };
    let (sent, arrived) = (sent.finish()?, race(arrived.finish()?));
    assert_eq!(
        repeated_syns(&sent),
        0,
        "the pod never sent a SYN twice, to the resolver neither"
    );
    let sent = race(sent);
    assert_eq!(repeated_syns(&arrived), 0, "no SYN arrived twice");
    assert_eq!(sent.len(), CYCLES, "each cycle sent one SYN");
    assert_eq!(arrived.len(), CYCLES, "and each of them arrived");
    ensure!(
        arrived.iter().any(|packet| packet.to.is_ipv4())
            && arrived.iter().any(|packet| packet.to.is_ipv6()),
        "both families"
    );
    assert_eq!(
        last.0, before.0,
        "the kernel of the pod counts no SYN sent again"
    );
    ensure!(last.1 > before.1, "its counters were read while it ran");
    let report = done.report()?;
    assert!(report.denied.is_empty(), "{:?}", report.denied.first());
    Ok(())
}

/// The interface of the pod's default route.
fn pod_interface(pid: i32) -> Result<String> {
    let output = support::process::output_of(Command::new("nsenter").args([
        "-t",
        &pid.to_string(),
        "-n",
        "--",
        "ip",
        "-o",
        "-4",
        "route",
        "show",
        "default",
    ]))?;
    let words: Vec<String> = output
        .ok("ip route")?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let position = words
        .iter()
        .position(|word| word == "dev")
        .context("no default route")?;
    words
        .get(position + 1)
        .cloned()
        .context("a route without an interface")
}

fn retransmissions(pid: i32) -> Result<u64> {
    counter(pid, "netstat", "TcpExt", "TCPSynRetrans")
}

fn connects(pid: i32) -> Result<u64> {
    counter(pid, "snmp", "Tcp", "ActiveOpens")
}
