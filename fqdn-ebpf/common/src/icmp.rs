//! ICMP: which messages belong together, and which flow an error is about.
//!
//! In:  an ICMP packet.
//! Out: its [`Kind`]; for an error, the quoted packet's addresses and ports.
//! Not here: whether the flow is known (`path`).

use crate::{
    address::Addr,
    packet::{Bytes, Packet},
    protocol,
    reason::DropReason,
};

/// What an ICMP message is to connection tracking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Asks; its type.
    Request(u8),
    /// Answers a request of this type.
    Reply(u8),
    /// Quotes a packet that could not be delivered.
    Error,
    /// Stands alone.
    Other,
}

/// The kind of an ICMP message (RFC 792, 950, 4443, 8335).
#[inline(always)]
pub const fn kind(protocol: u8, icmp_type: u8) -> Kind {
    if protocol == protocol::ICMP {
        match icmp_type {
            8 | 13 | 17 | 42 => Kind::Request(icmp_type),
            0 => Kind::Reply(8),
            14 | 18 => Kind::Reply(icmp_type.wrapping_sub(1)),
            43 => Kind::Reply(42),
            3 | 4 | 11 | 12 => Kind::Error,
            _ => Kind::Other,
        }
    } else {
        match icmp_type {
            128 | 160 => Kind::Request(icmp_type),
            129 | 161 => Kind::Reply(icmp_type.wrapping_sub(1)),
            1..=4 => Kind::Error,
            _ => Kind::Other,
        }
    }
}

/// The packet an ICMP error quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Who sent the quoted packet.
    pub source: Addr,
    /// To whom.
    pub destination: Addr,
    /// Its source port or ICMP identifier.
    pub source_port: u16,
    /// Its destination port or ICMP type.
    pub destination_port: u16,
    /// Its protocol.
    pub protocol: u8,
}

/// Reads the packet that an ICMP error quotes: an IP header and eight bytes more.
///
/// # Errors
/// Too little is quoted, or what is quoted cannot have been a packet of ours.
#[inline(always)]
pub fn quoted(bytes: &impl Bytes, packet: &Packet) -> Result<Quoted, DropReason> {
    const BAD: DropReason = DropReason::IcmpErrorUnrelated;
    let inner = packet.transport.wrapping_add(8);
    let (source, destination, protocol, at) = if packet.protocol == protocol::ICMP {
        let mut header = [0_u8; 20];
        if !bytes.read(inner, &mut header) {
            return Err(BAD);
        }
        let [
            version_length,
            _,
            _,
            _,
            _,
            _,
            f0,
            f1,
            _,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ] = header;
        let length = u32::from(version_length & 0x0f).wrapping_mul(4);
        // A later fragment quotes no ports.
        if version_length >> 4 != 4 || length < 20 || u16::from_be_bytes([f0, f1]) & 0x1fff != 0 {
            return Err(BAD);
        }
        (
            Addr::v4([s0, s1, s2, s3]),
            Addr::v4([d0, d1, d2, d3]),
            protocol,
            inner.wrapping_add(length),
        )
    } else {
        let mut head = [0_u8; 8];
        let mut source = [0_u8; 16];
        let mut destination = [0_u8; 16];
        if !bytes.read(inner, &mut head)
            || !bytes.read(inner.wrapping_add(8), &mut source)
            || !bytes.read(inner.wrapping_add(24), &mut destination)
        {
            return Err(BAD);
        }
        let [version, _, _, _, _, _, next, _] = head;
        if version >> 4 != 6 {
            return Err(BAD);
        }
        (
            Addr::v6(source),
            Addr::v6(destination),
            next,
            inner.wrapping_add(40),
        )
    };
    let mut head = [0_u8; 8];
    if at.wrapping_add(8) > packet.end || !bytes.read(at, &mut head) {
        return Err(BAD);
    }
    let [a, b, c, d, e, f, _, _] = head;
    let (source_port, destination_port) = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        }
        protocol::ICMP | protocol::ICMPV6 => (u16::from_be_bytes([e, f]), u16::from(a)),
        _ => (0, 0),
    };
    Ok(Quoted {
        source,
        destination,
        source_port,
        destination_port,
        protocol,
    })
}
