//! From the command's start to the report.
//!
//! In:  an enforced pod.
//! Out: the command's status and what happened.
//! Not here: setting up (`enforcement`), answering questions (`inspector`).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dnsproxy::ControlMsg;
use dnsproxy_core::QueryRecord;
use fqdn_ebpf_loader::Events;
use jiff::Timestamp;
use policy::select;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    api::{self, EndpointInfo, Lookups, Report},
    control::Control,
    pod::{CommandSpec, Pod},
    recorder::{Arrivals, Recorder, Subject, WallClock},
    run::{
        RunError, RunSpec,
        enforcement::{ENDPOINT, Enforcement},
        inspector::{Facts, Inspector},
        surroundings::{AddressWatch, Surroundings},
    },
    world::World,
};

/// How long the shard may take to answer once the command has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the command in the pod and takes everything down afterwards.
pub(crate) fn session(
    pod: Pod,
    enforcement: Enforcement,
    world: World,
    spec: RunSpec,
) -> Result<Report, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::system("the main loop"))?;
    let Enforcement {
        mut datapath,
        locals,
        interface,
        attached,
        shard,
        records,
        lost_records,
        surroundings,
    } = enforcement;
    let world = Arc::new(world);
    let clock = WallClock::new(Timestamp::now(), dnsproxy::now());
    let endpoint = EndpointInfo {
        id: ENDPOINT.get(),
        identity: world.pod.get(),
        labels: world.labels.iter().map(ToString::to_string).collect(),
        addresses: surroundings.known.pod.clone(),
    };
    let command: Vec<String> = spec
        .command
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let cluster = &spec.given.facts.value.config.cluster;
    let facts = Facts {
        command: command.clone(),
        audit: spec.audit,
        since: Timestamp::now(),
        endpoint: endpoint.clone(),
        interface,
        policies: select::selecting(&spec.given.policies, &world.labels, cluster)
            .iter()
            .map(|policy| policy.reference.to_string())
            .collect(),
        resolvers: surroundings
            .resolvers
            .iter()
            .map(ToString::to_string)
            .collect(),
        attachment: attached.how().to_owned(),
    };
    let subject = Subject {
        endpoint: flows::Endpoint {
            id: endpoint.id,
            identity: endpoint.identity,
            namespace: spec.namespace.clone(),
            labels: endpoint.labels.clone(),
            pod_name: pod_name(&command),
        },
        policy: world.policies.clone(),
        book: Arc::new(surroundings.book.clone()),
    };
    let events = datapath.events().ok_or_else(|| RunError::System {
        what: "the kernel's events",
        source: std::io::ErrorKind::ResourceBusy.into(),
    })?;
    let inspector = Arc::new(Inspector {
        recorder: Mutex::new(Recorder::new(subject, clock.clone())),
        shard: shard.control.clone(),
        datapath: Mutex::new(datapath),
        lost_records,
        world: Arc::clone(&world),
        locals,
        clock,
        facts: facts.clone(),
    });
    let mut observed = Observed {
        inspector: Arc::clone(&inspector),
        events,
        records,
        surroundings,
        world,
    };
    let mut pod = pod;
    let status = runtime.block_on(async {
        let path = spec
            .socket
            .clone()
            .unwrap_or_else(|| api::default_socket(std::process::id()));
        pod.clean_up_socket(&path)?;
        let control = Control::bind(&path).map_err(|source| RunError::Socket {
            path: path.clone(),
            source,
        })?;
        let (_socket_file, server) = control.serve(Arc::clone(&inspector));
        let server = tokio::spawn(server);
        tracing::info!(socket = %path.display(), "enforcing");
        let status = observed.while_running(&mut pod, &spec).await;
        observed.drain().await;
        server.abort();
        status
    })?;
    let rows = runtime.block_on(async {
        timeout(LAST_WORDS, inspector.rows())
            .await
            .unwrap_or_default()
    });
    let report = report(&inspector, facts, status, rows);
    // The shard first: it holds sockets of the gateway's namespace.
    if shard.control.blocking_send(ControlMsg::Stop).is_ok() && shard.end.join().is_err() {
        tracing::warn!("the DNS proxy ended in a panic");
    }
    drop((observed, attached, inspector));
    pod.destroy()?;
    Ok(report)
}

/// Streams of what happens, and who writes it down.
struct Observed {
    inspector: Arc<Inspector>,
    events: Events,
    records: mpsc::Receiver<QueryRecord>,
    surroundings: Surroundings,
    world: Arc<World>,
}

impl Observed {
    /// Starts the command and records until it ends.
    async fn while_running(&mut self, pod: &mut Pod, spec: &RunSpec) -> Result<i32, RunError> {
        let cwd = std::env::current_dir().map_err(RunError::system("the working directory"))?;
        let mut watch =
            AddressWatch::start().map_err(RunError::system("the watch on host addresses"))?;
        // What changed since the pod was made was not watched.
        self.look_again(pod).await?;
        let mut running = pod.spawn(CommandSpec {
            argv: spec.command.clone(),
            cwd,
            env: None,
            descriptors: spec.descriptors,
        })?;
        let _forwarding = running.forward_signals()?;
        let ended = tokio::task::spawn_blocking(move || running.wait());
        tokio::pin!(ended);
        let mut arrivals =
            Arrivals::of(&self.events).map_err(RunError::system("the kernel's events"))?;
        loop {
            tokio::select! {
                status = &mut ended => {
                    return Ok(status.map_err(|error| RunError::System {
                        what: "waiting for the command",
                        source: error.into(),
                    })??);
                }
                () = watch.changed() => self.look_again(pod).await?,
                Some(record) = self.records.recv() => self.query(&record),
                ready = arrivals.some() => {
                    ready.map_err(RunError::system("the kernel's events"))?;
                    self.packets();
                    arrivals.taken(false);
                }
            }
        }
    }

    /// Makes everybody know the host's addresses as they are at this moment.
    async fn look_again(&mut self, pod: &Pod) -> Result<(), RunError> {
        if !self.surroundings.look_again(pod, &self.world) {
            return Ok(());
        }
        let book = &self.surroundings.book;
        self.inspector.datapath().ipcache(book)?;
        self.inspector.recorder().look_up_in(Arc::new(book.clone()));
        let snapshot = self.surroundings.snapshot(&self.world);
        let told = self
            .inspector
            .shard
            .send(ControlMsg::Snapshot(Box::new(snapshot)))
            .await;
        if told.is_err() {
            tracing::warn!("the DNS proxy is gone: names are no longer resolved");
        }
        Ok(())
    }

    /// Takes in what was under way when the command ended.
    async fn drain(&mut self) {
        // The shard answers in order: what it recorded before is in the channel by then.
        let _rows = timeout(LAST_WORDS, self.inspector.rows()).await;
        while let Ok(record) = self.records.try_recv() {
            self.query(&record);
        }
        self.packets();
    }

    fn packets(&mut self) {
        let mut recorder = self.inspector.recorder();
        while let Some(event) = self.events.next() {
            recorder.packet(&event);
        }
    }

    fn query(&self, record: &QueryRecord) {
        self.inspector.recorder().query(record, dnsproxy::now());
    }
}

fn report(
    inspector: &Inspector,
    facts: Facts,
    exit_status: i32,
    rows: Vec<api::CacheRow>,
) -> Report {
    let totals = inspector.totals();
    let names = inspector.learned(rows);
    let recorder = inspector.recorder();
    let summary = recorder.summary();
    Report {
        command: facts.command,
        exit_status,
        audit: facts.audit,
        endpoint: facts.endpoint,
        policies: facts.policies,
        names,
        allowed: summary.allowed_peers(),
        denied: summary.denied_peers(),
        lookups: Lookups {
            answered: summary.answered_lookups(),
            refused: summary.refused_lookups(),
            failed: summary.failed_lookups(),
        },
        totals,
        lost_events: totals.lost_events.saturating_add(summary.overflow()),
    }
}

/// What stands for the pod in records: the program's name.
fn pod_name(command: &[String]) -> String {
    command
        .first()
        .and_then(|program| program.rsplit('/').next())
        .unwrap_or("command")
        .to_owned()
}
