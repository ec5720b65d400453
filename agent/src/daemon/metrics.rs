//! Metrics and health on a port of their own.
//!
//! In:  the engine's exact counters, the DNS proxy's, the agent's health.
//! Out: OpenMetrics text at `/metrics`; `/healthz` (alive) and `/readyz` (everything set up).
//! Not here: the control socket (`inspector`).
//!
//! Everything is read when somebody asks. Label values are of closed sets, never names, addresses
//! or ports that a workload chooses: the number of series is bounded.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use fqdn_ebpf_loader::{Direction, Passed};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::net::TcpListener;

use super::{Agent, error::DaemonError, inspector};

type Labels = Vec<(&'static str, String)>;

/// Serves until the agent ends.
pub(crate) async fn serve(agent: Arc<Agent>, address: SocketAddr) -> Result<(), DaemonError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(DaemonError::system("the port of `metrics`"))?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(agent);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Ok(())
}

/// Whether the DNS proxy answers. Bad policy files are no illness: what was good is in force.
async fn healthz(State(agent): State<Arc<Agent>>) -> (StatusCode, &'static str) {
    let health = agent.health();
    if health.ready && health.shards.is_none() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the DNS proxy does not answer\n",
        )
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn readyz(State(agent): State<Arc<Agent>>) -> (StatusCode, String) {
    let health = agent.health().clone();
    let missing = if !health.ready {
        Some("not everything is set up".to_owned())
    } else if !agent.engine().has_policies() {
        Some("no policies could be read yet".to_owned())
    } else {
        health.trial
    };
    match missing {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        ),
    }
}

async fn metrics(State(agent): State<Arc<Agent>>) -> Response {
    match text(&agent) {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn text(agent: &Agent) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("namegate");
    packets(agent, &mut registry);
    dns(agent, &mut registry);
    state(agent, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn packets(agent: &Agent, registry: &mut Registry) {
    let metrics = match agent.engine().datapath.metrics() {
        Ok(metrics) => metrics,
        Err(error) => {
            tracing::warn!(%error, "the datapath's counters cannot be read");
            return;
        }
    };
    let forwarded = Family::<Labels, Counter>::default();
    let bytes = Family::<Labels, Counter>::default();
    let lost = Family::<Labels, Counter>::default();
    for what in Passed::ALL {
        if matches!(what, Passed::EventSuppressed | Passed::EventLost) {
            let count = [Direction::Egress, Direction::Ingress]
                .map(|direction| metrics.passed(*what, direction).packets());
            lost.get_or_create(&vec![("what", format!("{what:?}").to_lowercase())])
                .inc_by(count.iter().sum());
            continue;
        }
        for direction in [Direction::Egress, Direction::Ingress] {
            let count = metrics.passed(*what, direction);
            let labels = vec![
                ("what", format!("{what:?}").to_lowercase()),
                ("direction", side(direction)),
            ];
            forwarded.get_or_create(&labels).inc_by(count.packets());
            bytes.get_or_create(&labels).inc_by(count.bytes());
        }
    }
    let dropped = Family::<Labels, Counter>::default();
    for (reason, direction, count) in metrics.drops() {
        let labels = vec![
            ("reason", reason.name().to_owned()),
            ("direction", side(direction)),
        ];
        dropped.get_or_create(&labels).inc_by(count.packets());
    }
    registry.register(
        "packets_forwarded",
        "Packets let through, by why",
        forwarded,
    );
    registry.register("bytes_forwarded", "Bytes let through, by why", bytes);
    registry.register(
        "events_lost",
        "Events for `observe` that were rationed or found no room",
        lost,
    );
    registry.register("packets_dropped", "Packets refused, by reason", dropped);
}

fn side(direction: Direction) -> String {
    format!("{direction:?}").to_lowercase()
}

fn dns(agent: &Agent, registry: &mut Registry) {
    let lookups = agent.engine().lookups();
    let queries = Family::<Labels, Counter>::default();
    for (result, count) in [
        ("answered", lookups.answered),
        ("refused", lookups.refused),
        ("failed", lookups.failed),
    ] {
        queries
            .get_or_create(&vec![("result", result.to_owned())])
            .inc_by(count);
    }
    registry.register(
        "dns_queries",
        "DNS queries, by what became of them",
        queries,
    );
    let shards = agent.health().shards.clone().unwrap_or_default();
    let proxy = Family::<Labels, Counter>::default();
    let add = |what: &str, count: u64| {
        proxy
            .get_or_create(&vec![("what", what.to_owned())])
            .inc_by(count);
    };
    for (sockets, core) in shards {
        add("udp_queries", sockets.udp_queries);
        add("tcp_queries", sockets.tcp_queries);
        add("unknown_source", sockets.unknown_source);
        add("replies_lost", sockets.replies_lost);
        add("unreachable", sockets.unreachable);
        add("connections_refused", sockets.connections_refused);
        add("taught", core.taught);
        add("over_limit", core.over_limit);
        add("unsolicited", core.unsolicited);
        add("wrong_question", core.wrong_question);
        add("silent", core.silent);
        add("write_failures", core.write_failures);
    }
    registry.register("dns_proxy_events", "What the DNS proxy saw and did", proxy);
    let lost = Counter::<u64>::default();
    lost.inc_by(agent.lost_records.load(Ordering::Relaxed));
    registry.register("records_lost", "Query records that found no room", lost);
    let missed = Counter::<u64>::default();
    missed.inc_by(agent.engine().missed());
    registry.register(
        "observe_missed",
        "Records that followers of `observe` were too slow for",
        missed,
    );
}

fn state(agent: &Agent, registry: &mut Registry) {
    let endpoints = Family::<Labels, Gauge>::default();
    for known in ["enforcing", "audit", "refused", "absent"] {
        endpoints
            .get_or_create(&vec![("state", known.to_owned())])
            .set(0);
    }
    {
        let engine = agent.engine();
        for row in inspector::endpoint_rows(&engine) {
            endpoints.get_or_create(&vec![("state", row.state)]).inc();
        }
        let policies: Gauge = Gauge::default();
        policies.set(i64::try_from(engine.policies().len()).unwrap_or(i64::MAX));
        registry.register("policies", "Policies in force", policies);
        let put_right = Counter::<u64>::default();
        put_right.inc_by(engine.put_right());
        registry.register(
            "attachments_restored",
            "Programs that others had removed from their hook or pushed back there",
            put_right,
        );
        fill(agent, &engine, registry);
    }
    registry.register("endpoints", "Configured endpoints, by state", endpoints);
    let health = agent.health().clone();
    let loads = Counter::<u64>::default();
    loads.inc_by(health.loads);
    registry.register("policy_loads", "Changes of policy put in force", loads);
    let failures = Counter::<u64>::default();
    failures.inc_by(health.failed_loads);
    registry.register(
        "policy_load_failures",
        "Changes of policy that were refused",
        failures,
    );
    let steered: Gauge = Gauge::default();
    steered.set(i64::from(health.ready && health.trial.is_none()));
    registry.register(
        "dns_steered",
        "1 while a query that the agent sends itself is steered to its DNS proxy and answered",
        steered,
    );
    let stale: Gauge = Gauge::default();
    stale.set(i64::from(!health.policy_mistakes.is_empty()));
    registry.register(
        "policy_stale",
        "1 while the files are bad and the last good policies are in force",
        stale,
    );
}

/// How full the maps are that can be full, as it was counted last: counting takes a walk.
fn fill(agent: &Agent, engine: &super::engine::Engine, registry: &mut Registry) {
    let entries = Family::<Labels, Gauge>::default();
    let capacity = Family::<Labels, Gauge>::default();
    let sizes = engine.config.sizes;
    let counted = agent.health().entries;
    for ((map, most), used) in [("learned", sizes.learned), ("policy", sizes.policy)]
        .into_iter()
        .zip(counted)
    {
        let labels = vec![("map", map.to_owned())];
        capacity.get_or_create(&labels).set(i64::from(most));
        if let Some(used) = used {
            let used = i64::try_from(used).unwrap_or(i64::MAX);
            entries.get_or_create(&labels).set(used);
        }
    }
    registry.register("map_entries", "Entries of a kernel map", entries);
    registry.register("map_capacity", "Room of a kernel map", capacity);
}
