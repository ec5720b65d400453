//! An IP address of either family in sixteen bytes.
//!
//! In:  bytes out of a packet or an address of `core::net`.
//! Out: [`Addr`], a map key part; IPv4 is held as the IPv4-mapped IPv6 address `::ffff:a.b.c.d`.
//! Not here: which identity an address has (`ipcache`).
//!
//! An IPv6 packet that carries a mapped address never gets past `packet`, so the two families
//! cannot be mistaken for each other.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address; four words that hold the sixteen bytes in network order.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Addr {
    words: [u32; 4],
}

const _: () = assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 4);

/// Bytes 8..12 of an IPv4-mapped address, as they lie in memory.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// `::`, also "no address".
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// An IPv4 address by its bytes in network order.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self {
            words: [0, 0, MAPPED, u32::from_ne_bytes(bytes)],
        }
    }

    /// An IPv6 address by its bytes in network order.
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            words: [
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([e, f, g, h]),
                u32::from_ne_bytes([i, j, k, l]),
                u32::from_ne_bytes([m, n, o, p]),
            ],
        }
    }

    /// An IPv6 address by four words as they lie in a packet (network order).
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// The four words as they lie in memory (network order).
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.words
    }

    /// Whether this is an IPv4 (or IPv4-mapped) address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        let [a, b, c, _] = self.words;
        a == 0 && b == 0 && c == MAPPED
    }

    /// Whether no address is meant.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        let [a, b, c, d] = self.words;
        a | b | c | d == 0
    }

    /// The first word in host order.
    #[inline(always)]
    const fn head(self) -> u32 {
        let [a, ..] = self.words;
        u32::from_be(a)
    }

    /// The IPv4 address in host order; meaningless for IPv6.
    #[inline(always)]
    pub const fn v4_number(self) -> u32 {
        let [.., d] = self.words;
        u32::from_be(d)
    }

    /// `fe80::/10`.
    #[inline(always)]
    pub const fn is_link_local_v6(self) -> bool {
        self.head() & 0xffc0_0000 == 0xfe80_0000
    }

    /// `ff00::/8`.
    #[inline(always)]
    pub const fn is_multicast_v6(self) -> bool {
        self.head() & 0xff00_0000 == 0xff00_0000
    }

    /// `ff02::/16`: multicast that no router forwards.
    #[inline(always)]
    pub const fn is_link_multicast_v6(self) -> bool {
        self.head() & 0xffff_0000 == 0xff02_0000
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        let [a, b, c, d] = self.words;
        if self.is_v4() {
            self.v4_number() >> 24 == 127
        } else {
            a | b | c == 0 && d == 1_u32.to_be()
        }
    }

    /// The sixteen bytes in network order.
    pub const fn octets(self) -> [u8; 16] {
        let [w, x, y, z] = self.words;
        let ([a, b, c, d], [e, f, g, h]) = (w.to_ne_bytes(), x.to_ne_bytes());
        let ([i, j, k, l], [m, n, o, p]) = (y.to_ne_bytes(), z.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The address as people write it.
    pub const fn ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from_bits(self.v4_number()))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(self.octets())))
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::v4(a.octets()),
            IpAddr::V6(a) => Self::v6(a.octets()),
        }
    }
}

impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["10.1.2.3", "0.0.0.0", "2001:db8::1", "::", "::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Addr::from(ip).ip(), ip, "{text}");
            assert_eq!(Addr::from(ip).is_v4(), ip.is_ipv4(), "{text}");
        }
    }

    #[test]
    fn scopes() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        assert!(addr("fe80::1").is_link_local_v6() && addr("febf::1").is_link_local_v6());
        assert!(!addr("fec0::1").is_link_local_v6() && !addr("254.128.0.1").is_link_local_v6());
        assert!(addr("ff02::1").is_link_multicast_v6() && addr("ff05::2").is_multicast_v6());
        assert!(!addr("ff05::2").is_link_multicast_v6());
        assert!(addr("127.3.2.1").is_loopback() && addr("::1").is_loopback());
        assert!(!addr("128.0.0.1").is_loopback() && !addr("::2").is_loopback());
        assert!(!addr("::127.0.0.1").is_v4() && addr("::ffff:1.2.3.4").is_v4());
    }
}
