//! What a resolved name opens, and the proof that the kernel knows it.
//!
//! In:  the ledger's decisions.
//! Out: [`Batch`]es of [`GrantChange`]s for the map writer; [`Installed`] when all are written.
//! Not here: deciding grants (`ledger`), writing maps (`fqdn-ebpf/loader`).
//!
//! Invariant: an [`Installed`] exists only if the writer returned success for every change of its
//! batch. Its field is private to this module and [`Batch::install`] is its only constructor.

use std::net::IpAddr;

use identity::{EndpointId, SelectorSet};
use smallvec::SmallVec;

use crate::Moment;

/// Slots per (endpoint, address) in LEARNED: distinct selector sets with an expiry of their own.
pub const MAX_SLOTS: usize = 4;

/// One selector set that a name on the address matches, until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedSlot {
    /// The FQDN selectors of the endpoint's policy that the name matches; never empty.
    pub set: SelectorSet,
    /// When new connections stop being allowed through this slot.
    pub expires: Moment,
}

/// The whole content that LEARNED shall have for one (endpoint, address).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Learned {
    /// The workload that asked.
    pub endpoint: EndpointId,
    /// An address out of the answer.
    pub address: IpAddr,
    /// At least one slot, at most [`MAX_SLOTS`], sets pairwise different.
    pub slots: SmallVec<[LearnedSlot; MAX_SLOTS]>,
}

/// One step that makes the maps agree with the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GrantChange {
    /// Write this content, whatever was there.
    Put(Learned),
    /// Forget what this address opened for this endpoint.
    Remove {
        /// The workload.
        endpoint: EndpointId,
        /// The address.
        address: IpAddr,
    },
}

/// Why the maps do not hold a grant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The map has no room left.
    #[error("map {map} is full ({capacity} entries)")]
    Full {
        /// Name of the map as in the ABI.
        map: &'static str,
        /// How many entries it holds.
        capacity: u32,
    },
    /// No identity could be minted for the selector set.
    #[error(transparent)]
    Identities(#[from] identity::IdentitiesExhausted),
    /// The endpoint is not in the datapath (any more).
    #[error("endpoint {0} is not in the datapath")]
    NoEndpoint(EndpointId),
    /// The system call failed.
    #[error("writing map {map} failed: {reason}")]
    Failed {
        /// Name of the map as in the ABI.
        map: &'static str,
        /// What the system said.
        reason: String,
    },
}

/// Whoever owns the maps.
pub trait LearnedWriter {
    /// Makes the kernel hold `learned`: POLICY entries of new identities first, then LEARNED.
    /// Returns only after the writes returned.
    ///
    /// # Errors
    /// Whatever keeps the entry from being complete in the kernel.
    fn put(&mut self, learned: &Learned) -> Result<(), WriteError>;

    /// Makes the kernel forget the entry; one that is not there is fine.
    ///
    /// # Errors
    /// When the entry may still be there.
    fn remove(&mut self, endpoint: EndpointId, address: IpAddr) -> Result<(), WriteError>;
}

/// Names one batch until it is installed or has failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(u64);

impl BatchId {
    pub(crate) const fn new(raw: u64) -> Self {
        Self(raw)
    }
}

/// All changes that one answer (or one expiry run, or one policy change) asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a batch that is not installed holds its answer back for ever"]
pub struct Batch {
    id: BatchId,
    changes: Vec<GrantChange>,
}

/// The proof that every change of a batch is in the kernel. Not copyable, not forgeable.
///
/// ```compile_fail,E0451
/// fn forge(batch: dnsproxy_core::BatchId) -> dnsproxy_core::Installed {
///     dnsproxy_core::Installed { batch }
/// }
/// ```
#[derive(Debug)]
#[must_use = "hand the proof back to the core, or its answer is never released"]
pub struct Installed {
    batch: BatchId,
}

/// A batch that is not (entirely) in the kernel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{error}")]
pub struct InstallFailed {
    /// Which batch.
    pub batch: BatchId,
    /// The first write that failed.
    pub error: WriteError,
}

impl Batch {
    pub(crate) fn new(id: BatchId, changes: Vec<GrantChange>) -> Self {
        Self { id, changes }
    }

    /// Which batch this is.
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// The steps, in the order they must be taken.
    pub fn changes(&self) -> &[GrantChange] {
        &self.changes
    }

    /// Takes every step through `writer` and makes the proof if all of them succeeded. Stops at
    /// the first that fails: what was written before it grants what policy allows and the core
    /// takes it back.
    ///
    /// # Errors
    /// The batch's id and the first write that failed.
    pub fn install(self, writer: &mut impl LearnedWriter) -> Result<Installed, InstallFailed> {
        for change in &self.changes {
            let step = match change {
                GrantChange::Put(learned) => writer.put(learned),
                GrantChange::Remove { endpoint, address } => writer.remove(*endpoint, *address),
            };
            step.map_err(|error| InstallFailed {
                batch: self.id,
                error,
            })?;
        }
        Ok(Installed { batch: self.id })
    }
}

impl Installed {
    /// Which batch is installed.
    pub fn batch(&self) -> BatchId {
        self.batch
    }
}
