//! What the control socket may ask about a run.
//!
//! In:  the recorder, the shard, the datapath's counters.
//! Out: the values of `api`.
//! Not here: HTTP (`control`).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use dnsproxy::ControlMsg;
use flows::{Filter, FlowRecord};
use fqdn_ebpf_loader::{Datapath, Direction, Metrics, Passed};
use jiff::Timestamp;
use policy::compiled::EndpointPolicy;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{
    api::{CacheRow, EndpointInfo, FqdnNames, FqdnSelector, LearnedName, Status, Totals},
    control::Source,
    recorder::{Recorder, WallClock},
};

/// Packets that went on as policy allows.
const FORWARDED: &[Passed] = &[
    Passed::Established,
    Passed::New,
    Passed::Control,
    Passed::Steered,
    Passed::FromProxy,
    Passed::Related,
    Passed::Renewed,
];
/// Packets that went on only because of audit.
const AUDITED: &[Passed] = &[Passed::Audited, Passed::Unsteered, Passed::Spared];
/// Events that never reached user space.
const LOST: &[Passed] = &[Passed::EventSuppressed, Passed::EventLost];

/// Reads what there is to know about a run, from any thread.
pub(crate) struct Inspector {
    pub(crate) recorder: Mutex<Recorder>,
    pub(crate) shard: mpsc::Sender<ControlMsg>,
    pub(crate) datapath: Mutex<Datapath>,
    pub(crate) lost_records: Arc<AtomicU64>,
    pub(crate) policy: Arc<EndpointPolicy>,
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
    pub(crate) policies: Vec<String>,
    pub(crate) resolvers: Vec<String>,
    pub(crate) attachment: String,
}

impl Inspector {
    /// The recorder. A panic elsewhere leaves it whole: every record is added in one step.
    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
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
        rows.await
            .unwrap_or_default()
            .into_iter()
            .map(|row| CacheRow {
                endpoint: row.endpoint.get(),
                source: match row.source {
                    dnsproxy_core::Source::Lookup => "lookup",
                    dnsproxy_core::Source::Connection => "connection",
                }
                .to_owned(),
                fqdn: row.name.as_str().to_owned(),
                ttl: row.ttl,
                lookup_time: self.clock.time(row.looked_up),
                expiration_time: self.clock.time(row.expires),
                ips: row.addresses,
            })
            .collect()
    }

    /// Exact totals.
    pub(crate) fn totals(&self) -> Totals {
        let metrics = self
            .datapath
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .metrics();
        let metrics = match metrics {
            Ok(metrics) => metrics,
            Err(error) => {
                tracing::warn!(%error, "the datapath's counters cannot be read");
                return Totals::default();
            }
        };
        let lookups = self.recorder().lookups();
        let passed = |whats: &[Passed]| sum(&metrics, whats);
        Totals {
            forwarded_packets: passed(FORWARDED),
            dropped_packets: metrics.drops().map(|(.., count)| count.packets()).sum(),
            audited_packets: passed(AUDITED),
            lookups_answered: lookups.answered,
            lookups_refused: lookups.refused,
            lookups_failed: lookups.failed,
            lost_events: passed(LOST).saturating_add(self.lost_records.load(Ordering::Relaxed)),
        }
    }

    /// The names that opened something.
    pub(crate) fn learned(&self, rows: Vec<CacheRow>) -> Vec<LearnedName> {
        rows.into_iter()
            .map(|row| LearnedName {
                selectors: self.selectors_of(&row.fqdn),
                fqdn: row.fqdn,
                ips: row.ips,
                ttl: row.ttl,
            })
            .collect()
    }

    fn selectors_of(&self, name: &str) -> Vec<String> {
        let Ok(name) = policy::fqdn::Fqdn::parse(name) else {
            return Vec::new();
        };
        self.policy
            .selectors_matching(&name)
            .iter()
            .filter_map(|id| Some(self.policy.selectors.get(id)?.to_string()))
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
            command: facts.command,
            mode: if facts.audit { "audit" } else { "enforcing" }.to_owned(),
            since: facts.since,
            endpoint: facts.endpoint,
            policies: facts.policies,
            resolvers: facts.resolvers,
            attachment: facts.attachment,
            names,
            totals: self.totals(),
        }
    }

    async fn cache(&self) -> Vec<CacheRow> {
        self.rows().await
    }

    async fn names(&self) -> FqdnNames {
        let mut selectors: BTreeMap<String, (Vec<String>, Vec<IpAddr>)> = self
            .policy
            .selectors
            .iter()
            .map(|(_, selector)| (selector.to_string(), Default::default()))
            .collect();
        for row in self.rows().await {
            for selector in self.selectors_of(&row.fqdn) {
                let (names, ips) = selectors.entry(selector).or_default();
                names.push(row.fqdn.clone());
                ips.extend(&row.ips);
            }
        }
        FqdnNames {
            selectors: selectors
                .into_iter()
                .map(|(selector_string, (names, mut ips))| {
                    ips.sort_unstable();
                    ips.dedup();
                    FqdnSelector {
                        selector_string,
                        names,
                        ips,
                    }
                })
                .collect(),
        }
    }

    fn records(
        &self,
        last: usize,
        filter: &Filter,
    ) -> (Vec<FlowRecord>, broadcast::Receiver<Arc<FlowRecord>>) {
        self.recorder().records(last, filter)
    }
}

fn sum(metrics: &Metrics, whats: &[Passed]) -> u64 {
    whats
        .iter()
        .flat_map(|what| {
            [Direction::Ingress, Direction::Egress]
                .map(|direction| metrics.passed(*what, direction).packets())
        })
        .sum()
}
