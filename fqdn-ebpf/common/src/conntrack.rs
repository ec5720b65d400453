//! CT: the flows of one endpoint, how they began and how long they live.
//!
//! In:  packets of a flow, in either direction.
//! Out: [`Seen`]: pass, judge as new, judge again; [`Flow`] records keyed by [`FlowKey`].
//! Not here: the judging (`verdict`), the tables (one per endpoint: a flood in one workload
//!      evicts only its own flows).
//!
//! A flow has one record for both directions, keyed from the workload's side.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Direction, address::Addr, packet::tcp, protocol};

const SECOND: u64 = 1_000_000_000;

/// TCP that both sides have spoken on: as long as people leave a shell open over a working day.
pub const TCP_ESTABLISHED: u64 = 6 * 3600 * SECOND;
/// TCP that nobody has answered yet: the time a SYN is retransmitted by default, once over.
pub const TCP_OPENING: u64 = 60 * SECOND;
/// TCP that both sides have closed, or one has reset: for what is still on the way.
pub const TCP_CLOSING: u64 = 10 * SECOND;
/// A datagram nobody has answered yet.
pub const UDP_OPENING: u64 = 60 * SECOND;
/// Datagrams in both directions.
pub const UDP_REPLIED: u64 = 120 * SECOND;
/// An ICMP request and its replies.
pub const ICMP: u64 = 30 * SECOND;

/// One flow, seen from the workload. Which of its addresses is an index, because the table is
/// the endpoint's own: a shorter key is a faster one.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    peer: Addr,
    own_port: u16,
    peer_port: u16,
    /// Protocol, own address, two bytes of nothing; one word, so that one store makes it.
    kind: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 24);

/// In [`FlowKey`]: the peer asks, the workload answers. Only ICMP needs it: there the same
/// identifier may run in both directions at once, and an answer must never pass for a request.
const PEER_ASKS: u8 = 0x80;

impl FlowKey {
    /// A flow with ports.
    #[inline(always)]
    pub const fn new(own: u8, own_port: u16, peer: Addr, peer_port: u16, protocol: u8) -> Self {
        Self {
            peer,
            own_port,
            peer_port,
            kind: u32::from_ne_bytes([protocol, own, 0, 0]),
        }
    }

    /// Requests of one ICMP type with one identifier, and their replies.
    #[inline(always)]
    pub const fn icmp(
        own: u8,
        peer: Addr,
        protocol: u8,
        request: u8,
        id: u16,
        asks: Direction,
    ) -> Self {
        match asks {
            Direction::Egress => Self::new(own, id, peer, request as u16, protocol),
            Direction::Ingress => Self::new(own | PEER_ASKS, request as u16, peer, id, protocol),
        }
    }

    /// The other side.
    pub const fn peer(&self) -> Addr {
        self.peer
    }

    /// Port (or ICMP identifier, or type) on the workload's side.
    pub const fn own_port(&self) -> u16 {
        self.own_port
    }

    /// Port (or ICMP type, or identifier) on the other side.
    pub const fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// Protocol number.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        let [protocol, ..] = self.kind.to_ne_bytes();
        protocol
    }

    /// Index of the workload's own address.
    pub const fn own(&self) -> u8 {
        let [_, own, ..] = self.kind.to_ne_bytes();
        own & !PEER_ASKS
    }

    /// The port (or type) that policy sees for a flow opened in this direction.
    #[inline(always)]
    pub const fn policy_port(&self, opened: Direction) -> u16 {
        match opened {
            Direction::Egress => self.peer_port,
            Direction::Ingress => self.own_port,
        }
    }
}

/// What has been seen of a flow.
mod state {
    /// The opener sent something after its opening.
    pub(super) const OPENER_SPOKE: u8 = 1;
    /// The other side sent something.
    pub(super) const REPLIED: u8 = 2;
    /// The opener closed its half.
    pub(super) const OPENER_FIN: u8 = 4;
    /// The other side closed its half.
    pub(super) const REPLIER_FIN: u8 = 8;
    /// The opener reset the connection.
    pub(super) const OPENER_RST: u8 = 16;
    /// The other side reset the connection.
    pub(super) const REPLIER_RST: u8 = 32;
}

/// How a flow was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opening {
    /// The learned identity it was opened under, 0 for none. Outlives the name's TTL.
    pub learned: u32,
    /// The peer's identity when it was judged.
    pub identity: u32,
    /// Revision of the endpoint's policy it was judged by.
    pub revision: u32,
    /// Epoch of IPCACHE it was judged by.
    pub epoch: u32,
    /// Rules that allowed it.
    pub rule_set: u32,
}

/// The record of one flow.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Flow {
    expires: u64,
    opener_packets: u64,
    opener_bytes: u64,
    replier_packets: u64,
    replier_bytes: u64,
    learned: u32,
    identity: u32,
    revision: u32,
    epoch: u32,
    rule_set: u32,
    opened: u8,
    state: u8,
    reserved: [u8; 2],
}

const _: () = assert!(size_of::<Flow>() == 64);

/// What a packet says about the flow it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Which way it goes.
    pub direction: Direction,
    /// Its protocol.
    pub protocol: u8,
    /// Its TCP flags.
    pub tcp_flags: u8,
    /// Its length.
    pub bytes: u32,
    /// When, on the clock of flows ([`crate::env::Meta::now`]).
    pub now: u64,
    /// The endpoint's policy revision.
    pub revision: u32,
    /// The epoch of IPCACHE.
    pub epoch: u32,
}

/// What a packet is to a recorded flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Part of it; let it pass.
    Known,
    /// The flow is over; as if there were no record.
    Expired,
    /// Opens the connection once more: judge it as new.
    Reopens {
        /// Like the packets before it: same direction, nobody has answered yet.
        again: bool,
    },
    /// Policy or addresses have changed since: judge the flow again.
    Stale {
        /// Which way it was opened.
        opened: Direction,
        /// How it was judged.
        opening: Opening,
    },
}

impl Flow {
    /// A flow that begins with this packet.
    #[inline(always)]
    pub fn open(sighting: &Sighting, opening: &Opening) -> Self {
        let mut flow = Self {
            expires: 0,
            opener_packets: 0,
            opener_bytes: 0,
            replier_packets: 0,
            replier_bytes: 0,
            learned: opening.learned,
            identity: opening.identity,
            revision: opening.revision,
            epoch: opening.epoch,
            rule_set: opening.rule_set,
            opened: sighting.direction.number(),
            state: 0,
            reserved: [0; 2],
        };
        flow.count(sighting);
        flow
    }

    /// What this packet is to the flow. One that belongs to it is counted.
    #[inline(always)]
    pub fn see(&mut self, sighting: &Sighting) -> Seen {
        if sighting.now >= self.expires {
            return Seen::Expired;
        }
        if sighting.protocol == protocol::TCP
            && sighting.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        {
            return Seen::Reopens {
                again: self.opened == sighting.direction.number()
                    && self.state & state::REPLIED == 0
                    && self.revision == sighting.revision
                    && self.epoch == sighting.epoch,
            };
        }
        if self.revision != sighting.revision || self.epoch != sighting.epoch {
            return Seen::Stale {
                opened: self.opened(),
                opening: self.opening(),
            };
        }
        self.count(sighting);
        Seen::Known
    }

    /// The flow was judged again and may go on; the packet that caused it is counted.
    #[inline(always)]
    pub fn renew(&mut self, sighting: &Sighting, opening: &Opening) {
        self.learned = opening.learned;
        self.identity = opening.identity;
        self.revision = opening.revision;
        self.epoch = opening.epoch;
        self.rule_set = opening.rule_set;
        self.count(sighting);
    }

    /// Which way it was opened.
    #[inline(always)]
    pub const fn opened(&self) -> Direction {
        match Direction::from_number(self.opened) {
            Some(Direction::Ingress) => Direction::Ingress,
            Some(Direction::Egress) | None => Direction::Egress,
        }
    }

    /// Whether the record still counts at `now`.
    #[inline(always)]
    pub const fn is_live(&self, now: u64) -> bool {
        now < self.expires
    }

    /// From when on it does not count, on the clock of flows.
    pub const fn expires(&self) -> u64 {
        self.expires
    }

    /// How it was judged.
    #[inline(always)]
    pub const fn opening(&self) -> Opening {
        Opening {
            learned: self.learned,
            identity: self.identity,
            revision: self.revision,
            epoch: self.epoch,
            rule_set: self.rule_set,
        }
    }

    /// Packets and bytes from the opener.
    pub const fn sent(&self) -> (u64, u64) {
        (self.opener_packets, self.opener_bytes)
    }

    /// Packets and bytes from the other side.
    pub const fn received(&self) -> (u64, u64) {
        (self.replier_packets, self.replier_bytes)
    }

    #[inline(always)]
    fn count(&mut self, sighting: &Sighting) {
        let from_opener = self.opened == sighting.direction.number();
        if from_opener {
            self.opener_packets = self.opener_packets.wrapping_add(1);
            self.opener_bytes = self.opener_bytes.wrapping_add(sighting.bytes as u64);
        } else {
            self.replier_packets = self.replier_packets.wrapping_add(1);
            self.replier_bytes = self.replier_bytes.wrapping_add(sighting.bytes as u64);
        }
        self.state = advance(
            self.state,
            sighting.protocol,
            sighting.tcp_flags,
            from_opener,
        );
        let lifetime = lifetime(sighting.protocol, self.state);
        let expires = sighting.now.wrapping_add(lifetime);
        self.expires = expires;
    }
}

/// What has been seen after one more packet.
#[inline(always)]
const fn advance(before: u8, protocol: u8, flags: u8, from_opener: bool) -> u8 {
    let (spoke, fin, rst) = if from_opener {
        (state::OPENER_SPOKE, state::OPENER_FIN, state::OPENER_RST)
    } else {
        (state::REPLIED, state::REPLIER_FIN, state::REPLIER_RST)
    };
    if protocol != protocol::TCP {
        return if from_opener { before } else { before | spoke };
    }
    let opening = from_opener && flags & tcp::SYN != 0;
    let mut after = if opening { before } else { before | spoke };
    if flags & tcp::RST != 0 {
        after |= rst;
    } else {
        // Who has reset a connection sends nothing more on it: a packet after the reset shows
        // that somebody else forged the reset, and the flow lives on.
        after &= !rst;
    }
    if flags & tcp::FIN != 0 {
        after |= fin;
    }
    after
}

/// How long a flow in this state lives without another packet. A TCP connection of which one half
/// is closed lives on: the other half may have much to say.
#[inline(always)]
const fn lifetime(protocol: u8, seen: u8) -> u64 {
    const BOTH_SPOKE: u8 = state::OPENER_SPOKE | state::REPLIED;
    const BOTH_FIN: u8 = state::OPENER_FIN | state::REPLIER_FIN;
    match protocol {
        protocol::TCP => {
            if seen & (state::OPENER_RST | state::REPLIER_RST) != 0 || seen & BOTH_FIN == BOTH_FIN {
                TCP_CLOSING
            } else if seen & BOTH_SPOKE == BOTH_SPOKE {
                TCP_ESTABLISHED
            } else {
                TCP_OPENING
            }
        }
        protocol::ICMP | protocol::ICMPV6 => ICMP,
        _ if seen & state::REPLIED != 0 => UDP_REPLIED,
        _ => UDP_OPENING,
    }
}
