//! Puts programs, maps and the DNS proxy in place for one pod, before anything runs in it.
//!
//! In:  the pod, the compiled world, resolvers, limits.
//! Out: [`Enforcement`]: the datapath, the running shard, its query records.
//! Not here: what happens afterwards (`session`).

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use dnsproxy::{ControlMsg, ListenerSpec, Listeners, ShardThread, Upstreams};
use dnsproxy_core::{Config as DnsConfig, Core, QueryRecord};
use fqdn_ebpf_loader::{Attached, Config, Datapath, EndpointSpec, Marks, PolicyId, Sizes};
use identity::{EndpointId, LocalIdentities};
use policy::compiled::Layered;
use tokio::sync::mpsc;

use crate::{
    pod::Pod,
    run::{RunError, RunSpec, surroundings::Surroundings},
    steering::Steering,
    world::World,
};

/// The only endpoint of a run.
pub(crate) const ENDPOINT: EndpointId = EndpointId::new(1);
/// The number of its policies in POLICY.
pub(super) const POLICY: PolicyId = PolicyId::new(1);
/// The same without those in audit, where there are some.
const ENFORCED: PolicyId = PolicyId::new(2);
/// First port of the DNS proxy's listeners, on loopback in the gateway's namespace.
const PORT_BASE: u16 = 8053;
/// Query records that may wait for the recorder; what does not fit is counted.
const RECORDS: usize = 16_384;

/// Everything that enforces.
pub(crate) struct Enforcement {
    pub(crate) datapath: Datapath,
    /// What numbers of prefixes and selector sets stand for.
    pub(crate) locals: Arc<Mutex<LocalIdentities>>,
    /// The interface towards the pod, in the gateway's namespace.
    pub(crate) interface: String,
    pub(crate) attached: Attached,
    pub(crate) shard: ShardThread,
    pub(crate) records: mpsc::Receiver<QueryRecord>,
    pub(crate) lost_records: Arc<AtomicU64>,
    pub(crate) surroundings: Surroundings,
}

impl Enforcement {
    /// Everything is in force when this returns.
    pub(crate) fn start(
        pod: &Pod,
        world: &World,
        locals: LocalIdentities,
        resolvers: Vec<SocketAddr>,
        spec: &RunSpec,
    ) -> Result<Self, RunError> {
        let at = pod.addresses();
        let surroundings = Surroundings::new(pod, world, resolvers, spec.audit);
        let steering = Steering::default();
        let marks = Marks {
            mask: steering.mask,
            to_proxy: steering.mark,
            ..Marks::default()
        };
        let config = Config::new(marks, PORT_BASE, 1);
        let sizes = Sizes {
            // The quota of the one endpoint: the core makes room or refuses before the map is full.
            learned: spec.limits.addresses.max(1),
            ..Sizes::for_one_workload()
        };
        let locals = Arc::new(Mutex::new(locals));
        let mut datapath = Datapath::load(&sizes, &config, Arc::clone(&locals))?;
        datapath.ipcache(&surroundings.book)?;
        let Layered { whole, enforced } = &world.policies;
        datapath.set_policy(POLICY, whole)?;
        let (enforced, shadow) = match (spec.audit, enforced) {
            (true, _) => (None, Some(POLICY)),
            (false, None) => (Some(POLICY), None),
            (false, Some(enforced)) => {
                datapath.set_policy(ENFORCED, enforced)?;
                (Some(ENFORCED), Some(POLICY))
            }
        };
        let endpoint = EndpointSpec {
            v4: Some(at.v4),
            v6: at.v6.into_iter().collect(),
            enforced,
            shadow,
            audited: spec.audit,
            ..EndpointSpec::new(ENDPOINT, at.mac)
        };
        datapath.set_endpoint(pod.gateway_ifindex(), &endpoint)?;
        let ifindex = pod.gateway_ifindex();
        // Everything attached or bound here belongs to the gateway's namespace.
        let (interface, attached, listeners) = pod.in_gateway(|| -> Result<_, RunError> {
            let interface = nix::net::if_::if_indextoname(ifindex)
                .map_err(|error| RunError::system("the pod's interface")(error.into()))?;
            let interface = interface.to_string_lossy().into_owned();
            let attached = datapath.attach(&interface, spec.attach)?;
            steering.install()?;
            let listeners = Listeners::open(&ListenerSpec {
                mark: marks.from_proxy,
                ..ListenerSpec::new([PORT_BASE])
            })
            .map_err(RunError::system("the DNS proxy's sockets"))?;
            Ok((interface, attached, listeners))
        })??;
        // Made on this thread, so upstream sockets belong to the host's namespace.
        let upstreams = Upstreams::new(
            dnsproxy::host_opener().map_err(RunError::system("sockets to resolvers"))?,
        );
        let core = Core::new(
            dns_config(spec),
            dnsproxy::entropy().map_err(RunError::system("random numbers"))?,
        );
        let (sender, records) = mpsc::channel(RECORDS);
        let lost_records = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&lost_records);
        let record = move |record| {
            if sender.try_send(record).is_err() {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        };
        let shard = dnsproxy::spawn(
            "dns-shard",
            core,
            listeners,
            upstreams,
            datapath.writer()?,
            record,
        )
        .map_err(RunError::system("the DNS proxy's thread"))?;
        let snapshot = surroundings.snapshot(world);
        // Control messages are taken before any query, and no query comes before the command runs.
        if shard
            .control
            .blocking_send(ControlMsg::Snapshot(Box::new(snapshot)))
            .is_err()
        {
            return Err(RunError::System {
                what: "the DNS proxy",
                source: std::io::ErrorKind::BrokenPipe.into(),
            });
        }
        Ok(Self {
            datapath,
            locals,
            interface,
            attached,
            shard,
            records,
            lost_records,
            surroundings,
        })
    }
}

fn dns_config(spec: &RunSpec) -> DnsConfig {
    let mut config = DnsConfig::default();
    config.ttl.min = spec.limits.min_ttl;
    config.ttl.grace = spec.limits.ttl_grace;
    config.limits.addresses_per_endpoint = spec.limits.addresses as usize;
    config.limits.names_per_endpoint = spec.limits.names as usize;
    config
}
