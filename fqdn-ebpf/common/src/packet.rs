//! From the bytes of a frame to what the datapath needs to know about it.
//!
//! In:  [`Bytes`], a frame that can be read at any offset.
//! Out: [`Packet`], or the [`DropReason`] that says what is wrong with the headers.
//! Not here: whether the packet is allowed (`guard`, `path`), quoted packets (`icmp`).

use zerocopy::IntoBytes as _;

use crate::{address::Addr, protocol, reason::DropReason};

/// A frame that can be read at any offset, whether or not it lies in one piece.
pub trait Bytes {
    /// Copies the bytes from `at` on into the whole of `into`; false when the frame is too short.
    fn read(&self, at: u32, into: &mut [u8]) -> bool;

    /// Words as they lie in the frame from `at` on; `None` when it is too short. The kernel reads
    /// them without clearing the space for them first, which costs more than the reading.
    #[inline(always)]
    fn words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        let mut words = [0_u32; N];
        self.read(at, words.as_mut_bytes()).then_some(words)
    }

    /// Length of the frame, which for offloaded segments is more than the wire carries.
    fn len(&self) -> u32;

    /// Whether the frame is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks through IPv4 options: [`v4_options`], which the kernel verifies as a function of its
    /// own, because its loop multiplies whatever is verified with it.
    ///
    /// # Errors
    /// Source routing, or options that do not add up.
    fn v4_options(&self, length: u32) -> Result<(), DropReason>
    where
        Self: Sized,
    {
        v4_options(self, length)
    }

    /// Walks over IPv6 extension headers: [`v6_extensions`], for the same reason. The packet's
    /// protocol, transport offset, part and identification are filled in.
    ///
    /// # Errors
    /// Extension headers that may not pass.
    fn v6_extensions(&self, packet: &mut Packet) -> Result<u16, DropReason>
    where
        Self: Sized,
    {
        v6_extensions(self, packet)
    }
}

/// Length of the Ethernet header.
pub const ETHERNET: u32 = 14;

/// What is in a frame (EtherType).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Address resolution for IPv4.
    Arp,
}

/// The Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Who sent it.
    pub source: crate::endpoint::Mac,
    /// What is in it.
    pub network: Network,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of it.
    Whole,
    /// The beginning, with the transport header.
    First,
    /// Something after the beginning, without ports.
    Later,
}

/// Bits of [`Packet::tcp_flags`].
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends it at once.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// What the headers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Offset of the transport header.
    pub transport: u32,
    /// Offset past the datagram's last byte, at most the frame's length.
    pub end: u32,
    /// Identification shared by the fragments of a datagram.
    pub fragment_id: u32,
    /// Source port; 0 for protocols without ports, the identifier for ICMP.
    pub source_port: u16,
    /// Destination port; the type for ICMP.
    pub destination_port: u16,
    /// Protocol number after all extension headers.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// TCP flags, 0 for other protocols.
    pub tcp_flags: u8,
    /// ICMP code, 0 for other protocols.
    pub icmp_code: u8,
    /// Whole, first or later fragment.
    pub part: Part,
}

impl Packet {
    /// An empty one, for scratch space.
    pub const EMPTY: Self = Self {
        source: Addr::UNSPECIFIED,
        destination: Addr::UNSPECIFIED,
        transport: 0,
        end: 0,
        fragment_id: 0,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        hop_limit: 0,
        tcp_flags: 0,
        icmp_code: 0,
        part: Part::Whole,
    };

    /// Whether it is ICMP of either family.
    #[inline(always)]
    pub const fn is_icmp(&self) -> bool {
        matches!(self.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// The ICMP type; meaningless for other protocols.
    #[inline(always)]
    pub const fn icmp_type(&self) -> u8 {
        self.destination_port as u8
    }

    /// Whether it asks for a TCP connection.
    #[inline(always)]
    pub const fn opens_tcp(&self) -> bool {
        self.protocol == protocol::TCP && self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}

/// EtherTypes.
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const VLAN_OUTER: u16 = 0x88a8;
    pub(super) const IPV6: u16 = 0x86dd;
    /// Smaller numbers are lengths of IEEE 802.3 frames.
    pub(super) const FIRST: u16 = 0x0600;
}

/// Reads the Ethernet header.
///
/// # Errors
/// Too short, a VLAN tag, or nothing the datapath knows.
#[inline(always)]
pub fn frame(bytes: &impl Bytes) -> Result<Frame, DropReason> {
    // Two bytes more than the header; what has none behind it is no packet of any kind.
    let Some([_, one, two, three]) = bytes.words(0) else {
        return Err(DropReason::UnsupportedL2);
    };
    let [_, _, a, b] = one.to_ne_bytes();
    let [c, d, e, f] = two.to_ne_bytes();
    let [high, low, _, _] = three.to_ne_bytes();
    let network = match u16::from_be_bytes([high, low]) {
        ethertype::IPV4 => Network::V4,
        ethertype::IPV6 => Network::V6,
        ethertype::ARP => Network::Arp,
        ethertype::VLAN | ethertype::VLAN_OUTER => return Err(DropReason::VlanFiltered),
        other if other < ethertype::FIRST => return Err(DropReason::UnsupportedL2),
        _ => return Err(DropReason::UnsupportedL3),
    };
    Ok(Frame {
        source: [a, b, c, d, e, f],
        network,
    })
}

/// Reads an IPv4 header and the transport header behind it.
///
/// # Errors
/// What is wrong with them.
#[inline(always)]
pub fn ipv4(bytes: &impl Bytes, packet: &mut Packet) -> Result<(), DropReason> {
    let Some([one, two, three, source, destination]) = bytes.words(ETHERNET) else {
        return Err(DropReason::InvalidPacket);
    };
    let [version_length, _, t0, t1] = one.to_ne_bytes();
    let [i0, i1, f0, f1] = two.to_ne_bytes();
    let [hop_limit, protocol, _, _] = three.to_ne_bytes();
    let length = u32::from(version_length & 0x0f).wrapping_mul(4);
    if version_length >> 4 != 4 || length < 20 {
        return Err(DropReason::InvalidPacket);
    }
    let frame_length = bytes.len();
    let total = match u32::from(u16::from_be_bytes([t0, t1])) {
        // Segments beyond 64 KiB that only ever exist inside a host have no length (BIG TCP,
        // Linux commit b1a78b9b98862, "net: add support for ipv4 big tcp").
        0 if frame_length > 0xffff => frame_length.wrapping_sub(ETHERNET),
        total => total,
    };
    let end = ETHERNET.wrapping_add(total);
    if total < length || end > frame_length {
        return Err(DropReason::InvalidPacket);
    }
    if length > 20 {
        bytes.v4_options(length)?;
    }
    let fragment = u16::from_be_bytes([f0, f1]);
    let offset = fragment & 0x1fff;
    packet.source = Addr::v4(source.to_ne_bytes());
    packet.destination = Addr::v4(destination.to_ne_bytes());
    packet.protocol = protocol;
    packet.hop_limit = hop_limit;
    packet.transport = ETHERNET.wrapping_add(length);
    packet.end = end;
    packet.fragment_id = u32::from(u16::from_be_bytes([i0, i1]));
    packet.part = match (offset, fragment & 0x2000 != 0) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    };
    transport(bytes, packet, offset)
}

/// IPv4 options that route by source (RFC 791 §3.1).
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Refuses source routing in a header of this length.
///
/// # Errors
/// Source routing, or options that do not add up.
#[inline(always)]
pub fn v4_options(bytes: &impl Bytes, length: u32) -> Result<(), DropReason> {
    let mut at = 20_u32;
    // Forty bytes of options hold at most forty options.
    for _ in 0..40 {
        if at >= length {
            return Ok(());
        }
        // The second byte is read even past the options: the transport header follows, and a
        // packet that ends here has none.
        let mut option = [0_u8; 2];
        if !bytes.read(ETHERNET.wrapping_add(at), &mut option) {
            return Err(DropReason::InvalidPacket);
        }
        let [kind, size] = option;
        match kind {
            0 => return Ok(()),
            1 => at = at.wrapping_add(1),
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::SourceRouting),
            _ if size < 2 => return Err(DropReason::InvalidPacket),
            _ => at = at.wrapping_add(u32::from(size)),
        }
    }
    Ok(())
}

/// Next-header numbers that are walked over.
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    /// How many are walked: each kind once and destination options twice (RFC 8200 §4.1), and
    /// one for luck.
    pub(super) const LIMIT: u32 = 7;
}

/// Reads an IPv6 header, its extension headers and the transport header behind them.
///
/// # Errors
/// What is wrong with them.
#[inline(always)]
pub fn ipv6(bytes: &impl Bytes, packet: &mut Packet) -> Result<(), DropReason> {
    let Some([one, two, s0, s1, s2, s3, d0, d1, d2, d3]) = bytes.words(ETHERNET) else {
        return Err(DropReason::InvalidPacket);
    };
    let [version, _, _, _] = one.to_ne_bytes();
    let [l0, l1, next, hop_limit] = two.to_ne_bytes();
    if version >> 4 != 6 {
        return Err(DropReason::InvalidPacket);
    }
    let frame_length = bytes.len();
    let end = match u32::from(u16::from_be_bytes([l0, l1])) {
        // A jumbo payload option holds the length (BIG TCP, RFC 2675).
        0 if frame_length > 0xffff => frame_length,
        payload => payload.wrapping_add(ETHERNET).wrapping_add(40),
    };
    if end > frame_length {
        return Err(DropReason::InvalidPacket);
    }
    packet.source = Addr::from_words([s0, s1, s2, s3]);
    packet.destination = Addr::from_words([d0, d1, d2, d3]);
    // The mapped block stands for IPv4 in every map.
    if packet.source.is_v4() {
        return Err(DropReason::InvalidSourceIp);
    }
    if packet.destination.is_v4() {
        return Err(DropReason::InvalidDestinationIp);
    }
    packet.protocol = next;
    packet.hop_limit = hop_limit;
    packet.transport = ETHERNET.wrapping_add(40);
    packet.end = end;
    packet.fragment_id = 0;
    packet.part = Part::Whole;
    let offset = match next {
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => 0,
        _ => bytes.v6_extensions(packet)?,
    };
    transport(bytes, packet, offset)
}

/// Walks over extension headers; the fragment's offset in units of eight bytes.
///
/// # Errors
/// Routing with segments left, a header out of place, too many, or cut off.
#[inline(always)]
pub fn v6_extensions(bytes: &impl Bytes, packet: &mut Packet) -> Result<u16, DropReason> {
    let mut next = packet.protocol;
    let mut at = packet.transport;
    let mut offset = 0_u16;
    for nth in 0..extension::LIMIT {
        let mut header = [0_u32; 2];
        match next {
            extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::FRAGMENT
            | extension::AUTHENTICATION
            | extension::DESTINATION => {
                if at >= packet.end || !bytes.read(at, header.as_mut_bytes()) {
                    return Err(DropReason::InvalidExtensionHeader);
                }
            }
            _ => {
                packet.protocol = next;
                packet.transport = at;
                return Ok(offset);
            }
        }
        let [head, id] = header;
        let [following, units, two, three] = head.to_ne_bytes();
        let eights = u32::from(units).wrapping_add(1).wrapping_mul(8);
        match next {
            // Only directly behind the IPv6 header (RFC 8200 §4.1).
            extension::HOP_BY_HOP if nth != 0 => return Err(DropReason::InvalidExtensionHeader),
            extension::ROUTING if three != 0 => return Err(DropReason::RoutingHeader),
            extension::FRAGMENT => {
                let field = u16::from_be_bytes([two, three]);
                offset = field >> 3;
                packet.fragment_id = u32::from_be(id);
                packet.part = match (offset, field & 1 != 0) {
                    // An atomic fragment is a whole packet (RFC 6946).
                    (0, false) => Part::Whole,
                    (0, true) => Part::First,
                    _ => Part::Later,
                };
                at = at.wrapping_add(8);
                if offset != 0 {
                    packet.protocol = following;
                    packet.transport = at;
                    return Ok(offset);
                }
            }
            extension::AUTHENTICATION => {
                at = at.wrapping_add(u32::from(units).wrapping_add(2).wrapping_mul(4));
            }
            _ => at = at.wrapping_add(eights),
        }
        next = following;
    }
    Err(DropReason::InvalidExtensionHeader)
}

/// Reads the transport header. `offset` is the fragment's, in units of eight bytes.
#[inline(always)]
fn transport(bytes: &impl Bytes, packet: &mut Packet, offset: u16) -> Result<(), DropReason> {
    packet.source_port = 0;
    packet.destination_port = 0;
    packet.tcp_flags = 0;
    packet.icmp_code = 0;
    if packet.part == Part::Later {
        // Would overwrite the first fragment's TCP flags (RFC 1858, RFC 3128).
        if offset == 1 && packet.protocol == protocol::TCP {
            return Err(DropReason::InvalidPacket);
        }
        return Ok(());
    }
    let need = match packet.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
        protocol::SCTP => 12,
        _ => return Ok(()),
    };
    if packet.transport.wrapping_add(need) > packet.end {
        return Err(DropReason::TruncatedHeader);
    }
    if packet.protocol == protocol::TCP {
        let Some([ports, _, _, flags]) = bytes.words(packet.transport) else {
            return Err(DropReason::TruncatedHeader);
        };
        let [length, flags, _, _] = flags.to_ne_bytes();
        if length >> 4 < 5 {
            return Err(DropReason::TruncatedHeader);
        }
        (packet.source_port, packet.destination_port) = ports_of(ports);
        packet.tcp_flags = flags;
        return Ok(());
    }
    let Some([first, second]) = bytes.words(packet.transport) else {
        return Err(DropReason::TruncatedHeader);
    };
    match packet.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            // ICMP belongs to the family of its name; anything else is nonsense a policy could
            // be made to misread.
            if (packet.protocol == protocol::ICMP) != packet.source.is_v4() {
                return Err(DropReason::InvalidPacket);
            }
            let [kind, code, _, _] = first.to_ne_bytes();
            let [i0, i1, _, _] = second.to_ne_bytes();
            packet.destination_port = u16::from(kind);
            packet.icmp_code = code;
            packet.source_port = u16::from_be_bytes([i0, i1]);
        }
        _ => (packet.source_port, packet.destination_port) = ports_of(first),
    }
    Ok(())
}

/// Source and destination port out of the first word of a transport header.
#[inline(always)]
const fn ports_of(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_ne_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}
