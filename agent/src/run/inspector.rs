//! What the control socket may ask about a run.
//!
//! In:  the recorder, the shard, the datapath's counters.
//! Out: the values of `api`.
//! Not here: HTTP (`control`).

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use dnsproxy::{Control, ControlMsg};
use flows::{Filter, FlowRecord};
use fqdn_ebpf_loader::Datapath;
use identity::{EndpointId, LocalIdentities};
use jiff::Timestamp;
use policy::fqdn::Pattern;
use tokio::sync::{mpsc, oneshot};

use crate::{
    api::{
        CacheRow, Cleaned, EndpointInfo, EndpointRow, FqdnNames, LearnedName, Rows, Status, Totals,
    },
    control::Source,
    lists::{self, Counted, Known, Restricted},
    recorder::{Recorder, WallClock},
    rows,
    run::enforcement::POLICY,
    totals,
    world::World,
};

/// Reads what there is to know about a run, from any thread.
pub(crate) struct Inspector {
    pub(crate) recorder: Mutex<Recorder>,
    pub(crate) shard: Control,
    pub(crate) datapath: Mutex<Datapath>,
    pub(crate) lost_records: Arc<AtomicU64>,
    pub(crate) world: Arc<World>,
    /// What numbers of prefixes and selector sets stand for.
    pub(crate) locals: Arc<Mutex<LocalIdentities>>,
    pub(crate) clock: WallClock,
    pub(crate) facts: Facts,
}

/// What does not change during a run.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) command: Vec<String>,
    pub(crate) audit: bool,
    pub(crate) since: Timestamp,
    pub(crate) endpoint: EndpointInfo,
    pub(crate) interface: String,
    pub(crate) policies: Vec<String>,
    pub(crate) resolvers: Vec<String>,
    pub(crate) attachment: String,
}

impl Facts {
    const fn mode(&self) -> &'static str {
        if self.audit { "audit" } else { "enforcing" }
    }

    /// The command as one endpoint among others.
    fn row(&self) -> EndpointRow {
        EndpointRow {
            id: Some(self.endpoint.id),
            interface: self.interface.clone(),
            state: self.mode().to_owned(),
            reason: String::new(),
            identity: self.endpoint.identity,
            labels: self.endpoint.labels.clone(),
            addresses: self.endpoint.addresses.clone(),
            attachment: self.attachment.clone(),
            policies: self.policies.clone(),
        }
    }
}

impl Inspector {
    /// The recorder. A panic elsewhere leaves it whole: every record is added in one step.
    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The datapath, likewise.
    pub(crate) fn datapath(&self) -> MutexGuard<'_, Datapath> {
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger's names; none when the shard is gone.
    pub(crate) async fn rows(&self) -> Vec<CacheRow> {
        let (answer, rows) = oneshot::channel();
        let question = ControlMsg::CacheRows {
            endpoint: None,
            answer,
        };
        if self.shard.send(question).await.is_err() {
            return Vec::new();
        }
        rows::cache(rows.await.unwrap_or_default(), &self.clock)
    }

    /// Exact totals.
    pub(crate) fn totals(&self) -> Totals {
        let metrics = self.datapath().metrics();
        let metrics = match metrics {
            Ok(metrics) => metrics,
            Err(error) => {
                tracing::warn!(%error, "the datapath's counters cannot be read");
                return Totals::default();
            }
        };
        let lost = self.lost_records.load(Ordering::Relaxed);
        totals::of(&metrics, self.recorder().lookups(), lost)
    }

    /// The names that opened something.
    pub(crate) fn learned(&self, rows: Vec<CacheRow>) -> Vec<LearnedName> {
        rows.into_iter()
            .map(|row| LearnedName {
                selectors: rows::selectors_of(&self.world.policies.whole, &row.fqdn),
                fqdn: row.fqdn,
                ips: row.ips,
                ttl: row.ttl,
            })
            .collect()
    }
}

impl Source for Inspector {
    async fn status(&self) -> Status {
        let names = self.rows().await.len();
        let facts = self.facts.clone();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mode: facts.mode().to_owned(),
            command: facts.command,
            since: facts.since,
            endpoint: facts.endpoint,
            policies: facts.policies,
            resolvers: facts.resolvers,
            attachment: facts.attachment,
            names,
            totals: self.totals(),
            agent: None,
        }
    }

    async fn cache(&self) -> Vec<CacheRow> {
        self.rows().await
    }

    async fn clean(
        &self,
        endpoint: Option<EndpointId>,
        pattern: Option<Pattern>,
    ) -> Option<Cleaned> {
        let (answer, cleaned) = oneshot::channel();
        let order = ControlMsg::Clean {
            endpoint,
            pattern,
            answer,
        };
        self.shard.send(order).await.ok()?;
        Some(rows::cleaned(cleaned.await.ok()?))
    }

    async fn names(&self) -> FqdnNames {
        let rows = self.rows().await;
        let policy = &*self.world.policies.whole;
        rows::names([policy], &rows, |_| Some(policy))
    }

    fn records(
        &self,
        last: usize,
        filter: &Filter,
        follow: bool,
    ) -> (Vec<FlowRecord>, Option<mpsc::Receiver<Arc<FlowRecord>>>) {
        self.recorder().records(last, filter, follow)
    }

    fn list(&self, what: &str) -> Option<Rows> {
        let known = Known {
            datapath: &self.datapath(),
            clock: self.clock.clone(),
            labels: &self.world.ids,
            locals: Arc::clone(&self.locals),
            selectors: &self.world.selectors,
            endpoints: vec![Restricted {
                row: self.facts.row(),
                audit: self.facts.audit,
                policies: Some(self.world.policies.clone()),
                number: Some(POLICY),
                counted: Counted::default(),
            }],
        };
        lists::rows(&known, what)
    }
}
