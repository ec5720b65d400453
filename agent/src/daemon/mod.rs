//! `namegate agent`: every endpoint of a node, as a daemon.
//!
//! In:  a configuration file, policy files, the node's interfaces.
//! Out: enforcement that follows all three while they change; the control socket, metrics, health.
//! Not here: the pod of `run` (`pod`, `run`), any decision (`policy`, `dnsproxy/core`).
//!
//! One loop on one thread owns the engine; each shard of the DNS proxy has a thread of its own
//! and is told what holds by snapshots. Whatever fails for one endpoint or one policy file is a
//! state that `status` shows, not an end.

mod catalog;
mod compilers;
mod config;
mod engine;
mod error;
mod files;
mod heritage;
mod inspector;
pub mod journal;
mod links;
mod metrics;
mod network;
mod obstacles;
mod service;
mod start;
mod trial;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use dnsproxy::{Control, ControlMsg, ShardCounters};
use dnsproxy_core::{Counters, QueryRecord};
use fqdn_ebpf_loader::Events;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    time,
};

pub use config::{Config, ConfigError};
use engine::Engine;
pub use error::DaemonError;
use files::Files;
use links::{Links, Watch};
use network::Network;

use crate::recorder::Arrivals;

/// How often everything is looked at again, whatever was noticed.
const TICK: Duration = Duration::from_secs(2);
/// Ticks between two looks at what is attached; filters tell when they change, links do not.
const LOOK_AFTER: u32 = 2;
/// Ticks between two collections of identities nobody uses any more.
const COLLECT: u32 = 15;
/// Events taken in at a time.
const EVENTS: usize = 512;
/// How long a shard may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the loop and the answers to questions share.
#[derive(Debug)]
pub(crate) struct Agent {
    engine: Mutex<Engine>,
    health: Mutex<Health>,
    /// Held while the journal is written anew.
    rewriting: tokio::sync::Mutex<()>,
    lost_records: Arc<AtomicU64>,
    since: Timestamp,
}

/// How the agent is doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// What is wrong with the policy files; the last good ones are in force.
    pub(crate) policy_mistakes: Vec<String>,
    /// What is wrong with the configuration file since it was read again.
    pub(crate) config_mistake: Option<String>,
    /// Why policy files are not watched.
    pub(crate) watch_problem: Option<String>,
    /// When policies were put in force last.
    pub(crate) policies_at: Option<Timestamp>,
    pub(crate) loads: u64,
    pub(crate) failed_loads: u64,
    /// Everything is set up.
    pub(crate) ready: bool,
    /// Why a steered query got no answer when that was tried last.
    pub(crate) trial: Option<String>,
    /// What the shards counted when they were asked last; none when one did not answer.
    pub(crate) shards: Option<Vec<(ShardCounters, Counters)>>,
    /// How many entries LEARNED and POLICY had when they were counted last.
    pub(crate) entries: [Option<usize>; 2],
}

impl Agent {
    /// The engine. Its steps leave maps whole, so a panic elsewhere says nothing here.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where each shard of the DNS proxy takes orders.
    pub(crate) fn controls(&self) -> Vec<Control> {
        let engine = self.engine();
        engine.shards.iter().map(|s| s.control.clone()).collect()
    }

    /// Writes the journal anew.
    pub(crate) async fn write_journal_anew(&self) -> Result<(), DaemonError> {
        let _alone = self.rewriting.lock().await;
        let journal = self.engine().journal();
        journal.gather();
        let names = inspector::remembered(self).await;
        let boot = start::boot_id()?;
        let mut entries = self.engine().entries();
        entries.extend(names.into_iter().map(journal::name_line));
        journal.rewrite(&boot, &entries);
        Ok(())
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When the node cannot be enforced at all.
pub fn run(path: &Path) -> Result<(), DaemonError> {
    let config = Arc::new(Config::load(path)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::system("the main loop"))?;
    runtime.block_on(start::serve(path, config))
}

/// Lets go of everything that outlives an agent: afterwards nothing is enforced.
///
/// # Errors
/// When something stays.
pub fn remove(path: &Path) -> Result<(), DaemonError> {
    let config = Config::load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::system("netlink"))?;
    runtime.block_on(start::remove(&config))
}

/// The loop and what it waits for.
struct Loop {
    /// The configuration file.
    path: PathBuf,
    agent: Arc<Agent>,
    watch: Watch,
    network: Network,
    files: Files,
    events: Events,
    records: mpsc::Receiver<QueryRecord>,
    ticks: u32,
}

impl Loop {
    /// Follows what changes until a signal ends it.
    async fn follow(&mut self) -> Result<(), DaemonError> {
        let signal = |kind| signal(kind).map_err(DaemonError::system("signals"));
        let mut end = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut again = signal(SignalKind::hangup())?;
        let mut arrivals =
            Arrivals::of(&self.events).map_err(DaemonError::system("the kernel's events"))?;
        let often = service::watchdog().map_or(TICK, |limit| TICK.min(limit / 3));
        let mut tick = time::interval(often);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = end.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = again.recv() => {
                    let now = NotifyState::monotonic_usec_now()
                        .map_err(DaemonError::system("the clock"))?;
                    service::tell(&[NotifyState::Reloading, now]);
                    self.read_config();
                    self.read_policies().await;
                    self.look().await;
                    self.mend_steering().await;
                    service::tell(&[NotifyState::Ready]);
                }
                () = self.files.changed() => self.read_policies().await,
                () = self.watch.changed() => self.look().await,
                _ = tick.tick() => self.tick().await?,
                Some(record) = self.records.recv() => {
                    self.agent.engine().query(&record, dnsproxy::now());
                }
                ready = arrivals.some() => {
                    ready.map_err(DaemonError::system("the kernel's events"))?;
                    arrivals.taken(self.agent.engine().packets(&mut self.events, EVENTS));
                    // Followers take what they wait for before more is made.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Reads the configuration again. A bad file changes nothing and is told.
    fn read_config(&mut self) {
        let read = Config::load(&self.path).map_err(DaemonError::from);
        let taken = read.and_then(|config| {
            self.files
                .name(config.policies.clone(), config.world.clone());
            self.agent.engine().reconfigure(config)
        });
        let mut health = self.agent.health();
        match taken {
            Ok(late) => {
                health.config_mistake = None;
                if late.is_empty() {
                    tracing::info!("configuration read again");
                } else {
                    let settings = late.join(", ");
                    tracing::warn!(settings, "configuration read again; these take a restart");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the configuration stays as it was");
                health.config_mistake = Some(error.to_string());
            }
        }
    }

    /// Reads the policy files and puts what they say in force, if all of it is good.
    async fn read_policies(&mut self) {
        let read = self.files.read().await;
        let applied = match read {
            Ok(content) => {
                let applied = self.apply(content).await;
                applied.map_err(|error| vec![error.to_string()])
            }
            Err(mistakes) => Err(mistakes),
        };
        let changed = {
            let mut health = self.agent.health();
            health.watch_problem = self.files.problem().map(str::to_owned);
            match applied {
                Ok(changed) => {
                    if changed {
                        health.loads += 1;
                        health.policies_at = Some(Timestamp::now());
                    }
                    if !health.policy_mistakes.is_empty() {
                        tracing::info!("the policy files are good again");
                    }
                    health.policy_mistakes.clear();
                    changed
                }
                Err(mistakes) => {
                    if health.policy_mistakes != mistakes {
                        health.failed_loads += 1;
                        for mistake in &mistakes {
                            tracing::error!("{mistake}");
                        }
                        tracing::error!("the last good policies stay in force");
                    }
                    health.policy_mistakes = mistakes;
                    false
                }
            }
        };
        if changed {
            self.tell().await;
            self.look().await;
        }
    }

    /// Puts policies in force; false when they are already.
    async fn apply(&mut self, content: files::Content) -> Result<bool, DaemonError> {
        let began = time::Instant::now();
        {
            let mut engine = self.agent.engine();
            let same = engine.has_policies() && *engine.content() == content;
            if same && !engine.reconfigured {
                return Ok(false);
            }
            warn_about(&content.policies);
            engine.prepare(content)?;
        }
        // Names are matched against both sets before the kernel changes from one to the other. A
        // shard's answer to anything shows that it did.
        self.tell().await;
        self.ask_shards().await?;
        let committed = {
            let mut engine = self.agent.engine();
            let committed = engine.commit();
            engine.reconfigured &= committed.is_err();
            committed
        };
        if committed.is_err() {
            self.tell().await;
        }
        committed?;
        tracing::info!(
            policies = self.agent.engine().policies().len(),
            took = ?began.elapsed(),
            "policies in force"
        );
        Ok(true)
    }

    /// Looks at the interfaces and makes endpoints agree with them.
    async fn look(&mut self) {
        if let Err(error) = self.try_look().await {
            tracing::error!(%error, "interfaces were not looked at");
        }
    }

    async fn try_look(&mut self) -> Result<(), DaemonError> {
        let links = self.watch.links().await?;
        let config = Arc::clone(&self.agent.engine().config);
        let mut places = BTreeMap::new();
        for endpoint in &config.endpoints {
            let place = workload::look(&self.watch, &links, endpoint).await;
            places.insert(endpoint.interface.clone(), place);
        }
        let (changed, restored) = {
            let mut engine = self.agent.engine();
            let before = engine.revision();
            let told = engine.node_addresses(&links.addresses);
            // Whatever became of that: what is gone is told once.
            let reconciled = engine.reconcile(&places, &links.gone);
            if links.filters {
                engine.look_after();
            }
            let changed = reconciled || told? || before == 0;
            (changed, engine.come_into_heritage(dnsproxy::now())?)
        };
        if changed {
            self.tell().await;
        }
        let entered = !restored.is_empty();
        for (shard, restored) in restored {
            // A shard that is gone is found by the next tick.
            let _ = shard.send(ControlMsg::Restore(Box::new(restored))).await;
        }
        if changed {
            self.serve_queries(&links).await?;
        }
        if entered {
            // A shard that answers has written what it was given before.
            self.ask_shards().await?;
            let mut engine = self.agent.engine();
            // What waited for that takes its predecessor's place.
            engine.reconcile(&places, &BTreeSet::new());
            engine.let_go_of_leftovers();
        }
        Ok(())
    }

    async fn serve_queries(&mut self, links: &Links) -> Result<(), DaemonError> {
        let interfaces = self.agent.engine().query_interfaces(links);
        self.network.serve(&self.watch.handle, &interfaces).await
    }

    /// Tells the DNS proxy what holds from now on.
    async fn tell(&mut self) {
        let snapshots = self.agent.engine().snapshots();
        for (shard, snapshot) in snapshots {
            // A shard that is gone is found by the next tick.
            let _ = shard.send(ControlMsg::Snapshot(Box::new(snapshot))).await;
        }
    }

    async fn tick(&mut self) -> Result<(), DaemonError> {
        self.ticks = self.ticks.wrapping_add(1);
        let set = self
            .agent
            .engine()
            .clock
            .follow(Timestamp::now(), dnsproxy::now());
        if let Some(by) = set {
            tracing::info!(%by, "the time of day was set; what was learned ends when it would have");
        }
        // First who went: nobody's successor is given its programs.
        self.look().await;
        if self.ticks.is_multiple_of(LOOK_AFTER) {
            self.agent.engine().look_after();
        }
        let (unwatched, bad) = {
            let health = self.agent.health();
            (
                health.watch_problem.is_some(),
                !health.policy_mistakes.is_empty(),
            )
        };
        let behind = self.agent.engine().reconfigured;
        if unwatched || bad || behind {
            self.read_policies().await;
        }
        let journal = self.agent.engine().journal();
        if journal.wants_rewriting() {
            self.agent.write_journal_anew().await?;
        }
        if self.ticks.is_multiple_of(COLLECT) {
            self.mend_steering().await;
            self.count_entries();
            let collected = self.agent.engine().datapath.collect_identities();
            match collected {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "identities collected"),
                Err(error) => tracing::warn!(%error, "identities not collected"),
            }
        }
        self.ask_shards().await
    }

    /// Counts what is costly to count, so that nobody who reads metrics has to.
    fn count_entries(&self) {
        let counted = {
            let engine = self.agent.engine();
            [
                engine.datapath.learned().map(|rows| rows.len()),
                engine.datapath.policy_entries().map(|rows| rows.len()),
            ]
        };
        self.agent.health().entries = counted.map(|count| {
            count
                .inspect_err(|error| tracing::warn!(%error, "a map cannot be read"))
                .ok()
        });
    }

    /// A firewall that was reloaded has lost our rules.
    async fn mend_steering(&mut self) {
        let steering = self.agent.engine().config.steering;
        if let Err(error) = obstacles::open(steering).await {
            tracing::warn!(%error, "firewalls of others were not looked at");
        }
        let failing = self.agent.health().trial.is_some();
        if failing {
            self.try_steering().await;
        }
    }

    /// Whether every shard still answers; one that ended ends the agent, and nothing is open.
    async fn ask_shards(&mut self) -> Result<(), DaemonError> {
        let ended = {
            let engine = self.agent.engine();
            engine.shards.iter().any(|shard| shard.end.is_finished())
        };
        if ended {
            return Err(DaemonError::System {
                what: "the DNS proxy; a shard of it ended",
                source: std::io::ErrorKind::BrokenPipe.into(),
            });
        }
        let mut all = Some(Vec::new());
        for shard in self.agent.controls() {
            let (answer, counters) = oneshot::channel();
            let asked = time::timeout(PATIENCE, async {
                shard.send(ControlMsg::Counters(answer)).await.ok()?;
                counters.await.ok()
            });
            match (asked.await.ok().flatten(), all.as_mut()) {
                (Some(counters), Some(all)) => all.push(counters),
                _ => {
                    tracing::warn!("a shard of the DNS proxy does not answer");
                    all = None;
                }
            }
        }
        if all.is_some() {
            service::tell(&[NotifyState::Watchdog]);
        }
        self.agent.health().shards = all;
        Ok(())
    }
}

fn warn_about(policies: &[policy::model::Policy]) {
    for warning in policy::lint::policies(policies) {
        match warning.severity {
            policy::lint::Severity::Warning => tracing::warn!("{warning}"),
            policy::lint::Severity::Info => tracing::info!("{warning}"),
        }
    }
}
