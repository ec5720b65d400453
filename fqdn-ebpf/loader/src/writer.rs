//! The writer of LEARNED: what makes an answer's release safe.
//!
//! In:  what a name teaches one endpoint, as selector sets with expiries.
//! Out: POLICY entries of each set's identity, then the LEARNED entry; an error if any is missing.
//! Not here: the proof that all of a batch is written (`dnsproxy_core::Batch::install`).

use std::net::IpAddr;

use dnsproxy_core::{Learned, LearnedWriter, WriteError};
use fqdn_ebpf_common::{
    address::Addr,
    learned::{self, LearnedKey, SLOTS, Slot},
};
use identity::EndpointId;

use crate::{
    LoadError, MapError,
    policies::{NotReady, Shared},
    table::Table,
};

/// The LEARNED map.
pub(crate) type LearnedMap = Table<
    LearnedKey,
    learned::Learned,
    { size_of::<LearnedKey>() },
    { size_of::<learned::Learned>() },
>;

/// Writes what DNS teaches. One for each shard of the proxy; they share only the short lock of
/// the POLICY map.
#[derive(Debug)]
pub struct Writer {
    map: LearnedMap,
    shared: Shared,
}

impl Writer {
    pub(crate) fn new(map: &LearnedMap, shared: &Shared) -> Result<Self, LoadError> {
        Ok(Self {
            map: map.reopen()?,
            shared: shared.clone(),
        })
    }
}

impl LearnedWriter for Writer {
    fn put(&mut self, learned: &Learned) -> Result<(), WriteError> {
        let mut slots = [Slot::default(); SLOTS];
        if learned.slots.is_empty() || learned.slots.len() > SLOTS {
            return Err(WriteError::Failed {
                map: "LEARNED",
                reason: format!("{} selector sets, at most {SLOTS} fit", learned.slots.len()),
            });
        }
        // Held until the entry is written: an identity without a LEARNED entry may be collected.
        let mut policies = self.shared.lock();
        for (slot, wanted) in slots.iter_mut().zip(&learned.slots) {
            let identity = policies
                .ready(learned.endpoint, &wanted.set)
                .map_err(|error| not_ready(error, learned.endpoint))?;
            *slot = Slot::new(identity.get(), wanted.expires.nanos());
        }
        self.map
            .put(
                &LearnedKey::new(learned.endpoint.get(), Addr::from(learned.address)),
                &learned::Learned::new(slots),
            )
            .map_err(write_error)
    }

    fn remove(&mut self, endpoint: EndpointId, address: IpAddr) -> Result<(), WriteError> {
        self.map
            .remove(&LearnedKey::new(endpoint.get(), Addr::from(address)))
            .map_err(write_error)
    }
}

fn not_ready(error: NotReady, endpoint: EndpointId) -> WriteError {
    match error {
        NotReady::NoEndpoint => WriteError::NoEndpoint(endpoint),
        NotReady::Identities(exhausted) => WriteError::Identities(exhausted),
        NotReady::Map(error) => write_error(error),
    }
}

fn write_error(error: MapError) -> WriteError {
    match error {
        MapError::Full { map, capacity } => WriteError::Full { map, capacity },
        MapError::Failed { map, reason, .. } => WriteError::Failed { map, reason },
        other @ (MapError::NoSlot { .. }
        | MapError::NoPolicy(_)
        | MapError::PolicyInUse { .. }
        | MapError::Addresses { .. }
        | MapError::NoEndpoint(_)) => WriteError::Failed {
            map: "POLICY",
            reason: other.to_string(),
        },
    }
}
