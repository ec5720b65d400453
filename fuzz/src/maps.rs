//! The kernel's maps as collections, and a packet among them.
//!
//! In:  records.
//! Out: [`Env`], what the path of a packet asks.
//! Not here: what packets must do (`packet`).

use std::{cell::RefCell, collections::HashMap};

use fqdn_ebpf_common::{
    address::Addr,
    conntrack::{Flow, FlowKey},
    env::Env,
    fragment::{DatagramKey, Ports},
    ipcache::Entry,
    learned::{Learned, LearnedKey},
    packet::Bytes,
    policy::{PolicyEntry, PolicyKey},
    reason::DropReason,
    verdict::Rules,
};
use zerocopy::{Immutable, IntoBytes};

/// (prefix length, key) → value; the longest matching prefix wins.
#[derive(Clone)]
pub(crate) struct Lpm<K, V>(Vec<(u32, K, V)>);

impl<K, V> Default for Lpm<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: IntoBytes + Immutable + PartialEq + Copy, V: Copy> Lpm<K, V> {
    pub(crate) fn insert(&mut self, len: u32, key: K, value: V) {
        self.0.retain(|(l, k, _)| *l != len || *k != key);
        self.0.push((len, key, value));
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.0
            .iter()
            .filter(|(len, k, _)| same_bits(k.as_bytes(), key.as_bytes(), *len))
            .max_by_key(|(len, _, _)| *len)
            .map(|(_, _, value)| *value)
    }
}

fn same_bits(a: &[u8], b: &[u8], len: u32) -> bool {
    (0..len as usize).all(|bit| (a[bit / 8] ^ b[bit / 8]) & (0x80 >> (bit % 8)) == 0)
}

/// Everything but ENDPOINTS and CONFIG.
#[derive(Clone, Default)]
pub(crate) struct Maps {
    pub(crate) addresses: HashMap<Addr, Entry>,
    pub(crate) prefixes: Lpm<Addr, Entry>,
    pub(crate) policy: Lpm<PolicyKey, PolicyEntry>,
    pub(crate) learned: HashMap<LearnedKey, Learned>,
    pub(crate) flows: RefCell<HashMap<(u32, [u8; 24]), Flow>>,
    pub(crate) datagrams: RefCell<HashMap<(u32, DatagramKey), Ports>>,
}

/// A frame at a hook.
pub(crate) struct Frame<'a> {
    pub(crate) maps: &'a Maps,
    pub(crate) bytes: &'a [u8],
}

impl Bytes for Frame<'_> {
    fn read(&self, at: u32, into: &mut [u8]) -> bool {
        let at = at as usize;
        let bytes = at
            .checked_add(into.len())
            .and_then(|end| self.bytes.get(at..end));
        if let Some(bytes) = bytes {
            into.copy_from_slice(bytes);
        }
        bytes.is_some()
    }

    fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

impl Rules for Frame<'_> {
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry> {
        self.maps.policy.get(key)
    }
}

fn key(slot: u32, key: &FlowKey) -> (u32, [u8; 24]) {
    (slot, key.as_bytes().try_into().unwrap())
}

impl Env for Frame<'_> {
    fn address(&self, address: &Addr) -> Option<Entry> {
        self.maps.addresses.get(address).copied()
    }

    fn prefix(&self, address: &Addr) -> Option<Entry> {
        self.maps.prefixes.get(address)
    }

    fn learned<R>(&self, key: &LearnedKey, read: impl FnOnce(&Learned) -> R) -> Option<R> {
        self.maps.learned.get(key).map(read)
    }

    fn flow<R>(&self, slot: u32, of: &FlowKey, work: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        let mut flows = self.maps.flows.borrow_mut();
        flows.get_mut(&key(slot, of)).map(work)
    }

    fn open(&self, slot: u32, of: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        self.maps.flows.borrow_mut().insert(key(slot, of), *flow);
        Ok(())
    }

    fn close(&self, slot: u32, of: &FlowKey) {
        self.maps.flows.borrow_mut().remove(&key(slot, of));
    }

    fn ports(&self, slot: u32, key: &DatagramKey) -> Option<Ports> {
        self.maps.datagrams.borrow().get(&(slot, *key)).copied()
    }

    fn remember(&self, slot: u32, key: &DatagramKey, ports: &Ports) {
        let mut datagrams = self.maps.datagrams.borrow_mut();
        datagrams.insert((slot, *key), *ports);
    }
}
