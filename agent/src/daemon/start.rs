//! From the configuration to a running agent, and back to nothing.
//!
//! In:  the configuration.
//! Out: everything set up in order, the loop run, everything taken down in reverse.
//! Not here: what happens in between (`mod`).
//!
//! Order of things: control socket (a second agent ends here) → network → programs and maps →
//! DNS proxy → policies → interfaces. Nothing is steered before somebody listens.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use dnsproxy::{ControlMsg, ListenerSpec, Listeners, ShardThread, Upstreams};
use dnsproxy_core::{Core, QueryRecord, QueryVerdict, TtlBounds, UNMATCHED};
use fqdn_ebpf_loader::{Datapath, Origin, Pins, clear_filters};
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::sync::mpsc;

use crate::{control::Control, recorder::WallClock};

use super::{
    Agent, Health, Loop,
    catalog::Catalog,
    config::Config,
    engine::Engine,
    error::DaemonError,
    files::Files,
    inspector::Inspector,
    journal::{Entry, Journal},
    links::Watch,
    metrics,
    network::Network,
    obstacles, service,
};

/// Query records that may wait for the recorder; what does not fit is counted.
const RECORDS: usize = 65_536;

/// Bytes of queries that may wait in a lane: as many queries as an endpoint may have in flight.
const LANE_BYTES: usize = 1 << 20;

/// Sets up, serves, takes down.
pub(super) async fn serve(path: &Path, config: Arc<Config>) -> Result<(), DaemonError> {
    let control = Control::bind(&config.socket).map_err(|source| DaemonError::File {
        path: config.socket.clone(),
        source,
    })?;
    let mut watch = Watch::start()?;
    obstacles::refuse_ipvs(&watch.links().await?)?;
    let network = Network::install(&watch.handle, &config.steering).await?;
    if let Err(error) = obstacles::open(config.steering).await {
        tracing::warn!(%error, "firewalls of others are as they were");
    }
    let (mut engine, records, lost_records) = match engine(&config) {
        Ok(started) => started,
        Err(error) => {
            network.remove(&watch.handle).await;
            obstacles::close().await;
            return Err(error);
        }
    };
    let events = engine
        .datapath
        .events()
        .ok_or_else(|| DaemonError::System {
            what: "the kernel's events",
            source: std::io::ErrorKind::ResourceBusy.into(),
        })?;
    let agent = Arc::new(Agent {
        engine: Mutex::new(engine),
        health: Mutex::new(Health::default()),
        rewriting: tokio::sync::Mutex::new(()),
        lost_records,
        since: Timestamp::now(),
    });
    let (_socket, server) = control.serve(Arc::new(Inspector(Arc::clone(&agent))));
    let server = tokio::spawn(server);
    let mut following = Loop {
        path: path.to_owned(),
        agent: Arc::clone(&agent),
        watch,
        network,
        files: Files::watch(config.policies.clone(), config.world.clone()),
        events,
        records,
        ticks: 0,
    };
    let followed = follow(&mut following, &config).await;
    service::tell(&[NotifyState::Stopping]);
    server.abort();
    stop(&agent).await;
    obstacles::close().await;
    following.network.remove(&following.watch.handle).await;
    followed
}

/// Takes down what an agent left: links, maps, rules. One that runs is not touched.
pub(super) async fn remove(config: &Config) -> Result<(), DaemonError> {
    let _nobody_else = Control::bind(&config.socket).map_err(|source| DaemonError::File {
        path: config.socket.clone(),
        source,
    })?;
    Pins::remove(&config.state.pins).map_err(|source| DaemonError::File {
        path: config.state.pins.clone(),
        source,
    })?;
    clear_filters(&[]).map_err(DaemonError::system("the filters of clsact"))?;
    let watch = Watch::start()?;
    let network = Network::install(&watch.handle, &config.steering).await?;
    network.remove(&watch.handle).await;
    obstacles::close().await;
    Ok(())
}

/// From the first look at everything to the signal that ends it.
async fn follow(following: &mut Loop, config: &Config) -> Result<(), DaemonError> {
    let agent = Arc::clone(&following.agent);
    if let Some(address) = config.metrics {
        metrics::serve(Arc::clone(&agent), address).await?;
    }
    following.read_policies().await;
    following.look().await;
    following.ask_shards().await?;
    following.try_steering().await;
    following.count_entries();
    agent.health().ready = true;
    service::tell(&[NotifyState::Ready]);
    tracing::info!(socket = %config.socket.display(), "ready");
    following.follow().await
}

/// Programs, maps and the DNS proxy.
fn engine(
    config: &Arc<Config>,
) -> Result<(Engine, mpsc::Receiver<QueryRecord>, Arc<AtomicU64>), DaemonError> {
    let sizes = config.map_sizes();
    let processors = thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .unwrap_or(1);
    for (map, entries, bytes) in sizes.budget(processors) {
        tracing::info!(map, entries, bytes, "memory when full");
    }
    tracing::info!(
        bytes = sizes.memory_budget(processors),
        "memory of the kernel's maps when all are full"
    );
    let boot = boot_id()?;
    let (journal, past) = Journal::open(&config.state.directory, &boot);
    let journal = Arc::new(journal);
    let catalog = Catalog::new(config.enforcement.into(), Arc::clone(&journal), &past);
    let pins = Pins::open(&config.state.pins, &sizes).map_err(|source| DaemonError::File {
        path: config.state.pins.clone(),
        source,
    })?;
    let locals = catalog.shared_locals();
    let datapath = Datapath::load_pinned(&sizes, &config.datapath(), locals, &pins)?;
    match datapath.origin() {
        Origin::Empty => {}
        Origin::Adopted => tracing::info!("going on with a predecessor's maps"),
        Origin::Carried { left_behind: 0 } => {
            tracing::info!("moved a predecessor's maps to other sizes");
        }
        Origin::Carried { left_behind } => {
            tracing::warn!(left_behind, "moved a predecessor's maps to smaller sizes");
        }
        Origin::Lost(error) => {
            tracing::error!(%error, "a predecessor's maps could not be moved: names are forgotten");
        }
    }
    let clock = WallClock::new(Timestamp::now(), dnsproxy::now());
    let mut engine = Engine::new(
        Arc::clone(config),
        datapath,
        catalog,
        clock,
        Arc::clone(&journal),
        past,
    )?;
    let (sender, records) = mpsc::channel(RECORDS);
    let lost = Arc::new(AtomicU64::new(0));
    for number in 0..config.steering.shards {
        let shard = shard(config, &engine.datapath, number, &sender, &lost, &journal)?;
        engine.shards.push(shard);
    }
    Ok((engine, records, lost))
}

fn shard(
    config: &Config,
    datapath: &Datapath,
    number: u16,
    sender: &mpsc::Sender<QueryRecord>,
    lost: &Arc<AtomicU64>,
    journal: &Arc<Journal>,
) -> Result<ShardThread, DaemonError> {
    let listeners = Listeners::open(&ListenerSpec {
        mark: config.steering.reply_mark,
        receive_buffer: LANE_BYTES,
        ..ListenerSpec::new(config.steering.ports(number))
    })
    .map_err(DaemonError::system("the DNS proxy's sockets"))?;
    let core = Core::new(
        config.dns(),
        dnsproxy::entropy().map_err(DaemonError::system("random numbers"))?,
    );
    let (sender, lost) = (sender.clone(), Arc::clone(lost));
    let (journal, ttl) = (Arc::clone(journal), config.dns().ttl);
    let record = move |record: QueryRecord| {
        // What no rule matches yet opens nothing, but a rule may come after a restart.
        if matches!(
            record.verdict,
            QueryVerdict::Taught | QueryVerdict::Answered(UNMATCHED)
        ) {
            journal.append(&learned(&record, ttl));
        }
        if sender.try_send(record).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    };
    dnsproxy::spawn(
        &format!("dns-shard-{number}"),
        core,
        listeners,
        Upstreams::new(dnsproxy::local_opener()),
        datapath.writer()?,
        record,
    )
    .map_err(DaemonError::system("the DNS proxy's threads"))
}

/// The line about a name that was learned just now. When its addresses end is what the kernel
/// holds; the line is never later than that.
fn learned(record: &QueryRecord, bounds: TtlBounds) -> Entry {
    let now = dnsproxy::now();
    let ttl = record.ttl.unwrap_or(0);
    let lifetime =
        Duration::from_secs(u64::from(ttl)).clamp(bounds.min, bounds.max.max(bounds.min));
    Entry::Name {
        of: record.endpoint.get(),
        name: record
            .name
            .as_ref()
            .map_or_else(String::new, |name| name.as_str().to_owned()),
        ttl,
        at: now.nanos(),
        ips: record
            .addresses
            .iter()
            .filter(|address| !record.withheld.contains(address))
            .copied()
            .collect(),
        until: now.after(lifetime).after(bounds.grace).nanos(),
    }
}

/// Names the boot whose maps the journal explains.
pub(super) fn boot_id() -> Result<String, DaemonError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(PATH)
        .map(|id| id.trim().to_owned())
        .map_err(|source| DaemonError::File {
            path: PATH.into(),
            source,
        })
}

/// Ends the shards; their sockets go before the rules that lead to them.
async fn stop(agent: &Agent) {
    let shards = std::mem::take(&mut agent.engine().shards);
    for shard in shards {
        // One that is gone already has stopped.
        let _ = shard.control.send(ControlMsg::Stop).await;
        match tokio::task::spawn_blocking(move || shard.end.join()).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "a shard of the DNS proxy failed"),
            Ok(Err(_)) | Err(_) => tracing::warn!("a shard of the DNS proxy ended in a panic"),
        }
    }
}
