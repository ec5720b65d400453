//! The addresses of services: their ports, and who is behind them.
//!
//! In:  the universe.
//! Out: [`Frontend`]s for the compiler; [`backends`] of one port.
//! Not here: what may be used (`policy::compile`, `offline`).

use std::net::IpAddr;

use identity::AddressBook;
use policy::compile::{Backend, Frontend, FrontendPort};

use super::{
    universe::{Party, Universe},
    written::{Service, ServicePort, TargetPort},
};

/// Who may get what is sent to a frontend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    pub(crate) party: Party,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Every address of every service, as workloads use it.
pub(super) fn of(universe: &Universe, book: &AddressBook) -> Vec<Frontend> {
    let ports = |service: &Service, address| {
        let port = |port: &ServicePort| FrontendPort {
            proto: port.protocol.into(),
            port: port.port,
            backends: backends(universe, service, port, address)
                .into_iter()
                .map(|behind| Backend {
                    identity: book.lookup(behind.address),
                    port: behind.port,
                })
                .collect(),
        };
        service.ports.iter().map(port).collect()
    };
    let frontends = universe.frontends.iter();
    frontends
        .filter_map(|frontend| {
            let service = universe.services.get(frontend.service)?;
            Some(Frontend {
                identity: frontend.identity,
                ports: ports(service, frontend.address),
            })
        })
        .collect()
}

/// Each backend of a port: who it is, where and on which port. One without a container port of the
/// wanted name is not behind the frontend.
pub(crate) fn backends(
    universe: &Universe,
    service: &Service,
    port: &ServicePort,
    frontend: IpAddr,
) -> Vec<Behind> {
    let backend = |text: &str| {
        let party = universe.party(text).ok()?;
        let addresses = universe.addresses(party);
        let address = addresses
            .iter()
            .find(|address| address.is_ipv4() == frontend.is_ipv4())
            .or_else(|| addresses.first())
            .copied()?;
        let number = match &port.target_port {
            None => port.port,
            Some(TargetPort::Number(number)) => *number,
            Some(TargetPort::Name(name)) => {
                let Party::Pod(pod) = party else { return None };
                let ports = &universe.pods.get(pod)?.ports;
                ports
                    .iter()
                    .find(|own| own.name.as_ref() == Some(name) && own.protocol == port.protocol)?
                    .port
            }
        };
        Some(Behind {
            party,
            address,
            port: number,
        })
    };
    let texts = service.backends.iter();
    texts.filter_map(|text| backend(&text.value)).collect()
}
