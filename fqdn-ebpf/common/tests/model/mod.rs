//! The maps as collections, and a bench that runs the path of a packet on them.
//!
//! In:  a world, packets.
//! Out: outcomes.
//! Not here: the kernel's maps.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
};

use fqdn_ebpf_common::{
    Direction,
    address::Addr,
    config::Config,
    conntrack::{Flow, FlowKey},
    endpoint::{Endpoint, InForce, PolicyId},
    env::{Env, Meta},
    fragment::{DatagramKey, Ports},
    ipcache::{Entry, V4_BITS},
    learned::{Learned, LearnedKey, Slot},
    packet::Bytes,
    path::{Scratch, Verdict, decide},
    policy::{ANY_PEER, Action, L4Bits, PolicyEntry, PolicyKey},
    reason::DropReason,
    verdict::Rules,
};
use zerocopy::IntoBytes as _;

use crate::vectors::{self, Act, At, Bench, L4, Outcome, POD_MAC, POD4, POD6, Peer, World};

/// One (prefix length, key) → value; the longest matching prefix wins.
pub(crate) struct Lpm<K, V>(Vec<(u32, K, V)>);

impl<K: zerocopy::IntoBytes + zerocopy::Immutable + PartialEq + Copy, V: Copy> Lpm<K, V> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

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

pub(crate) struct Maps {
    pub(crate) addresses: HashMap<Addr, Entry>,
    pub(crate) prefixes: Lpm<Addr, Entry>,
    pub(crate) policy: Lpm<PolicyKey, PolicyEntry>,
    pub(crate) learned: HashMap<LearnedKey, Learned>,
    pub(crate) flows: RefCell<HashMap<(u32, [u8; 24]), Flow>>,
    pub(crate) datagrams: RefCell<HashMap<(u32, DatagramKey), Ports>>,
    /// Every look-up of a flow, to see that none is made in vain.
    pub(crate) lookups: Cell<u32>,
}

impl Maps {
    pub(crate) fn new() -> Self {
        Self {
            addresses: HashMap::new(),
            prefixes: Lpm::new(),
            policy: Lpm::new(),
            learned: HashMap::new(),
            flows: RefCell::default(),
            datagrams: RefCell::default(),
            lookups: Cell::new(0),
        }
    }
}

pub(crate) struct Packet<'a> {
    pub(crate) maps: &'a Maps,
    pub(crate) frame: &'a [u8],
}

impl Bytes for Packet<'_> {
    fn read(&self, at: u32, into: &mut [u8]) -> bool {
        let at = at as usize;
        match at
            .checked_add(into.len())
            .and_then(|end| self.frame.get(at..end))
        {
            Some(bytes) => {
                into.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.frame.len()).unwrap()
    }
}

impl Rules for Packet<'_> {
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry> {
        self.maps.policy.get(key)
    }
}

fn bytes(key: &FlowKey) -> [u8; 24] {
    key.as_bytes().try_into().unwrap()
}

impl Env for Packet<'_> {
    fn address(&self, address: &Addr) -> Option<Entry> {
        self.maps.addresses.get(address).copied()
    }

    fn prefix(&self, address: &Addr) -> Option<Entry> {
        self.maps.prefixes.get(address)
    }

    fn learned<R>(&self, key: &LearnedKey, read: impl FnOnce(&Learned) -> R) -> Option<R> {
        self.maps.learned.get(key).map(read)
    }

    fn flow<R>(&self, slot: u32, key: &FlowKey, work: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        self.maps.lookups.set(self.maps.lookups.get() + 1);
        self.maps
            .flows
            .borrow_mut()
            .get_mut(&(slot, bytes(key)))
            .map(work)
    }

    fn open(&self, slot: u32, key: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        self.maps
            .flows
            .borrow_mut()
            .insert((slot, bytes(key)), *flow);
        Ok(())
    }

    fn close(&self, slot: u32, key: &FlowKey) {
        self.maps.flows.borrow_mut().remove(&(slot, bytes(key)));
    }

    fn ports(&self, slot: u32, key: &DatagramKey) -> Option<Ports> {
        self.maps.datagrams.borrow().get(&(slot, *key)).copied()
    }

    fn remember(&self, slot: u32, key: &DatagramKey, ports: &Ports) {
        self.maps
            .datagrams
            .borrow_mut()
            .insert((slot, *key), *ports);
    }
}

const ENDPOINT: u32 = 5;
const SLOT: u32 = 3;
const HOUR: u64 = 3600 * 1_000_000_000;

/// First number that a name is given.
pub(crate) const FIRST_NAME: u32 = 0x0100_0001;

pub(crate) struct Model {
    pub(crate) maps: Maps,
    pub(crate) config: Config,
    pub(crate) endpoint: Endpoint,
    pub(crate) now: u64,
    revision: u32,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            maps: Maps::new(),
            config: Config::default(),
            endpoint: Endpoint::new(ENDPOINT, SLOT, POD_MAC),
            now: 100 * HOUR,
            revision: 0,
        }
    }

    pub(crate) fn decide(&self, at: At, frame: &[u8]) -> (Verdict, Scratch) {
        let (direction, ingress_ifindex, mark) = match at {
            At::From => (Direction::Egress, 7, 0),
            At::To => (Direction::Ingress, 9, 0xa00),
            At::ToLocal(mark) => (Direction::Ingress, 0, mark),
        };
        let meta = Meta {
            direction,
            mark,
            ingress_ifindex,
            vlan: false,
            now: self.now,
        };
        let packet = Packet {
            maps: &self.maps,
            frame,
        };
        let mut scratch = Scratch::default();
        let verdict = decide(
            &packet,
            &meta,
            Some(&self.config),
            Some(&self.endpoint),
            &mut scratch,
        );
        (verdict, scratch)
    }

    fn policy(&mut self, id: u32, rules: Option<&vectors::Rules>) -> InForce {
        let Some(rules) = rules else {
            return InForce::default();
        };
        for (nth, rule) in rules.rules.iter().enumerate() {
            let identity = match rule.peer {
                Peer::Any => ANY_PEER,
                Peer::Id(id) => id,
                Peer::Name(n) => FIRST_NAME + n,
            };
            let direction = if rule.egress {
                Direction::Egress
            } else {
                Direction::Ingress
            };
            let (protocol, port, bits) = match rule.l4 {
                L4::Any => (0, 0, L4Bits::ANY),
                L4::Proto(protocol) => (protocol, 0, L4Bits::PROTOCOL),
                L4::Port(protocol, port, bits) => (protocol, port, L4Bits::port(bits)),
            };
            let (action, precedence) = match rule.act {
                Act::Allow => (Action::Allow, 2),
                Act::Deny => (Action::Deny, 255),
                Act::Redirect => (Action::RedirectDns, 121),
                Act::NeedsProxy => (Action::NeedsProxy, 1),
                Act::Refuse => (Action::Refuse, 254),
                Act::Mixed => (Action::Mixed, 255),
            };
            self.maps.policy.insert(
                bits.prefix_len(),
                PolicyKey::new(id, identity, direction, protocol, port),
                PolicyEntry::new(action, precedence, u32::try_from(nth).unwrap(), bits),
            );
        }
        InForce {
            id: PolicyId::new(id),
            deny_ingress: rules.deny_ingress,
            deny_egress: rules.deny_egress,
        }
    }
}

impl Bench for Model {
    fn install(&mut self, world: &World) {
        self.revision += 1;
        self.maps.policy = Lpm::new();
        let enforced = self.policy(2 * self.revision, world.enforced.as_ref());
        let shadow = self.policy(2 * self.revision + 1, world.shadow.as_ref());
        self.endpoint = Endpoint::new(ENDPOINT, SLOT, POD_MAC)
            .with_addresses(
                Some(POD4.octets()),
                [Addr::v6(POD6.octets()), Addr::UNSPECIFIED],
            )
            .with_audit(world.audited)
            .with_policy(enforced, shadow, self.revision);
        self.maps.addresses = world
            .addresses
            .iter()
            .map(|(address, id)| (Addr::from(*address), Entry::new(*id, 128)))
            .collect();
        self.maps.prefixes = Lpm::new();
        for (prefix, id) in &world.prefixes {
            let (address, len) = prefix.split_once('/').unwrap();
            let address: IpAddr = address.parse().unwrap();
            let len = len.parse::<u32>().unwrap() + if address.is_ipv4() { V4_BITS } else { 0 };
            self.maps
                .prefixes
                .insert(len, Addr::from(address), Entry::new(*id, len));
        }
        self.config = self.config.with_ipcache_epoch(self.revision);
    }

    fn learn(&mut self, address: IpAddr, names: &[(u32, bool)]) {
        let mut slots = [Slot::default(); 4];
        for (slot, (name, live)) in slots.iter_mut().zip(names) {
            let expires = if *live {
                self.now + HOUR
            } else {
                self.now - HOUR
            };
            *slot = Slot::new(FIRST_NAME + name, expires);
        }
        self.maps.learned.insert(
            LearnedKey::new(ENDPOINT, Addr::from(address)),
            Learned::new(slots),
        );
    }

    fn send(&mut self, at: At, frame: &[u8]) -> Outcome {
        match self.decide(at, frame).0 {
            Verdict::Pass(passed) => Outcome::Pass(passed),
            Verdict::Steer => Outcome::Steer,
            Verdict::Drop(reason) => Outcome::Drop(reason),
        }
    }
}
