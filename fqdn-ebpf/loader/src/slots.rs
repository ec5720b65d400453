//! Slots: every endpoint's own tables of flows and fragments.
//!
//! In:  an endpoint that comes or goes.
//! Out: an index into CT and FRAGS with fresh, empty tables behind it.
//! Not here: the records in them.

use aya::maps::{ArrayOfMaps, Map, MapData};
use fqdn_ebpf_common::{
    conntrack::{Flow, FlowKey},
    fragment::{DatagramKey, Ports},
};

use crate::{
    LoadError, MapError, Sizes,
    table::{Table, failed},
};

/// Flows of one endpoint.
pub(crate) type Flows = Table<FlowKey, Flow, { size_of::<FlowKey>() }, { size_of::<Flow>() }>;

/// BPF_MAP_TYPE_LRU_HASH (`include/uapi/linux/bpf.h`).
const LRU_HASH: u32 = 9;

/// The outer maps and which of their indices are free.
pub(crate) struct Slots {
    flows: ArrayOfMaps<MapData, MapData>,
    datagrams: ArrayOfMaps<MapData, MapData>,
    free: Vec<u32>,
    capacity: u32,
    flows_each: u32,
    datagrams_each: u32,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slots({} of {} free)", self.free.len(), self.capacity)
    }
}

impl Slots {
    /// Every slot is free.
    pub(crate) fn fresh(sizes: &Sizes, flows: Map, datagrams: Map) -> Result<Self, LoadError> {
        Ok(Self {
            free: (0..sizes.endpoints).rev().collect(),
            capacity: sizes.endpoints,
            flows_each: sizes.flows,
            datagrams_each: sizes.datagrams,
            ..Self::existing(flows, datagrams)?
        })
    }

    /// No slot is free: maps to read from.
    pub(crate) fn existing(flows: Map, datagrams: Map) -> Result<Self, LoadError> {
        Ok(Self {
            flows: flows
                .try_into()
                .map_err(|error| failed("opening", "CT", &error))?,
            datagrams: datagrams
                .try_into()
                .map_err(|error| failed("opening", "FRAGS", &error))?,
            free: Vec::new(),
            capacity: 0,
            flows_each: 0,
            datagrams_each: 0,
        })
    }

    /// A slot with empty tables.
    pub(crate) fn take(&mut self) -> Result<u32, MapError> {
        let slot = self.free.pop().ok_or(MapError::NoSlot {
            capacity: self.capacity,
        })?;
        let filled =
            fill::<FlowKey, Flow>("CT", &mut self.flows, slot, self.flows_each).and_then(|()| {
                fill::<DatagramKey, Ports>("FRAGS", &mut self.datagrams, slot, self.datagrams_each)
            });
        if filled.is_err() {
            self.free.push(slot);
        }
        filled.map(|()| slot)
    }

    /// A predecessor's endpoint has this slot, with tables that go on.
    pub(crate) fn reserve(&mut self, slot: u32) {
        self.free.retain(|free| *free != slot);
    }

    /// Gives a slot back. Its tables stay until the slot is taken again.
    pub(crate) fn give(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// The flows of a slot.
    pub(crate) fn flows(&self, slot: u32) -> Result<Flows, LoadError> {
        let inner = self
            .flows
            .get(&slot, 0)
            .map_err(|error| failed("reading", "CT", &error))?;
        Flows::new("CT", Map::LruHashMap(inner))
    }
}

fn fill<K, V>(
    name: &'static str,
    outer: &mut ArrayOfMaps<MapData, MapData>,
    slot: u32,
    entries: u32,
) -> Result<(), MapError> {
    let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let shape = aya_obj::Map::new_from_params(
        LRU_HASH,
        size(size_of::<K>()),
        size(size_of::<V>()),
        entries,
        0,
    );
    let inner =
        MapData::create(shape, name, None).map_err(|error| failed("making", name, &error))?;
    outer
        .set(slot, &inner, 0)
        .map_err(|error| failed("writing", name, &error))
}
