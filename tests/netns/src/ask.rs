//! Questions as a program inside the pod asks them, without a resolver library in between.
//!
//! In:  a server, a name, a type.
//! Out: the first address of the answer.
//! Not here: the bytes of a message (`wire`).

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use support::patience;

use crate::wire::{self, Kind};

/// How long anything is waited for.
pub fn long() -> Duration {
    patience(Duration::from_secs(5))
}

/// The resolver of the pod, as every program finds it.
pub fn resolver() -> Result<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = text
        .lines()
        .find_map(|line| line.strip_prefix("nameserver"))
        .context("no nameserver")?;
    Ok(SocketAddr::new(server.trim().parse()?, 53))
}

/// The same resolver by its IPv6 address: it is the pod's router.
pub fn resolver6() -> Result<SocketAddr> {
    let routes = std::fs::read_to_string("/proc/net/ipv6_route")?;
    routes
        .lines()
        .filter_map(next_hop_of_default)
        .find(|hop| *hop != 0)
        .map(|hop| SocketAddr::new(IpAddr::from(hop.to_be_bytes()), 53))
        .context("no IPv6 default route")
}

/// Destination, its length, source, its length, next hop, …
fn next_hop_of_default(line: &str) -> Option<u128> {
    let mut words = line.split_whitespace();
    let length = words.nth(1)?;
    let hop = words.nth(2)?;
    (length == "00").then(|| u128::from_str_radix(hop, 16).ok())?
}

/// Asks once in a datagram.
pub fn over_udp(server: SocketAddr, name: &str, kind: Kind) -> Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u8; 16].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(long()))?;
    socket.send(&wire::query(1, name, kind))?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).context("no answer over UDP")?;
    address(buffer.get(..length).unwrap_or_default())
}

/// Asks on a connection of its own.
pub fn over_tcp(server: SocketAddr, name: &str, kind: Kind) -> Result<IpAddr> {
    let mut stream =
        TcpStream::connect_timeout(&server, long()).context("no TCP connection to the resolver")?;
    stream.set_read_timeout(Some(long()))?;
    stream.write_all(&framed(&wire::query(1, name, kind)))?;
    address(&next_message(&mut stream).context("no answer over TCP")?)
}

/// The first address of an answer.
pub fn address(message: &[u8]) -> Result<IpAddr> {
    let addresses = wire::addresses(message).context("an answer that cannot be read")?;
    addresses.first().copied().with_context(|| {
        format!(
            "an answer without addresses, code {:?}",
            wire::rcode(message)
        )
    })
}

/// A message behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
        .to_vec();
    bytes.extend(message);
    bytes
}

/// The next message of a connection.
pub fn next_message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_has_length_zero_and_a_hop() {
        let zeros = "0".repeat(32);
        let hop = "fd006e670000000000000000000000a1";
        let line = format!("{zeros} 00 {zeros} 00 {hop} 00000400 00000001 00000000 00000003 pod0");
        assert_eq!(
            next_hop_of_default(&line).map(|hop| IpAddr::from(hop.to_be_bytes())),
            Some("fd00:6e67::a1".parse().unwrap())
        );
        assert_eq!(next_hop_of_default(&line.replace(" 00 ", " 40 ")), None);
        assert_eq!(next_hop_of_default(""), None);
    }
}
