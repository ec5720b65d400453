//! `namegate agent`: one endpoint floods, and another one does not notice. Alone in its file: it
//! loads every core.

mod agent;

use std::{net::SocketAddr, time::Duration};

use agent::{Node, Pod, names};
use anyhow::{Context, Result, ensure};
use netns::traffic::{self, Lookups, Traffic};
use support::{Process, World, until, world::address as at};

/// How long each flood lasts.
const PHASE: Duration = Duration::from_secs(4);
/// Queries of an endpoint without an answer yet.
const IN_FLIGHT: u32 = 256;
/// KiB: what the records of a flood may take.
const MOST_MORE: u64 = 64 << 10;
/// Nobody listens there; whether packets may go there is up to policy.
const NOWHERE: u16 = 4000;

fn to(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(at::ip(address)?, port))
}

/// Resident memory of a process in KiB.
fn memory(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .context("VmRSS")?;
    Ok(number.parse()?)
}

/// The sum of a metric's series whose labels hold all of these.
fn metric(world: &World, name: &str, labels: &[&str]) -> Result<u64> {
    let text = world
        .host
        .output("curl", &["-sS", "http://127.0.0.1:9963/metrics"])?
        .ok("metrics")?;
    let rows = text
        .lines()
        .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
    Ok(rows
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum())
}

/// What the victim does all the time.
struct Victim<'p> {
    pod: &'p Pod,
    held: Traffic<u64>,
}

/// What became of it in one phase.
struct Phase {
    lookups: Lookups,
    connections: u64,
    /// By the flooder.
    sent: u64,
}

impl Victim<'_> {
    /// Looks up, connects and talks while somebody else does `what`.
    fn phase(
        &self,
        what: &str,
        flood: impl FnOnce() -> Result<Option<Traffic<u64>>>,
    ) -> Result<Phase> {
        let flood = flood()?;
        let lookups = traffic::lookups(&self.pod.netns, to(at::RESOLVER, 53)?, "example.test")?;
        let connects = traffic::connects(&self.pod.netns, to(at::EXAMPLE, 80)?)?;
        let echoes = self.held.steps();
        std::thread::sleep(PHASE);
        let (lookups, connections) = (lookups.finish()?, connects.finish()?);
        let echoes = self.held.steps() - echoes;
        let sent = flood.map_or(Ok(0), Traffic::finish)?;
        println!(
            "{what}: {sent} sent; of the other: {} lookups, {} lost, p50 {:?}, p99 {:?}, \
             {connections} connections, {echoes} echoes",
            lookups.took.len(),
            lookups.lost,
            lookups.quantile(0.5),
            lookups.quantile(0.99),
        );
        ensure!(
            echoes > 0 && connections > 0 && !self.held.has_ended(),
            "{what}"
        );
        assert_eq!(
            lookups.lost, 0,
            "look-ups of the other endpoint during {what}"
        );
        Ok(Phase {
            lookups,
            connections,
            sent,
        })
    }
}

#[test]
fn a_flood_of_one_endpoint_costs_another_neither_flow_nor_answer_nor_event() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let (flooder, victim) = (Pod::routed(&world, 1)?, Pod::routed(&world, 2)?);
    let policy = names("web", "{}", &["example.test", "*.race.test"]).replace(
        "{port: \"443\", protocol: TCP}",
        "{port: \"7\", protocol: TCP}, {port: \"80\", protocol: TCP}, {port: \"4000\", protocol: UDP}",
    );
    node.policy("web.yaml", &policy)?;
    // One shard: both endpoints share everything that can be shared.
    node.configure(
        &[(&flooder, "{app: web}"), (&victim, "{app: web}")],
        &format!(
            "metrics: 127.0.0.1:9963\nsteering: {{shards: 1}}\nlimits: {{inFlight: {IN_FLIGHT}}}\n\
             sizes: {{endpoints: 8, learned: 4096, flows: 1024}}"
        ),
    )?;
    node.start()?;
    for pod in [&flooder, &victim] {
        node.until_state(pod, "enforcing")?;
        pod.resolve("example.test")?;
    }
    let mut follower = world.host.command(support::tools::namegate()?);
    follower.args([
        "observe", "-f", "-e", "pod2", "--last", "1", "-o", "json", "--socket",
    ]);
    follower.arg(node.socket());
    let follower = Process::spawn("observe -f", &mut follower)?;
    until(Duration::from_secs(30), "observe", || {
        (!follower.stdout().is_empty()).then_some(())
    })?;
    let before = follower.stdout().lines().count();
    let agent = node.agent()?.pid();
    let netns = &flooder.netns;

    let watched = Victim {
        pod: &victim,
        held: traffic::held(&victim.netns, to(at::EXAMPLE, 7)?)?,
    };
    let quiet = watched.phase("nothing", || Ok(None))?;
    let calm = memory(agent)?;
    let connections = watched.phase("connections", || {
        traffic::datagrams(netns, to(at::EXAMPLE, NOWHERE)?).map(Some)
    })?;
    let denied = watched.phase("denied packets", || {
        traffic::datagrams(netns, to(at::EVIL, NOWHERE)?).map(Some)
    })?;
    let questions = watched.phase("questions", || {
        traffic::questions(netns, to(at::RESOLVER, 53)?).map(Some)
    })?;
    let after = memory(agent)?;
    println!("memory of the agent: {calm} KiB before, {after} KiB after");

    // Each of the victim's connections is an event, and each look-up two records.
    let phases = [&quiet, &connections, &denied, &questions];
    let expected: u64 = phases
        .iter()
        .map(|phase| phase.connections + 2 * phase.lookups.took.len() as u64)
        .sum::<u64>()
        + 1;
    let seen = || (follower.stdout().lines().count() - before) as u64;
    let all = until(Duration::from_secs(20), "the records", || {
        (seen() >= expected).then_some(())
    });
    println!("records of the other: {} of {expected}", seen());
    all.with_context(|| node.log())?;
    watched.held.finish()?;

    // What was refused the flooder is counted, exactly.
    let dropped = metric(
        &world,
        "namegate_packets_dropped_total",
        &["POLICY_DENIED", "egress"],
    )?;
    ensure!(
        dropped >= denied.sent,
        "{dropped} of {} counted",
        denied.sent
    );
    let steered = metric(
        &world,
        "namegate_packets_forwarded_total",
        &["steered", "egress"],
    )?;
    ensure!(
        steered >= questions.sent,
        "{steered} of {} counted",
        questions.sent
    );
    for lost in [
        "namegate_records_lost_total",
        "namegate_observe_missed_total",
    ] {
        assert_eq!(metric(&world, lost, &[])?, 0, "{lost}");
    }

    ensure!(after < calm + MOST_MORE, "{calm} KiB became {after} KiB");
    Ok(())
}
