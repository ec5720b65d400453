//! LEARNED: what DNS taught one endpoint about one address.
//!
//! In:  selector sets (as ephemeral identities) and when each ends.
//! Out: [`Learned`], keyed by [`LearnedKey`]; never shared between endpoints.
//! Not here: names (`dnsproxy/core`), what an identity allows (`policy`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Addr;

/// Identities per (endpoint, address), each with an expiry of its own.
pub const SLOTS: usize = 4;

/// Whose, and which address.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LearnedKey {
    address: Addr,
    endpoint: u32,
}

const _: () = assert!(size_of::<LearnedKey>() == 20);

impl LearnedKey {
    /// What `endpoint` learned about `address`.
    #[inline(always)]
    pub const fn new(endpoint: u32, address: Addr) -> Self {
        Self { address, endpoint }
    }

    /// Whose.
    pub const fn endpoint(&self) -> u32 {
        self.endpoint
    }

    /// Which address.
    pub const fn address(&self) -> Addr {
        self.address
    }
}

/// One identity until one moment. Identity 0 is an empty slot.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Slot {
    expires: u64,
    identity: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Slot>() == 16);

impl Slot {
    /// This identity until this many nanoseconds after boot.
    pub const fn new(identity: u32, expires: u64) -> Self {
        Self {
            expires,
            identity,
            reserved: 0,
        }
    }

    /// The identity, 0 for an empty slot.
    pub const fn identity(&self) -> u32 {
        self.identity
    }

    /// Nanoseconds after boot from which on it opens nothing.
    pub const fn expires(&self) -> u64 {
        self.expires
    }

    /// The identity if it counts at `now`, else 0.
    #[inline(always)]
    pub const fn live(&self, now: u64) -> u32 {
        if now < self.expires { self.identity } else { 0 }
    }
}

/// Everything learned about one address.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Learned {
    slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<Learned>() == 64);

impl Learned {
    /// These slots; unused ones are `Slot::default()`.
    pub const fn new(slots: [Slot; SLOTS]) -> Self {
        Self { slots }
    }

    /// All slots, used or not.
    #[inline(always)]
    pub const fn slots(&self) -> &[Slot; SLOTS] {
        &self.slots
    }

    /// The identities that count at `now`, 0 where none does.
    #[inline(always)]
    pub const fn live(&self, now: u64) -> [u32; SLOTS] {
        let [a, b, c, d] = &self.slots;
        [a.live(now), b.live(now), c.live(now), d.live(now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_ends_by_itself_and_exactly() {
        let learned = Learned::new([
            Slot::new(5, 100),
            Slot::new(6, 200),
            Slot::default(),
            Slot::default(),
        ]);
        assert_eq!(learned.live(99), [5, 6, 0, 0]);
        assert_eq!(learned.live(100), [0, 6, 0, 0]);
        assert_eq!(learned.live(200), [0; 4]);
    }
}
