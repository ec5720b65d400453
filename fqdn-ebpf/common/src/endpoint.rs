//! ENDPOINTS: which workload an interface belongs to, and what holds for it.
//!
//! In:  what the agent knows about a workload.
//! Out: [`Endpoint`], keyed by the index of the host side of its veth pair.
//! Not here: its policy (`policy`), its connections (`conntrack`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Direction, address::Addr};

/// How many addresses of its own a workload may use: one IPv4, two IPv6.
pub const MAX_ADDRESSES: usize = 3;

/// Index of an address that is not the workload's own (broadcast, multicast).
pub const NOT_OWN: u8 = 0x7f;

/// A 48-bit hardware address.
pub type Mac = [u8; 6];

/// The record of one interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Endpoint {
    id: u32,
    slot: u32,
    policy: u32,
    shadow: u32,
    revision: u32,
    flags: u32,
    bridge_ifindex: u32,
    /// The address at index 0 is IPv4, the others IPv6; unused ones are `::`.
    addresses: [Addr; MAX_ADDRESSES],
    mac: Mac,
    bridge_mac: Mac,
}

const _: () = assert!(size_of::<Endpoint>() == 88);

/// Bits of an endpoint.
pub mod flag {
    /// Nothing of ours may cause an outage: what cannot be steered passes.
    pub const AUDITED: u32 = 1;
    /// The enforced policy denies by default what reaches the workload.
    pub const DENY_INGRESS: u32 = 2;
    /// The enforced policy denies by default what leaves the workload.
    pub const DENY_EGRESS: u32 = 4;
    /// The shadow policy denies by default what reaches the workload.
    pub const SHADOW_DENY_INGRESS: u32 = 8;
    /// The shadow policy denies by default what leaves the workload.
    pub const SHADOW_DENY_EGRESS: u32 = 16;
}

/// A policy by its number in POLICY; 0 is "no policy", which restricts nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PolicyId(u32);

impl PolicyId {
    /// No policy: everything is allowed.
    pub const NONE: Self = Self(0);

    /// A policy by its number.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as the maps hold it.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A policy in force and which directions it denies by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InForce {
    /// Its number.
    pub id: PolicyId,
    /// What reaches the workload is denied unless allowed.
    pub deny_ingress: bool,
    /// What leaves the workload is denied unless allowed.
    pub deny_egress: bool,
}

/// The bridge an interface is a port of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bridge {
    /// Interface index of the bridge.
    pub ifindex: u32,
    /// Hardware address of the bridge.
    pub mac: Mac,
}

impl Endpoint {
    /// An endpoint without addresses and without policy.
    pub const fn new(id: u32, slot: u32, mac: Mac) -> Self {
        Self {
            id,
            slot,
            policy: 0,
            shadow: 0,
            revision: 0,
            flags: 0,
            bridge_ifindex: 0,
            addresses: [Addr::UNSPECIFIED; MAX_ADDRESSES],
            mac,
            bridge_mac: [0; 6],
        }
    }

    /// With this IPv4 and these IPv6 addresses; `::` means none.
    #[must_use]
    pub const fn with_addresses(mut self, v4: Option<[u8; 4]>, v6: [Addr; 2]) -> Self {
        let [one, two] = v6;
        self.addresses = [
            match v4 {
                Some(bytes) => Addr::v4(bytes),
                None => Addr::UNSPECIFIED,
            },
            one,
            two,
        ];
        self
    }

    /// With these policies in force from this revision on.
    #[must_use]
    pub const fn with_policy(mut self, enforced: InForce, shadow: InForce, revision: u32) -> Self {
        let keep = self.flags & flag::AUDITED;
        self.policy = enforced.id.get();
        self.shadow = shadow.id.get();
        self.revision = revision;
        self.flags =
            keep | if enforced.deny_ingress {
                flag::DENY_INGRESS
            } else {
                0
            } | if enforced.deny_egress {
                flag::DENY_EGRESS
            } else {
                0
            } | if shadow.deny_ingress {
                flag::SHADOW_DENY_INGRESS
            } else {
                0
            } | if shadow.deny_egress {
                flag::SHADOW_DENY_EGRESS
            } else {
                0
            };
        self
    }

    /// With its tables at another place.
    #[must_use]
    pub const fn with_slot(mut self, slot: u32) -> Self {
        self.slot = slot;
        self
    }

    /// Audited or not.
    #[must_use]
    pub const fn with_audit(mut self, audited: bool) -> Self {
        self.flags = (self.flags & !flag::AUDITED) | if audited { flag::AUDITED } else { 0 };
        self
    }

    /// As a port of this bridge.
    #[must_use]
    pub const fn with_bridge(mut self, bridge: Bridge) -> Self {
        self.bridge_ifindex = bridge.ifindex;
        self.bridge_mac = bridge.mac;
        self
    }

    /// The number under which everything of this workload is kept.
    #[inline(always)]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Index of its connection and fragment tables.
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        self.slot
    }

    /// Number of the enforced policy; 0 is none.
    #[inline(always)]
    pub const fn policy(&self) -> u32 {
        self.policy
    }

    /// Number of the policy that is only watched; 0 is none.
    #[inline(always)]
    pub const fn shadow(&self) -> u32 {
        self.shadow
    }

    /// Bumped with every change of policy: flows judged before are judged again.
    #[inline(always)]
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// Whether nothing of ours may cause an outage.
    #[inline(always)]
    pub const fn is_audited(&self) -> bool {
        self.flags & flag::AUDITED != 0
    }

    /// Whether the enforced policy denies this direction by default.
    #[inline(always)]
    pub const fn denies(&self, direction: Direction) -> bool {
        self.flags
            & match direction {
                Direction::Ingress => flag::DENY_INGRESS,
                Direction::Egress => flag::DENY_EGRESS,
            }
            != 0
    }

    /// Whether the shadow policy denies this direction by default.
    #[inline(always)]
    pub const fn shadow_denies(&self, direction: Direction) -> bool {
        self.flags
            & match direction {
                Direction::Ingress => flag::SHADOW_DENY_INGRESS,
                Direction::Egress => flag::SHADOW_DENY_EGRESS,
            }
            != 0
    }

    /// The only hardware address it may send from.
    #[inline(always)]
    pub const fn mac(&self) -> &Mac {
        &self.mac
    }

    /// The bridge it is a port of.
    #[inline(always)]
    pub const fn bridge(&self) -> Option<Bridge> {
        if self.bridge_ifindex == 0 {
            return None;
        }
        Some(Bridge {
            ifindex: self.bridge_ifindex,
            mac: self.bridge_mac,
        })
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Addr> + '_ {
        self.addresses
            .iter()
            .copied()
            .filter(|address| !address.is_unspecified())
    }

    /// Which of its own addresses this is; [`NOT_OWN`] for any other.
    #[inline(always)]
    pub fn own_index(&self, address: &Addr) -> u8 {
        let [v4, one, two] = &self.addresses;
        if address.is_unspecified() {
            NOT_OWN
        } else if address == v4 {
            0
        } else if address == one {
            1
        } else if address == two {
            2
        } else {
            NOT_OWN
        }
    }

    /// Whether the workload may send from this address.
    #[inline(always)]
    pub fn owns(&self, address: &Addr) -> bool {
        self.own_index(address) != NOT_OWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_address_slot_owns_nothing() {
        let endpoint =
            Endpoint::new(1, 0, [2; 6]).with_addresses(Some([10, 0, 0, 1]), [Addr::UNSPECIFIED; 2]);
        assert!(endpoint.owns(&Addr::v4([10, 0, 0, 1])));
        assert!(!endpoint.owns(&Addr::v4([10, 0, 0, 2])));
        assert!(!endpoint.owns(&Addr::UNSPECIFIED));
    }

    #[test]
    fn audit_survives_a_change_of_policy() {
        let deny = InForce {
            id: PolicyId::new(4),
            deny_ingress: false,
            deny_egress: true,
        };
        let endpoint =
            Endpoint::new(1, 0, [2; 6])
                .with_audit(true)
                .with_policy(InForce::default(), deny, 9);
        assert!(endpoint.is_audited() && endpoint.shadow_denies(Direction::Egress));
        assert!(!endpoint.denies(Direction::Egress) && !endpoint.shadow_denies(Direction::Ingress));
        assert_eq!(
            (endpoint.policy(), endpoint.shadow(), endpoint.revision()),
            (0, 4, 9)
        );
    }
}
