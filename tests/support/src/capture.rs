//! Packets as they pass an interface, written by tcpdump and read back as facts.
//!
//! In:  a namespace (by name or by a process in it), an interface, a tcpdump filter.
//! Out: [`Packet`]s: addresses, protocol, ports, TCP sequence number and flags.
//! Not here: what may pass (`tests/netns`).
//!
//! "Nothing arrived" is only said after a marker packet sent later was seen ([`Capture::settled`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::wait::{patience, until_true};
use crate::{Netns, Process};

const TCP: u8 = 6;
const UDP: u8 = 17;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: usize = 14;
/// The discard port: markers go there and nothing else does.
const MARKER_PORT: u16 = 9;

/// What matters of one captured packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Who sent it, as the packet claims.
    pub from: IpAddr,
    /// Whom it is for.
    pub to: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; 0 without one.
    pub from_port: u16,
    /// Destination port; 0 without one.
    pub to_port: u16,
    /// TCP sequence number; 0 without one.
    pub sequence: u32,
    /// TCP flags; 0 without them.
    pub flags: u8,
}

impl Packet {
    /// A connection's first packet, or a copy of it.
    pub fn is_syn(&self) -> bool {
        self.protocol == TCP && self.flags & 0x12 == 0x02
    }

    /// A TCP packet.
    pub fn is_tcp(&self) -> bool {
        self.protocol == TCP
    }

    /// A UDP packet.
    pub fn is_udp(&self) -> bool {
        self.protocol == UDP
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    directory: TempDir,
}

impl Capture {
    /// Starts in a namespace of ours.
    pub fn start(netns: &Netns, interface: &str, filter: &str) -> Result<Self> {
        Self::with(netns.command("tcpdump"), interface, filter)
    }

    /// Starts in the network namespace of a process.
    pub fn beside(pid: i32, interface: &str, filter: &str) -> Result<Self> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid.to_string(), "-n", "--", "tcpdump"]);
        Self::with(command, interface, filter)
    }

    fn with(mut command: Command, interface: &str, filter: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        command
            .args([
                "-i",
                interface,
                "-n",
                "-p",
                "-U",
                "--immediate-mode",
                "-s",
                "160",
                "-B",
                "16384",
                "-Z",
                "root",
                "-w",
            ])
            .arg(directory.path().join("pcap"))
            .arg(filter);
        let tcpdump = Process::spawn("tcpdump", &mut command)?;
        let mut capture = Self { tcpdump, directory };
        until_true(Duration::from_secs(30), "tcpdump to listen", || {
            capture.tcpdump.check().is_err() || capture.tcpdump.stderr().contains("listening on")
        })?;
        capture.tcpdump.check()?;
        Ok(capture)
    }

    /// Sends a marker from a namespace past the interface and waits until it was captured: what was
    /// sent before it is captured too.
    pub fn settled(&self, from: &Netns, to: IpAddr) -> Result<Vec<Packet>> {
        let seen = |packets: &[Packet]| {
            packets
                .iter()
                .filter(|p| p.to_port == MARKER_PORT && p.to == to)
                .count()
        };
        let before = seen(&self.packets()?);
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        from.run(|| std::net::UdpSocket::bind((any, 0))?.send_to(b"marker", (to, MARKER_PORT)))??;
        until_true(
            Duration::from_secs(30),
            "the marker packet in the capture",
            || self.packets().is_ok_and(|packets| seen(&packets) > before),
        )?;
        self.packets()
    }

    /// What was captured up to here, markers included.
    pub fn packets(&self) -> Result<Vec<Packet>> {
        parse(&std::fs::read(self.file())?)
    }

    /// Ends the capture; an error when the kernel dropped any packet before tcpdump could see it.
    pub fn finish(mut self) -> Result<Vec<Packet>> {
        // tcpdump hands over what its buffer holds when it is told to stop.
        std::thread::sleep(patience(Duration::from_millis(300)));
        self.tcpdump.signal(nix::sys::signal::Signal::SIGINT)?;
        let output = self.tcpdump.wait(Duration::from_secs(30))?;
        if !output.stderr.contains("\n0 packets dropped by kernel") {
            bail!("the capture is incomplete: {}", output.stderr);
        }
        self.packets()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("pcap")
    }
}

/// How many SYNs repeat an earlier one: same addresses, ports and sequence number.
pub fn repeated_syns(packets: &[Packet]) -> usize {
    let mut counts: BTreeMap<Packet, usize> = BTreeMap::new();
    for packet in packets.iter().filter(|packet| packet.is_syn()) {
        *counts.entry(*packet).or_default() += 1;
    }
    counts.values().map(|count| count - 1).sum()
}

/// Reads a capture file; a record that is still being written ends it.
fn parse(file: &[u8]) -> Result<Vec<Packet>> {
    if file.len() < FILE_HEADER {
        return Ok(Vec::new());
    }
    if file.get(..4) != Some(&0xa1b2_c3d4_u32.to_ne_bytes()) {
        bail!("not a capture file of this machine");
    }
    let mut packets = Vec::new();
    let mut at = FILE_HEADER;
    while let Some(length) = file
        .get(at + 8..at + 12)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
    {
        let start = at + RECORD_HEADER;
        let end = start + usize::try_from(length).context("a record larger than memory")?;
        let Some(frame) = file.get(start..end) else {
            break;
        };
        packets.extend(frame.get(ETHERNET - 2..).and_then(packet));
        at = end;
    }
    Ok(packets)
}

/// A packet from its ethertype on.
fn packet(bytes: &[u8]) -> Option<Packet> {
    let ip = bytes.get(2..)?;
    let (from, to, protocol, payload): (IpAddr, IpAddr, u8, &[u8]) = match bytes.get(..2)? {
        [0x08, 0x00] => {
            let header = usize::from(ip.first()? & 0x0f) * 4;
            let from: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
            let to: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
            (from.into(), to.into(), *ip.get(9)?, ip.get(header..)?)
        }
        [0x86, 0xdd] => {
            let from: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
            let to: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
            (from.into(), to.into(), *ip.get(6)?, ip.get(40..)?)
        }
        _ => return None,
    };
    let number = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(
            payload.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let has_ports = protocol == TCP || protocol == UDP;
    let is_tcp = protocol == TCP;
    let sequence = payload
        .get(4..8)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes);
    Some(Packet {
        from,
        to,
        protocol,
        from_port: if has_ports { number(0)? } else { 0 },
        to_port: if has_ports { number(2)? } else { 0 },
        sequence: if is_tcp { sequence? } else { 0 },
        flags: if is_tcp { *payload.get(13)? } else { 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Ethernet, tcp_syn, udp};

    fn record(frame: &[u8]) -> Vec<u8> {
        let length = u32::try_from(frame.len()).unwrap().to_ne_bytes();
        [&[0; 8], length.as_slice(), length.as_slice(), frame].concat()
    }

    #[test]
    fn frames_are_read_back_as_they_were_built() {
        let ethernet = Ethernet {
            to: [2; 6],
            from: [4; 6],
        };
        let mut file = [&0xa1b2_c3d4_u32.to_ne_bytes()[..], &[0; 20]].concat();
        let pairs = [
            ("192.0.2.1:1000", "203.0.113.10:443"),
            ("[2001:db8::1]:1000", "[2001:db8::2]:443"),
        ];
        for (from, to) in pairs {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            file.extend(record(&tcp_syn(ethernet, from, to).unwrap()));
            file.extend(record(&tcp_syn(ethernet, from, to).unwrap()));
            file.extend(record(&udp(ethernet, from, to, b"x").unwrap()));
        }
        let packets = parse(&file).unwrap();
        assert_eq!(packets.len(), 6);
        assert_eq!(packets.iter().filter(|p| p.is_syn()).count(), 4);
        assert_eq!(packets.iter().filter(|p| p.is_udp()).count(), 2);
        assert!(
            packets
                .iter()
                .all(|p| p.from_port == 1000 && p.to_port == 443)
        );
        assert_eq!(repeated_syns(&packets), 2, "each SYN was sent twice");
        // A record cut short ends the file and is not an error.
        file.truncate(file.len() - 3);
        assert_eq!(parse(&file).unwrap().len(), 5);
    }
}
