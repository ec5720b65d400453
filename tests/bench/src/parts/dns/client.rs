//! Whoever asks, from as many ports as wanted.
//!
//! In:  how many ports; which names.
//! Out: how many answers came, or how long one takes.
//! Not here: what is in the way (`arena`).

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::arena::{Arena, RULES, SERVER};

/// An answer that is not here by then is lost.
const LOST: Duration = Duration::from_millis(200);
/// `n` and seven digits, `r` and three, `bench.test`: type A, class IN.
const QUERY: &[u8; 12 + 9 + 5 + 6 + 5 + 1 + 4] =
    b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x08n0000000\x04r000\x05bench\x04test\0\0\x01\0\x01";
const NUMBER: std::ops::Range<usize> = 14..21;
const RULE: std::ops::Range<usize> = 23..26;

/// The number that a query's name has.
pub(super) fn number_of(query: &[u8]) -> Option<u32> {
    std::str::from_utf8(query.get(NUMBER)?).ok()?.parse().ok()
}

/// Which names are asked for.
#[derive(Debug)]
pub(super) struct Names {
    next: u32,
    count: Option<u32>,
}

impl Names {
    /// The same ones over and over.
    pub(super) fn cycle(count: u32) -> Self {
        Self {
            next: 0,
            count: Some(count),
        }
    }

    /// None twice.
    pub(super) fn fresh() -> Self {
        Self {
            next: 100_000,
            count: None,
        }
    }

    fn query(&mut self, id: u16) -> Vec<u8> {
        let number = self.count.map_or(self.next, |count| self.next % count);
        self.next = self.next.wrapping_add(1) % 10_000_000;
        let mut query = QUERY.to_vec();
        let parts = [
            (0..2, id.to_be_bytes().to_vec()),
            (NUMBER, format!("{number:07}").into_bytes()),
            (RULE, format!("{:03}", number % RULES).into_bytes()),
        ];
        for (range, bytes) in parts {
            if let Some(part) = query.get_mut(range) {
                part.copy_from_slice(&bytes);
            }
        }
        query
    }
}

/// What a flood came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flooded {
    pub(super) answered: u64,
    pub(super) took: Duration,
}

/// Sockets of the workload.
#[derive(Debug)]
pub(super) struct Client {
    sockets: Vec<UdpSocket>,
    ready: Epoll,
    next: usize,
}

impl Client {
    pub(super) fn new(arena: &Arena, ports: usize) -> anyhow::Result<Self> {
        let sockets = arena.in_pod(|| {
            (0..ports)
                .map(|_| {
                    let socket = UdpSocket::bind("0.0.0.0:0")?;
                    socket.connect(SERVER)?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (socket, nth) in sockets.iter().zip(0..) {
            ready.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, nth))?;
        }
        Ok(Self {
            sockets,
            ready,
            next: 0,
        })
    }

    /// Keeps `window` queries under way for a while.
    pub(super) fn flood(
        &mut self,
        names: &mut Names,
        window: usize,
        slice: Duration,
    ) -> anyhow::Result<Flooded> {
        self.drain();
        let began = Instant::now();
        let (mut under_way, mut answered, mut lost) = (0, 0_u64, 0_u64);
        let mut events = [EpollEvent::empty(); 64];
        let mut room = [0; 512];
        while began.elapsed() < slice {
            while under_way < window {
                self.ask(names)?;
                under_way += 1;
            }
            let timeout = EpollTimeout::try_from(LOST)?;
            let count = self.ready.wait(&mut events, timeout)?;
            if count == 0 {
                lost += u64::try_from(under_way)?;
                under_way = 0;
            }
            for event in events.iter().take(count) {
                let socket = self.sockets.get(usize::try_from(event.data())?);
                let socket = socket.context("a socket that is not there")?;
                while socket.recv(&mut room).is_ok() {
                    answered += 1;
                    under_way = under_way.saturating_sub(1);
                }
            }
        }
        let took = began.elapsed();
        // Waits for what is still under way, so that it does not count as somebody else's.
        std::thread::sleep(Duration::from_millis(5));
        self.drain();
        ensure!(answered > 0, "nothing was answered");
        ensure!(
            lost * 100 <= answered,
            "{lost} queries were lost, {answered} answered"
        );
        Ok(Flooded { answered, took })
    }

    /// One query at a time; half of them were answered within the first time, 99 of 100 within the
    /// second, in microseconds.
    pub(super) fn round_trips(
        &mut self,
        names: &mut Names,
        slice: Duration,
    ) -> anyhow::Result<[f64; 2]> {
        self.drain();
        let mut times = Vec::new();
        let mut events = [EpollEvent::empty(); 1];
        let mut room = [0; 512];
        let began = Instant::now();
        while began.elapsed() < slice || times.len() < 100 {
            let asked = Instant::now();
            let socket = self.ask(names)?;
            let count = self
                .ready
                .wait(&mut events, EpollTimeout::try_from(LOST)?)?;
            ensure!(count > 0, "an answer was lost");
            let socket = self.sockets.get(socket).context("a socket")?;
            socket.recv(&mut room)?;
            times.push(asked.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let at = times.len() * percent / 100;
            times.get(at).copied().context("a time")
        };
        Ok([rank(50)?, rank(99)?])
    }

    /// Sends the next query from the next socket; hands out which.
    fn ask(&mut self, names: &mut Names) -> anyhow::Result<usize> {
        let nth = self.next % self.sockets.len();
        self.next = self.next.wrapping_add(1);
        let query = names.query(u16::try_from(self.next & 0xffff)?);
        let socket = self.sockets.get(nth).context("a socket")?;
        socket.send(&query)?;
        Ok(nth)
    }

    fn drain(&self) {
        let mut room = [0; 512];
        for socket in &self.sockets {
            while socket.recv(&mut room).is_ok() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_carries_its_number() {
        let mut names = Names::cycle(3);
        let numbers: Vec<_> = (0..4).map(|id| number_of(&names.query(id))).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2), Some(0)]);
        let mut fresh = Names::fresh();
        let query = fresh.query(0x0102);
        assert_eq!(query[..2], [1, 2]);
        assert_eq!(number_of(&query), Some(100_000));
        assert_ne!(number_of(&fresh.query(1)), Some(100_000));
        assert_eq!(number_of(b"short"), None);
    }
}
