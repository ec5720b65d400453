//! Sockets towards resolvers, made in the right network namespace.
//!
//! In:  an address family and a transport.
//! Out: an unconnected, non-blocking socket. It stays in the network namespace of the thread that
//!      made it, whichever thread uses it.
//! Not here: who uses which socket (`upstreams`, `connections`).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use dnsproxy_core::Transport;
use socket2::{Domain, Protocol, Socket, Type};

/// The two address families.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    pub(crate) fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 => Domain::IPV6,
        }
    }
}

/// One value for each family.
#[derive(Debug)]
pub(crate) struct PerFamily<T> {
    v4: T,
    v6: T,
}

impl<T> PerFamily<T> {
    pub(crate) fn new(mut make: impl FnMut() -> T) -> Self {
        Self {
            v4: make(),
            v6: make(),
        }
    }

    pub(crate) fn of(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(crate) fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// Whoever opens sockets towards resolvers.
pub type Opener = Arc<dyn Fn(Family, Transport) -> io::Result<OwnedFd> + Send + Sync>;

/// Opens in the network namespace of whichever thread calls it.
pub fn local_opener() -> Opener {
    Arc::new(open)
}

/// Opens in the network namespace of the thread that calls *this function*: a helper thread stays
/// there for as long as the opener lives. Opening is one short round trip to it; it never connects
/// and so never waits for the network.
///
/// # Errors
/// When no thread can be started.
pub fn host_opener() -> io::Result<Opener> {
    struct Request {
        family: Family,
        transport: Transport,
        answer: mpsc::SyncSender<io::Result<OwnedFd>>,
    }
    let (requests, inbox) = mpsc::channel::<Request>();
    thread::Builder::new()
        .name("dns-opener".into())
        .spawn(move || {
            for request in inbox {
                // A caller that went away drops its socket with the answer.
                let _ = request.answer.send(open(request.family, request.transport));
            }
        })?;
    let requests = Mutex::new(requests);
    Ok(Arc::new(move |family, transport| {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the opening thread is gone");
        let (answer, opened) = mpsc::sync_channel(1);
        requests
            .lock()
            .map_err(|_| gone())?
            .send(Request {
                family,
                transport,
                answer,
            })
            .map_err(|_| gone())?;
        opened.recv().map_err(|_| gone())?
    }))
}

fn open(family: Family, transport: Transport) -> io::Result<OwnedFd> {
    let socket = match transport {
        Transport::Udp => {
            let socket = Socket::new(family.domain(), Type::DGRAM, Some(Protocol::UDP))?;
            if family == Family::V6 {
                socket.set_only_v6(true)?;
            }
            // The kernel picks the port, at random (RFC 5452 §9.2, RFC 6056).
            let any: SocketAddr = match family {
                Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
                Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            socket.bind(&any.into())?;
            socket
        }
        Transport::Tcp => {
            let socket = Socket::new(family.domain(), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            socket
        }
    };
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn every_udp_socket_has_a_port_of_its_own() {
        let opener = host_opener().unwrap();
        let sockets: Vec<UdpSocket> = (0..64)
            .map(|_| opener(Family::V4, Transport::Udp).unwrap().into())
            .collect();
        let mut ports: Vec<u16> = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap().port())
            .collect();
        let in_order = ports
            .windows(2)
            .filter(|pair| pair[1] == pair[0] + 1)
            .count();
        assert!(in_order < 16, "ports follow each other: {ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 64);
    }

    #[test]
    fn udp_reads_do_not_block() {
        let socket: UdpSocket = local_opener()(Family::V4, Transport::Udp).unwrap().into();
        let error = socket.recv_from(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
