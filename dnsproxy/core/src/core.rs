//! The state machine itself: its state, snapshots, time, and the queue of effects.
//!
//! In:  every `handle_*` input (`query`, `reply` and `install` hold the ones for messages and
//!      proofs), always with the time.
//! Out: effects in the order in which they must be carried out.
//! Not here: any I/O; a shell that calls this from a test is as good as one with sockets.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::{IpAddr, SocketAddr},
};

use identity::EndpointId;
use policy::fqdn::{Fqdn, Pattern};

use crate::{
    BatchId, CacheRow, Cleaned, Client, Config, ConnectionId, Counters, Effect, Moment, Restored,
    Snapshot, exchange::Exchanges, install::Pending, knowledge::Knowledge, ledger::Ledger,
};

/// How many deadlines one call of `handle_timeout` works off: a bound on the time it takes.
const DEADLINES_PER_CALL: usize = 256;

/// The DNS proxy without its sockets.
pub struct Core {
    pub(crate) config: Config,
    pub(crate) entropy: Box<dyn FnMut() -> u64 + Send>,
    pub(crate) knowledge: Knowledge,
    pub(crate) exchanges: Exchanges,
    pub(crate) ledger: Ledger,
    pub(crate) pending: BTreeMap<BatchId, Pending>,
    pub(crate) next_batch: u64,
    /// Queries without an answer yet, those waiting for their batch included.
    pub(crate) in_flight: BTreeMap<EndpointId, usize>,
    /// Upstreams that failed, and until when they are asked last.
    pub(crate) resting: BTreeMap<SocketAddr, Moment>,
    /// Entries whose write failed and is tried again.
    pub(crate) retries: BTreeSet<(Moment, EndpointId, IpAddr)>,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) counters: Counters,
}

impl Core {
    /// A core that knows no endpoint yet. `entropy` picks ids and source ports, on whose
    /// unpredictability pairing rests: it must be cryptographic in production.
    pub fn new(config: Config, entropy: Box<dyn FnMut() -> u64 + Send>) -> Self {
        Self {
            ledger: Ledger::new(config.limits),
            config,
            entropy,
            knowledge: Knowledge::default(),
            exchanges: Exchanges::default(),
            pending: BTreeMap::new(),
            next_batch: 0,
            in_flight: BTreeMap::new(),
            resting: BTreeMap::new(),
            retries: BTreeSet::new(),
            effects: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Puts a snapshot in force. What was learned is matched against the new policies: an added
    /// rule opens the addresses of names resolved before, a removed one closes them.
    pub fn handle_snapshot(&mut self, now: Moment, snapshot: Snapshot) {
        if snapshot.revision < self.knowledge.revision {
            return;
        }
        let before = std::mem::replace(&mut self.knowledge, Knowledge::from(snapshot));
        for endpoint in before.workloads.keys() {
            if self.knowledge.workload(*endpoint).is_none() {
                self.forget(*endpoint);
            }
        }
        for (endpoint, workload) in self.knowledge.changed_since(&before) {
            let changes = self.ledger.rematch(now, endpoint, &workload);
            self.install_upkeep(changes);
        }
        let upstreams: BTreeSet<_> = self.knowledge.redirects.values().flatten().collect();
        self.resting
            .retain(|upstream, _| upstreams.contains(upstream));
    }

    /// Goes on with what a predecessor learned. Endpoints must be in the snapshot in force; what
    /// its policy no longer allows is closed, and what the kernel holds already is not written.
    pub fn handle_restore(&mut self, now: Moment, restored: Restored) {
        let known = |id| self.knowledge.workloads.contains_key(&id);
        let learned: Vec<_> = restored
            .learned
            .into_iter()
            .filter(|learned| known(learned.endpoint))
            .collect();
        let endpoints: BTreeSet<_> = learned.iter().map(|learned| learned.endpoint).collect();
        self.ledger.restore_learned(now, learned);
        for mut name in restored.names {
            // What was written down may be damaged: it makes nothing last longer than an answer can.
            let lifetime = self.config.ttl.lifetime(name.ttl);
            let latest = name.looked_up.min(now).after(lifetime);
            for (_, ends) in &mut name.addresses {
                *ends = latest.min(*ends);
            }
            if let Some(workload) = self.knowledge.workloads.get(&name.endpoint) {
                self.ledger.restore_name(now, workload, name);
            }
        }
        for endpoint in endpoints {
            if let Some(workload) = self.knowledge.workloads.get(&endpoint) {
                let changes = self.ledger.rematch(now, endpoint, workload);
                self.install_upkeep(changes);
            }
        }
    }

    /// Forgets names of an endpoint, or of all: those that match a pattern, or everything. New
    /// connections to what only they opened need a new lookup; live ones go on.
    pub fn handle_clean(
        &mut self,
        now: Moment,
        endpoint: Option<EndpointId>,
        pattern: Option<&Pattern>,
    ) -> Cleaned {
        let (changes, cleaned) = self.ledger.clean(now, endpoint, pattern);
        self.install_upkeep(changes);
        cleaned
    }

    /// The client closed its connection: nobody waits for its answers.
    pub fn handle_connection_closed(&mut self, _now: Moment, connection: ConnectionId) {
        for endpoint in self.exchanges.close_connection(connection) {
            self.left_flight(endpoint);
        }
    }

    /// Does what time asks for. Call it at `poll_timeout`; earlier or later does no harm.
    pub fn handle_timeout(&mut self, now: Moment) {
        for _ in 0..DEADLINES_PER_CALL {
            let Some(exchange) = self.exchanges.close_due(now) else {
                break;
            };
            self.silent(now, exchange);
        }
        let mut changes = self.ledger.sweep(now);
        for _ in 0..DEADLINES_PER_CALL {
            match self.retries.first().copied() {
                Some((moment, endpoint, address)) if moment <= now => {
                    self.retries.pop_first();
                    changes.push(self.ledger.reconcile(now, endpoint, address));
                }
                _ => break,
            }
        }
        self.install_upkeep(changes);
    }

    /// When `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let retry = self.retries.first().map(|(moment, ..)| *moment);
        [self.exchanges.deadline(), self.ledger.deadline(), retry]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What was learned, of one endpoint or of all.
    pub fn cache(&self, now: Moment, endpoint: Option<EndpointId>) -> Vec<CacheRow> {
        self.ledger.rows(now, endpoint)
    }

    /// Every name there is, those that match nothing included, for a successor: the one that was
    /// asked for longest ago first. None counts for longer than each of its addresses.
    pub fn remembered(&self, now: Moment) -> Vec<CacheRow> {
        self.ledger.remembered(now)
    }

    /// The names that led an endpoint to an address, the newest last: for flow records.
    pub fn names_of(&self, endpoint: EndpointId, address: IpAddr) -> &[Fqdn] {
        self.ledger.names_of(endpoint, address)
    }

    /// What happened, in numbers.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How full an endpoint's tables are.
    pub fn usage(&self, endpoint: EndpointId) -> Usage {
        let (names, addresses) = self.ledger.usage(endpoint);
        Usage {
            in_flight: self.in_flight.get(&endpoint).copied().unwrap_or(0),
            names,
            addresses,
        }
    }

    /// Whether the endpoint may have another query in flight; counts it if so.
    pub(crate) fn enter_flight(&mut self, client: &Client) -> bool {
        let count = self.in_flight.entry(client.endpoint).or_default();
        if *count >= self.config.limits.in_flight_per_endpoint {
            return false;
        }
        *count += 1;
        true
    }

    pub(crate) fn left_flight(&mut self, endpoint: EndpointId) {
        if let Some(count) = self.in_flight.get_mut(&endpoint) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.in_flight.remove(&endpoint);
            }
        }
    }

    fn forget(&mut self, endpoint: EndpointId) {
        self.exchanges.close_endpoint(endpoint);
        self.in_flight.remove(&endpoint);
        self.retries.retain(|(_, of, _)| *of != endpoint);
        let changes = self.ledger.forget(endpoint);
        self.install_upkeep(changes);
    }
}

/// How full an endpoint's tables are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Queries without an answer yet.
    pub in_flight: usize,
    /// Names that match a selector.
    pub names: usize,
    /// Entries in LEARNED.
    pub addresses: usize,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("revision", &self.knowledge.revision)
            .field("waiting", &self.exchanges.len())
            .field("pending", &self.pending.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
