//! How soon a changed policy file is what happens to packets.
//!
//! In:  a running agent, a policy file that gains and loses a rule by name.
//! Out: from the change of the file to the last byte of a live flow, and to the first new connection;
//!      printed, and held against a bound that only something broken misses.
//! Not here: what the change does otherwise (`agent_policies.rs`).

mod agent;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use agent::{Node, Pod, names};
use anyhow::{Context, Result, bail, ensure};
use support::{
    Netns, World,
    netns::join,
    patience, rounds,
    world::address::{self as at, ip},
};

/// A bound for any machine, however busy its processors and its disk. What is usual is printed.
const BOUND: Duration = Duration::from_secs(30);
/// Every change, this often.
const ROUNDS: u32 = 20;
/// How often the live flow says something.
const BEAT: Duration = Duration::from_millis(1);
/// How long a flow must be silent to count as cut.
const SILENCE: Duration = Duration::from_millis(400);

/// When the far side last heard something.
type Heard = Arc<Mutex<Option<Instant>>>;

#[test]
fn a_rule_removed_closes_live_flows_and_a_rule_added_opens_without_a_look_up() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    let with = names("web", "{}", &["example.test", "other.test"]);
    let without = names("web", "{}", &["example.test"]);
    let rule = |text: &str| text.replace("\"443\"", "\"9443\"");
    node.policy("web.yaml", &rule(&with))?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;
    let heard = Heard::default();
    listen(&world.world, Arc::clone(&heard))?;
    // The only look-up there is.
    ensure!(
        pod.resolve("other.test")?.contains(at::OTHER),
        "{}",
        node.log()
    );
    let to = SocketAddr::new(ip(at::OTHER)?, 9443);
    let (mut closing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..rounds(ROUNDS) {
        let talking = talk(&pod.netns, to)?;
        support::until(BOUND, "the flow to be heard", || last(&heard).map(|_| ()))?;
        node.policy("web.yaml", &rule(&without))?;
        let changed = Instant::now();
        let silent = support::until(BOUND, "the flow to fall silent", || {
            last(&heard).filter(|heard| heard.elapsed() > patience(SILENCE))
        })
        .with_context(|| node.log())?;
        closing.push(silent.saturating_duration_since(changed));
        drop(talking);

        node.policy("web.yaml", &rule(&with))?;
        let changed = Instant::now();
        opening.push(pod.netns.run(|| first_connection(to, changed))??);
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    report("a live flow is cut after", &mut closing);
    report("a new connection opens after", &mut opening);
    let slowest = closing.iter().chain(&opening).max();
    ensure!(
        slowest < Some(&patience(BOUND)),
        "{slowest:?}\n{}",
        node.log()
    );
    Ok(())
}

fn report(what: &str, all: &mut [Duration]) {
    all.sort();
    println!(
        "{what} {:?} (median), {:?} at the most, {} times",
        all.get(all.len() / 2).copied().unwrap_or_default(),
        all.last().copied().unwrap_or_default(),
        all.len()
    );
}

fn last(heard: &Heard) -> Option<Instant> {
    *heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes when something is heard on any connection.
fn listen(netns: &Netns, heard: Heard) -> Result<()> {
    let listener = netns.run(|| TcpListener::bind("[::]:9443"))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || hear(stream, &heard));
        }
    });
    Ok(())
}

fn hear(mut stream: TcpStream, heard: &Heard) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).is_ok_and(|len| len > 0) {
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// A connection that says something every moment, until it is dropped.
struct Talking(Option<(TcpStream, std::thread::JoinHandle<Result<()>>)>);

impl Drop for Talking {
    fn drop(&mut self) {
        if let Some((stream, talker)) = self.0.take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            let _ = join(talker);
        }
    }
}

fn talk(netns: &Netns, to: SocketAddr) -> Result<Talking> {
    let mut stream =
        netns.run(|| TcpStream::connect_timeout(&to, patience(Duration::from_secs(8))))??;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(patience(Duration::from_millis(200))))?;
    let handle = stream.try_clone()?;
    let talker = std::thread::spawn(move || -> Result<()> {
        // Ends with the first write that fails: the connection was shut down.
        while stream.write_all(b".").is_ok() {
            std::thread::sleep(BEAT);
        }
        Ok(())
    });
    Ok(Talking(Some((handle, talker))))
}

/// How long after the change a connection succeeds. A dropped one is silent: nothing here is further
/// away than two veth pairs.
fn first_connection(to: SocketAddr, changed: Instant) -> Result<Duration> {
    while changed.elapsed() < patience(Duration::from_secs(5)) {
        if TcpStream::connect_timeout(&to, patience(Duration::from_millis(4))).is_ok() {
            return Ok(changed.elapsed());
        }
    }
    bail!("it never opened")
}
