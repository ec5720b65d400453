//! Which of a shard's sockets can be read or written.
//!
//! In:  sockets, each under a [`Token`].
//! Out: batches of [`Event`]s.
//! Not here: reading and writing.
//!
//! One epoll instance of the shard's own holds all sockets and is itself the only descriptor that
//! the runtime watches: hundreds of upstream sockets and thousands of connections cost neither a
//! task nor a place in a `select!`. Level-triggered, so that whoever reads only a part is reminded; who was told of last is told of first, so no
//! socket that is always ready keeps another from its turn.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use dnsproxy_core::{ConnectionId, PortSlot};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use tokio::io::{Interest as RuntimeInterest, unix::AsyncFd};

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

struct Watched(Epoll);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// All sockets of a shard.
pub(crate) struct Poller {
    watched: AsyncFd<Watched>,
}

impl Poller {
    /// An empty set, watched by the current runtime.
    #[expect(
        deprecated,
        reason = "the successor is unsafe; what it demands holds: `Watched` owns its descriptor, \
                  never changes it, and closes it only after the runtime has let go of it"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let watched = AsyncFd::with_interest(Watched(epoll), RuntimeInterest::READABLE)?;
        Ok(Self { watched })
    }

    /// Watches a socket until it is closed.
    pub(crate) fn add(
        &self,
        socket: &impl AsFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let event = EpollEvent::new(interest.flags(), token.encode());
        self.watched.get_ref().0.add(socket, event)?;
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
        self.watched.get_ref().0.modify(socket, &mut event)?;
        Ok(())
    }

    /// Waits until at least one socket is ready. Cancelling loses nothing.
    pub(crate) async fn ready(&self, events: &mut Vec<Event>) -> io::Result<()> {
        loop {
            let mut guard = self.watched.readable().await?;
            let mut raw = [EpollEvent::empty(); BATCH];
            let count = match guard.get_inner().0.wait(&mut raw, EpollTimeout::ZERO) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if count == 0 {
                guard.clear_ready();
                continue;
            }
            events.extend(raw.iter().take(count).filter_map(|event| {
                Some(Event {
                    token: Token::decode(event.data())?,
                    broken: event
                        .events()
                        .intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
                })
            }));
            return Ok(());
        }
    }
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
        ]
        .into_iter()
        .chain(ports)
        {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
    }
}
