//! One TCP connection that carries DNS messages, either way.
//!
//! In:  a connected or connecting socket.
//! Out: whole messages, cut at their length prefix; bytes not yet taken by the system.
//! Not here: whose connection it is (`connections`), the framing itself (`dnsproxy-core`).

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use dnsproxy_core::Framer;

use crate::poller::{Interest, Poller, Token};

/// Bytes read at a time: one connection cannot keep the others waiting.
pub(crate) const READ: usize = 16 << 10;

/// What a read brought.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Whole messages, in order.
    pub(crate) messages: Vec<Vec<u8>>,
    /// The other side will send nothing more.
    pub(crate) ended: bool,
}

/// A socket with a framer for what comes in and a buffer for what goes out.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    token: Token,
    interest: Interest,
    framer: Framer,
    outbound: Vec<u8>,
    /// How much of `outbound` the system has taken.
    taken: usize,
    ended: bool,
}

impl Stream {
    /// Watches `socket`, which must not block.
    pub(crate) fn new(socket: TcpStream, token: Token, poller: &Poller) -> io::Result<Self> {
        poller.add(&socket, token, Interest::READ)?;
        Ok(Self {
            socket,
            token,
            interest: Interest::READ,
            framer: Framer::default(),
            outbound: Vec::new(),
            taken: 0,
            ended: false,
        })
    }

    /// Reads once.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<Heard> {
        let mut heard = Heard::default();
        if self.ended {
            heard.ended = true;
            return Ok(heard);
        }
        match self.socket.read(room) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                self.framer.push(room.get(..count).unwrap_or_default());
                heard.messages.extend(self.framer.by_ref());
            }
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        heard.ended = self.ended;
        Ok(heard)
    }

    /// Queues a message behind its length and writes what the system takes.
    pub(crate) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
        self.outbound.extend(length.to_be_bytes());
        self.outbound.extend(message);
        self.flush()
    }

    /// Writes what the system takes. A connection that is not established takes nothing yet.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.waiting() > 0 {
            match self
                .socket
                .write(self.outbound.get(self.taken..).unwrap_or_default())
            {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if self.waiting() == 0 {
            self.outbound.clear();
            self.taken = 0;
        } else if self.taken > READ {
            self.outbound.drain(..self.taken);
            self.taken = 0;
        }
        Ok(())
    }

    /// Bytes that the system has not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.outbound.len().saturating_sub(self.taken)
    }

    /// Whether the other side has said that it sends nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The error that broke the connection, if the system knows one.
    pub(crate) fn error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }

    /// Asks to be told what there is to do: reading unless paused, writing while bytes wait.
    pub(crate) fn settle(&mut self, poller: &Poller, paused: bool) -> io::Result<()> {
        let wanted = Interest {
            read: !paused && !self.ended,
            write: self.waiting() > 0,
        };
        if wanted != self.interest {
            poller.change(&self.socket, self.token, wanted)?;
            self.interest = wanted;
        }
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
