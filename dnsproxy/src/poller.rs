//! Which of a shard's sockets can be read or written.
//!
//! In:  sockets, each under a [`Token`].
//! Out: batches of [`Event`]s.
//! Not here: reading and writing.
//!
//! One epoll instance holds all sockets of a shard and is the only thing its thread ever waits for:
//! one system call for each time it wakes up. Level-triggered, so that whoever reads only a part is
//! reminded; who was told of last is told of first, so no socket that is always ready keeps another
//! from its turn.

use std::{io, os::fd::AsFd, time::Duration};

use dnsproxy_core::{ConnectionId, PortSlot};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use crate::{listeners::Lane, opener::Family};

/// Events per system call.
const BATCH: usize = 128;

/// Which socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    /// The UDP listener of a lane and family.
    Datagrams(Family, Lane),
    /// The TCP listener of a lane and family.
    Connects(Family, Lane),
    /// A source port towards resolvers.
    Port(PortToken),
    /// A client's connection.
    Client(ConnectionId),
    /// A connection to a resolver on behalf of a client's.
    Resolver(ConnectionId, u8),
    /// The bell of the control side.
    Bell,
}

/// Which of the two sockets that a port slot may have (`upstreams`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortToken {
    pub(crate) family: Family,
    pub(crate) slot: PortSlot,
    pub(crate) second: bool,
}

/// What to be told about.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    pub(crate) const READ: Self = Self {
        read: true,
        write: false,
    };
    pub(crate) const NONE: Self = Self {
        read: false,
        write: false,
    };

    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.read);
        flags.set(EpollFlags::EPOLLOUT, self.write);
        flags
    }
}

/// A socket is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) token: Token,
    /// Both directions are over, or the socket has an error: nothing more can be delivered.
    pub(crate) broken: bool,
}

/// All sockets of a shard.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll })
    }

    /// Watches a socket until it is closed.
    pub(crate) fn add(
        &self,
        socket: &impl AsFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let event = EpollEvent::new(interest.flags(), token.encode());
        self.epoll.add(socket, event)?;
        Ok(())
    }

    /// Changes what to be told about a watched socket.
    pub(crate) fn change(
        &self,
        socket: &impl AsFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let mut event = EpollEvent::new(interest.flags(), token.encode());
        self.epoll.modify(socket, &mut event)?;
        Ok(())
    }

    /// Waits until a socket is ready or the time is over, or for no reason at all.
    pub(crate) fn wait(&self, time: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut raw = [EpollEvent::empty(); BATCH];
        let count = match self.epoll.wait(&mut raw, timeout(time)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        events.extend(raw.iter().take(count).filter_map(|event| {
            Some(Event {
                token: Token::decode(event.data())?,
                broken: event
                    .events()
                    .intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
            })
        }));
        Ok(())
    }
}

/// Whole milliseconds, rounded up: what is due is not waited for, and what is due soon is not asked
/// about over and over.
fn timeout(time: Option<Duration>) -> EpollTimeout {
    let Some(time) = time else {
        return EpollTimeout::NONE;
    };
    let millis = i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
    EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
}

/// Bits of a token: kind (4), detail (4), number (56).
const NUMBER: u64 = (1 << 56) - 1;

impl Token {
    fn encode(self) -> u64 {
        let (kind, detail, number) = match self {
            Self::Datagrams(family, lane) => (1, bit(family), u64::from(lane.0)),
            Self::Connects(family, lane) => (2, bit(family), u64::from(lane.0)),
            Self::Port(port) => (
                3,
                bit(port.family) | u64::from(port.second) << 1,
                u64::from(port.slot.0),
            ),
            Self::Client(id) => (4, 0, id.0),
            Self::Resolver(id, index) => (5, u64::from(index & 0xf), id.0),
            Self::Bell => (6, 0, 0),
        };
        kind << 60 | detail << 56 | number & NUMBER
    }

    fn decode(raw: u64) -> Option<Self> {
        let (detail, number) = (raw >> 56 & 0xf, raw & NUMBER);
        Some(match raw >> 60 {
            1 => Self::Datagrams(family(detail), Lane(u16::try_from(number).ok()?)),
            2 => Self::Connects(family(detail), Lane(u16::try_from(number).ok()?)),
            3 => Self::Port(PortToken {
                family: family(detail & 1),
                slot: PortSlot(u16::try_from(number).ok()?),
                second: detail & 2 != 0,
            }),
            4 => Self::Client(ConnectionId(number)),
            5 => Self::Resolver(ConnectionId(number), u8::try_from(detail).ok()?),
            6 => Self::Bell,
            _ => return None,
        })
    }
}

fn bit(family: Family) -> u64 {
    u64::from(family == Family::V6)
}

fn family(bit: u64) -> Family {
    if bit == 0 { Family::V4 } else { Family::V6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_never_shorter_than_asked_for() {
        assert_eq!(timeout(None), EpollTimeout::NONE);
        for (nanos, millis) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            let expected = EpollTimeout::try_from(millis).unwrap();
            assert_eq!(timeout(Some(Duration::from_nanos(nanos))), expected);
        }
        assert_eq!(timeout(Some(Duration::MAX)), EpollTimeout::MAX);
    }

    #[test]
    fn tokens_survive_the_kernel() {
        let ports = [Family::V4, Family::V6].into_iter().flat_map(|family| {
            [0, 255, u16::MAX].into_iter().flat_map(move |slot| {
                [false, true].map(|second| {
                    Token::Port(PortToken {
                        family,
                        slot: PortSlot(slot),
                        second,
                    })
                })
            })
        });
        for token in [
            Token::Datagrams(Family::V4, Lane(0)),
            Token::Datagrams(Family::V6, Lane(u16::MAX)),
            Token::Connects(Family::V4, Lane(u16::MAX)),
            Token::Connects(Family::V6, Lane(0)),
            Token::Client(ConnectionId(0)),
            Token::Client(ConnectionId(NUMBER)),
            Token::Resolver(ConnectionId(NUMBER), 15),
            Token::Bell,
        ]
        .into_iter()
        .chain(ports)
        {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
    }
}
