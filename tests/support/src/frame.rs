//! Ethernet frames written by hand, for what no ordinary program sends.
//!
//! In:  addresses and ports of every layer, true or not.
//! Out: the bytes of a TCP SYN or UDP datagram in IPv4 or IPv6 with right checksums.
//! Not here: sending them ([`inject`] hands them to socat's packet socket).

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::Netns;
use crate::process::status_number;

/// The addresses of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet {
    /// Destination hardware address.
    pub to: [u8; 6],
    /// Source hardware address.
    pub from: [u8; 6],
}

/// A TCP SYN with a fixed sequence number.
pub fn tcp_syn(ethernet: Ethernet, from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let mut segment = Vec::with_capacity(20);
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(0x0102_0304_u32.to_be_bytes());
    segment.extend(0_u32.to_be_bytes());
    segment.extend([0x50, 0x02]);
    segment.extend(1024_u16.to_be_bytes());
    segment.extend([0, 0, 0, 0]);
    packet(ethernet, from.ip(), to.ip(), 6, segment, 16)
}

/// A UDP datagram.
pub fn udp(
    ethernet: Ethernet,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let mut segment = Vec::with_capacity(8 + payload.len());
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(u16::try_from(8 + payload.len())?.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    packet(ethernet, from.ip(), to.ip(), 17, segment, 6)
}

/// A UDP datagram over IPv4 in two fragments, the first of which holds all of the UDP header.
pub fn udp_fragments(
    ethernet: Ethernet,
    from: SocketAddr,
    to: SocketAddr,
    identification: u16,
) -> Result<[Vec<u8>; 2]> {
    /// More fragments follow (RFC 791 §3.1).
    const MORE: u16 = 0x2000;
    const HEADERS: usize = 14 + 20;
    const FIRST: usize = 16;
    let whole = udp(ethernet, from, to, &[b'x'; 24])?;
    let headers = whole.get(..HEADERS).context("a frame without headers")?;
    let payload = whole.get(HEADERS..).context("a frame without payload")?;
    let (first, later) = payload.split_at(FIRST.min(payload.len()));
    let part = |payload: &[u8], place: u16| -> Result<Vec<u8>> {
        let mut frame = headers.to_vec();
        put(&mut frame, 16, u16::try_from(20 + payload.len())?)?;
        put(&mut frame, 18, identification)?;
        put(&mut frame, 20, place)?;
        put(&mut frame, 24, 0)?;
        let sum = checksum(&[frame.get(14..).context("an IP header")?]);
        put(&mut frame, 24, sum)?;
        frame.extend(payload);
        Ok(frame)
    };
    Ok([part(first, MORE)?, part(later, u16::try_from(FIRST / 8)?)?])
}

fn packet(
    ethernet: Ethernet,
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    mut segment: Vec<u8>,
    checksum_at: usize,
) -> Result<Vec<u8>> {
    let length = u16::try_from(segment.len())?;
    let mut pseudo = Vec::new();
    let header = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            pseudo.extend(from.octets());
            pseudo.extend(to.octets());
            pseudo.extend([0, protocol]);
            pseudo.extend(length.to_be_bytes());
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            put(&mut header, 10, sum)?;
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            pseudo.extend(from.octets());
            pseudo.extend(to.octets());
            pseudo.extend(u32::from(length).to_be_bytes());
            pseudo.extend([0, 0, 0, protocol]);
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => bail!("addresses of two families in one packet"),
    };
    let sum = checksum(&[&pseudo, &segment]);
    put(&mut segment, checksum_at, sum)?;
    let mut frame = Vec::new();
    frame.extend(ethernet.to);
    frame.extend(ethernet.from);
    frame.extend(if from.is_ipv4() {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(header);
    frame.extend(segment);
    Ok(frame)
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Result<()> {
    let [high, low] = value.to_be_bytes();
    for (offset, byte) in [(0, high), (1, low)] {
        *bytes
            .get_mut(at + offset)
            .context("a header shorter than its checksum field")? = byte;
    }
    Ok(())
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    let bytes: Vec<u8> = parts.concat();
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Sends a frame from an interface in the network namespace of a process.
pub fn inject(pid: i32, interface: &str, frame: &[u8]) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "--", "socat"]);
    send(command, interface, frame)
}

/// Sends a frame from an interface of a namespace of ours.
pub fn inject_in(netns: &Netns, interface: &str, frame: &[u8]) -> Result<()> {
    send(netns.command("socat"), interface, frame)
}

fn send(mut command: Command, interface: &str, frame: &[u8]) -> Result<()> {
    let mut child = command
        .args(["-u", "-", &format!("INTERFACE:{interface}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting socat")?;
    child
        .stdin
        .take()
        .context("socat without a standard input")?
        .write_all(frame)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "socat ended with {}: {}",
            status_number(output.status),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The hardware address of an interface in the network namespace of a process.
pub fn hardware_address(pid: i32, interface: &str) -> Result<[u8; 6]> {
    mac_in(pid, &["link", "show", "dev", interface], "address")
}

/// The hardware address of the neighbour that a default route of the process leads through.
pub fn gateway_address(pid: i32, gateway: IpAddr) -> Result<[u8; 6]> {
    mac_in(
        pid,
        &["neigh", "show", "to", &gateway.to_string()],
        "lladdr",
    )
}

fn mac_in(pid: i32, args: &[&str], field: &str) -> Result<[u8; 6]> {
    let text = crate::process::output_of(
        Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", "--", "ip", "-j"])
            .args(args),
    )?
    .ok("ip -j")?;
    let value: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("reading `{text}`"))?;
    let mac = value
        .pointer(&format!("/0/{field}"))
        .and_then(serde_json::Value::as_str)
        .with_context(|| format!("no `{field}` in {text}"))?;
    let bytes: Vec<u8> = mac
        .split(':')
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("`{mac}` is no hardware address"))
}
