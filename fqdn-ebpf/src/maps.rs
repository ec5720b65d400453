//! The maps. Their names and records are the ABI between the programs and the loader.
//!
//! In:  records the loader writes, indices and keys the programs look up.
//! Out: references into the maps.
//! Not here: capacities in production: the loader sets them (`loader/src/sizes.rs`); the numbers
//!      below are what an object loaded by other tools gets.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf},
    macros::btf_map,
};
use fqdn_ebpf_common::{
    Direction,
    address::Addr,
    bucket::Bucket,
    config::Config,
    conntrack::{Flow, FlowKey},
    endpoint::Endpoint,
    event::Event,
    fragment::{DatagramKey, Ports},
    ipcache::Entry,
    learned::{Learned, LearnedKey},
    metric::{self, Count, RuleKey},
    path::Scratch,
    policy::{PolicyEntry, PolicyKey},
};

use crate::inner::LruTable;

/// Flows of one endpoint.
pub(crate) type Flows =
    LruTable<FlowKey, Flow, { size_of::<FlowKey>() }, { size_of::<Flow>() }, 8192>;
/// Fragmented datagrams of one endpoint.
pub(crate) type Datagrams =
    LruTable<DatagramKey, Ports, { size_of::<DatagramKey>() }, { size_of::<Ports>() }, 256>;

#[btf_map]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
pub(crate) static ENDPOINTS: HashMap<u32, Endpoint, 256> = HashMap::new();
#[btf_map]
pub(crate) static IPCACHE: HashMap<Addr, Entry, 65536> = HashMap::new();
#[btf_map]
pub(crate) static IPCACHE_LPM: LpmTrie<Addr, Entry, 16384> = LpmTrie::new();
#[btf_map]
pub(crate) static LEARNED: HashMap<LearnedKey, Learned, 65536> = HashMap::new();
#[btf_map]
pub(crate) static POLICY: LpmTrie<PolicyKey, PolicyEntry, 65536> = LpmTrie::new();
#[btf_map]
pub(crate) static CT: ArrayOfMaps<Flows, 256> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static FRAGS: ArrayOfMaps<Datagrams, 256> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, 1048576> = RingBuf::new();
/// Index 0 is for packets at unknown interfaces, an endpoint's is its slot plus one.
#[btf_map]
pub(crate) static TOKENS: Array<Bucket, 257> = Array::new();
#[btf_map]
pub(crate) static METRICS: PerCpuArray<Count, { metric::ENTRIES as usize }> = PerCpuArray::new();
/// The loader puts every set of rules in; memory is taken for those only.
#[btf_map]
pub(crate) static RULES: PerCpuHashMap<RuleKey, Count, 65536, { BPF_F_NO_PREALLOC as usize }> =
    PerCpuHashMap::new();
/// What does not fit on the stack, for each direction.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 2> = PerCpuArray::new();

/// The endpoint behind an interface.
#[inline(always)]
pub(crate) fn endpoint(ifindex: u32) -> Option<&'static Endpoint> {
    // SAFETY: records are replaced as a whole by the loader, never written here; the program
    // runs under RCU, so a removed record stays readable until it ends.
    unsafe { ENDPOINTS.get(ifindex) }
}

/// This processor's scratch space for a direction.
#[inline(always)]
pub(crate) fn scratch(direction: Direction) -> Option<&'static mut Scratch> {
    let index = match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    };
    let scratch = SCRATCH.get_ptr_mut(index)?;
    // SAFETY: the map belongs to this processor and bottom halves are off, so no other run of the
    // same direction is between its first and last use of it. All-zero bytes, which the map
    // starts with, are a valid `Scratch`.
    Some(unsafe { &mut *scratch })
}
