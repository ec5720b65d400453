//! What the control side tells the core, as plain values.
//!
//! In:  compiled policies, addresses, trust.
//! Out: [`Snapshot`]; the core takes each as a whole and asks nothing back.
//! Not here: making one (`agent`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use identity::{AddressBook, EndpointId};
use policy::{compiled::EndpointPolicy, fqdn::Fqdn};

use crate::{Learned, Moment};

/// The whole state of the world that decides about queries and answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Ascending; a snapshot older than the one in force is ignored.
    pub revision: u64,
    /// Every workload whose DNS comes this way.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Which identity an address has.
    pub book: Arc<AddressBook>,
    /// Resolvers whose answers teach: what else listens on such an address is somebody else.
    pub trusted: BTreeSet<SocketAddr>,
    /// Queries to these addresses go to other resolvers, which are tried in order. Such an
    /// address is trusted: whoever configured the redirect chose the resolvers.
    pub redirects: BTreeMap<IpAddr, Vec<SocketAddr>>,
    /// Addresses of nodes; no name opens them.
    pub node_addresses: BTreeSet<IpAddr>,
}

/// One workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSnapshot {
    /// Its number.
    pub id: EndpointId,
    /// Its addresses; the shell finds the endpoint of a client by them.
    pub addresses: Vec<IpAddr>,
    /// What it may do, policies in audit included: what names teach.
    pub policy: Arc<EndpointPolicy>,
    /// What it may do next, while a change is under way. Names are matched against both, so that
    /// the kernel can change from one to the other with everything learned in place: what it opens
    /// is decided there, by the policy in force.
    pub next: Option<Arc<EndpointPolicy>>,
    /// The part of it that is enforced, where some policies are in audit.
    pub enforced: Option<Arc<EndpointPolicy>>,
    /// Nothing is refused, everything is recorded.
    pub audit: bool,
}

/// What a predecessor learned and this process goes on with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// What LEARNED holds.
    pub learned: Vec<Learned>,
    /// Names that led there, oldest first.
    pub names: Vec<RestoredName>,
}

/// A name of a predecessor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoredName {
    /// Who asked for it.
    pub endpoint: EndpointId,
    /// What was asked.
    pub name: Fqdn,
    /// As in the answer.
    pub ttl: u32,
    /// When.
    pub looked_up: Moment,
    /// Where it led, and until when that counts.
    pub addresses: Vec<(IpAddr, Moment)>,
}
