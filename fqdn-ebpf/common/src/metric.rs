//! METRICS and RULES: exact counts of what became of packets, and of which rules decided.
//!
//! In:  what became of a packet, and its direction; which rules of which policy decided.
//! Out: an index into the per-processor array, and back; a key of the per-processor table.
//! Not here: adding up processors (`fqdn-ebpf/loader`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Direction, reason::DropReason};

/// Packets and bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Count {
    packets: u64,
    bytes: u64,
}

const _: () = assert!(size_of::<Count>() == 16);

impl Count {
    /// One more packet.
    #[inline(always)]
    pub const fn add(&mut self, bytes: u32) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes as u64);
    }

    /// Both counts together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }

    /// How many packets.
    pub const fn packets(self) -> u64 {
        self.packets
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }
}

/// Key of RULES: some rules of a policy, by the number of their set. Packets that were judged count
/// under the rules that decided; those of a flow that is open are its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RuleKey {
    policy: u32,
    rule_set: u32,
}

const _: () = assert!(size_of::<RuleKey>() == 8);

impl RuleKey {
    /// The key of a set of rules.
    #[inline(always)]
    pub const fn new(policy: u32, rule_set: u32) -> Self {
        Self { policy, rule_set }
    }

    /// The number of the policy.
    pub const fn policy(self) -> u32 {
        self.policy
    }

    /// The number of the set in it.
    pub const fn rule_set(self) -> u32 {
        self.rule_set
    }
}

/// What became of a packet, or what happened beside it. Drops count under their reason's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Passed {
    /// Part of a known flow.
    Established = 1,
    /// Opened a flow.
    New = 2,
    /// Neighbour discovery, ARP.
    Control = 3,
    /// Handed to the DNS proxy.
    Steered = 4,
    /// Sent by the DNS proxy.
    FromProxy = 5,
    /// An ICMP error about a known flow.
    Related = 6,
    /// Judged again after a change, and still allowed.
    Renewed = 7,
    /// Let through only because the policy that denies it is in audit.
    Audited = 8,
    /// For the DNS proxy, but it could not be handed over and the endpoint is audited.
    Unsteered = 9,
    /// A drop that the audit of the endpoint turned into a pass (not a matter of policy).
    Spared = 10,
    /// No packet: an event that the token bucket held back.
    EventSuppressed = 11,
    /// No packet: an event the ring buffer had no room for.
    EventLost = 12,
}

impl Passed {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::Established,
        Self::New,
        Self::Control,
        Self::Steered,
        Self::FromProxy,
        Self::Related,
        Self::Renewed,
        Self::Audited,
        Self::Unsteered,
        Self::Spared,
        Self::EventSuppressed,
        Self::EventLost,
    ];
}

/// Entries of METRICS: 256 codes for each of two directions.
pub const ENTRIES: u32 = 512;

/// The index of a code.
#[inline(always)]
const fn index(code: u8, direction: Direction) -> u32 {
    let base = match direction {
        Direction::Ingress => 0,
        Direction::Egress => 256,
    };
    base + code as u32
}

/// Where packets that passed are counted.
#[inline(always)]
pub const fn passed(outcome: Passed, direction: Direction) -> u32 {
    index(outcome as u8, direction)
}

/// Where drops are counted.
#[inline(always)]
pub const fn dropped(reason: DropReason, direction: Direction) -> u32 {
    index(reason.number(), direction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_things_share_an_index() {
        let mut seen = [false; ENTRIES as usize];
        for direction in [Direction::Ingress, Direction::Egress] {
            for index in Passed::ALL
                .iter()
                .map(|p| passed(*p, direction))
                .chain(DropReason::ALL.iter().map(|r| dropped(*r, direction)))
            {
                assert!(!seen[index as usize]);
                seen[index as usize] = true;
            }
        }
    }
}
