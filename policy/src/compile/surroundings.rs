//! What rules refer to besides identities: groups of prefixes, services, names of ports, addresses.
//!
//! In:  what the caller knows.
//! Out: answers to what rules name.
//! Not here: identities by label or prefix (`identities`).
//!
//! Whatever is not known selects nothing.

use std::{collections::BTreeMap, net::IpAddr};

use identity::{IdentityId, LabelSet};
use ipnet::IpNet;

use crate::{
    compiled::Protocol,
    model::{CidrGroup, Effect, NamedPort, PortRange, Prefix, PrefixRule, ServiceSelector},
};

/// Everything rules may refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `CiliumCIDRGroup`s.
    pub groups: Vec<CidrGroup>,
    /// Services.
    pub services: Vec<Service>,
    /// The addresses of services, as workloads use them.
    pub frontends: Vec<Frontend>,
    /// The ports of the endpoint's own containers.
    pub own_ports: NamedPorts,
    /// The ports of other workloads' containers.
    pub ports: BTreeMap<IdentityId, NamedPorts>,
    /// The addresses of workloads and nodes, for rules about addresses whoever has them.
    pub addresses: BTreeMap<IdentityId, Vec<IpAddr>>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its labels.
    pub labels: LabelSet,
    /// The identities of what is behind it.
    pub backends: Vec<IdentityId>,
}

/// An address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The identity of the address, which is nobody else's.
    pub identity: IdentityId,
    /// Its ports.
    pub ports: Vec<FrontendPort>,
}

/// A port of a service's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendPort {
    /// Over which protocol.
    pub proto: Protocol,
    /// The port that workloads use.
    pub port: u16,
    /// Who may get it, each with the port it gets it on.
    pub backends: Vec<Backend>,
}

/// A ready backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Who it is.
    pub identity: IdentityId,
    /// On which port.
    pub port: u16,
}

/// The names that containers give to their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPorts(BTreeMap<(Box<str>, Protocol), Option<u16>>);

impl NamedPorts {
    /// Adds a port of a container. A name with two numbers stands for none of them: nobody could
    /// tell which is meant.
    pub fn insert(&mut self, name: &str, proto: Protocol, port: u16) {
        self.0
            .entry((name.to_ascii_lowercase().into(), proto))
            .and_modify(|known| *known = known.filter(|known| *known == port))
            .or_insert(Some(port));
    }

    /// The ports of a name.
    pub(super) fn resolve(&self, named: &NamedPort) -> impl Iterator<Item = PortRange> + '_ {
        let NamedPort { name, proto } = named.clone();
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .filter(move |one| proto.is_none_or(|own| own == *one))
            .filter_map(move |proto| {
                let port = (*self.0.get(&((&*name).into(), proto))?)?;
                Some(PortRange {
                    proto: Some(proto),
                    first: port,
                    last: port,
                })
            })
    }
}

impl Surroundings {
    /// The prefixes of one element of a `CIDRSet`, each with its exceptions.
    pub(super) fn prefixes(&self, rule: &PrefixRule) -> Vec<Prefix> {
        let of_groups = |wanted: &dyn Fn(&CidrGroup) -> bool, except: &[IpNet]| {
            let groups = self.groups.iter().filter(|group| wanted(group));
            groups
                .flat_map(|group| &group.prefixes)
                .map(|prefix| Prefix {
                    prefix: *prefix,
                    except: except.to_vec(),
                })
                .collect()
        };
        match rule {
            PrefixRule::Cidr(prefix) => vec![prefix.clone()],
            PrefixRule::Group { name, except } => of_groups(&|group| group.name == *name, except),
            PrefixRule::Groups { selector, except } => {
                of_groups(&|group| selector.matches(&group.labels), except)
            }
        }
    }

    /// The identities behind the services that are meant.
    pub(super) fn backends(&self, wanted: &ServiceSelector) -> Vec<IdentityId> {
        let mut found: Vec<_> = self
            .services
            .iter()
            .filter(|service| {
                let namespace = wanted.namespace.as_ref();
                namespace.is_none_or(|own| **own == *service.namespace)
                    && wanted
                        .name
                        .as_ref()
                        .is_none_or(|own| **own == *service.name)
                    && wanted.labels.matches(&service.labels)
            })
            .flat_map(|service| service.backends.iter().copied())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Workloads and nodes with addresses in these prefixes. An identity can have addresses inside
    /// and outside: it is denied when one of them is inside, and anything else needs all of them.
    pub(super) fn in_networks(&self, networks: &[IpNet], effect: Effect) -> Vec<IdentityId> {
        let inside = |address: &IpAddr| networks.iter().any(|net| net.contains(address));
        self.addresses
            .iter()
            .filter(|(_, addresses)| match effect {
                Effect::Deny => addresses.iter().any(inside),
                Effect::Allow | Effect::Pass => {
                    !addresses.is_empty() && addresses.iter().all(inside)
                }
            })
            .map(|(id, _)| *id)
            .collect()
    }
}
