//! Who is where around the pod, and what changes about it during a run.
//!
//! In:  the addresses of pod, gateway and host; notices that the host's addresses changed.
//! Out: the address book, and the snapshot that the DNS proxy works from.
//! Not here: what the addresses mean to policy (`world`), writing maps (`session`).
//!
//! An address the host gains while the command runs (DHCP, a temporary IPv6 address, a new bridge) is
//! the host's from then on: a rule for the world must not open it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use dnsproxy_core::{EndpointSnapshot, Snapshot};
use futures_util::StreamExt;
use identity::AddressBook;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;

use crate::{
    pod::Pod,
    run::enforcement::ENDPOINT,
    world::{KnownAddresses, World},
};

/// The standard port of DNS; other ports of a resolver's address are not the resolver.
const DNS_PORT: u16 = 53;

/// What is around the pod at this moment.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) known: KnownAddresses,
    pub(crate) resolvers: Vec<SocketAddr>,
    pub(crate) book: AddressBook,
    audit: bool,
    revision: u64,
}

impl Surroundings {
    pub(crate) fn new(pod: &Pod, world: &World, resolvers: Vec<SocketAddr>, audit: bool) -> Self {
        let at = pod.addresses();
        let both = |v4, v6: Option<_>| {
            [Some(IpAddr::V4(v4)), v6.map(IpAddr::V6)]
                .into_iter()
                .flatten()
                .collect()
        };
        let known = KnownAddresses {
            pod: both(at.v4, at.v6),
            gateway: both(at.gateway_v4, at.gateway_v6),
            host: pod.host_addresses(),
        };
        Self {
            book: world.address_book(&known),
            known,
            resolvers,
            audit,
            revision: 1,
        }
    }

    /// Looks at the host again; whether anything is different.
    pub(crate) fn look_again(&mut self, pod: &Pod, world: &World) -> bool {
        let host = pod.host_addresses();
        if host == self.known.host {
            return false;
        }
        self.known.host = host;
        self.book = world.address_book(&self.known);
        self.revision += 1;
        true
    }

    /// What the DNS proxy works from.
    pub(crate) fn snapshot(&self, world: &World) -> Snapshot {
        let redirects: BTreeMap<_, _> = self
            .known
            .gateway
            .iter()
            .map(|gateway| (*gateway, self.resolvers.clone()))
            .collect();
        // A resolver that the user named may also be asked directly, if policy allows it.
        let trusted: BTreeSet<_> = self
            .known
            .gateway
            .iter()
            .map(|gateway| SocketAddr::new(*gateway, DNS_PORT))
            .chain(self.resolvers.iter().copied())
            .collect();
        Snapshot {
            revision: self.revision,
            endpoints: vec![EndpointSnapshot {
                id: ENDPOINT,
                addresses: self.known.pod.clone(),
                policy: Arc::clone(&world.policies.whole),
                enforced: world.policies.enforced.clone(),
                next: None,
                audit: self.audit,
            }],
            book: Arc::new(self.book.clone()),
            trusted,
            redirects,
            node_addresses: self.known.host.iter().copied().collect(),
        }
    }
}

/// Says when the host's addresses changed.
#[derive(Debug)]
pub(crate) struct AddressWatch(mpsc::Receiver<()>);

impl AddressWatch {
    /// Starts on the current runtime, in the network namespace of the calling thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (connection, _handle, mut messages) =
            new_multicast_connection(&[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr])?;
        tokio::spawn(connection);
        // One waiting notice is enough: it says "look again", not what changed.
        let (notice, changed) = mpsc::channel(1);
        tokio::spawn(async move {
            while messages.next().await.is_some() {
                if matches!(
                    notice.try_send(()),
                    Err(mpsc::error::TrySendError::Closed(()))
                ) {
                    return;
                }
            }
        });
        Ok(Self(changed))
    }

    /// Returns when an address came or went since the last call.
    pub(crate) async fn changed(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
