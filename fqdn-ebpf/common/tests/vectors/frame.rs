//! Frames, byte by byte.
//!
//! In:  what the headers shall say.
//! Out: bytes; wrong on purpose where a test wants it.
//! Not here: checksums: the datapath looks at none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ICMP, ICMPV6, NODE_MAC, POD_MAC, TCP};

/// An Ethernet frame from the workload to the node; the other way round where that is sent.
pub(crate) fn ethernet(source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let destination = if source == POD_MAC { NODE_MAC } else { POD_MAC };
    let mut frame = Vec::new();
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 header with options and a fragment field (flags and offset).
pub(crate) fn v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4));
    let words = 5 + options.len() / 4;
    let total = words * 4 + payload.len();
    let mut header = vec![0x40 | u8::try_from(words).unwrap(), 0];
    header.extend(u16::try_from(total).unwrap().to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(options);
    header.extend(payload);
    header
}

/// An IPv6 header.
pub(crate) fn v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next: u8,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    header.extend([next, hop_limit]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(payload);
    header
}

/// An IPv6 fragment header in front of a payload.
pub(crate) fn fragment6(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend(((offset << 3) | u16::from(more)).to_be_bytes());
    header.extend([0, 0, 0x12, 0x34]);
    header.extend(payload);
    header
}

pub(crate) fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend([0; 8]);
    header.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    header
}

pub(crate) fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    header
}

/// Type, code, checksum, identifier, sequence, data.
pub(crate) fn icmp(kind: u8, id: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message.extend(data);
    message
}

/// A packet of either family.
pub(crate) fn ip(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    match (source.into(), destination.into()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => v4(s, d, protocol, &[], 0, payload),
        (IpAddr::V6(s), IpAddr::V6(d)) => v6(s, d, protocol, 64, payload),
        _ => panic!("one family, please"),
    }
}

fn framed(mac: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    ethernet(mac, ethertype, packet)
}

/// Sent by the workload.
pub(crate) fn from(packet: &[u8]) -> Vec<u8> {
    framed(POD_MAC, packet)
}

/// Sent to the workload.
pub(crate) fn to(packet: &[u8]) -> Vec<u8> {
    framed(NODE_MAC, packet)
}

/// A conversation between the workload and a peer, both directions.
#[derive(Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) own: IpAddr,
    pub(crate) peer: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) own_port: u16,
    pub(crate) peer_port: u16,
}

impl Talk {
    pub(crate) fn new(
        own: impl Into<IpAddr>,
        peer: impl Into<IpAddr>,
        protocol: u8,
        own_port: u16,
        peer_port: u16,
    ) -> Self {
        Self {
            own: own.into(),
            peer: peer.into(),
            protocol,
            own_port,
            peer_port,
        }
    }

    fn transport(self, source: u16, destination: u16, flags: u8) -> Vec<u8> {
        match self.protocol {
            TCP => tcp(source, destination, flags),
            _ => udp(source, destination),
        }
    }

    pub(crate) fn out(self, flags: u8) -> Vec<u8> {
        from(&ip(
            self.own,
            self.peer,
            self.protocol,
            &self.transport(self.own_port, self.peer_port, flags),
        ))
    }

    pub(crate) fn back(self, flags: u8) -> Vec<u8> {
        to(&ip(
            self.peer,
            self.own,
            self.protocol,
            &self.transport(self.peer_port, self.own_port, flags),
        ))
    }
}

/// An echo request or reply between two addresses.
pub(crate) fn echo(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    reply: bool,
    id: u16,
) -> Vec<u8> {
    let (source, destination) = (source.into(), destination.into());
    let (protocol, kind) = match (source.is_ipv4(), reply) {
        (true, false) => (ICMP, 8),
        (true, true) => (ICMP, 0),
        (false, false) => (ICMPV6, 128),
        (false, true) => (ICMPV6, 129),
    };
    ip(source, destination, protocol, &icmp(kind, id, b"ping"))
}
