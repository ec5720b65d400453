//! UDP replies with the source address of the server that was asked.
//!
//! In:  the asked server, the client, a message.
//! Out: datagrams through a raw transparent socket, several per system call.
//! Not here: which reply (`dnsproxy-core`), opening the sockets (`listeners`).
//!
//! A socket bound to the server's address would do the same and steal the queries of a resolver
//! that really lives there (a node-local cache), so the UDP header is written here and the source
//! address travels as `IP_PKTINFO`. The kernel fragments what exceeds the path.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg},
};
use socket2::Socket;

/// Replies per system call.
const BATCH: usize = 64;
/// UDP header (RFC 768).
const HEADER: usize = 8;
/// IANA protocol number of UDP.
const UDP: u8 = 17;

/// One datagram to send.
#[derive(Debug)]
struct Reply {
    from: SocketAddr,
    to: SocketAddr,
    header: [u8; HEADER],
    message: Vec<u8>,
}

/// What became of the replies of one flush.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Flushed {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
}

/// The replies of one turn of the loop, sent together.
pub(crate) struct Replies {
    queue: Vec<Reply>,
    headers: MultiHeaders<SockaddrStorage>,
    unsendable: u64,
}

impl Replies {
    pub(crate) fn new() -> Self {
        Self {
            queue: Vec::new(),
            headers: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo))),
            unsendable: 0,
        }
    }

    /// Queues a reply from `from` to `to`.
    pub(crate) fn push(&mut self, from: SocketAddr, to: SocketAddr, message: Vec<u8>) {
        match udp_header(from, to, &message) {
            Some(header) => self.queue.push(Reply {
                from,
                to,
                header,
                message,
            }),
            None => self.unsendable += 1,
        }
    }

    /// Sends everything that is queued. What the system does not take is lost, as datagrams are:
    /// the client asks again.
    pub(crate) fn flush(&mut self, v4: &Socket, v6: Option<&Socket>) -> Flushed {
        let mut outcome = Flushed {
            sent: 0,
            failed: std::mem::take(&mut self.unsendable),
        };
        let mut rest = self.queue.as_slice();
        while let Some(first) = rest.first() {
            let run = rest
                .iter()
                .take(BATCH)
                .take_while(|reply| reply.from.ip() == first.from.ip())
                .count();
            let (batch, after) = rest.split_at(run);
            let socket = if first.from.is_ipv4() { Some(v4) } else { v6 };
            let sent = match socket {
                Some(socket) => send(socket, &mut self.headers, first.from.ip(), batch),
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            match sent {
                Ok(sent) => {
                    outcome.sent += sent as u64;
                    rest = rest.get(sent.max(1)..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    outcome.failed += batch.len() as u64;
                    rest = after;
                }
                // The error is about the first one: the others may still pass.
                Err(error) => {
                    tracing::debug!(from = %first.from, to = %first.to, %error, "a reply is lost");
                    outcome.failed += 1;
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
        }
        self.queue.clear();
        outcome
    }
}

/// Sends replies that share their source address; how many the system took.
fn send(
    socket: &Socket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    source: IpAddr,
    batch: &[Reply],
) -> io::Result<usize> {
    let v4_source;
    let v6_source;
    let control = match source {
        IpAddr::V4(address) => {
            v4_source = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            [ControlMessage::Ipv4PacketInfo(&v4_source)]
        }
        IpAddr::V6(address) => {
            v6_source = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: 0,
            };
            [ControlMessage::Ipv6PacketInfo(&v6_source)]
        }
    };
    let parts: Vec<[IoSlice<'_>; 2]> = batch
        .iter()
        .map(|reply| [IoSlice::new(&reply.header), IoSlice::new(&reply.message)])
        .collect();
    let targets: Vec<Option<SockaddrStorage>> = batch
        .iter()
        .map(|reply| Some(SockaddrStorage::from(raw_target(reply.to))))
        .collect();
    let sent = sendmmsg(
        socket.as_raw_fd(),
        headers,
        &parts,
        targets,
        control,
        MsgFlags::MSG_DONTWAIT,
    )
    .map_err(io::Error::from)?;
    Ok(sent.count())
}

/// A raw socket takes no port; for IPv6 the field would be read as a protocol number.
fn raw_target(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(to) => SocketAddrV4::new(*to.ip(), 0).into(),
        SocketAddr::V6(to) => SocketAddrV6::new(*to.ip(), 0, 0, to.scope_id()).into(),
    }
}

/// The UDP header of `message`; none when the two ends do not share a family or the message does
/// not fit a datagram.
fn udp_header(from: SocketAddr, to: SocketAddr, message: &[u8]) -> Option<[u8; HEADER]> {
    let length = u16::try_from(message.len() + HEADER).ok()?;
    let [source_high, source_low] = from.port().to_be_bytes();
    let [target_high, target_low] = to.port().to_be_bytes();
    let [length_high, length_low] = length.to_be_bytes();
    let mut sum = Sum::default();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The IPv4 header needs room in the same 64 KiB.
            length.checked_add(20)?;
            sum.add(&from.octets());
            sum.add(&to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            sum.add(&from.octets());
            sum.add(&to.octets());
        }
        _ => return None,
    }
    // The rest of the pseudo header, in both families, and the header itself.
    sum.add(&[0, UDP, length_high, length_low]);
    sum.add(&[source_high, source_low, target_high, target_low]);
    sum.add(&[length_high, length_low]);
    sum.add(message);
    let [sum_high, sum_low] = sum.finish().to_be_bytes();
    Some([
        source_high,
        source_low,
        target_high,
        target_low,
        length_high,
        length_low,
        sum_high,
        sum_low,
    ])
}

/// The Internet checksum (RFC 1071).
#[derive(Default)]
struct Sum(u64);

impl Sum {
    /// Adds bytes; only the last piece may have an odd length.
    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.0 += u64::from(u32::from_be_bytes(last));
    }

    /// The checksum; zero is sent as ones, because zero means "none" (RFC 768).
    fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        match !u16::try_from(sum).unwrap_or(u16::MAX) {
            0 => u16::MAX,
            sum => sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folds a datagram with its pseudo header: a right checksum gives all ones.
    fn verifies(from: &str, to: &str, message: &[u8]) {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let header = udp_header(from, to, message).unwrap();
        let mut bytes = Vec::new();
        for ip in [from.ip(), to.ip()] {
            match ip {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            }
        }
        bytes.extend([0, UDP]);
        bytes.extend(&header[4..6]);
        bytes.extend(header);
        bytes.extend(message);
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        let mut sum: u32 = bytes
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        assert_eq!(sum, 0xffff, "{from} {to} {} bytes", message.len());
        assert_ne!(&header[6..8], &[0, 0]);
    }

    #[test]
    fn checksums_hold_for_every_length() {
        let message: Vec<u8> = (0..2000u32).map(|n| (n * 7 % 251) as u8).collect();
        for length in (0..70).chain([511, 512, 1231, 1999]) {
            verifies("10.0.0.1:53", "10.0.0.2:40000", &message[..length]);
            verifies("[fd00::1]:53", "[fd00::2]:65535", &message[..length]);
        }
        verifies(
            "255.255.255.255:65535",
            "255.255.255.255:65535",
            &[255; 100],
        );
    }

    #[test]
    fn what_fits_no_datagram_gets_no_header() {
        let (v4, v6) = ("10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap());
        assert!(udp_header(v4, v4, &vec![0; 65_507]).is_some());
        assert!(udp_header(v4, v4, &vec![0; 65_508]).is_none());
        assert!(udp_header(v6, v6, &vec![0; 65_527]).is_some());
        assert!(udp_header(v6, v6, &vec![0; 65_528]).is_none());
        assert!(udp_header(v4, v6, b"x").is_none());
    }
}
