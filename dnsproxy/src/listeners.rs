//! The sockets that clients reach: listeners for what the kernel program steers, and raw sockets
//! for what goes back.
//!
//! In:  ports, a mark, the network namespace of the calling thread.
//! Out: [`Listeners`]: UDP and TCP per lane and family, each transparent and marked, and the reply
//!      sockets.
//! Not here: reading and writing them (`shard`, `reply`), steering (`fqdn-ebpf`).
//!
//! A *lane* is a port, with queues of its own: a workload that asks faster than anybody can answer
//! fills the queues of its lane, and the queries of others do not even wait behind its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Protocol, Socket, Type};

use crate::{connections::TcpLimits, opener::Family};

/// Where and how to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerSpec {
    /// Ports on 127.0.0.1 and `[::1]`, UDP and TCP; each is a lane.
    pub ports: Vec<u16>,
    /// Mark of every socket: the kernel program steers only to sockets that carry it, and lets
    /// packets with it pass to the client as replies.
    pub mark: u32,
    /// Bytes of receive buffer for each UDP listener; the default of the system drops bursts.
    pub receive_buffer: usize,
    /// An address nothing is ever sent to: a raw socket that is bound to no address gets a copy of
    /// every datagram of the namespace.
    pub reply_bind_v4: Ipv4Addr,
    /// The same for IPv6.
    pub reply_bind_v6: Ipv6Addr,
    /// What TCP clients may hold.
    pub tcp: TcpLimits,
}

impl ListenerSpec {
    /// The usual values for one shard's ports.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self {
            ports: ports.into_iter().collect(),
            mark: 0xa00,
            receive_buffer: 4 << 20,
            // TEST-NET-1 (RFC 5737) and the discard prefix (RFC 6666).
            reply_bind_v4: Ipv4Addr::new(192, 0, 2, 53),
            reply_bind_v6: Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0x53),
            tcp: TcpLimits::default(),
        }
    }
}

/// Which lane of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lane(pub(crate) u16);

/// Where queries of some workloads come in.
#[derive(Debug)]
pub(crate) struct LaneSockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

/// The sockets of one family.
#[derive(Debug)]
pub(crate) struct FamilySockets {
    lanes: Vec<LaneSockets>,
    pub(crate) raw: Socket,
}

impl FamilySockets {
    pub(crate) fn lane(&self, lane: Lane) -> Option<&LaneSockets> {
        self.lanes.get(usize::from(lane.0))
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (Lane, &LaneSockets)> {
        (0..).map(Lane).zip(&self.lanes)
    }
}

/// The client-facing sockets of one shard.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) v4: FamilySockets,
    pub(crate) v6: Option<FamilySockets>,
    pub(crate) tcp_limits: TcpLimits,
}

impl Listeners {
    /// Opens everything in the network namespace of the calling thread. IPv6 is left out where the
    /// namespace has none; the kernel program then finds no socket there and drops.
    ///
    /// # Errors
    /// When a socket cannot be had: a taken port, a missing privilege.
    pub fn open(spec: &ListenerSpec) -> io::Result<Self> {
        let v4 = open_family(spec, Family::V4)?;
        let v6 = match open_family(spec, Family::V6) {
            Ok(sockets) => Some(sockets),
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            v4,
            v6,
            tcp_limits: spec.tcp,
        })
    }

    /// Whether IPv6 clients can be served.
    pub fn has_ipv6(&self) -> bool {
        self.v6.is_some()
    }

    pub(crate) fn lane(&self, family: Family, lane: Lane) -> Option<&LaneSockets> {
        self.of(family)?.lane(lane)
    }

    pub(crate) fn of(&self, family: Family) -> Option<&FamilySockets> {
        match family {
            Family::V4 => Some(&self.v4),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [
        Errno::EAFNOSUPPORT,
        Errno::EADDRNOTAVAIL,
        Errno::EPROTONOSUPPORT,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn open_family(spec: &ListenerSpec, family: Family) -> io::Result<FamilySockets> {
    let lane = |port: &u16| -> io::Result<LaneSockets> {
        let local: SocketAddr = match family {
            Family::V4 => (Ipv4Addr::LOCALHOST, *port).into(),
            Family::V6 => (Ipv6Addr::LOCALHOST, *port).into(),
        };
        Ok(LaneSockets {
            udp: udp_listener(spec, local).map_err(|error| explain(error, "udp", local))?,
            tcp: tcp_listener(spec, local).map_err(|error| explain(error, "tcp", local))?,
        })
    };
    Ok(FamilySockets {
        lanes: spec.ports.iter().map(lane).collect::<io::Result<_>>()?,
        raw: reply_socket(spec, family)
            .map_err(|error| explain(error, "raw reply", reply_bind(spec, family)))?,
    })
}

/// Says which socket it was about. Leaves alone what [`is_absent`] has yet to see.
fn explain(error: io::Error, what: &str, address: SocketAddr) -> io::Error {
    if is_absent(&error) {
        return error;
    }
    io::Error::new(error.kind(), format!("{what} socket on {address}: {error}"))
}

fn transparent(socket: &Socket, family: Family, mark: u32) -> io::Result<()> {
    match family {
        Family::V4 => socket.set_ip_transparent_v4(true)?,
        Family::V6 => socket.set_ip_transparent_v6(true)?,
    }
    socket.set_mark(mark)?;
    socket.set_nonblocking(true)
}

fn udp_listener(spec: &ListenerSpec, local: SocketAddr) -> io::Result<UdpSocket> {
    let family = Family::of(&local);
    let socket = Socket::new(family.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    transparent(&socket, family, spec.mark)?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?,
        Family::V6 => {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?;
        }
    }
    if setsockopt(&socket, sockopt::RcvBufForce, &spec.receive_buffer).is_err() {
        socket.set_recv_buffer_size(spec.receive_buffer)?;
    }
    socket.bind(&local.into())?;
    Ok(socket.into())
}

fn tcp_listener(spec: &ListenerSpec, local: SocketAddr) -> io::Result<TcpListener> {
    let family = Family::of(&local);
    let socket = Socket::new(family.domain(), Type::STREAM, Some(Protocol::TCP))?;
    // A connection inherits mark and transparency.
    transparent(&socket, family, spec.mark)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    // Connections of a predecessor may be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn reply_bind(spec: &ListenerSpec, family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => spec.reply_bind_v4.into(),
        Family::V6 => spec.reply_bind_v6.into(),
    };
    (ip, 0).into()
}

fn reply_socket(spec: &ListenerSpec, family: Family) -> io::Result<Socket> {
    let socket = Socket::new(family.domain(), Type::RAW, Some(Protocol::UDP))?;
    transparent(&socket, family, spec.mark)?;
    socket.bind(&reply_bind(spec, family).into())?;
    // Nothing is read here; the least the system allows is enough. Sending shares no limit with it.
    socket.set_recv_buffer_size(0)?;
    if setsockopt(&socket, sockopt::SndBufForce, &spec.receive_buffer).is_err() {
        socket.set_send_buffer_size(spec.receive_buffer)?;
    }
    Ok(socket)
}
