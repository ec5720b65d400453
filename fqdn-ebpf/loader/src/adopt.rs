//! Taking over maps that a predecessor pinned, and going on where it stopped.
//!
//! In:  maps with the predecessor's content.
//! Out: [`Adopted`]: what is in them; afterwards they agree with what the agent says.
//! Not here: names and label sets behind the numbers (the agent's journal), links (`attach`).
//!
//! What the predecessor wrote stays in force until its successor has something to put in its place.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use fqdn_ebpf_common::config::Config;
use identity::{EndpointId, IdentityId, LocalIdentities, SelectorSet};

use crate::{
    Datapath, LearnedRow, LoadError, MapError, Origin, Pins, Sizes, attach,
    datapath::{Placed, as_map_error},
    dump,
    table::failed,
};

/// What was found in pinned maps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Adopted {
    /// Endpoints: number, interface, addresses.
    pub endpoints: Vec<(EndpointId, u32, Vec<IpAddr>)>,
    /// What DNS taught them.
    pub learned: Vec<LearnedRow>,
    /// The highest number of a policy.
    pub last_policy: u32,
    /// The highest number of an endpoint.
    pub last_endpoint: u32,
    /// Every identity that something points at.
    pub identities: BTreeSet<IdentityId>,
}

impl Datapath {
    /// Loads programs with maps that are pinned, a predecessor's where there are any.
    ///
    /// # Errors
    /// As [`Datapath::load`].
    pub fn load_pinned(
        sizes: &Sizes,
        config: &Config,
        identities: Arc<Mutex<LocalIdentities>>,
        pins: &Pins,
    ) -> Result<Self, LoadError> {
        Self::load_with(sizes, config, identities, Some(pins))
    }

    /// Makes what this process remembers of the maps agree with what is in them.
    pub(crate) fn take_over(&mut self) -> Result<(), LoadError> {
        let record = self
            .config
            .get(&0, 0)
            .map_err(|error| failed("reading", "CONFIG", &error))?;
        let before: Config = zerocopy::try_transmute!(record).unwrap_or(self.current);
        // The configuration is written last: without it the maps were never filled to the end.
        if before.is_ours() {
            self.current = self.current.with_ipcache_epoch(before.ipcache_epoch());
            self.origin = Origin::Adopted;
        } else if let Some(older) = self.pins.as_ref().and_then(Pins::predecessor) {
            self.origin = match self.carry(&older) {
                Ok(left_behind) => Origin::Carried { left_behind },
                Err(error) => Origin::Lost(error),
            };
        }
        for (_, endpoint) in self.endpoints.rows()? {
            self.revision = self.revision.max(endpoint.revision());
            self.slots.reserve(endpoint.slot());
        }
        self.ipcache.take_over()?;
        self.shared.lock().take_over()?;
        Ok(())
    }

    /// Where the content of the maps comes from.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether programs of a predecessor are at an interface and enforce by maps that are not
    /// these. They are to stay until everything is in these maps that must be.
    pub fn is_held_by_others(&self, interface: &str) -> bool {
        matches!(self.origin, Origin::Empty | Origin::Lost(_)) && attach::is_held(interface)
    }

    /// What is in the maps.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn adopted(&self) -> Result<Adopted, MapError> {
        let mut adopted = Adopted::default();
        for (ifindex, endpoint) in self.endpoints.rows()? {
            let addresses = endpoint.addresses().map(|address| address.ip()).collect();
            let id = EndpointId::new(endpoint.id());
            adopted
                .endpoints
                .push((id, u32::from_ne_bytes(ifindex), addresses));
            adopted.last_endpoint = adopted.last_endpoint.max(endpoint.id());
            let flows = self.slots.flows(endpoint.slot()).map_err(as_map_error)?;
            let opened = flows.rows()?;
            adopted.identities.extend(
                opened
                    .iter()
                    .map(|(_, flow)| IdentityId::from_raw(flow.opening().learned)),
            );
        }
        for (key, value) in self.learned.rows()? {
            let row = dump::learned_row(&key, &value);
            adopted.last_endpoint = adopted.last_endpoint.max(row.endpoint.get());
            adopted
                .identities
                .extend(row.slots.iter().map(|(identity, _)| *identity));
            adopted.learned.push(row);
        }
        for row in self.policy_entries()? {
            adopted.last_policy = adopted.last_policy.max(row.policy.get());
            adopted.identities.extend(row.identity);
        }
        adopted.identities.remove(&IdentityId::from_raw(0));
        Ok(adopted)
    }

    /// Goes on with an endpoint of the predecessor. What holds for it holds on until
    /// [`Datapath::set_endpoint`] says otherwise. `set_of` knows what its ephemeral identities
    /// stand for; what it does not know opens nothing any more once that is called.
    ///
    /// # Errors
    /// No such endpoint, or a map cannot be read.
    pub fn adopt(
        &mut self,
        id: EndpointId,
        set_of: impl Fn(IdentityId) -> Option<SelectorSet>,
    ) -> Result<(), MapError> {
        let rows = self.endpoints.rows()?;
        let (ifindex, endpoint) = rows
            .into_iter()
            .find(|(_, endpoint)| endpoint.id() == id.get())
            .ok_or(MapError::NoEndpoint(id))?;
        let placed = Placed {
            ifindex: u32::from_ne_bytes(ifindex),
            slot: endpoint.slot(),
        };
        let mut held = BTreeSet::new();
        for (key, value) in self.learned.rows()? {
            if key.endpoint() == id.get() {
                held.extend(value.slots().iter().map(|slot| slot.identity()));
            }
        }
        let flows = self.slots.flows(placed.slot).map_err(as_map_error)?;
        held.extend(flows.rows()?.iter().map(|(_, flow)| flow.opening().learned));
        let sets = held
            .into_iter()
            .map(IdentityId::from_raw)
            .filter_map(|identity| Some((identity, set_of(identity)?)));
        self.shared.lock().adopt(id, sets);
        self.placed.insert(id, placed);
        Ok(())
    }

    /// Removes what the predecessor left and nobody goes on with: endpoints, what they learned,
    /// entries of its policies.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    pub fn reconcile(&mut self) -> Result<(), MapError> {
        for (ifindex, endpoint) in self.endpoints.rows()? {
            if !self.placed.contains_key(&EndpointId::new(endpoint.id())) {
                self.endpoints.remove(&ifindex)?;
                self.slots.give(endpoint.slot());
            }
        }
        for (key, _) in self.learned.rows()? {
            if !self.placed.contains_key(&EndpointId::new(key.endpoint())) {
                self.learned.remove(&key)?;
            }
        }
        self.shared.lock().forget_leftovers()
    }

    /// Forgets what LEARNED holds for an endpoint and `keep` does not want.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn prune_learned(
        &mut self,
        keep: impl Fn(EndpointId, IpAddr) -> bool,
    ) -> Result<(), MapError> {
        for (key, _) in self.learned.rows()? {
            if !keep(EndpointId::new(key.endpoint()), key.address().ip()) {
                self.learned.remove(&key)?;
            }
        }
        Ok(())
    }
}
