//! What surrounds a packet.
//!
//! In:  nothing: the kernel program and tests implement [`Env`], each over maps of its own.
//! Out: what the way of a packet may ask: bytes, maps, policy.
//! Not here: the way itself (`path`).

use crate::{
    Direction,
    address::Addr,
    conntrack::{Flow, FlowKey, Seen, Sighting},
    fragment::{DatagramKey, Ports},
    ipcache::Entry,
    learned::{Learned, LearnedKey, SLOTS},
    metric::RuleKey,
    packet::Bytes,
    policy::{Action, MatchType},
    reason::DropReason,
    verdict::{Ask, Judgement, Peers, Rules, judge},
};

/// What surrounds a packet: its bytes and the maps.
pub trait Env: Bytes + Rules {
    /// IPCACHE.
    fn address(&self, address: &Addr) -> Option<Entry>;
    /// IPCACHE_LPM.
    fn prefix(&self, address: &Addr) -> Option<Entry>;
    /// LEARNED.
    fn learned<R>(&self, key: &LearnedKey, read: impl FnOnce(&Learned) -> R) -> Option<R>;
    /// CT of a slot: works on a record in place.
    fn flow<R>(&self, slot: u32, key: &FlowKey, work: impl FnOnce(&mut Flow) -> R) -> Option<R>;
    /// CT of a slot: shows a packet to its flow.
    #[inline(always)]
    fn see(&self, slot: u32, key: &FlowKey, sighting: &Sighting) -> Option<Seen> {
        self.flow(slot, key, |flow| flow.see(sighting))
    }
    /// Nanoseconds after boot, exactly: the clock of what names teach. Asked only for packets that
    /// open a flow.
    #[inline(always)]
    fn exact_now(&self, meta: &Meta) -> u64 {
        meta.now
    }
    /// CT of a slot: writes a record.
    ///
    /// # Errors
    /// The reason to drop the packet with.
    fn open(&self, slot: u32, key: &FlowKey, flow: &Flow) -> Result<(), DropReason>;
    /// CT of a slot: forgets a record.
    fn close(&self, slot: u32, key: &FlowKey);
    /// FRAGS of a slot.
    fn ports(&self, slot: u32, key: &DatagramKey) -> Option<Ports>;
    /// FRAGS of a slot: writes a record; a failure shows when the later fragments come.
    fn remember(&self, slot: u32, key: &DatagramKey, ports: &Ports);
    /// RULES: one more packet that these rules decided about.
    #[inline(always)]
    fn count(&self, _: &RuleKey) {}

    /// [`judge`]; the kernel verifies it as a function of its own, because it is called thrice.
    #[inline(always)]
    fn judge(&self, case: &mut Case)
    where
        Self: Sized,
    {
        case.judgement = judge(self, &case.ask, &case.peers);
    }
}

/// A question to the policy, and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Case {
    /// What is asked.
    pub ask: Ask,
    /// About whom.
    pub peers: Peers,
    /// What was decided.
    pub judgement: Judgement,
}

impl Case {
    pub(crate) const EMPTY: Self = Self {
        ask: Ask {
            policy: 0,
            deny_by_default: false,
            direction: Direction::Ingress,
            protocol: 0,
            port: 0,
        },
        peers: Peers {
            learned: [0; SLOTS],
            identity: 0,
        },
        judgement: Judgement {
            action: Action::Deny,
            match_type: MatchType::None,
            identity: 0,
            learned: 0,
            rule_set: 0,
        },
    };
}

/// What is known about a packet besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Which hook it is at.
    pub direction: Direction,
    /// Its mark.
    pub mark: u32,
    /// The interface it came in at, 0 when this node made it.
    pub ingress_ifindex: u32,
    /// Whether the driver took a VLAN tag off.
    pub vlan: bool,
    /// Nanoseconds on the clock of flows: the kernel's coarse monotonic one, which costs a packet
    /// next to nothing, is a few milliseconds late, and stands still while the machine sleeps.
    pub now: u64,
}
