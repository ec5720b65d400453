//! RULES: how many packets each set of rules decided about.
//!
//! In:  policies that come and go.
//! Out: exact counts by set of rules, added up over processors.
//! Not here: what became of packets (`metrics`); entries (`policies`).
//!
//! The programs count only what is in the map: a policy's sets go in before its entries, and come
//! out after them.

use aya::{
    maps::{Map, MapData, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use fqdn_ebpf_common::{
    endpoint::PolicyId,
    metric::{Count, RuleKey},
};
use policy::compiled::EndpointPolicy;
use zerocopy::FromBytes as _;

use crate::{
    LoadError, MapError,
    table::{failed, full_or_failed, is_absent},
};

const NAME: &str = "RULES";

type Key = [u8; size_of::<RuleKey>()];
type Value = [u8; size_of::<Count>()];

/// The map, and how many entries it takes.
pub(crate) struct Hits {
    map: PerCpuHashMap<MapData, Key, Value>,
    capacity: u32,
    processors: usize,
}

impl std::fmt::Debug for Hits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{NAME}[{}]", self.capacity)
    }
}

impl Hits {
    pub(crate) fn new(map: Map, capacity: u32) -> Result<Self, LoadError> {
        let processors =
            nr_cpus().map_err(|(file, error)| LoadError::Other(format!("{file}: {error}")))?;
        Ok(Self {
            map: map
                .try_into()
                .map_err(|error| failed("opening", NAME, &error))?,
            capacity,
            processors,
        })
    }

    /// Begins to count for a policy; on failure nothing of it stays.
    pub(crate) fn begin(&mut self, id: PolicyId, policy: &EndpointPolicy) -> Result<(), MapError> {
        for set in 0..sets(policy) {
            if let Err(error) = self.put(id, set) {
                self.end(id, policy);
                return Err(error);
            }
        }
        Ok(())
    }

    fn put(&mut self, id: PolicyId, set: u32) -> Result<(), MapError> {
        let zero = PerCpuValues::try_from(vec![[0; size_of::<Count>()]; self.processors]);
        let zero = zero.map_err(|error| failed("writing", NAME, &error.into()))?;
        self.map
            .insert(key(id, set), zero, 0)
            .map_err(|error| full_or_failed(NAME, self.capacity, &error))
    }

    /// Counts for a policy no more.
    pub(crate) fn end(&mut self, id: PolicyId, policy: &EndpointPolicy) {
        for set in 0..sets(policy) {
            // What stays counts for a number that no endpoint names any more.
            let _ = self.map.remove(&key(id, set));
        }
    }

    /// The counts of a policy, by number of the set; none of a policy that is not counted for.
    pub(crate) fn read(
        &self,
        id: PolicyId,
        policy: &EndpointPolicy,
    ) -> Result<Vec<Count>, MapError> {
        (0..sets(policy))
            .map(|set| match self.map.get(&key(id, set), 0) {
                Ok(each) => Ok(each
                    .iter()
                    .filter_map(|bytes| Count::read_from_bytes(bytes).ok())
                    .fold(Count::default(), Count::plus)),
                Err(error) if is_absent(&error) => Ok(Count::default()),
                Err(error) => Err(failed("reading", NAME, &error)),
            })
            .collect()
    }
}

/// How many sets of rules a policy has. Fits: there are fewer than grants.
fn sets(policy: &EndpointPolicy) -> u32 {
    u32::try_from(policy.rule_sets.len()).unwrap_or(u32::MAX)
}

fn key(id: PolicyId, set: u32) -> Key {
    zerocopy::transmute!(RuleKey::new(id.get(), set))
}
