//! Servers that answer whoever reaches them, and clients that ask one: TCP, UDP, SCTP, ICMP.
//!
//! In:  a namespace, ports; an address to ask.
//! Out: [`Echo`], which answers until it is dropped; [`ask`]: whether an answer came back.
//! Not here: what should be reachable.
//!
//! SCTP is spoken by hand over raw sockets: one packet and its echo with the ports swapped. It needs
//! no SCTP in the kernel, and the packet is whole enough for every filter on the way.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use support::{Netns, netns::join};

/// How often a server looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);
/// The number of SCTP in an IP header.
const SCTP: i32 = 132;
/// The first port SCTP is asked from; lower ones are asked.
const SCTP_FROM: u16 = 40_000;
/// The next one.
static NEXT: AtomicU16 = AtomicU16::new(SCTP_FROM);
/// Common header, one INIT chunk.
const SCTP_BYTES: usize = 12 + 20;

/// Servers in one namespace.
#[derive(Debug)]
pub struct Echo {
    end: Arc<AtomicBool>,
    servers: Vec<JoinHandle<Result<Result<()>>>>,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A connection.
    Tcp(u16),
    /// A datagram.
    Udp(u16),
    /// A packet.
    Sctp(u16),
    /// An echo request.
    Ping,
}

impl Echo {
    /// Answers on these ports, over both families, and to SCTP on every port.
    pub fn start(netns: &Netns, tcp: &[u16], udp: &[u16]) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let mut echo = Self {
            end,
            servers: Vec::new(),
        };
        for port in tcp {
            let listener = netns.run(|| listener(*port, Type::STREAM))??;
            echo.serve(netns, move |end| accept(&listener, end))?;
        }
        for port in udp {
            let socket = netns.run(|| listener(*port, Type::DGRAM))??;
            echo.serve(netns, move |end| return_datagrams(socket, end))?;
        }
        for domain in [Domain::IPV4, Domain::IPV6] {
            let socket = netns.run(|| raw(domain))??;
            echo.serve(netns, move |end| return_sctp(&socket, domain, end))?;
        }
        Ok(echo)
    }

    fn serve(
        &mut self,
        netns: &Netns,
        server: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let end = Arc::clone(&self.end);
        self.servers.push(netns.thread(move || server(&end))?);
        Ok(())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _ = join(server);
        }
    }
}

/// Whether an answer came back within so long. `source` is the asker's address, where it has several.
pub fn ask(
    from: &Netns,
    source: Option<IpAddr>,
    to: IpAddr,
    what: What,
    patience: Duration,
) -> Result<bool> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let bound = |kind, protocol, port| -> Result<Socket> {
        let socket = Socket::new(domain(to), kind, protocol)?;
        socket.bind(&SocketAddr::new(source.unwrap_or(any), port).into())?;
        Ok(socket)
    };
    match what {
        What::Tcp(port) => from.run(|| {
            let socket = bound(Type::STREAM, None, 0)?;
            Ok(tcp(socket, SocketAddr::new(to, port), patience))
        })?,
        What::Udp(port) => from.run(|| {
            let socket = bound(Type::DGRAM, None, 0)?;
            udp(socket, SocketAddr::new(to, port), patience)
        })?,
        What::Sctp(port) => from.run(|| {
            let socket = bound(Type::RAW, Some(Protocol::from(SCTP)), 0)?;
            sctp(&socket, to, port, patience)
        })?,
        What::Ping => from.run(|| {
            let protocol = match to {
                IpAddr::V4(_) => Protocol::ICMPV4,
                IpAddr::V6(_) => Protocol::ICMPV6,
            };
            ping(&bound(Type::RAW, Some(protocol), 0)?, to, patience)
        })?,
    }
}

const fn domain(address: IpAddr) -> Domain {
    match address {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    }
}

fn listener(port: u16, kind: Type) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_read_timeout(Some(LOOK))?;
    socket
        .bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())
        .with_context(|| format!("binding port {port}"))?;
    if kind == Type::STREAM {
        socket.listen(64)?;
    }
    Ok(socket)
}

fn accept(listener: &Socket, end: &AtomicBool) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        if let Ok((mut stream, _)) = listener.accept() {
            // Whoever is gone already wanted no answer.
            let _ = stream.write_all(b"!");
        }
    }
    Ok(())
}

fn return_datagrams(socket: Socket, end: &AtomicBool) -> Result<()> {
    let socket = std::net::UdpSocket::from(socket);
    let mut bytes = [0; 2048];
    while !end.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(bytes.get(..len).unwrap_or_default(), from);
        }
    }
    Ok(())
}

fn return_sctp(socket: &Socket, domain: Domain, end: &AtomicBool) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        let Some((from, [a, b, c, d, ..])) = receive(socket, domain) else {
            continue;
        };
        // An answer is no question: the asker would be answered for ever.
        if u16::from_be_bytes([c, d]) >= SCTP_FROM {
            continue;
        }
        let _ = socket.send_to(&packet([c, d], [a, b]), &SocketAddr::new(from, 0).into());
    }
    Ok(())
}

fn tcp(socket: Socket, to: SocketAddr, patience: Duration) -> bool {
    if socket.connect_timeout(&to.into(), patience).is_err() {
        return false;
    }
    let mut stream = std::net::TcpStream::from(socket);
    let timeout = stream.set_read_timeout(Some(patience));
    timeout.is_ok() && stream.read_exact(&mut [0]).is_ok()
}

fn udp(socket: Socket, to: SocketAddr, patience: Duration) -> Result<bool> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_read_timeout(Some(patience))?;
    if socket.connect(to).and_then(|()| socket.send(b"?")).is_err() {
        return Ok(false);
    }
    Ok(socket.recv(&mut [0; 64]).is_ok())
}

fn sctp(socket: &Socket, to: IpAddr, port: u16, patience: Duration) -> Result<bool> {
    socket.set_read_timeout(Some(LOOK))?;
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    let ports = (own.to_be_bytes(), port.to_be_bytes());
    socket.send_to(&packet(ports.0, ports.1), &SocketAddr::new(to, 0).into())?;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some((from, [a, b, c, d, ..])) = receive(socket, domain(to))
            && from == to
            && ([c, d], [a, b]) == ports
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The kernel on the other side answers.
fn ping(socket: &Socket, to: IpAddr, patience: Duration) -> Result<bool> {
    socket.set_read_timeout(Some(LOOK))?;
    let id = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let (request, reply) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let mut message = [request, 0, 0, 0, id[0], id[1], 0, 1];
    if to.is_ipv4() {
        // Over IPv6 the kernel fills it in.
        let sum = u32::from(request) * 256 + u32::from(u16::from_be_bytes(id)) + 1;
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16))?;
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    socket.send_to(&message, &SocketAddr::new(to, 0).into())?;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some((from, [kind, _, _, _, a, b, ..])) = receive(socket, domain(to))
            && from == to
            && kind == reply
            && [a, b] == id
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn raw(domain: Domain) -> Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP)))?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// Who sent the next packet, and how it begins; none when none comes.
fn receive(socket: &Socket, domain: Domain) -> Option<(IpAddr, [u8; 8])> {
    let udp = std::net::UdpSocket::from(socket.try_clone().ok()?);
    let mut bytes = [0; 256];
    let (len, from) = udp.recv_from(&mut bytes).ok()?;
    let bytes = bytes.get(..len)?;
    // Of IPv4 the header comes with it.
    let header = if domain == Domain::IPV4 {
        usize::from(bytes.first()? & 0x0f) * 4
    } else {
        0
    };
    let start = bytes.get(header..header + 8)?.try_into().ok()?;
    Some((from.ip(), start))
}

/// A common header and an INIT chunk.
fn packet(from: [u8; 2], to: [u8; 2]) -> [u8; SCTP_BYTES] {
    let mut bytes = [0; SCTP_BYTES];
    bytes[..2].copy_from_slice(&from);
    bytes[2..4].copy_from_slice(&to);
    bytes[12] = 1;
    bytes[15] = 20;
    bytes
}

impl std::str::FromStr for What {
    type Err = anyhow::Error;

    /// `tcp/80`, `udp/53`, `sctp/5000`, `ping`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "ping" {
            return Ok(Self::Ping);
        }
        let (protocol, port) = text.split_once('/').context("PROTOCOL/PORT")?;
        let port = port.parse()?;
        Ok(match protocol {
            "tcp" => Self::Tcp(port),
            "udp" => Self::Udp(port),
            "sctp" => Self::Sctp(port),
            _ => bail!("`{text}` is nothing to ask"),
        })
    }
}
