//! FRAGS: the ports of a fragmented datagram, for its later fragments.
//!
//! In:  the first fragment, which has them.
//! Out: [`Ports`], keyed by [`DatagramKey`] in a table of the endpoint's own.
//! Not here: dropping fragments towards an intercepted port (`path`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    address::Addr,
    packet::{Packet, Part},
    protocol,
};

/// How long later fragments may take: the kernel's own reassembly timeout (`ipfrag_time`).
pub const LIFETIME: u64 = 30 * 1_000_000_000;

/// Which datagram.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DatagramKey {
    source: Addr,
    destination: Addr,
    id: u32,
    /// IPv4 identifies datagrams per protocol (RFC 791); IPv6 does not, and there a later
    /// fragment need not know it.
    protocol: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<DatagramKey>() == 40);

impl DatagramKey {
    /// The datagram this fragment is part of.
    #[inline(always)]
    pub const fn of(packet: &Packet) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            id: packet.fragment_id,
            protocol: if packet.source.is_v4() {
                packet.protocol
            } else {
                0
            },
            reserved: [0; 3],
        }
    }
}

/// What only the first fragment says.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ports {
    expires: u64,
    source: u16,
    destination: u16,
    protocol: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<Ports>() == 16);

impl Ports {
    /// What this first fragment says.
    #[inline(always)]
    pub const fn of(packet: &Packet, now: u64) -> Self {
        Self {
            expires: now.wrapping_add(LIFETIME),
            source: packet.source_port,
            destination: packet.destination_port,
            protocol: packet.protocol,
            reserved: [0; 3],
        }
    }

    /// Completes a later fragment; false when this is too old to be about the same datagram.
    #[inline(always)]
    pub const fn complete(&self, packet: &mut Packet, now: u64) -> bool {
        if now >= self.expires {
            return false;
        }
        packet.source_port = self.source;
        packet.destination_port = self.destination;
        packet.protocol = self.protocol;
        // A later fragment never opens a connection.
        packet.tcp_flags = if self.protocol == protocol::TCP {
            crate::packet::tcp::ACK
        } else {
            0
        };
        packet.part = Part::Later;
        true
    }
}
