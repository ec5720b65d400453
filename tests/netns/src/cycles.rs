//! Inside the pod: resolve a fresh name, connect at once, over and over.
//!
//! In:  which names, how many, the port to connect to.
//! Out: a [`Cell`] per DNS transport and family, as one line of JSON between processes.
//! Not here: the load beside it, what the captures saw (`race`).

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use support::world::race_name;

use crate::ask::{long, over_tcp, over_udp, resolver, resolver6};
use crate::wire::Kind;

/// How the name was asked for, and in which family both the question and the connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    tcp: bool,
    ipv6: bool,
}

impl Way {
    /// Every way, in turn.
    pub const ALL: [Self; 4] = [
        Self::new(false, false),
        Self::new(true, false),
        Self::new(false, true),
        Self::new(true, true),
    ];

    const fn new(tcp: bool, ipv6: bool) -> Self {
        Self { tcp, ipv6 }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = if self.tcp { "TCP" } else { "UDP" };
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        write!(f, "{transport} {family}")
    }
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Half of them took no longer.
    pub p50: u64,
    /// All but one in a hundred took no longer.
    pub p99: u64,
    /// None took longer.
    pub max: u64,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let rank = |percent: usize| {
            let at = (all.len() * percent).div_ceil(100).saturating_sub(1);
            all.get(at).copied().map_or(0, micros)
        };
        Self {
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

/// What became of the cycles of one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Which way.
    pub way: Way,
    /// How many there were.
    pub cycles: usize,
    /// How many failed.
    pub failed: usize,
    /// What the first of them said.
    pub first_failure: Option<String>,
    /// SYNs that the pod's kernel sent again meanwhile, to the resolver or the server.
    pub syn_retransmits: u64,
    /// From question to answer.
    pub lookup: Times,
    /// From SYN to established.
    pub connect: Times,
}

/// What was measured of one way so far.
#[derive(Default)]
struct Tally {
    lookups: Vec<Duration>,
    connects: Vec<Duration>,
    failures: Vec<String>,
    syn_retransmits: u64,
}

/// Goes through `count` names from `first` on, one way after the other.
pub fn run(first: u32, count: u32, port: u16) -> Result<Vec<Cell>> {
    let servers = (resolver()?, resolver6()?);
    let mut tallies: [Tally; 4] = Default::default();
    let mut counted = retransmits()?;
    for (number, nth) in (first..first.saturating_add(count)).zip((0..tallies.len()).cycle()) {
        let (Some(way), Some(tally)) = (Way::ALL.get(nth), tallies.get_mut(nth)) else {
            continue;
        };
        if let Err(error) = cycle(*way, servers, &race_name(number), port, tally) {
            tally
                .failures
                .push(format!("{way}, name {number}: {error:#}"));
        }
        let now = retransmits()?;
        tally.syn_retransmits += now - counted;
        counted = now;
    }
    let cells = Way::ALL.into_iter().zip(tallies).map(|(way, tally)| Cell {
        way,
        cycles: tally.connects.len() + tally.failures.len(),
        failed: tally.failures.len(),
        first_failure: tally.failures.into_iter().next(),
        syn_retransmits: tally.syn_retransmits,
        lookup: Times::of(tally.lookups),
        connect: Times::of(tally.connects),
    });
    Ok(cells.collect())
}

fn cycle(
    way: Way,
    (server4, server6): (SocketAddr, SocketAddr),
    name: &str,
    port: u16,
    tally: &mut Tally,
) -> Result<()> {
    let (server, kind) = if way.ipv6 {
        (server6, Kind::Aaaa)
    } else {
        (server4, Kind::A)
    };
    let asked = Instant::now();
    let address = if way.tcp {
        over_tcp(server, name, kind)?
    } else {
        over_udp(server, name, kind)?
    };
    let answered = Instant::now();
    let connected = TcpStream::connect_timeout(&SocketAddr::new(address, port), long());
    let end = Instant::now();
    connected.with_context(|| format!("connecting to {address}"))?;
    tally.lookups.push(answered - asked);
    tally.connects.push(end - answered);
    Ok(())
}

/// SYNs that the kernel of this network sent again.
fn retransmits() -> Result<u64> {
    support::counter(
        std::process::id().cast_signed(),
        "netstat",
        "TcpExt",
        "TCPSynRetrans",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_sorted_times() {
        let times =
            |all: &[u64]| Times::of(all.iter().copied().map(Duration::from_micros).collect());
        assert_eq!(times(&[]), Times::default());
        let one = Times {
            p50: 7,
            p99: 7,
            max: 7,
        };
        assert_eq!(times(&[7]), one);
        let hundreds: Vec<u64> = (1..=200).rev().collect();
        let expected = Times {
            p50: 100,
            p99: 198,
            max: 200,
        };
        assert_eq!(times(&hundreds), expected);
    }
}
