//! Traffic that runs beside a test and says in the end what became of it.
//!
//! In:  a network namespace, where to.
//! Out: [`Traffic`]: a thread inside the namespace, until it is asked for its count.
//! Not here: what may pass (`tests/`), counting on the far side (`far`).
//!
//! Everything is counted, and nothing is measured by sleeping: a cut flow, a lost answer or a
//! refused connection is an error or a number, however slow the machine.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use support::{Netns, netns::join, patience, world::race_name};

use crate::wire::{self, Kind};

/// How long a flow may stall, or an answer take, before that counts as lost.
fn long() -> Duration {
    patience(Duration::from_secs(10))
}

/// Something that goes on until it is finished.
#[derive(Debug)]
pub struct Traffic<T> {
    until: Until,
    thread: JoinHandle<Result<Result<T>>>,
}

/// When to end, and how far it got.
#[derive(Clone, Debug, Default)]
struct Until {
    over: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
}

impl Until {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T: Send + 'static> Traffic<T> {
    fn start(
        netns: &Netns,
        work: impl FnOnce(&Until) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let until = Until::default();
        let its = until.clone();
        let thread = netns.thread(move || work(&its))?;
        Ok(Self { until, thread })
    }

    /// How many steps it has done so far.
    pub fn steps(&self) -> u64 {
        self.until.steps.load(Ordering::Relaxed)
    }

    /// Whether it has ended by itself, which is always too early.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When something was lost, cut or refused on the way.
    pub fn finish(self) -> Result<T> {
        self.until.over.store(true, Ordering::Relaxed);
        join(self.thread)?
    }
}

/// One TCP connection to an echo server that never rests: each number must come back. Ends with
/// how many did.
///
/// # Errors
/// When the thread cannot be started.
pub fn held(netns: &Netns, server: SocketAddr) -> Result<Traffic<u64>> {
    Traffic::start(netns, move |until| {
        let mut stream = TcpStream::connect_timeout(&server, long()).context("a held flow")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(long()))?;
        let mut number = 0_u64;
        while until.goes_on() {
            let sent = number.to_be_bytes();
            let mut back = [0; 8];
            stream.write_all(&sent).context("the held flow was cut")?;
            stream
                .read_exact(&mut back)
                .context("the held flow was cut")?;
            ensure!(sent == back, "the held flow echoed something else");
            number += 1;
            until.step();
            sleep(Duration::from_millis(2));
        }
        Ok(number)
    })
}

/// What was learned of names that nobody had asked for before.
#[derive(Debug, Default)]
pub struct Fresh {
    /// Names that were answered, with their addresses.
    pub names: Vec<(String, IpAddr)>,
    /// How often a question had to be asked again.
    pub asked_again: u64,
}

/// Resolves fresh names from `first` on, asking again while nobody answers, and connects to each
/// at once. Ends with the names.
///
/// # Errors
/// When the thread cannot be started; finishing it fails when a name that was answered could not be
/// connected to.
pub fn fresh(netns: &Netns, resolver: SocketAddr, first: u32, port: u16) -> Result<Traffic<Fresh>> {
    Traffic::start(netns, move |until| {
        let mut all = Fresh::default();
        for number in first.. {
            let name = race_name(number);
            let mut address = None;
            while until.goes_on() && address.is_none() {
                // Short: while nobody is there, nothing comes, and the next question may.
                let answer = ask(resolver, &name, Kind::A, Duration::from_millis(250))?;
                address = answer.and_then(|(answer, _)| wire::addresses(&answer)?.first().copied());
                all.asked_again += u64::from(address.is_none());
            }
            let Some(address) = address else { break };
            TcpStream::connect_timeout(&SocketAddr::new(address, port), long())
                .with_context(|| format!("{name} was answered with {address} and is not open"))?;
            all.names.push((name, address));
            until.step();
            sleep(Duration::from_millis(5));
        }
        Ok(all)
    })
}

/// Look-ups and how long each took.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Those that were answered, in microseconds.
    pub took: Vec<u64>,
    /// Those that were not.
    pub lost: u64,
}

impl Lookups {
    /// The latency that a share of all look-ups does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length is within it"
        )]
        let at = (took.len() as f64 * share) as usize;
        let at = at.min(took.len().saturating_sub(1));
        Duration::from_micros(took.get(at).copied().unwrap_or(0))
    }
}

/// Asks for one name again and again. A question is asked once: one that is not answered is lost.
///
/// # Errors
/// When the thread cannot be started.
pub fn lookups(netns: &Netns, resolver: SocketAddr, name: &str) -> Result<Traffic<Lookups>> {
    let name = name.to_owned();
    Traffic::start(netns, move |until| {
        let mut all = Lookups::default();
        while until.goes_on() {
            match ask(resolver, &name, Kind::A, long())? {
                Some((answer, took)) if wire::rcode(&answer) == Some(0) => {
                    all.took.push(u64::try_from(took.as_micros())?);
                }
                _ => all.lost += 1,
            }
            until.step();
            sleep(Duration::from_millis(4));
        }
        Ok(all)
    })
}

/// New connections to where they are allowed, one after the other. Ends with how many there were.
///
/// # Errors
/// When the thread cannot be started; finishing it fails when one was refused.
pub fn connects(netns: &Netns, server: SocketAddr) -> Result<Traffic<u64>> {
    Traffic::start(netns, move |until| {
        let mut count = 0;
        while until.goes_on() {
            TcpStream::connect_timeout(&server, long()).context("an allowed connection")?;
            count += 1;
            until.step();
            sleep(Duration::from_millis(4));
        }
        Ok(count)
    })
}

/// First packets to where nobody may go, TCP and UDP in turn. Ends with how many were sent.
///
/// # Errors
/// When the thread cannot be started; finishing it fails when a connection was made.
pub fn knocks(netns: &Netns, targets: Vec<SocketAddr>) -> Result<Traffic<u64>> {
    Traffic::start(netns, move |until| {
        let mut sent = 0;
        while until.goes_on() {
            for target in &targets {
                let opened = TcpStream::connect_timeout(target, Duration::from_millis(3));
                ensure!(opened.is_err(), "{target} was reached");
                socket(*target)?.send_to(b"knock", target).ok();
                sent += 2;
                until.step();
            }
        }
        Ok(sent)
    })
}

/// One flow of datagrams, one every few milliseconds. Ends with how many there were.
///
/// # Errors
/// When the thread cannot be started.
pub fn beats(netns: &Netns, target: SocketAddr) -> Result<Traffic<u64>> {
    Traffic::start(netns, move |until| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(target)?;
        let mut count = 0;
        while until.goes_on() {
            // An error that an earlier datagram brought back says nothing about this one.
            while socket.send(b"beat").is_err() {}
            count += 1;
            until.step();
            sleep(Duration::from_millis(5));
        }
        Ok(count)
    })
}

/// Datagrams as fast as they can be sent, each of a flow of its own. Ends with how many there were.
///
/// # Errors
/// When the thread cannot be started.
pub fn datagrams(netns: &Netns, target: SocketAddr) -> Result<Traffic<u64>> {
    Traffic::start(netns, move |until| {
        let mut sent = 0_u64;
        while until.goes_on() {
            sent += u64::from(socket(target)?.send_to(b"flood", target).is_ok());
            until.step();
        }
        Ok(sent)
    })
}

/// Questions as fast as they can be sent, answers taken and thrown away. Ends with how many there
/// were.
///
/// # Errors
/// When the thread cannot be started.
pub fn questions(netns: &Netns, resolver: SocketAddr) -> Result<Traffic<u64>> {
    Traffic::start(netns, move |until| {
        let socket = socket(resolver)?;
        socket.connect(resolver)?;
        socket.set_nonblocking(true)?;
        let (mut sent, mut room) = (0_u64, [0; 2048]);
        while until.goes_on() {
            let name = race_name(u32::try_from(sent % 5000)?);
            let question = wire::query(u16::try_from(sent % 65536)?, &name, Kind::A);
            sent += u64::from(socket.send(&question).is_ok());
            while socket.recv(&mut room).is_ok() {}
            until.step();
        }
        Ok(sent)
    })
}

fn socket(towards: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if towards.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    Ok(UdpSocket::bind((any, 0))?)
}

/// Asks once; none when nothing came in time. A socket of its own makes a late answer to an
/// earlier question impossible.
fn ask(
    resolver: SocketAddr,
    name: &str,
    kind: Kind,
    patience: Duration,
) -> Result<Option<(Vec<u8>, Duration)>> {
    let socket = socket(resolver)?;
    socket.connect(resolver)?;
    socket.set_read_timeout(Some(patience))?;
    let began = Instant::now();
    if socket.send(&wire::query(7, name, kind)).is_err() {
        return Ok(None);
    }
    let mut room = [0; 2048];
    match socket.recv(&mut room) {
        Ok(length) => {
            let answer = room.get(..length).unwrap_or_default().to_vec();
            Ok(Some((answer, began.elapsed())))
        }
        Err(_) => Ok(None),
    }
}
