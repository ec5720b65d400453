//! What the programs need of a kernel, and which of it this kernel lacks.
//!
//! In:  the running kernel, asked with programs and maps that do nothing.
//! Out: names of what is missing, for the message of a load that failed.
//! Not here: the message (`error`); tcx, without which clsact does the same (`attach`).
//!
//! A kernel is asked rather than its version read: distributions leave things out, and carry others
//! back to older versions.

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};

/// Maps of these kinds.
const MAPS: &[MapType] = &[
    MapType::Hash,
    MapType::Array,
    MapType::PerCpuHash,
    MapType::PerCpuArray,
    MapType::LruHash,
    MapType::LpmTrie,
    MapType::ArrayOfMaps,
    MapType::RingBuf,
];

/// Functions of the kernel, for programs of tc.
const HELPERS: &[BpfHelper] = &[
    BpfHelper::BPF_FUNC_map_lookup_elem,
    BpfHelper::BPF_FUNC_map_update_elem,
    BpfHelper::BPF_FUNC_map_delete_elem,
    BpfHelper::BPF_FUNC_skb_load_bytes,
    BpfHelper::BPF_FUNC_skb_store_bytes,
    BpfHelper::BPF_FUNC_redirect,
    BpfHelper::BPF_FUNC_sk_lookup_udp,
    BpfHelper::BPF_FUNC_skc_lookup_tcp,
    BpfHelper::BPF_FUNC_sk_fullsock,
    BpfHelper::BPF_FUNC_sk_assign,
    BpfHelper::BPF_FUNC_sk_release,
    BpfHelper::BPF_FUNC_ringbuf_reserve,
    BpfHelper::BPF_FUNC_ringbuf_submit,
    BpfHelper::BPF_FUNC_ktime_get_boot_ns,
    BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
];

/// Something that a kernel has or lacks.
#[derive(Clone, Copy)]
enum Need {
    Programs,
    Map(MapType),
    Helper(BpfHelper),
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Programs => write!(f, "eBPF programs of tc"),
            Self::Map(kind) => write!(f, "eBPF maps of the kind {kind:?}"),
            Self::Helper(helper) => {
                let name = format!("{helper:?}");
                let name = name.strip_prefix("BPF_FUNC_").unwrap_or(&name);
                write!(f, "the eBPF helper bpf_{name}")
            }
        }
    }
}

/// What this kernel lacks, in words; nothing when it has everything, or does not let itself be
/// asked.
pub(crate) fn missing() -> Option<String> {
    lacking(|need| {
        // A question that fails says nothing about what was asked for.
        match need {
            Need::Programs => is_program_supported(ProgramType::SchedClassifier).unwrap_or(true),
            Need::Map(kind) => is_map_supported(kind).unwrap_or(true),
            Need::Helper(helper) => {
                is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(true)
            }
        }
    })
}

fn lacking(has: impl Fn(Need) -> bool) -> Option<String> {
    // Without such programs every helper would be missing too.
    if !has(Need::Programs) {
        return Some(Need::Programs.to_string());
    }
    let maps = MAPS.iter().map(|kind| Need::Map(*kind));
    let helpers = HELPERS.iter().map(|helper| Need::Helper(*helper));
    let names: Vec<_> = maps
        .chain(helpers)
        .filter(|need| !has(*need))
        .map(|need| need.to_string())
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use std::collections::BTreeSet;

    use aya_obj::Object;

    use super::*;
    use crate::datapath::OBJECT;

    /// `BPF_JMP | BPF_CALL`.
    const CALL: u8 = 0x85;

    #[test]
    fn everything_the_programs_use_is_asked_for_and_nothing_else() {
        let object = Object::parse(OBJECT).unwrap();
        let used: BTreeSet<u32> = object
            .functions
            .values()
            .flat_map(|function| &function.instructions)
            // Source register 0: a helper; others call functions of the object or of the kernel.
            .filter(|instruction| instruction.code == CALL && instruction.src_reg() == 0)
            .map(|instruction| instruction.imm.cast_unsigned())
            .collect();
        let asked: BTreeSet<u32> = HELPERS.iter().map(|helper| *helper as u32).collect();
        assert_eq!(used, asked);

        let mut used: BTreeSet<u32> = object.maps.values().map(|map| map.map_type()).collect();
        // What the arrays of maps hold.
        used.insert(MapType::LruHash as u32);
        let asked: BTreeSet<u32> = MAPS.iter().map(|kind| *kind as u32).collect();
        assert_eq!(used, asked);
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = lacking(|need| {
            !matches!(
                need,
                Need::Helper(BpfHelper::BPF_FUNC_sk_assign) | Need::Map(MapType::RingBuf)
            )
        });
        assert_eq!(
            missing.unwrap(),
            "eBPF maps of the kind RingBuf, the eBPF helper bpf_sk_assign"
        );
        assert_eq!(
            lacking(|_| false).unwrap(),
            "eBPF programs of tc",
            "one cause, not all that follows from it"
        );
        assert!(lacking(|_| true).is_none());
    }

    #[test]
    fn the_kernel_this_is_tested_on_lacks_nothing() {
        assert_eq!(missing(), None);
    }
}
