//! Numeric identities and the numbers everybody reserves.
//!
//! In:  a number from an allocator or a constant of [`reserved`].
//! Out: [`IdentityId`], comparable and printable, as the kernel maps store it (u32).
//! Not here: allocation (`local`).

use std::fmt;

/// The security identity of a peer, as stored in IPCACHE, LEARNED and POLICY.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityId(u32);

/// First number of node-local scope (CIDR prefixes, FQDN selector sets): `1 << 24 | 1`.
const LOCAL_FIRST: u32 = 0x0100_0001;
/// First number past node-local scope.
const LOCAL_END: u32 = 0x0200_0000;

impl IdentityId {
    /// The number as the kernel maps hold it, host byte order.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// A number read back from a kernel map or written in a test.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Node-local scope: a CIDR prefix or a set of FQDN selectors.
    pub const fn is_local_scope(self) -> bool {
        self.0 >= LOCAL_FIRST && self.0 < LOCAL_END
    }

    /// The rest of the world without any further knowledge.
    pub const fn is_world(self) -> bool {
        matches!(
            self,
            reserved::WORLD | reserved::WORLD_IPV4 | reserved::WORLD_IPV6
        )
    }

    pub(crate) const fn first_local() -> Self {
        Self(LOCAL_FIRST)
    }

    pub(crate) const fn local_end() -> u32 {
        LOCAL_END
    }
}

/// Numbers with a fixed meaning (`pkg/identity/numericidentity.go` of Cilium 1.20).
pub mod reserved {
    use super::IdentityId;

    /// Wildcard in the policy map, "not known" elsewhere.
    pub const UNKNOWN: IdentityId = IdentityId(0);
    /// The local node.
    pub const HOST: IdentityId = IdentityId(1);
    /// Everything outside, family not told apart.
    pub const WORLD: IdentityId = IdentityId(2);
    /// A pod nobody manages.
    pub const UNMANAGED: IdentityId = IdentityId(3);
    /// The health endpoint.
    pub const HEALTH: IdentityId = IdentityId(4);
    /// A pod whose labels are not known yet.
    pub const INIT: IdentityId = IdentityId(5);
    /// Any other node.
    pub const REMOTE_NODE: IdentityId = IdentityId(6);
    /// The Kubernetes API server.
    pub const KUBE_APISERVER: IdentityId = IdentityId(7);
    /// The ingress proxy.
    pub const INGRESS: IdentityId = IdentityId(8);
    /// Everything outside, IPv4.
    pub const WORLD_IPV4: IdentityId = IdentityId(9);
    /// Everything outside, IPv6.
    pub const WORLD_IPV6: IdentityId = IdentityId(10);
    /// First number for label sets of workloads.
    pub const FIRST_LABEL_SET: IdentityId = IdentityId(256);
    /// Last number for label sets of workloads.
    pub const LAST_LABEL_SET: IdentityId = IdentityId(65535);

    /// The `reserved:` label name of a reserved number, if it is one.
    pub const fn name(id: IdentityId) -> Option<&'static str> {
        Some(match id.0 {
            0 => "unknown",
            1 => "host",
            2 => "world",
            3 => "unmanaged",
            4 => "health",
            5 => "init",
            6 => "remote-node",
            7 => "kube-apiserver",
            8 => "ingress",
            9 => "world-ipv4",
            10 => "world-ipv6",
            _ => return None,
        })
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match reserved::name(*self) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityId({self})")
    }
}
