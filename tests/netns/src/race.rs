//! No race between an answer and the entry that it needs, under load: the arena and its judge.
//!
//! In:  a world with enough fresh names, the helper that runs inside the pod, how many cycles.
//! Out: a [`Race`]: what the pod measured, and what passed its link and the far side.
//! Not here: one cycle (`cycles`).

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use support::capture::{Capture, Packet, repeated_syns};
use support::{Process, World, patience};

use crate::cycles::{Cell, Times};

/// Where the cycles connect to.
const PORT: u16 = 80;
/// Connections' first packets, in both families.
const SYNS: &str =
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn or (ip6 and ip6[6] == 6 and ip6[53] & 0x12 == 2)";
/// What a cycle may take on a machine with other work to do, before the whole is given up.
const PATIENCE: Duration = Duration::from_millis(60);

/// SYNs that passed one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syns {
    /// To the servers that were resolved.
    pub to_servers: usize,
    /// Repetitions of an earlier one, to whomever.
    pub repeated: usize,
}

impl Syns {
    fn of(packets: &[Packet]) -> Self {
        let to_servers = packets
            .iter()
            .filter(|packet| packet.is_syn() && packet.to_port == PORT)
            .count();
        Self {
            to_servers,
            repeated: repeated_syns(packets),
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Race {
    /// What the pod measured, one way of asking each.
    pub cells: Vec<Cell>,
    /// On the pod's own link, before anything of ours could drop it.
    pub sent: Syns,
    /// On the far side.
    pub arrived: Syns,
}

impl Race {
    /// An error that names everything that should not have happened.
    pub fn check(&self, cycles: usize) -> Result<()> {
        let mut wrong = Vec::new();
        for cell in &self.cells {
            if let Some(failure) = &cell.first_failure {
                wrong.push(format!("{} cycles failed, first {failure}", cell.failed));
            }
            if cell.syn_retransmits > 0 {
                let count = cell.syn_retransmits;
                wrong.push(format!(
                    "{}: the pod's kernel sent {count} SYNs again",
                    cell.way
                ));
            }
            if cell.cycles == 0 {
                wrong.push(format!("{}: not one cycle", cell.way));
            }
        }
        let ran: usize = self.cells.iter().map(|cell| cell.cycles).sum();
        if ran != cycles {
            wrong.push(format!("{ran} cycles ran instead of {cycles}"));
        }
        for (place, syns) in [
            ("the pod's link", self.sent),
            ("the far side", self.arrived),
        ] {
            if syns.repeated > 0 {
                wrong.push(format!("{} SYNs were repeated on {place}", syns.repeated));
            }
            if syns.to_servers != cycles {
                let count = syns.to_servers;
                wrong.push(format!("{count} SYNs on {place} for {cycles} cycles"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:36}{:>25}{:>26}", "", "lookup, µs", "connect, µs")?;
        let heads = format!("{:>7}{:>9}{:>9}", "p50", "p99", "max");
        writeln!(
            f,
            "{:9} {:>7} {:>7} {:>11} {heads} {heads}",
            "", "cycles", "failed", "SYNs again"
        )?;
        let times = |times: Times| format!("{:>7}{:>9}{:>9}", times.p50, times.p99, times.max);
        for cell in &self.cells {
            writeln!(
                f,
                "{:<9} {:>7} {:>7} {:>11} {} {}",
                cell.way.to_string(),
                cell.cycles,
                cell.failed,
                cell.syn_retransmits,
                times(cell.lookup),
                times(cell.connect),
            )?;
        }
        write!(
            f,
            "SYNs to the servers: {} on the pod's link, {} on the far side; repeated SYNs, those to the resolver \
             included: {} and {}",
            self.sent.to_servers,
            self.arrived.to_servers,
            self.sent.repeated,
            self.arrived.repeated
        )
    }
}

/// Runs `cycles` of them with every core kept busy by somebody else.
pub fn run(world: &World, helper: &Path, cycles: usize) -> Result<Race> {
    let helper = helper.to_str().context("a path that is text")?;
    let count = u32::try_from(cycles).context("too many cycles")?;
    let mut running = world
        .run_with_dns()?
        .allow(&format!("*.race.test:{PORT}"))
        .limit(Duration::from_secs(300) + PATIENCE * count)
        .start(
            &[
                helper,
                "cycles",
                "1000",
                &count.to_string(),
                &PORT.to_string(),
            ],
            Stdio::piped(),
        )?;
    let inside = running.command_pid(&format!("{helper} cycles"))?;
    let sent = Capture::beside(inside, &pod_interface(inside)?, SYNS)?;
    let arrived = Capture::start(&world.world, "uplink", SYNS)?;
    let load = load()?;
    let mut go = running.process().child().stdin.take().context("a pipe")?;
    go.write_all(b"go\n")?;
    let done = running.finish()?;
    drop(load);
    ensure!(
        done.status == 0,
        "the cycles ended early: {}{}",
        done.stdout,
        done.stderr
    );
    let report = done.report()?;
    ensure!(
        report.denied.is_empty(),
        "something was denied: {:?}",
        report.denied.first()
    );
    let cells = serde_json::from_str(done.stdout.trim()).context("what the helper measured")?;
    Ok(Race {
        cells,
        sent: Syns::of(&sent.finish()?),
        arrived: Syns::of(&arrived.finish()?),
    })
}

/// How many names a world needs for this many cycles.
pub fn names(cycles: usize) -> u32 {
    u32::try_from(cycles)
        .unwrap_or(u32::MAX)
        .saturating_add(1000)
}

/// One loop per core that does nothing but run.
fn load() -> Result<Vec<Process>> {
    let cores = std::thread::available_parallelism()?.get();
    let load = (0..cores)
        .map(|_| {
            Process::spawn(
                "load",
                Command::new("sh").args(["-c", "while :; do :; done"]),
            )
        })
        .collect::<Result<_>>()?;
    std::thread::sleep(patience(Duration::from_millis(300)));
    Ok(load)
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
    let text = output.ok("ip route")?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
    words
        .nth(1)
        .map(str::to_owned)
        .context("no default route with an interface")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycles::Way;

    fn race() -> Race {
        let syns = Syns {
            to_servers: 8,
            repeated: 0,
        };
        let cell = |way| Cell {
            way,
            cycles: 2,
            failed: 0,
            first_failure: None,
            syn_retransmits: 0,
            lookup: Times::default(),
            connect: Times::default(),
        };
        Race {
            cells: Way::ALL.map(cell).into(),
            sent: syns,
            arrived: syns,
        }
    }

    #[test]
    fn only_a_clean_race_passes() {
        assert!(race().check(8).is_ok());
        assert!(race().check(9).is_err());
        let wrongs: [fn(&mut Race); 6] = [
            |race| race.cells[1].first_failure = Some("no answer".to_owned()),
            |race| race.cells[2].syn_retransmits = 1,
            |race| race.cells[3].cycles = 0,
            |race| race.sent.repeated = 1,
            |race| race.arrived.repeated = 1,
            |race| race.arrived.to_servers = 7,
        ];
        for wrong in wrongs {
            let mut race = race();
            wrong(&mut race);
            assert!(race.check(8).is_err(), "{race}");
        }
    }
}
