//! A packet and the maps, as the shared code wants to see them.
//!
//! In:  `__sk_buff`.
//! Out: [`Skb`], an implementation of the common crate's `Env`.
//! Not here: deciding anything.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_ANY},
    btf_maps::lpm_trie::Key,
    helpers::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes},
    programs::TcContext,
};
use fqdn_ebpf_common::{
    address::Addr,
    conntrack::{Flow, FlowKey, Seen, Sighting},
    env::{Case, Env, Meta},
    fragment::{DatagramKey, Ports},
    ipcache::Entry,
    learned::{Learned, LearnedKey},
    metric::RuleKey,
    packet::{self, Bytes, Packet},
    policy::{FULL_BITS, PolicyEntry, PolicyKey},
    reason::DropReason,
    verdict::{self, Rules},
};

use crate::maps;

/// How far from its front a packet is read in place: the verifier wants a limit.
const NEAR: u32 = 0x0fff;

/// One packet.
pub(crate) struct Skb {
    raw: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self {
            raw: ctx.as_ptr().cast(),
        }
    }

    #[inline(always)]
    pub(crate) const fn raw(&self) -> *mut __sk_buff {
        self.raw
    }

    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: the kernel passed this context to the program.
        unsafe { (*self.raw).mark }
    }

    #[inline(always)]
    pub(crate) fn set_mark(&self, mark: u32) {
        // SAFETY: as above; the verifier lets this field be written.
        unsafe { (*self.raw).mark = mark }
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passed this context to the program.
        unsafe { (*self.raw).ifindex }
    }

    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: the kernel passed this context to the program.
        unsafe { (*self.raw).ingress_ifindex }
    }

    /// Words in the part of the packet that lies in one piece, where headers nearly always are:
    /// a load each, without a call.
    #[inline(always)]
    fn near<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        if at > NEAR {
            return None;
        }
        // SAFETY: the kernel passed this context to the program.
        let (data, end) = unsafe { ((*self.raw).data as usize, (*self.raw).data_end as usize) };
        let first = data.wrapping_add(at as usize);
        if first.wrapping_add(size_of::<[u32; N]>()) > end {
            return None;
        }
        // SAFETY: all of it lies before the end, as the verifier checks too. Where the frame lies
        // is the driver's choice; a BPF load takes any address in a packet on processors that do,
        // and on others the verifier refuses the program. `read_unaligned` would put every word
        // together from four loads of a byte.
        Some(unsafe { (first as *const [u32; N]).read() })
    }

    #[inline(always)]
    pub(crate) fn vlan_present(&self) -> bool {
        // SAFETY: the kernel passed this context to the program.
        unsafe { (*self.raw).vlan_present != 0 }
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn read(&self, at: u32, into: &mut [u8]) -> bool {
        // SAFETY: the helper writes at most `into.len()` bytes, and reads wherever the packet
        // keeps them, linear or not.
        unsafe {
            bpf_skb_load_bytes(
                self.raw.cast(),
                at,
                into.as_mut_ptr().cast(),
                into.len() as u32,
            ) == 0
        }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        if let Some(words) = self.near(at) {
            return Some(words);
        }
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        let size = size_of::<[u32; N]>() as u32;
        // SAFETY: the helper writes all of `words` when it returns 0, and any bits are words.
        unsafe {
            (bpf_skb_load_bytes(self.raw.cast(), at, words.as_mut_ptr().cast(), size) == 0)
                .then(|| words.assume_init())
        }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the kernel passed this context to the program.
        unsafe { (*self.raw).len }
    }

    #[inline(always)]
    fn v4_options(&self, length: u32) -> Result<(), DropReason> {
        // SAFETY: the context is the program's own.
        decoded(unsafe { v4_options(self.raw, length) }).map(|_| ())
    }

    #[inline(always)]
    fn v6_extensions(&self, packet: &mut Packet) -> Result<u16, DropReason> {
        // SAFETY: as above, and the packet is borrowed for the call.
        decoded(unsafe { v6_extensions(self.raw, packet) })
    }
}

/// Nanoseconds after boot, sleep included.
#[inline(always)]
pub(crate) fn boot_now() -> u64 {
    // SAFETY: the helper takes no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// How a global function says "drop": the reason's number above what a result can be.
const REASON: u32 = 1 << 16;

#[inline(always)]
fn encoded(result: Result<u16, DropReason>) -> u32 {
    match result {
        Ok(value) => u32::from(value),
        Err(reason) => REASON | u32::from(reason.number()),
    }
}

#[inline(always)]
fn decoded(code: u32) -> Result<u16, DropReason> {
    if code < REASON {
        return Ok(code as u16);
    }
    Err(DropReason::from_number(code as u8).unwrap_or(DropReason::InvalidPacket))
}

/// [`packet::v4_options`] as a global function: the verifier walks it once, not once for every
/// way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn v4_options(raw: *mut __sk_buff, length: u32) -> u32 {
    encoded(packet::v4_options(&Skb { raw }, length).map(|()| 0))
}

/// [`packet::v6_extensions`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn v6_extensions(raw: *mut __sk_buff, packet: *mut Packet) -> u32 {
    // SAFETY: the verifier checks that callers pass the whole of a `Packet`, or null.
    match unsafe { packet.as_mut() } {
        Some(packet) => encoded(packet::v6_extensions(&Skb { raw }, packet)),
        None => encoded(Err(DropReason::InvalidPacket)),
    }
}

/// [`verdict::judge`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn judge(case: *mut Case) -> u32 {
    // SAFETY: as above.
    if let Some(case) = unsafe { case.as_mut() } {
        case.judgement = verdict::judge(&PolicyMap, &case.ask, &case.peers);
    }
    0
}

/// POLICY, which needs no packet.
struct PolicyMap;

impl Rules for PolicyMap {
    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry> {
        maps::POLICY.get(&Key::new(FULL_BITS, *key)).copied()
    }
}

impl Rules for Skb {
    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry> {
        PolicyMap.policy(key)
    }
}

impl Env for Skb {
    #[inline(always)]
    fn judge(&self, case: &mut Case) {
        // SAFETY: the case is borrowed for the call.
        unsafe { judge(case) };
    }

    #[inline(always)]
    fn address(&self, address: &Addr) -> Option<Entry> {
        // SAFETY: records are replaced as a whole by the loader, never written here.
        unsafe { maps::IPCACHE.get(address) }.copied()
    }

    #[inline(always)]
    fn prefix(&self, address: &Addr) -> Option<Entry> {
        maps::IPCACHE_LPM.get(&Key::new(128, *address)).copied()
    }

    #[inline(always)]
    fn learned<R>(&self, key: &LearnedKey, read: impl FnOnce(&Learned) -> R) -> Option<R> {
        // SAFETY: records are replaced as a whole by the loader, never written here. A record
        // that is being replaced may be read half old, half new only if the kernel reuses its
        // element within this run; both halves are grants of the same endpoint for the address.
        unsafe { maps::LEARNED.get(key) }.map(read)
    }

    #[inline(always)]
    fn flow<R>(&self, slot: u32, key: &FlowKey, work: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        let flow = maps::CT.get(slot)?.get_ptr_mut(key)?;
        // SAFETY: the element stays valid for the run. Two processors may work on one flow: both
        // store whole words of the same meaning, a lost packet count is the worst of it.
        Some(work(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn see(&self, slot: u32, key: &FlowKey, sighting: &Sighting) -> Option<Seen> {
        // As `flow`, without a closure: that would be a call.
        let flow = maps::CT.get(slot)?.get_ptr_mut(key)?;
        // SAFETY: as in `flow`.
        Some(unsafe { &mut *flow }.see(sighting))
    }

    #[inline(always)]
    fn exact_now(&self, _: &Meta) -> u64 {
        boot_now()
    }

    #[inline(always)]
    fn open(&self, slot: u32, key: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        let flows = maps::CT.get(slot).ok_or(DropReason::CtMapMissing)?;
        flows
            .insert(key, flow, BPF_ANY as u64)
            .map_err(|_| DropReason::CtInsertFailed)
    }

    #[inline(always)]
    fn close(&self, slot: u32, key: &FlowKey) {
        if let Some(flows) = maps::CT.get(slot) {
            // Nothing there is what was wanted.
            let _ = flows.remove(key);
        }
    }

    #[inline(always)]
    fn ports(&self, slot: u32, key: &DatagramKey) -> Option<Ports> {
        // SAFETY: records are replaced as a whole.
        unsafe { maps::FRAGS.get(slot)?.get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, slot: u32, key: &DatagramKey, ports: &Ports) {
        if let Some(datagrams) = maps::FRAGS.get(slot) {
            // Shows when the later fragments come.
            let _ = datagrams.insert(key, ports, BPF_ANY as u64);
        }
    }

    #[inline(always)]
    fn count(&self, key: &RuleKey) {
        if let Some(count) = maps::RULES.get_ptr_mut(key) {
            // SAFETY: the element is this processor's own and stays valid for the run.
            unsafe { (*count).add(self.len()) }
        }
    }
}
