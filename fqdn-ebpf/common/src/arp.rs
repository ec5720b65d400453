//! Address resolution for IPv4: a workload speaks for its own address only.
//!
//! In:  an ARP packet from a workload.
//! Out: nothing, or the reason why it must not leave.
//! Not here: neighbour discovery (`guard`).

use crate::{
    address::Addr,
    endpoint::Endpoint,
    packet::{Bytes, ETHERNET},
    reason::DropReason,
};

/// Ethernet, IPv4, six-byte hardware and four-byte protocol addresses (RFC 826).
const HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Checks an ARP packet that a workload sends.
///
/// # Errors
/// Somebody else's hardware or protocol address, or not ARP for IPv4 over Ethernet.
#[inline(always)]
pub fn from_workload(bytes: &impl Bytes, endpoint: &Endpoint) -> Result<(), DropReason> {
    let mut arp = [0_u8; 28];
    if !bytes.read(ETHERNET, &mut arp) {
        return Err(DropReason::InvalidPacket);
    }
    let [
        h0,
        h1,
        p0,
        p1,
        hl,
        pl,
        o0,
        o1,
        m0,
        m1,
        m2,
        m3,
        m4,
        m5,
        s0,
        s1,
        s2,
        s3,
        _,
        _,
        _,
        _,
        _,
        _,
        t0,
        t1,
        t2,
        t3,
    ] = arp;
    if [h0, h1, p0, p1, hl, pl] != HEADER {
        return Err(DropReason::InvalidPacket);
    }
    let is_request = match u16::from_be_bytes([o0, o1]) {
        1 => true,
        2 => false,
        _ => return Err(DropReason::InvalidPacket),
    };
    if [m0, m1, m2, m3, m4, m5] != *endpoint.mac() {
        return Err(DropReason::InvalidSourceMac);
    }
    let sender = Addr::v4([s0, s1, s2, s3]);
    // A probe asks for the address it is about to use, with no sender address (RFC 5227).
    let probe =
        is_request && sender == Addr::v4([0; 4]) && endpoint.owns(&Addr::v4([t0, t1, t2, t3]));
    if probe || endpoint.owns(&sender) {
        Ok(())
    } else {
        Err(DropReason::InvalidSourceIp)
    }
}
