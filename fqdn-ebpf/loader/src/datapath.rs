//! The datapath: programs and maps of one network namespace's workloads.
//!
//! In:  endpoints, policies, address books from the agent.
//! Out: the kernel enforces them; a writer, events and counts for others.
//! Not here: attaching (`attach`), records (`fqdn-ebpf-common`).
//!
//! Order of writes: a policy's entries, then the endpoint that uses it; an identity's entries,
//! then what points at it; removal in reverse. So nothing is ever in force by halves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, Map, MapData, RingBuf},
    programs::{SchedClassifier, TcAttachType},
};
use fqdn_ebpf_common::{
    config::Config,
    endpoint::{Endpoint, PolicyId},
};
use identity::{AddressBook, EndpointId, IdentityId, LocalIdentities};
use ipnet::IpNet;
use policy::compiled::EndpointPolicy;

use crate::{
    Attach, AttachError, Attached, Count, Counters, EndpointSpec, Events, FlowRow, LearnedRow,
    LoadError, MapError, Metrics, Origin, PolicyRow, Program, Ran, Run, Sizes, Standing, Writer,
    attach::{self, FROM_POD, Hook, TO_POD},
    clock, dump,
    error::chain,
    hits::Hits,
    ipcache::{Addresses, IpCache, Prefixes},
    pins::Pins,
    policies::{PolicyMap, Shared},
    shape,
    slots::Slots,
    table::{Table, failed},
    testrun,
    writer::LearnedMap,
};

pub(crate) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/namegate-tc.o"));

pub(crate) type Endpoints = Table<IfIndex, Endpoint, 4, { size_of::<Endpoint>() }>;
pub(crate) type IfIndex = [u8; 4];

/// A workload that is in the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) ifindex: u32,
    pub(crate) slot: u32,
}

/// The programs and maps.
pub struct Datapath {
    pub(crate) programs: Ebpf,
    pub(crate) config: Array<MapData, [u8; size_of::<Config>()]>,
    pub(crate) current: Config,
    pub(crate) endpoints: Endpoints,
    pub(crate) placed: HashMap<EndpointId, Placed>,
    pub(crate) slots: Slots,
    pub(crate) revision: u32,
    pub(crate) ipcache: IpCache,
    pub(crate) learned: LearnedMap,
    pub(crate) shared: Shared,
    counters: Counters,
    events: Option<Events>,
    pub(crate) pins: Option<Pins>,
    pub(crate) origin: Origin,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath")
            .field("config", &self.current)
            .field("placed", &self.placed)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl Datapath {
    /// Loads programs and maps into the kernel. Nothing is attached yet.
    ///
    /// # Errors
    /// Missing privileges, a kernel that lacks something, memory.
    pub fn load(
        sizes: &Sizes,
        config: &Config,
        identities: Arc<Mutex<LocalIdentities>>,
    ) -> Result<Self, LoadError> {
        Self::load_with(sizes, config, identities, None)
    }

    pub(crate) fn load_with(
        sizes: &Sizes,
        config: &Config,
        identities: Arc<Mutex<LocalIdentities>>,
        pins: Option<&Pins>,
    ) -> Result<Self, LoadError> {
        clock::check()?;
        let mut loader = EbpfLoader::new();
        if let Some(pins) = pins {
            shape::check(OBJECT, sizes, pins)?;
        }
        for (name, path) in pins.into_iter().flat_map(Pins::maps) {
            loader.map_pin_path(name, path);
        }
        for (name, entries) in sizes.capacities() {
            loader.map_max_entries(name, entries);
        }
        let mut programs = loader.load(OBJECT).map_err(LoadError::from_object)?;
        for name in [FROM_POD, TO_POD] {
            program(&mut programs, name)?
                .load()
                .map_err(|error| LoadError::from_program(name, &error))?;
        }
        let mut take = |name| {
            programs
                .take_map(name)
                .ok_or(LoadError::Object { kind: "map", name })
        };
        let addresses = Addresses::new("IPCACHE", take("IPCACHE")?)?;
        let prefixes = Prefixes::new("IPCACHE_LPM", take("IPCACHE_LPM")?)?;
        let policy = PolicyMap::new("POLICY", take("POLICY")?)?;
        let hits = Hits::new(take("RULES")?, sizes.policy)?;
        let opened = |name| move |error| failed("opening", name, &error);
        let mut datapath = Self {
            config: take("CONFIG")?.try_into().map_err(opened("CONFIG"))?,
            current: *config,
            endpoints: Endpoints::new("ENDPOINTS", take("ENDPOINTS")?)?,
            placed: HashMap::new(),
            slots: Slots::fresh(sizes, take("CT")?, take("FRAGS")?)?,
            revision: 0,
            ipcache: IpCache::new(addresses, prefixes),
            learned: LearnedMap::new("LEARNED", take("LEARNED")?)?,
            shared: Shared::new(policy, hits, identities),
            counters: Counters::new(take("METRICS")?)?,
            events: Some(Events::new(ring(take("EVENTS")?)?)),
            pins: pins.cloned(),
            origin: Origin::default(),
            programs,
        };
        if pins.is_some() {
            datapath.take_over()?;
        }
        datapath.configure(*config)?;
        Ok(datapath)
    }

    /// Changes what holds for every endpoint; the epoch of IPCACHE is kept.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn configure(&mut self, config: Config) -> Result<(), MapError> {
        let config = config.with_ipcache_epoch(self.current.ipcache_epoch());
        let record: [u8; size_of::<Config>()] = zerocopy::transmute!(config);
        self.config
            .set(0, record, 0)
            .map_err(|error| failed("writing", "CONFIG", &error))?;
        self.current = config;
        Ok(())
    }

    /// Attaches both programs to an interface of the calling thread's network namespace, first in
    /// their chains. Until an endpoint is set for it, the interface drops everything.
    ///
    /// # Errors
    /// No such interface, or the kernel refused.
    pub fn attach(&mut self, interface: &str, how: Attach) -> Result<Attached, AttachError> {
        let mut hooks = hooks(&mut self.programs, interface)?;
        attach::attach(&mut hooks, interface, how, self.pins.as_ref())
    }

    /// Looks whether both programs are still attached and first in their chains, and sees to it
    /// that they are. Returns how each was found: what the workload sends, what it is sent.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn look_after(&mut self, attached: &mut Attached) -> Result<[Standing; 2], AttachError> {
        let mut hooks = hooks(&mut self.programs, attached.interface())?;
        attach::ensure(attached, &mut hooks)
    }

    /// Says which workload is behind an interface and what holds for it. Its policies must be set
    /// before. A second call changes what holds, in one write; flows are judged again.
    ///
    /// # Errors
    /// Full maps, unknown policies; what held before holds on.
    pub fn set_endpoint(&mut self, ifindex: u32, spec: &EndpointSpec) -> Result<(), MapError> {
        let before = self.placed.get(&spec.id).copied();
        let slot = match before {
            Some(placed) => placed.slot,
            None => self.slots.take()?,
        };
        let revision = self.revision.wrapping_add(1);
        // The lock is held until the record is written: an identity minted meanwhile would
        // otherwise have no entries in the new policy.
        let mut policies = self.shared.lock();
        let written = spec
            .record(slot, revision, |id| policies.in_force(id))
            .and_then(|record| {
                let old = policies.enlist(spec.id, [spec.enforced, spec.shadow])?;
                self.endpoints
                    .put(&ifindex.to_ne_bytes(), &record)
                    .inspect_err(|_| policies.restore(spec.id, old))
            });
        if let Err(error) = written {
            if before.is_none() {
                policies.dismiss(spec.id);
                self.slots.give(slot);
            }
            return Err(error);
        }
        drop(policies);
        self.revision = revision;
        self.placed.insert(spec.id, Placed { ifindex, slot });
        match before {
            Some(placed) if placed.ifindex != ifindex => {
                self.endpoints.remove(&placed.ifindex.to_ne_bytes())
            }
            _ => Ok(()),
        }
    }

    /// Forgets a workload and everything it learned. Its interface drops everything then.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn remove_endpoint(&mut self, id: EndpointId) -> Result<(), MapError> {
        let placed = self
            .placed
            .get(&id)
            .copied()
            .ok_or(MapError::NoEndpoint(id))?;
        // Writers wait, and then find no endpoint: nothing is learned for it after this.
        let mut policies = self.shared.lock();
        self.endpoints.remove(&placed.ifindex.to_ne_bytes())?;
        self.placed.remove(&id);
        for (key, _) in self.learned.rows()? {
            if key.endpoint() == id.get() {
                self.learned.remove(&key)?;
            }
        }
        for identity in policies.identities_in_use(id) {
            policies.release(id, identity)?;
        }
        policies.dismiss(id);
        self.slots.give(placed.slot);
        Ok(())
    }

    /// Puts a policy's entries into the kernel; it is in force once an endpoint names it. A
    /// number in use cannot be set again: a change of policy is a new number.
    ///
    /// # Errors
    /// A full map, or a policy in use; nothing of the new one stays then.
    pub fn set_policy(&mut self, id: PolicyId, policy: &EndpointPolicy) -> Result<(), MapError> {
        self.shared.lock().register(id, policy)
    }

    /// Says which policies, enforced and shadow, an endpoint will be given next: what names teach it
    /// from here on has entries in those too. Setting the endpoint, or removing them, ends this.
    ///
    /// # Errors
    /// A full map, an unknown policy; the policies are to be removed then.
    pub fn announce(
        &mut self,
        endpoint: EndpointId,
        next: [Option<PolicyId>; 2],
    ) -> Result<(), MapError> {
        self.shared.lock().announce(endpoint, next)
    }

    /// Takes a policy's entries out of the kernel.
    ///
    /// # Errors
    /// When an endpoint still uses it.
    pub fn remove_policy(&mut self, id: PolicyId) -> Result<(), MapError> {
        self.shared.lock().unregister(id)
    }

    /// Makes IPCACHE say what the book says. If anything changed, flows are judged again.
    ///
    /// # Errors
    /// A full map; what could be written stays.
    pub fn ipcache(&mut self, book: &AddressBook) -> Result<(), MapError> {
        let written = self.ipcache.write(book);
        if !matches!(written, Ok(false)) {
            let epoch = self.current.ipcache_epoch().wrapping_add(1);
            self.current = self.current.with_ipcache_epoch(epoch);
            self.configure(self.current)?;
        }
        written.map(|_| ())
    }

    /// Forgets ephemeral identities that no LEARNED entry names and no flow was opened under.
    /// Returns how many numbers went.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    pub fn collect_identities(&mut self) -> Result<usize, MapError> {
        // Writers wait meanwhile: an identity they are about to write must not go. LEARNED is read
        // before CT: a flow that is opened in between was allowed by an entry that is still there.
        let mut policies = self.shared.lock();
        let mut gone = 0;
        let rows = self.learned.rows()?;
        for endpoint in policies.endpoints() {
            let mut held: std::collections::BTreeSet<u32> = rows
                .iter()
                .filter(|(key, _)| key.endpoint() == endpoint.get())
                .flat_map(|(_, learned)| learned.slots().iter().map(|slot| slot.identity()))
                .collect();
            if let Some(placed) = self.placed.get(&endpoint) {
                let flows = self.slots.flows(placed.slot).map_err(as_map_error)?;
                held.extend(flows.rows()?.iter().map(|(_, flow)| flow.opening().learned));
            }
            for identity in policies.identities_in_use(endpoint) {
                if !held.contains(&identity.get()) {
                    policies.release(endpoint, identity)?;
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    /// From here on every new ephemeral identity is told, before anything points at it; if that
    /// fails, so does the write that wanted it.
    pub fn tell_minted(
        &self,
        tell: impl FnMut(IdentityId, &identity::SelectorSet) -> std::io::Result<()> + Send + 'static,
    ) {
        self.shared.lock().tell_minted(tell);
    }

    /// A writer for what DNS teaches; any number of them may be at work.
    ///
    /// # Errors
    /// When the map cannot be opened once more.
    pub fn writer(&self) -> Result<Writer, LoadError> {
        Writer::new(&self.learned, &self.shared)
    }

    /// The events' consumer; there is only one, so a second call finds none.
    pub fn events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// Exact counts since loading.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn metrics(&self) -> Result<Metrics, MapError> {
        self.counters.read()
    }

    /// How many packets each set of a policy's rules decided about since the policy was set, by
    /// number of the set. Packets of a flow that is open count with the flow.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn hits(&self, policy: PolicyId) -> Result<Vec<Count>, MapError> {
        self.shared.lock().hits(policy)
    }

    /// What LEARNED holds, expired entries included.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn learned(&self) -> Result<Vec<LearnedRow>, MapError> {
        let rows = self.learned.rows()?;
        Ok(rows
            .iter()
            .map(|(key, value)| dump::learned_row(key, value))
            .collect())
    }

    /// The flows of an endpoint, expired ones included.
    ///
    /// # Errors
    /// An unknown endpoint, or the map cannot be read.
    pub fn flows(&self, endpoint: EndpointId) -> Result<Vec<FlowRow>, MapError> {
        let placed = self
            .placed
            .get(&endpoint)
            .ok_or(MapError::NoEndpoint(endpoint))?;
        let rows = self
            .slots
            .flows(placed.slot)
            .map_err(as_map_error)?
            .rows()?;
        let slept = dump::slept();
        Ok(rows
            .iter()
            .map(|(key, flow)| dump::flow_row(endpoint, key, flow, slept))
            .collect())
    }

    /// What POLICY holds.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn policy_entries(&self) -> Result<Vec<PolicyRow>, MapError> {
        let rows = self.shared.lock().map().rows()?;
        Ok(rows
            .iter()
            .map(|(len, key, entry)| dump::policy_row(*len, key, entry))
            .collect())
    }

    /// What IPCACHE and IPCACHE_LPM hold, in order.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn addresses(&self) -> Result<Vec<(IpNet, IdentityId)>, MapError> {
        let rows = self.ipcache.rows()?;
        Ok(rows
            .into_iter()
            .map(|(net, identity)| (net, IdentityId::from_raw(identity)))
            .collect())
    }

    /// Runs a program on a packet, without a network (BPF_PROG_TEST_RUN).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn test_run(&self, which: Program, run: &Run<'_>) -> Result<Ran, LoadError> {
        testrun::run(self.program(which)?, run).map_err(|error| LoadError::Other(chain(&error)))
    }

    /// Instructions that the verifier walked through to accept a program.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn verified_instructions(&self, which: Program) -> Result<Option<u32>, LoadError> {
        self.program(which)?
            .info()
            .map(|info| info.verified_instruction_count())
            .map_err(|error| LoadError::Other(chain(&error)))
    }

    fn program(&self, which: Program) -> Result<&SchedClassifier, LoadError> {
        let name = match which {
            Program::FromPod => FROM_POD,
            Program::ToPod => TO_POD,
        };
        self.programs
            .program(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(LoadError::Object {
                kind: "program",
                name,
            })
    }
}

fn program<'a>(
    programs: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, LoadError> {
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Object {
            kind: "program",
            name,
        })
}

/// Both programs, and where they go at an interface.
fn hooks<'a>(programs: &'a mut Ebpf, interface: &str) -> Result<[Hook<'a>; 2], AttachError> {
    let mut from_pod = None;
    let mut to_pod = None;
    for (name, program) in programs.programs_mut() {
        let Ok(program) = <&mut SchedClassifier>::try_from(program) else {
            continue;
        };
        match name {
            FROM_POD => from_pod = Some(program),
            TO_POD => to_pod = Some(program),
            _ => {}
        }
    }
    let (Some(from_pod), Some(to_pod)) = (from_pod, to_pod) else {
        return Err(AttachError::Failed {
            program: FROM_POD,
            interface: interface.to_owned(),
            how: "any way",
            reason: "the object has no such program".to_owned(),
        });
    };
    Ok([
        Hook {
            name: FROM_POD,
            program: from_pod,
            at: TcAttachType::Ingress,
        },
        Hook {
            name: TO_POD,
            program: to_pod,
            at: TcAttachType::Egress,
        },
    ])
}

fn ring(map: Map) -> Result<RingBuf<MapData>, MapError> {
    map.try_into()
        .map_err(|error| failed("opening", "EVENTS", &error))
}

pub(crate) fn as_map_error(error: LoadError) -> MapError {
    match error {
        LoadError::Map(error) => error,
        other => MapError::Failed {
            doing: "opening",
            map: "CT",
            reason: other.to_string(),
        },
    }
}
