//! The engine: endpoints, policies and addresses in, an enforcing kernel out.
//!
//! In:  what interfaces there are, which policies hold, the node's addresses.
//! Out: maps and programs that agree with it; snapshots for the DNS proxy; records.
//! Not here: waiting for any of it (the loop above), answering questions (`inspector`).
//!
//! Default deny from the first moment: programs are attached to an interface before its endpoint
//! is in the kernel, and an interface without an endpoint drops everything.

mod attachments;
mod endpoints;
mod policies;
mod reconfigure;
mod records;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use dnsproxy::{Control, ShardThread};
use dnsproxy_core::{EndpointSnapshot, Snapshot};
use fqdn_ebpf_loader::{Datapath, PolicyId};
use identity::{AddressBook, EndpointId, IdentityId, SelectorId};
use ipnet::IpNet;
use policy::{compiled::Layered, model::Policy};

use crate::{
    facts::View,
    lists::Counted,
    recorder::{LookupCounts, Recorder, Tail, WallClock},
};

use super::{
    catalog::{Catalog, Subject},
    config::Config,
    error::DaemonError,
    files::Content,
    heritage::Heritage,
    journal::{Entry, Journal, Past},
    links::Links,
    workload::{PolicyIds, Workload},
};

/// Where resolvers listen.
const DNS_PORT: u16 = 53;

/// Policies in the kernel.
#[derive(Clone, Debug)]
struct Installed {
    ids: PolicyIds,
    policies: Layered,
    /// What its rules decided before, under other numbers.
    counted: Counted,
}

/// Everything that enforces.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Arc<Config>,
    pub(crate) datapath: Datapath,
    pub(crate) shards: Vec<ShardThread>,
    pub(crate) catalog: Catalog,
    pub(crate) workloads: BTreeMap<String, Workload>,
    pub(crate) tail: Arc<Mutex<Tail>>,
    pub(crate) clock: WallClock,
    /// None until a first set of policies was good: nothing is enforced by halves.
    installed: Option<BTreeMap<Subject, Installed>>,
    /// What the files in force say.
    content: Arc<Content>,
    /// The world as the policies in force see it.
    view: Option<View>,
    /// What is on its way into force.
    coming: Option<policies::Coming>,
    prefixes: BTreeMap<IpNet, IdentityId>,
    resolvers: Vec<(IpAddr, Option<IdentityId>)>,
    node: Vec<IpAddr>,
    book: Arc<AddressBook>,
    recorders: HashMap<EndpointId, Recorder>,
    gone: LookupCounts,
    put_right: u64,
    /// What a predecessor left in pinned maps and nobody goes on with yet.
    pub(super) heritage: Option<Heritage>,
    journal: Arc<Journal>,
    /// Endpoints have changed since policies were compiled for them.
    pub(super) reconfigured: bool,
    /// Somebody who only asks whether steering works.
    pub(super) trial: Option<EndpointSnapshot>,
    pub(super) next_endpoint: u32,
    next_policy: u32,
    revision: u64,
}

impl Engine {
    pub(crate) fn new(
        config: Arc<Config>,
        datapath: Datapath,
        mut catalog: Catalog,
        clock: WallClock,
        journal: Arc<Journal>,
        past: Past,
    ) -> Result<Self, DaemonError> {
        let adopted = datapath.adopted()?;
        for identity in &adopted.identities {
            catalog.locals().skip(*identity);
        }
        let next_endpoint = adopted
            .last_endpoint
            .max(past.last_endpoint)
            .saturating_add(1);
        let next_policy = adopted.last_policy.wrapping_add(1).max(1);
        {
            let journal = Arc::clone(&journal);
            datapath.tell_minted(move |identity, set| {
                let selectors = set.iter().map(SelectorId::get).collect();
                journal.append(&Entry::Set(identity.get(), selectors));
                Ok(())
            });
        }
        let mut workloads = BTreeMap::new();
        for endpoint in &config.endpoints {
            workloads.insert(endpoint.interface.clone(), Workload::new(endpoint.clone()));
        }
        let mut resolvers = Vec::new();
        for resolver in &config.resolvers {
            let identity = match resolver.label_set() {
                Some(labels) => Some(catalog.intern(&labels)?),
                None => None,
            };
            resolvers.push((resolver.address().to_canonical(), identity));
        }
        let mut engine = Self {
            config,
            datapath,
            shards: Vec::new(),
            catalog,
            workloads,
            tail: Arc::default(),
            clock,
            installed: None,
            content: Arc::default(),
            view: None,
            coming: None,
            prefixes: BTreeMap::new(),
            resolvers,
            node: Vec::new(),
            book: Arc::default(),
            recorders: HashMap::new(),
            gone: LookupCounts::default(),
            put_right: 0,
            heritage: Some(Heritage { adopted, past }),
            journal,
            reconfigured: false,
            trial: None,
            next_endpoint,
            next_policy,
            revision: 0,
        };
        let universe = engine.universe(&Content::default())?;
        let subjects = engine.subjects(&universe);
        engine.call(&universe, subjects);
        Ok(engine)
    }

    /// The node's addresses are these. Returns whether the proxy must be told.
    pub(crate) fn node_addresses(&mut self, addresses: &[IpAddr]) -> Result<bool, DaemonError> {
        if self.node == addresses {
            return Ok(false);
        }
        self.node = addresses.to_vec();
        self.write_book()?;
        self.retell();
        Ok(true)
    }

    /// Which identity every known address has.
    fn write_book(&mut self) -> Result<(), DaemonError> {
        let Some(view) = &self.view else {
            return Ok(());
        };
        let labelled = self.resolvers.iter();
        let labelled: Vec<_> = labelled
            .filter_map(|(address, id)| Some((*address, (*id)?)))
            .collect();
        let book = view.address_book(&self.node, &labelled);
        // Half of what is known would take addresses away from the policies of a predecessor that
        // are still in force.
        if self.installed.is_some() && !self.node.is_empty() {
            self.datapath.ipcache(&book)?;
        }
        self.book = Arc::new(book);
        Ok(())
    }

    /// What each shard of the proxy is to know from now on.
    pub(crate) fn snapshots(&mut self) -> Vec<(Control, Snapshot)> {
        self.revision += 1;
        let count = u32::try_from(self.shards.len()).unwrap_or(1).max(1);
        (0..count)
            .zip(&self.shards)
            .map(|(shard, thread)| {
                let endpoints = self
                    .workloads
                    .values()
                    .filter_map(|workload| self.endpoint_snapshot(workload))
                    .chain(self.trial.clone())
                    .filter(|endpoint| endpoint.id.get() % count == shard)
                    .collect();
                let snapshot = Snapshot {
                    revision: self.revision,
                    endpoints,
                    book: Arc::clone(&self.book),
                    trusted: self
                        .resolvers()
                        .map(|address| SocketAddr::new(address, DNS_PORT))
                        .collect(),
                    redirects: BTreeMap::new(),
                    node_addresses: self.node.iter().copied().collect(),
                };
                (thread.control.clone(), snapshot)
            })
            .collect()
    }

    /// A policy number that is not in use.
    pub(super) fn new_policy(&mut self) -> PolicyId {
        let id = PolicyId::new(self.next_policy);
        self.next_policy = self.next_policy.wrapping_add(1).max(1);
        id
    }

    fn endpoint_snapshot(&self, workload: &Workload) -> Option<EndpointSnapshot> {
        let policies = self.policies_of(workload)?;
        Some(EndpointSnapshot {
            id: workload.enforced.as_ref()?.id,
            addresses: workload.config.addresses.clone(),
            policy: policies.whole,
            enforced: policies.enforced,
            next: self
                .coming
                .as_ref()
                .and_then(|coming| coming.policies_of(workload))
                .map(|policies| policies.whole),
            audit: workload.config.audit,
        })
    }

    /// The policies in force for a workload.
    pub(crate) fn policies_of(&self, workload: &Workload) -> Option<Layered> {
        let installed = self.installed.as_ref()?.get(&workload.subject)?;
        Some(installed.policies.clone())
    }

    /// What the rules in force for a workload decided before they got the number they have.
    pub(crate) fn counted_of(&self, workload: &Workload) -> Counted {
        let installed = self.installed.as_ref();
        let own = installed.and_then(|all| all.get(&workload.subject));
        own.map(|own| Arc::clone(&own.counted)).unwrap_or_default()
    }

    /// What the files in force say.
    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Every policy in force.
    pub(crate) fn policies(&self) -> &[Policy] {
        &self.content.policies
    }

    /// The cluster that policies speak about.
    pub(crate) fn cluster(&self) -> &str {
        &self.content.world.value.config.cluster
    }

    /// The journal.
    pub(crate) fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    pub(crate) fn resolvers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.resolvers.iter().map(|(address, _)| *address)
    }

    /// How often the proxy was told something new.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether policies are in force at all.
    pub(crate) const fn has_policies(&self) -> bool {
        self.installed.is_some()
    }

    /// Interfaces that steered queries come in by.
    pub(crate) fn query_interfaces(&self, links: &Links) -> BTreeSet<String> {
        self.workloads
            .values()
            .filter(|workload| workload.enforced.is_some())
            .filter_map(|workload| workload.query_interface(links))
            .collect()
    }
}
