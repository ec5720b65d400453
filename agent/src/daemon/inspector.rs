//! What the control socket may ask about an agent.
//!
//! In:  the engine, the shards.
//! Out: the values of `api`.
//! Not here: HTTP (`control`).

use std::sync::{Arc, PoisonError, atomic::Ordering};

use dnsproxy::ControlMsg;
use flows::{Filter, FlowRecord};
use identity::EndpointId;
use policy::{compiled::EndpointPolicy, fqdn::Pattern, select};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    api::{
        AgentInfo, CacheRow, Cleaned, EndpointInfo, EndpointRow, FqdnNames, MapBudget, Rows,
        Status, Totals,
    },
    control::Source,
    lists::{self, Known, Restricted},
    rows, totals,
};

use super::{Agent, PATIENCE, engine::Engine, workload::Workload};

/// Reads what there is to know about an agent.
#[derive(Debug)]
pub(crate) struct Inspector(pub(crate) Arc<Agent>);

impl Inspector {
    /// The ledgers of all shards; what a shard does not tell in time is left out.
    pub(crate) async fn rows(&self) -> Vec<CacheRow> {
        let clock = self.0.engine().clock.clone();
        rows::cache(ledgers(&self.0).await, &clock)
    }
    /// Exact totals.
    pub(crate) fn totals(&self) -> Totals {
        let engine = self.0.engine();
        match engine.datapath.metrics() {
            Ok(metrics) => {
                let lost = self.0.lost_records.load(Ordering::Relaxed);
                totals::of(&metrics, engine.lookups(), lost)
            }
            Err(error) => {
                tracing::warn!(%error, "the datapath's counters cannot be read");
                Totals::default()
            }
        }
    }

    /// What needs attention.
    pub(crate) fn problems(&self) -> Vec<String> {
        let health = self.0.health().clone();
        let mut all = health.policy_mistakes;
        if !all.is_empty() {
            all.push("the last good policies stay in force".to_owned());
        }
        if let Some(problem) = health.watch_problem {
            all.push(format!("policy files cannot be watched: {problem}"));
        }
        if let Some(mistake) = health.config_mistake {
            all.push(format!("the configuration stays as it was: {mistake}"));
        }
        if let Some(reason) = health.trial {
            all.push(format!(
                "DNS is not steered, no name can be learned: {reason}"
            ));
        }
        if health.shards.is_none() && health.ready {
            all.push("the DNS proxy does not answer".to_owned());
        }
        let engine = self.0.engine();
        if engine.config.resolvers.is_empty() {
            all.push("no `resolvers` are trusted: nothing is learned from DNS".to_owned());
        }
        all.extend(engine.journal().problem());
        all.extend(engine.workloads.iter().filter_map(|(interface, workload)| {
            Some(format!("{interface}: {}", workload.problem.as_ref()?))
        }));
        all
    }

    /// Every configured endpoint.
    pub(crate) fn endpoints(&self) -> Vec<EndpointRow> {
        endpoint_rows(&self.0.engine())
    }
}

/// The ledgers of all shards; what a shard does not tell in time is left out.
pub(crate) async fn ledgers(agent: &Agent) -> Vec<dnsproxy_core::CacheRow> {
    let mut all = rows_of(agent, |answer| ControlMsg::CacheRows {
        endpoint: None,
        answer,
    })
    .await;
    all.sort_by_key(|row| (row.endpoint, row.name.as_str().to_owned()));
    all
}

/// Every name a successor would have to know, the one asked for longest ago first.
pub(crate) async fn remembered(agent: &Agent) -> Vec<dnsproxy_core::CacheRow> {
    let mut all = rows_of(agent, ControlMsg::Remembered).await;
    all.sort_by_key(|row| row.looked_up);
    all
}

async fn rows_of(
    agent: &Agent,
    question: impl Fn(oneshot::Sender<Vec<dnsproxy_core::CacheRow>>) -> ControlMsg,
) -> Vec<dnsproxy_core::CacheRow> {
    let mut all = Vec::new();
    for shard in agent.controls() {
        let (answer, rows) = oneshot::channel();
        let asked = timeout(PATIENCE, async {
            shard.send(question(answer)).await.ok()?;
            rows.await.ok()
        });
        all.extend(asked.await.ok().flatten().unwrap_or_default());
    }
    all
}

/// Every configured endpoint.
pub(crate) fn endpoint_rows(engine: &Engine) -> Vec<EndpointRow> {
    engine
        .workloads
        .values()
        .map(|workload| endpoint_row(engine, workload))
        .collect()
}

fn endpoint_row(engine: &Engine, workload: &Workload) -> EndpointRow {
    let state = match (&workload.enforced, &workload.attached) {
        (Some(_), _) if workload.config.audit => "audit",
        (Some(_), _) => "enforcing",
        (None, Some(_)) => "refused",
        (None, None) if workload.problem.is_some() => "refused",
        (None, None) => "absent",
    };
    EndpointRow {
        id: workload.enforced.as_ref().map(|enforced| enforced.id.get()),
        interface: workload.config.interface.clone(),
        state: state.to_owned(),
        reason: workload.problem.clone().unwrap_or_default(),
        identity: workload.identity.get(),
        labels: workload
            .subject
            .labels
            .iter()
            .map(ToString::to_string)
            .collect(),
        addresses: workload.config.addresses.clone(),
        attachment: workload
            .attached
            .as_ref()
            .map_or_else(String::new, |(_, attached)| attached.how().to_owned()),
        policies: select::selecting(
            engine.policies(),
            &workload.subject.labels,
            engine.cluster(),
        )
        .iter()
        .map(|policy| policy.reference.to_string())
        .collect(),
    }
}

impl Source for Inspector {
    async fn status(&self) -> Status {
        let names = self.rows().await.len();
        let (totals, problems, endpoints) = (self.totals(), self.problems(), self.endpoints());
        let (policies_since, since) = (self.0.health().policies_at, self.0.since);
        let engine = self.0.engine();
        let mut attachments: Vec<_> = endpoints
            .iter()
            .map(|endpoint| endpoint.attachment.clone())
            .filter(|how| !how.is_empty())
            .collect();
        attachments.sort();
        attachments.dedup();
        let processors = std::thread::available_parallelism()
            .ok()
            .and_then(|count| u32::try_from(count.get()).ok())
            .unwrap_or(1);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            command: Vec::new(),
            mode: "agent".to_owned(),
            since,
            endpoint: EndpointInfo::default(),
            policies: engine
                .policies()
                .iter()
                .map(|policy| policy.reference.to_string())
                .collect(),
            resolvers: engine
                .resolvers()
                .map(|address| address.to_string())
                .collect(),
            attachment: attachments.join(", "),
            names,
            totals,
            agent: Some(AgentInfo {
                problems,
                endpoints,
                policies_since,
                maps: engine
                    .config
                    .map_sizes()
                    .budget(processors)
                    .into_iter()
                    .map(|(map, entries, bytes)| MapBudget {
                        map: map.to_owned(),
                        entries,
                        bytes,
                    })
                    .collect(),
                memory_budget: engine.config.map_sizes().memory_budget(processors),
            }),
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
        let mut sum = Some(dnsproxy_core::Cleaned::default());
        for shard in self.0.controls() {
            let (answer, cleaned) = oneshot::channel();
            let order = ControlMsg::Clean {
                endpoint,
                pattern: pattern.clone(),
                answer,
            };
            let asked = timeout(PATIENCE, async {
                shard.send(order).await.ok()?;
                cleaned.await.ok()
            });
            match (asked.await.ok().flatten(), sum.as_mut()) {
                (Some(cleaned), Some(sum)) => *sum += cleaned,
                _ => sum = None,
            }
        }
        // A restart must not remember what was forgotten.
        if let Err(error) = self.0.write_journal_anew().await {
            tracing::error!(%error, "the journal still has what was forgotten");
        }
        sum.map(rows::cleaned)
    }

    async fn names(&self) -> FqdnNames {
        let rows = self.rows().await;
        let policies: Vec<(Option<u32>, Arc<EndpointPolicy>)> = {
            let engine = self.0.engine();
            engine
                .workloads
                .values()
                .filter_map(|workload| {
                    let id = workload.enforced.as_ref().map(|enforced| enforced.id.get());
                    Some((id, engine.policies_of(workload)?.whole))
                })
                .collect()
        };
        rows::names(policies.iter().map(|(_, policy)| &**policy), &rows, |id| {
            policies
                .iter()
                .find(|(of, _)| *of == Some(id))
                .map(|(_, policy)| &**policy)
        })
    }

    fn records(
        &self,
        last: usize,
        filter: &Filter,
        follow: bool,
    ) -> (Vec<FlowRecord>, Option<mpsc::Receiver<Arc<FlowRecord>>>) {
        let tail = Arc::clone(&self.0.engine().tail);
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.records(last, filter, follow)
    }

    fn list(&self, what: &str) -> Option<Rows> {
        let engine = self.0.engine();
        let restricted = |workload: &Workload| Restricted {
            row: endpoint_row(&engine, workload),
            audit: workload.config.audit,
            policies: engine.policies_of(workload),
            number: workload.enforced.as_ref().map(|own| own.policy.whole),
            counted: engine.counted_of(workload),
        };
        let known = Known {
            datapath: &engine.datapath,
            clock: engine.clock.clone(),
            labels: engine.catalog.labels(),
            locals: engine.catalog.shared_locals(),
            selectors: engine.catalog.selectors(),
            endpoints: engine.workloads.values().map(restricted).collect(),
        };
        lists::rows(&known, what)
    }
}
