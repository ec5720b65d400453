//! Exact counts, added up over processors.
//!
//! In:  METRICS.
//! Out: [`Metrics`], a snapshot that answers questions.
//! Not here: exporting them (`agent`).

use aya::maps::{MapData, PerCpuArray};
use fqdn_ebpf_common::{
    Direction,
    metric::{self, Count, Passed},
    reason::DropReason,
};
use zerocopy::FromBytes as _;

use crate::{LoadError, MapError, table::failed};

/// A handle to the counters that any thread may read.
pub struct Counters {
    map: PerCpuArray<MapData, [u8; size_of::<Count>()]>,
}

/// What was counted until one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    counts: Vec<Count>,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl Counters {
    pub(crate) fn new(map: aya::maps::Map) -> Result<Self, LoadError> {
        Ok(Self {
            map: map
                .try_into()
                .map_err(|error| failed("opening", "METRICS", &error))?,
        })
    }

    /// The counts at this moment.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn read(&self) -> Result<Metrics, MapError> {
        let mut counts = Vec::new();
        for index in 0..metric::ENTRIES {
            let each = self
                .map
                .get(&index, 0)
                .map_err(|error| failed("reading", "METRICS", &error))?;
            let sum = each
                .iter()
                .filter_map(|bytes| Count::read_from_bytes(bytes).ok())
                .fold(Count::default(), Count::plus);
            counts.push(sum);
        }
        Ok(Metrics { counts })
    }
}

impl Metrics {
    fn at(&self, index: u32) -> Count {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.counts.get(index).copied())
            .unwrap_or_default()
    }

    /// Packets that went on, and things that happened beside packets.
    pub fn passed(&self, what: Passed, direction: Direction) -> Count {
        self.at(metric::passed(what, direction))
    }

    /// Packets that were dropped for this reason.
    pub fn dropped(&self, reason: DropReason, direction: Direction) -> Count {
        self.at(metric::dropped(reason, direction))
    }

    /// Every reason that dropped something.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, Direction, Count)> + '_ {
        [Direction::Egress, Direction::Ingress]
            .into_iter()
            .flat_map(move |direction| {
                DropReason::ALL
                    .iter()
                    .map(move |reason| (*reason, direction, self.dropped(*reason, direction)))
            })
            .filter(|(_, _, count)| count.packets() > 0)
    }
}
