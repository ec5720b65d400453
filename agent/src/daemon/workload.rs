//! One configured endpoint: what is known about it, what its interface is like, what holds for it.
//!
//! In:  configuration, links.
//! Out: [`Workload`], and [`Place`]: whether and how its interface can be enforced.
//! Not here: doing it (`engine`).

use std::net::IpAddr;

use fqdn_ebpf_loader::{Attached, BridgePort, EndpointSpec, PolicyId};
use identity::{EndpointId, IdentityId, reserved};

use super::{
    catalog::Subject,
    config::EndpointConfig,
    links::{Link, Links, Watch},
};

/// Kinds that never pass the hooks the programs are at, or pass them with other addresses.
const SKIP_THE_HOOK: [&str; 5] = ["netkit", "macvlan", "macvtap", "ipvlan", "ipvtap"];

/// An endpoint and its state.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) config: EndpointConfig,
    /// Whom policies are compiled for.
    pub(crate) subject: Subject,
    pub(crate) identity: IdentityId,
    /// The interface the programs are at.
    pub(crate) attached: Option<(u32, Attached)>,
    /// Whether its programs could not be put back where they belong.
    pub(crate) loose: bool,
    /// Its record in the kernel.
    pub(crate) enforced: Option<Enforced>,
    /// Why it is not enforced, or not as it should be.
    pub(crate) problem: Option<String>,
}

/// An endpoint that is in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Enforced {
    pub(crate) id: EndpointId,
    pub(crate) ifindex: u32,
    pub(crate) wiring: Wiring,
    pub(crate) policy: PolicyIds,
}

/// The numbers of the policies of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PolicyIds {
    /// All policies, those in audit included.
    pub(crate) whole: PolicyId,
    /// Those that are enforced, where that is not all of them.
    pub(crate) enforced: Option<PolicyId>,
}

impl PolicyIds {
    pub(crate) fn all(self) -> impl Iterator<Item = PolicyId> {
        self.enforced.into_iter().chain([self.whole])
    }

    /// What is enforced, and what is only watched.
    const fn enforced_and_shadow(self, audit: bool) -> (Option<PolicyId>, Option<PolicyId>) {
        match (audit, self.enforced) {
            (true, _) => (None, Some(self.whole)),
            (false, None) => (Some(self.whole), None),
            (false, Some(enforced)) => (Some(enforced), Some(self.whole)),
        }
    }
}

/// How the workload is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wiring {
    pub(crate) mac: [u8; 6],
    pub(crate) bridge: Option<BridgePort>,
}

/// What an interface is like at this moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// There is none by that name.
    Absent,
    /// There is one, but the workload behind it cannot be enforced. It is given nothing.
    Unfit { ifindex: u32, reason: String },
    /// It can be enforced.
    Ready { ifindex: u32, wiring: Wiring },
}

impl Place {
    pub(crate) const fn ifindex(&self) -> Option<u32> {
        match self {
            Self::Absent => None,
            Self::Unfit { ifindex, .. } | Self::Ready { ifindex, .. } => Some(*ifindex),
        }
    }
}

impl Workload {
    pub(crate) fn new(config: EndpointConfig) -> Self {
        Self {
            config,
            subject: Subject::default(),
            identity: reserved::UNKNOWN,
            attached: None,
            loose: false,
            enforced: None,
            problem: None,
        }
    }

    /// What the kernel is told.
    pub(crate) fn spec(&self, id: EndpointId, wiring: Wiring, policy: PolicyIds) -> EndpointSpec {
        let mut v4 = None;
        let mut v6 = Vec::new();
        for address in &self.config.addresses {
            match address.to_canonical() {
                IpAddr::V4(address) => v4 = Some(address),
                IpAddr::V6(address) => v6.push(address),
            }
        }
        let (enforced, shadow) = policy.enforced_and_shadow(self.config.audit);
        EndpointSpec {
            v4,
            v6,
            bridge: wiring.bridge,
            enforced,
            shadow,
            audited: self.config.audit,
            ..EndpointSpec::new(id, wiring.mac)
        }
    }

    /// It as records tell of it.
    pub(crate) fn told(&self, id: EndpointId) -> flows::Endpoint {
        flows::Endpoint {
            id: id.get(),
            identity: self.identity.get(),
            namespace: self.config.namespace.clone(),
            labels: self
                .subject
                .labels
                .iter()
                .map(ToString::to_string)
                .collect(),
            pod_name: self.config.name().to_owned(),
        }
    }

    /// The interface that its queries come in by, for rules that name it.
    pub(crate) fn query_interface(&self, links: &Links) -> Option<String> {
        let link = links.by_name(&self.config.interface)?;
        Some(links.master(link).unwrap_or(link).name.clone())
    }
}

/// Looks at the interface of an endpoint.
pub(crate) async fn look(watch: &Watch, links: &Links, config: &EndpointConfig) -> Place {
    let Some(link) = links.by_name(&config.interface) else {
        return Place::Absent;
    };
    let ifindex = link.index;
    let unfit = |reason: String| Place::Unfit { ifindex, reason };
    if let Some(reason) = unenforceable(link) {
        return unfit(reason);
    }
    let bridge = match bridge(links, link) {
        Ok(bridge) => bridge,
        Err(reason) => return unfit(reason),
    };
    let mac = match config.mac {
        Some(mac) => Some(mac.0),
        None => watch.peer_mac(link).await,
    };
    match mac {
        Some(mac) => Place::Ready {
            ifindex,
            wiring: Wiring { mac, bridge },
        },
        None => {
            unfit("the hardware address of the workload is unknown; name it with `mac`".to_owned())
        }
    }
}

fn unenforceable(link: &Link) -> Option<String> {
    let kind = link.kind.as_deref().unwrap_or("a physical interface");
    if SKIP_THE_HOOK.contains(&kind) {
        return Some(format!("packets of {kind} interfaces pass no tc hook"));
    }
    (!matches!(kind, "veth" | "tun")).then(|| {
        format!("it is {kind}, not the host side of a veth pair: packets of others pass there too")
    })
}

/// The bridge, if it is a port of one that is known to work.
fn bridge(links: &Links, link: &Link) -> Result<Option<BridgePort>, String> {
    let Some(master) = links.master(link) else {
        return Ok(None);
    };
    let kind = master.kind.as_deref().unwrap_or("unknown");
    if kind != "bridge" {
        return Err(format!(
            "it belongs to `{}`, which is of kind {kind}: DNS could pass the proxy by there; only \
             bridges and routed interfaces are supported",
            master.name
        ));
    }
    if master.vlan_filtering {
        return Err(format!(
            "it is a port of the VLAN-aware bridge `{}`, where DNS could pass the proxy by",
            master.name
        ));
    }
    match master.mac {
        Some(mac) => Ok(Some(BridgePort {
            ifindex: master.index,
            mac,
        })),
        None => Err(format!(
            "the bridge `{}` has no hardware address",
            master.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bridges_and_routed_interfaces_are_taken_on() {
        let links = Links::of(&[
            (1, "routed", "veth", None),
            (2, "port", "veth", Some(10)),
            (3, "tagged", "veth", Some(11)),
            (4, "switched", "veth", Some(12)),
            (5, "slave", "veth", Some(13)),
            (10, "br0", "bridge", None),
            (11, "vlan0", "bridge", None),
            (12, "ovs0", "openvswitch", None),
            (13, "red", "vrf", None),
        ]);
        let wired = |name: &str| bridge(&links, links.by_name(name).unwrap());
        assert_eq!(wired("routed"), Ok(None));
        assert_eq!(wired("port").unwrap().unwrap().ifindex, 10);
        for (name, said) in [
            ("tagged", "VLAN"),
            ("switched", "openvswitch"),
            ("slave", "vrf"),
        ] {
            assert!(wired(name).unwrap_err().contains(said), "{name}");
        }
        for (index, kind, fit) in [
            (1, "veth", true),
            (2, "tun", true),
            (3, "netkit", false),
            (4, "macvlan", false),
            (5, "ipvlan", false),
            (6, "bond", false),
        ] {
            let links = Links::of(&[(index, "x", kind, None)]);
            assert_eq!(
                unenforceable(links.by_name("x").unwrap()).is_none(),
                fit,
                "{kind}"
            );
        }
    }
}
