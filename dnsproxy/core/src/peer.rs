//! Who is on the other side of a message.
//!
//! In:  addresses and ports as the sockets saw them.
//! Out: names for them that cannot be mixed up.
//! Not here: the sockets (`dnsproxy`).

use std::net::SocketAddr;

use identity::EndpointId;

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// One datagram, one message.
    Udp,
    /// Two bytes of length, then the message (RFC 1035 §4.2.2, RFC 7766).
    Tcp,
}

/// One TCP connection of a client, by the number its shell gave it; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Where a query came from and where it was going.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Client {
    /// The workload, known by its source address, which the source guard vouches for.
    pub endpoint: EndpointId,
    /// The workload's address and port.
    pub address: SocketAddr,
    /// The server it asked: source address of the reply.
    pub server: SocketAddr,
    /// The client's TCP connection, none for UDP.
    pub connection: Option<ConnectionId>,
}

impl Client {
    /// How the client talks to us, and so how we talk to the resolver.
    pub fn transport(&self) -> Transport {
        if self.connection.is_some() {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }
}

/// One question on its way to a resolver; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExchangeId(pub u64);

/// Which of the shell's source ports towards a resolver a query leaves from. The core picks it at
/// random, the shell owns the socket behind it (RFC 5452 §9.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortSlot(pub u16);

/// Which of the shell's sockets a reply came in on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Via {
    /// The UDP socket behind a slot.
    Udp(PortSlot),
    /// The upstream connection that belongs to a client's connection.
    Tcp(ConnectionId),
}
