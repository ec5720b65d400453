//! What the agent says about a workload, and the record the kernel gets.
//!
//! In:  [`EndpointSpec`].
//! Out: the ENDPOINTS record.
//! Not here: slots and revisions (`datapath`).

use std::net::{Ipv4Addr, Ipv6Addr};

use fqdn_ebpf_common::{
    address::Addr,
    endpoint::{Bridge, Endpoint, InForce, Mac, PolicyId},
};
use identity::EndpointId;

use crate::MapError;

/// A workload behind one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSpec {
    /// Its number; never reused while maps live.
    pub id: EndpointId,
    /// The only hardware address it may send from.
    pub mac: Mac,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its global IPv6 addresses, at most two.
    pub v6: Vec<Ipv6Addr>,
    /// The bridge its interface is a port of.
    pub bridge: Option<BridgePort>,
    /// The policy that is enforced; none allows everything.
    pub enforced: Option<PolicyId>,
    /// The policy that is only watched.
    pub shadow: Option<PolicyId>,
    /// Nothing of ours may cause an outage: what cannot be steered or remembered passes.
    pub audited: bool,
}

/// The bridge an interface is a port of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BridgePort {
    /// Interface index of the bridge.
    pub ifindex: u32,
    /// Hardware address of the bridge.
    pub mac: Mac,
}

impl EndpointSpec {
    /// A workload with this number and hardware address and nothing else yet.
    #[must_use]
    pub const fn new(id: EndpointId, mac: Mac) -> Self {
        Self {
            id,
            mac,
            v4: None,
            v6: Vec::new(),
            bridge: None,
            enforced: None,
            shadow: None,
            audited: false,
        }
    }

    pub(crate) fn record(
        &self,
        slot: u32,
        revision: u32,
        in_force: impl Fn(Option<PolicyId>) -> InForce,
    ) -> Result<Endpoint, MapError> {
        let v6 = match self.v6.as_slice() {
            [] => [Addr::UNSPECIFIED; 2],
            [one] => [Addr::v6(one.octets()), Addr::UNSPECIFIED],
            [one, two] => [Addr::v6(one.octets()), Addr::v6(two.octets())],
            more => {
                return Err(MapError::Addresses {
                    endpoint: self.id,
                    count: more.len(),
                });
            }
        };
        let record = Endpoint::new(self.id.get(), slot, self.mac)
            .with_addresses(self.v4.map(|address| address.octets()), v6)
            .with_audit(self.audited)
            .with_policy(in_force(self.enforced), in_force(self.shadow), revision);
        Ok(match self.bridge {
            None => record,
            Some(BridgePort { ifindex, mac }) => record.with_bridge(Bridge { ifindex, mac }),
        })
    }
}
