//! Moving what a predecessor's maps hold into maps of other sizes.
//!
//! In:  an older generation of pinned maps with the same records; this generation, still empty.
//! Out: endpoints, policies, addresses, what was learned and the flows, as they were.
//! Not here: maps of another ABI, whose records mean something else (`pins` does not offer them).
//!
//! The old programs and maps go on until the links change over. What does not fit is left behind:
//! a policy as a whole, because half of one may allow what the other half denies.

use aya::maps::{Array, Map, MapData, MapError as AyaError};
use fqdn_ebpf_common::{config::Config, endpoint::Endpoint};

use crate::{
    Datapath, LoadError, MapError, Pins,
    datapath::Endpoints,
    ipcache::{Addresses, Prefixes},
    policies::PolicyMap,
    slots::Slots,
    table::failed,
    writer::LearnedMap,
};

/// Where the content of pinned maps comes from.
#[derive(Debug, Default)]
pub enum Origin {
    /// Nothing was there.
    #[default]
    Empty,
    /// A predecessor's maps go on.
    Adopted,
    /// Maps of other sizes, whose content was moved.
    Carried {
        /// Learned addresses and endpoints that found no room.
        left_behind: usize,
    },
    /// Maps of other sizes, whose content could not be moved: everything begins anew.
    Lost(MapError),
}

/// A predecessor's maps.
struct Old {
    endpoints: Endpoints,
    addresses: Addresses,
    prefixes: Prefixes,
    policy: PolicyMap,
    learned: LearnedMap,
    slots: Slots,
}

impl Old {
    fn open(pins: &Pins) -> Result<Self, LoadError> {
        let hash = |name| Ok::<_, MapError>(Map::HashMap(open(pins, name)?));
        let trie = |name| Ok::<_, MapError>(Map::LpmTrie(open(pins, name)?));
        let outer = |name| Ok::<_, MapError>(Map::ArrayOfMaps(open(pins, name)?));
        Ok(Self {
            endpoints: Endpoints::new("ENDPOINTS", hash("ENDPOINTS")?)?,
            addresses: Addresses::new("IPCACHE", hash("IPCACHE")?)?,
            prefixes: Prefixes::new("IPCACHE_LPM", trie("IPCACHE_LPM")?)?,
            policy: PolicyMap::new("POLICY", trie("POLICY")?)?,
            learned: LearnedMap::new("LEARNED", hash("LEARNED")?)?,
            slots: Slots::existing(outer("CT")?, outer("FRAGS")?)?,
        })
    }
}

fn open(pins: &Pins, name: &'static str) -> Result<MapData, MapError> {
    MapData::from_pin(pins.map(name)).map_err(|error: AyaError| failed("opening", name, &error))
}

impl Datapath {
    /// Fills this generation with what the older one holds; how much found no room.
    pub(crate) fn carry(&mut self, pins: &Pins) -> Result<usize, MapError> {
        let config = open(pins, "CONFIG").and_then(|data| {
            Array::<_, [u8; size_of::<Config>()]>::try_from(Map::Array(data))
                .and_then(|map| map.get(&0, 0))
                .map_err(|error| failed("reading", "CONFIG", &error))
        })?;
        let config: Config = zerocopy::transmute!(config);
        if !config.is_ours() {
            return Err(MapError::Failed {
                doing: "moving",
                map: "CONFIG",
                reason: "the predecessor never filled its maps to the end".to_owned(),
            });
        }
        self.current = self.current.with_ipcache_epoch(config.ipcache_epoch());
        let old = Old::open(pins).map_err(crate::datapath::as_map_error)?;
        self.ipcache
            .carry(&old.addresses.rows()?, &old.prefixes.rows()?)?;
        self.shared.lock().carry(&old.policy.rows()?)?;
        let mut left_behind = 0;
        for (key, value) in old.learned.rows()? {
            match self.learned.put(&key, &value) {
                Err(MapError::Full { .. }) => left_behind += 1,
                other => other?,
            }
        }
        for (ifindex, endpoint) in old.endpoints.rows()? {
            match self.carry_endpoint(&old.slots, ifindex, &endpoint) {
                Err(MapError::NoSlot { .. } | MapError::Full { .. }) => left_behind += 1,
                other => other?,
            }
        }
        Ok(left_behind)
    }

    /// Flows first: an endpoint is in force from its record on. Fragments of datagrams under way are
    /// not worth it.
    fn carry_endpoint(
        &mut self,
        slots: &Slots,
        ifindex: crate::datapath::IfIndex,
        endpoint: &Endpoint,
    ) -> Result<(), MapError> {
        let slot = self.slots.take()?;
        let flows = slots
            .flows(endpoint.slot())
            .map_err(crate::datapath::as_map_error)?;
        let mut own = self
            .slots
            .flows(slot)
            .map_err(crate::datapath::as_map_error)?;
        for (key, flow) in flows.rows()? {
            // The least recently used go when there is less room.
            own.put(&key, &flow)?;
        }
        self.endpoints.put(&ifindex, &endpoint.with_slot(slot))
    }
}
