//! What the kernel programs and user space share: map records, packet parsing, the verdict.
//!
//! In:  packets and map look-ups, both behind [`env::Env`].
//! Out: [`path::Verdict`] for every packet; plain-old-data records for every map.
//! Not here: BPF helpers (`fqdn-ebpf`), system calls (`fqdn-ebpf/loader`), rules (`policy`).
//!
//! The same source is compiled for the BPF target and for the host, so a property shown on the
//! host is a property of the kernel program. That rules out panics (the kernel has no way to
//! unwind), allocation, and arithmetic that could be checked for overflow.
//!
//! No unsafe code: records are zerocopy types, whatever bytes they are made from.

#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod arp;
pub mod bucket;
pub mod config;
pub mod conntrack;
pub mod endpoint;
pub mod env;
pub mod event;
pub mod fragment;
pub mod guard;
pub mod icmp;
pub mod ipcache;
pub mod learned;
pub mod metric;
pub mod packet;
pub mod path;
pub mod policy;
pub mod reason;
mod related;
mod track;
pub mod verdict;

/// Layout and meaning of everything in this crate. A loader adopts pinned maps of its own version
/// only; a program that finds another version in CONFIG drops every packet.
pub const ABI_VERSION: u32 = 2;

/// Which way a packet goes, seen from the workload. Numbers as in Hubble's `TrafficDirection`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Direction {
    /// To the workload.
    Ingress = 1,
    /// From the workload.
    Egress = 2,
}

impl Direction {
    /// The number as the maps hold it.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The direction with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ingress),
            2 => Some(Self::Egress),
            _ => None,
        }
    }

    /// The other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

/// Protocol numbers the datapath tells apart (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
