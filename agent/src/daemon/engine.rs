//! The engine: endpoints, policies and addresses in, an enforcing kernel out.
//!
//! In:  what interfaces there are, which policies hold, the node's addresses.
//! Out: maps and programs that agree with it; snapshots for the DNS proxy; records.
//! Not here: waiting for any of it (`mod`), answering questions (`inspector`).
//!
//! Default deny from the first moment: programs are attached to an interface before its endpoint
//! is in the kernel, and an interface without an endpoint drops everything.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use dnsproxy::{ControlMsg, ShardThread};
use dnsproxy_core::{EndpointSnapshot, Moment, QueryRecord, Snapshot};
use fqdn_ebpf_loader::{Datapath, Events, PolicyId};
use identity::{AddressBook, EndpointId, IdentityId, LabelSet, SelectorId, reserved};
use ipnet::IpNet;
use policy::{compiled::EndpointPolicy, model::Policy};
use tokio::sync::mpsc;

use crate::recorder::{LookupCounts, Recorder, Subject, Tail, WallClock};

use super::{
    catalog::{Catalog, Compiled},
    config::Config,
    error::DaemonError,
    heritage::Heritage,
    journal::{Entry, Journal, Past},
    links::Links,
    workload::{Enforced, Place, Wiring, Workload},
};

/// A policy in the kernel.
#[derive(Clone, Debug)]
struct Installed {
    id: PolicyId,
    policy: Arc<EndpointPolicy>,
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
    installed: Option<BTreeMap<LabelSet, Installed>>,
    policies: Vec<Policy>,
    prefixes: BTreeMap<IpNet, IdentityId>,
    resolvers: Vec<(IpAddr, Option<IdentityId>)>,
    node: Vec<IpAddr>,
    book: Arc<AddressBook>,
    recorders: HashMap<EndpointId, Recorder>,
    gone: LookupCounts,
    /// What a predecessor left in pinned maps and nobody goes on with yet.
    pub(super) heritage: Option<Heritage>,
    journal: Arc<Journal>,
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
            let labels = endpoint.label_set();
            let identity = catalog.intern(&labels)?;
            workloads.insert(
                endpoint.interface.clone(),
                Workload::new(endpoint.clone(), labels, identity),
            );
        }
        let mut resolvers = Vec::new();
        for resolver in &config.resolvers {
            let identity = match resolver.label_set() {
                Some(labels) => Some(catalog.intern(&labels)?),
                None => None,
            };
            resolvers.push((resolver.address().to_canonical(), identity));
        }
        Ok(Self {
            config,
            datapath,
            shards: Vec::new(),
            catalog,
            workloads,
            tail: Arc::default(),
            clock,
            installed: None,
            policies: Vec::new(),
            prefixes: BTreeMap::new(),
            resolvers,
            node: Vec::new(),
            book: Arc::default(),
            recorders: HashMap::new(),
            gone: LookupCounts::default(),
            heritage: Some(Heritage { adopted, past }),
            journal,
            next_endpoint,
            next_policy,
            revision: 0,
        })
    }

    /// Puts policies in force, all or none of them. What was in force before stays on failure.
    pub(crate) fn apply(&mut self, policies: Vec<Policy>) -> Result<(), DaemonError> {
        let wanted = policy::compile::prefixes(&policies);
        let mut all: BTreeSet<IpNet> = self.prefixes.keys().copied().collect();
        let before = all.clone();
        all.extend(&wanted);
        let numbered = self.catalog.prefixes(&all)?;
        if all != before {
            // Addresses are about to get other numbers: the policies in force must know them
            // first, or what they allow would be refused for a moment.
            if self.installed.is_some() {
                let current = self.policies.clone();
                self.install(&current, &numbered)?;
            }
            self.prefixes = numbered.clone();
            self.write_book()?;
        }
        let first = self.installed.is_none();
        self.install(&policies, &numbered)?;
        self.policies = policies;
        if first {
            self.write_book()?;
        }
        if wanted != all {
            for (prefix, number) in &numbered {
                if !wanted.contains(prefix) {
                    self.prefixes.remove(prefix);
                    self.catalog.locals().forget(*number);
                }
            }
            self.write_book()?;
        }
        self.retell();
        Ok(())
    }

    /// Compiles, writes new policy numbers, swaps every endpoint over in one write each, and
    /// takes the old numbers out.
    fn install(
        &mut self,
        policies: &[Policy],
        prefixes: &BTreeMap<IpNet, IdentityId>,
    ) -> Result<(), DaemonError> {
        let subjects: BTreeSet<LabelSet> =
            self.workloads.values().map(|w| w.labels.clone()).collect();
        let compiled = self.catalog.compile(policies, prefixes, &subjects)?;
        let before = self.installed.clone().unwrap_or_default();
        let mut next = BTreeMap::new();
        let mut added = Vec::new();
        if let Err(error) = self.write_policies(compiled, &before, &mut next, &mut added) {
            self.withdraw(&added);
            return Err(error);
        }
        if let Err(error) = self.swap(&next) {
            // Those that were swapped already go back; their old entries are still there.
            if let Err(error) = self.swap(&before) {
                tracing::error!(%error, "an endpoint could not go back to its old policy");
            }
            self.withdraw(&added);
            return Err(error);
        }
        let kept: BTreeSet<_> = next.values().map(|installed| installed.id).collect();
        let old: Vec<_> = before
            .values()
            .map(|installed| installed.id)
            .filter(|id| !kept.contains(id))
            .collect();
        self.installed = Some(next);
        self.withdraw(&old);
        Ok(())
    }

    fn write_policies(
        &mut self,
        compiled: Compiled,
        before: &BTreeMap<LabelSet, Installed>,
        next: &mut BTreeMap<LabelSet, Installed>,
        added: &mut Vec<PolicyId>,
    ) -> Result<(), DaemonError> {
        for (labels, policy) in compiled {
            let same = before
                .get(&labels)
                .filter(|installed| installed.policy == policy);
            let installed = match same {
                Some(installed) => installed.clone(),
                None => {
                    let id = PolicyId::new(self.next_policy);
                    self.next_policy = self.next_policy.wrapping_add(1).max(1);
                    self.datapath.set_policy(id, &policy)?;
                    added.push(id);
                    Installed { id, policy }
                }
            };
            next.insert(labels, installed);
        }
        Ok(())
    }

    /// Makes every endpoint in the kernel use these policies.
    fn swap(&mut self, policies: &BTreeMap<LabelSet, Installed>) -> Result<(), DaemonError> {
        for workload in self.workloads.values_mut() {
            let Some(installed) = policies.get(&workload.labels) else {
                continue;
            };
            let Some(enforced) = workload.enforced.clone() else {
                continue;
            };
            if enforced.policy == installed.id {
                continue;
            }
            let spec = workload.spec(enforced.id, enforced.wiring, installed.id);
            self.datapath.set_endpoint(enforced.ifindex, &spec)?;
            workload.enforced = Some(Enforced {
                policy: installed.id,
                ..enforced
            });
        }
        Ok(())
    }

    fn withdraw(&mut self, ids: &[PolicyId]) {
        for id in ids {
            if let Err(error) = self.datapath.remove_policy(*id) {
                tracing::error!(%error, policy = id.get(), "entries of a policy stay");
            }
        }
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

    /// Which identity every known address has. What is several things at once is the most
    /// specific: an endpoint before a resolver, a resolver before the node.
    fn write_book(&mut self) -> Result<(), DaemonError> {
        let mut book = AddressBook::default();
        for (prefix, id) in &self.prefixes {
            book.insert_prefix(*prefix, *id);
        }
        for address in &self.node {
            book.insert_address(*address, reserved::HOST);
        }
        for (address, id) in &self.resolvers {
            if let Some(id) = id {
                book.insert_address(*address, *id);
            }
        }
        for workload in self.workloads.values() {
            for address in &workload.config.addresses {
                book.insert_address(*address, workload.identity);
            }
        }
        // Half of what is known would take addresses away from the policies of a predecessor that
        // are still in force.
        if self.installed.is_some() && !self.node.is_empty() {
            self.datapath.ipcache(&book)?;
        }
        self.book = Arc::new(book);
        Ok(())
    }

    /// Makes endpoints agree with their interfaces. Returns whether the proxy must be told.
    pub(crate) fn reconcile(&mut self, places: &BTreeMap<String, Place>) -> bool {
        let mut changed = false;
        let names: Vec<_> = self.workloads.keys().cloned().collect();
        for name in names {
            let place = places.get(&name).unwrap_or(&Place::Absent);
            let Some(mut workload) = self.workloads.remove(&name) else {
                continue;
            };
            changed |= self.reconcile_one(&mut workload, place);
            self.workloads.insert(name, workload);
        }
        changed
    }

    fn reconcile_one(&mut self, workload: &mut Workload, place: &Place) -> bool {
        let mut changed = false;
        let ifindex = place.ifindex();
        // Another interface by the same name is another workload: it inherits nothing.
        if workload
            .enforced
            .as_ref()
            .is_some_and(|e| Some(e.ifindex) != ifindex)
        {
            changed |= self.vacate(workload);
        }
        if workload
            .attached
            .as_ref()
            .is_some_and(|(at, _)| Some(*at) != ifindex)
        {
            // Its pins would keep the place of an interface that is gone.
            if let Some((_, attached)) = workload.attached.take() {
                attached.detach();
            }
        }
        let Some(ifindex) = ifindex else {
            workload.problem = None;
            return changed;
        };
        if workload.attached.is_none() {
            let how = self.config.attach.into();
            match self.datapath.attach(&workload.config.interface, how) {
                Ok(attached) => {
                    tracing::info!(
                        interface = workload.config.interface,
                        how = attached.how(),
                        "attached"
                    );
                    workload.attached = Some((ifindex, attached));
                }
                Err(error) => {
                    problem(workload, error.to_string());
                    return self.vacate(workload) || changed;
                }
            }
        }
        let wiring = match place {
            Place::Absent => return changed,
            Place::Unfit { reason, .. } => {
                problem(workload, reason.clone());
                return self.vacate(workload) || changed;
            }
            Place::Ready { wiring, .. } => *wiring,
        };
        let same = workload
            .enforced
            .as_ref()
            .is_some_and(|enforced| enforced.wiring == wiring);
        if same {
            return changed;
        }
        match self.settle(workload, ifindex, wiring) {
            Ok(settled) => {
                if settled {
                    workload.problem = None;
                }
                changed || settled
            }
            Err(error) => {
                problem(workload, error.to_string());
                changed
            }
        }
    }

    /// Puts an endpoint into the kernel. False while there are no policies yet.
    fn settle(
        &mut self,
        workload: &mut Workload,
        ifindex: u32,
        wiring: Wiring,
    ) -> Result<bool, DaemonError> {
        let installed = self
            .installed
            .as_ref()
            .and_then(|installed| installed.get(&workload.labels))
            .cloned();
        let Some(installed) = installed else {
            problem(
                workload,
                "no policies could be read yet: everything is refused".to_owned(),
            );
            return Ok(false);
        };
        let id = match &workload.enforced {
            Some(enforced) => enforced.id,
            None => match self.inherit(workload, ifindex)? {
                Some(id) => id,
                None => self.new_endpoint(),
            },
        };
        self.datapath
            .set_endpoint(ifindex, &workload.spec(id, wiring, installed.id))?;
        workload.enforced = Some(Enforced {
            id,
            ifindex,
            wiring,
            policy: installed.id,
        });
        let (tail, clock) = (Arc::clone(&self.tail), self.clock);
        let subject = Subject {
            endpoint: flows::Endpoint {
                id: id.get(),
                identity: workload.identity.get(),
                namespace: workload.config.namespace.clone(),
                labels: workload.labels.iter().map(ToString::to_string).collect(),
                pod_name: workload.config.interface.clone(),
            },
            policy: installed.policy,
            book: Arc::clone(&self.book),
        };
        self.recorders
            .entry(id)
            .or_insert_with(|| Recorder::with_tail(subject, clock, tail));
        tracing::info!(
            endpoint = id.get(),
            interface = workload.config.interface,
            "enforced"
        );
        Ok(true)
    }

    fn new_endpoint(&mut self) -> EndpointId {
        let id = EndpointId::new(self.next_endpoint);
        self.next_endpoint = self.next_endpoint.saturating_add(1);
        self.journal.append(&Entry::Endpoint(id.get()));
        id
    }

    /// Takes an endpoint out of the kernel, with everything it learned.
    fn vacate(&mut self, workload: &mut Workload) -> bool {
        let Some(enforced) = workload.enforced.take() else {
            return false;
        };
        if let Err(error) = self.datapath.remove_endpoint(enforced.id) {
            tracing::error!(%error, endpoint = %enforced.id, "endpoint not removed");
        }
        if let Some(recorder) = self.recorders.remove(&enforced.id) {
            let counts = recorder.lookups();
            self.gone.answered += counts.answered;
            self.gone.refused += counts.refused;
            self.gone.failed += counts.failed;
        }
        tracing::info!(
            endpoint = enforced.id.get(),
            interface = workload.config.interface,
            "no longer enforced"
        );
        true
    }

    /// What each shard of the proxy is to know from now on.
    pub(crate) fn snapshots(&mut self) -> Vec<(mpsc::Sender<ControlMsg>, Snapshot)> {
        self.revision += 1;
        let count = u32::try_from(self.shards.len()).unwrap_or(1).max(1);
        (0..count)
            .zip(&self.shards)
            .map(|(shard, thread)| {
                let endpoints = self
                    .workloads
                    .values()
                    .filter_map(|workload| self.endpoint_snapshot(workload))
                    .filter(|endpoint| endpoint.id.get() % count == shard)
                    .collect();
                let snapshot = Snapshot {
                    revision: self.revision,
                    endpoints,
                    book: Arc::clone(&self.book),
                    trusted: self.resolvers.iter().map(|(address, _)| *address).collect(),
                    redirects: BTreeMap::new(),
                    node_addresses: self.node.iter().copied().collect(),
                };
                (thread.control.clone(), snapshot)
            })
            .collect()
    }

    fn endpoint_snapshot(&self, workload: &Workload) -> Option<EndpointSnapshot> {
        Some(EndpointSnapshot {
            id: workload.enforced.as_ref()?.id,
            addresses: workload.config.addresses.clone(),
            policy: self.policy_of(workload)?,
            audit: workload.config.audit,
        })
    }

    /// The policy in force for a workload.
    pub(crate) fn policy_of(&self, workload: &Workload) -> Option<Arc<EndpointPolicy>> {
        let installed = self.installed.as_ref()?.get(&workload.labels)?;
        Some(Arc::clone(&installed.policy))
    }

    /// Every policy in force.
    pub(crate) fn policies(&self) -> &[Policy] {
        &self.policies
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

    /// Tells the recorders what records are told with from now on.
    fn retell(&mut self) {
        for workload in self.workloads.values() {
            let Some(enforced) = &workload.enforced else {
                continue;
            };
            let Some(policy) = self.policy_of(workload) else {
                continue;
            };
            if let Some(recorder) = self.recorders.get_mut(&enforced.id) {
                recorder.update(policy, Arc::clone(&self.book));
            }
        }
    }

    /// Takes in what the kernel reported; at most `limit` events, so that nothing else waits long.
    pub(crate) fn packets(&mut self, events: &mut Events, limit: usize) -> bool {
        for _ in 0..limit {
            let Some(event) = events.next() else {
                return false;
            };
            if let Some(recorder) = self.recorders.get_mut(&EndpointId::new(event.endpoint())) {
                recorder.packet(&event);
            }
        }
        true
    }

    /// Takes in what the proxy reported.
    pub(crate) fn query(&mut self, record: &QueryRecord, now: Moment) {
        if let Some(recorder) = self.recorders.get_mut(&record.endpoint) {
            recorder.query(record, now);
        }
    }

    /// Lookups so far, of endpoints that are gone too.
    pub(crate) fn lookups(&self) -> LookupCounts {
        self.recorders
            .values()
            .map(Recorder::lookups)
            .fold(self.gone, |sum, counts| LookupCounts {
                answered: sum.answered + counts.answered,
                refused: sum.refused + counts.refused,
                failed: sum.failed + counts.failed,
            })
    }
}

/// Notes why a workload is not enforced; says it once.
fn problem(workload: &mut Workload, reason: String) {
    if workload.problem.as_ref() != Some(&reason) {
        tracing::warn!(
            interface = workload.config.interface,
            reason,
            "not enforced"
        );
        workload.problem = Some(reason);
    }
}
