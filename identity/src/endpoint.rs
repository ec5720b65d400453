//! Which workload: the number of an endpoint on this node.
//!
//! In:  a number from the agent's monotonic counter.
//! Out: [`EndpointId`], the key under which everything learned and tracked is kept apart.
//! Not here: interfaces, addresses, slots (`agent`, `fqdn-ebpf`).

use std::fmt;

/// An enforced workload on this node; never reused while its maps live.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(u32);

impl EndpointId {
    /// An endpoint by its number.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as the kernel maps hold it.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointId({})", self.0)
    }
}
