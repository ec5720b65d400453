//! Frames of one TCP connection between the workload and a peer.
//!
//! In:  addresses and ports.
//! Out: Ethernet frames of 64 bytes and more, in both directions.
//! Not here: checksums: the programs look at none.

use std::net::Ipv4Addr;

/// The workload.
pub(in crate::parts) const POD: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);
pub(in crate::parts) const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

const POD_PORT: u16 = 40_000;

/// TCP flags.
pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

/// What the workload sends to `peer`.
pub(super) fn out(peer: Ipv4Addr, port: u16, flags: u8) -> Vec<u8> {
    frame([NODE_MAC, POD_MAC], [POD, peer], [POD_PORT, port], flags)
}

/// What `peer` answers.
pub(super) fn back(peer: Ipv4Addr, port: u16, flags: u8) -> Vec<u8> {
    frame([POD_MAC, NODE_MAC], [peer, POD], [port, POD_PORT], flags)
}

fn frame(
    [to, from]: [[u8; 6]; 2],
    [source, destination]: [Ipv4Addr; 2],
    [source_port, destination_port]: [u16; 2],
    flags: u8,
) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    // IPv4: 40 bytes, not a fragment, 64 hops.
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(source_port.to_be_bytes());
    frame.extend(destination_port.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
