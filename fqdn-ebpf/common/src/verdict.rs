//! The verdict: which entry of a policy decides, among those of every identity the peer has.
//!
//! In:  a flow's direction, protocol and port, the peer's identities, the POLICY map.
//! Out: [`Judgement`].
//! Not here: finding the identities, connection tracking (`path`).
//!
//! Higher precedence wins, then deny (of all or of some backends), then the more specific protocol
//! and port, then the peer over the wildcard. Nothing found is the direction's default; so is an
//! entry that refuses, which says what nobody wrote.

use crate::{
    Direction,
    learned::SLOTS,
    policy::{ANY_PEER, Action, MatchType, PolicyEntry, PolicyKey},
};

/// The POLICY map: the longest matching prefix of a key.
pub trait Rules {
    /// The entry with the longest prefix of `key`.
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry>;
}

/// What is judged, and by which policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Ask {
    /// Number of the policy; 0 is none, which allows everything.
    pub policy: u32,
    /// Whether it denies what no entry speaks about.
    pub deny_by_default: bool,
    /// Which way the flow is opened.
    pub direction: Direction,
    /// Its protocol.
    pub protocol: u8,
    /// Its destination port or ICMP type.
    pub port: u16,
}

/// Who the peer is: one identity by address, and what names taught about the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Peers {
    /// Learned identities that count, 0 for none.
    pub learned: [u32; SLOTS],
    /// The identity by address.
    pub identity: u32,
}

impl Peers {
    /// The first learned identity that counts, 0 when there is none.
    #[inline(always)]
    pub const fn first_learned(&self) -> u32 {
        let [a, b, c, d] = self.learned;
        if a != 0 {
            a
        } else if b != 0 {
            b
        } else if c != 0 {
            c
        } else {
            d
        }
    }
}

/// What was decided, and by what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Judgement {
    /// What happens.
    pub action: Action,
    /// How the entry matched; `None` is the default of the direction.
    pub match_type: MatchType,
    /// The identity whose entry decided; the identity by address for a wildcard or no entry.
    pub identity: u32,
    /// The learned identity the flow is opened under, 0 for none: it keeps the flow alive across
    /// changes of policy, whatever happens to the name.
    pub learned: u32,
    /// The rules behind the entry.
    pub rule_set: u32,
}

/// The best entry so far.
struct Best {
    /// 0 is none.
    rank: u64,
    entry: PolicyEntry,
    identity: u32,
}

/// Judges a flow.
#[inline(always)]
pub fn judge(rules: &impl Rules, ask: &Ask, peers: &Peers) -> Judgement {
    let mut judgement = Judgement {
        action: if ask.deny_by_default {
            Action::Deny
        } else {
            Action::Allow
        },
        match_type: MatchType::None,
        identity: peers.identity,
        learned: peers.first_learned(),
        rule_set: 0,
    };
    if ask.policy == 0 {
        judgement.action = Action::Allow;
        return judgement;
    }
    let mut best = Best {
        rank: 0,
        entry: PolicyEntry::default(),
        identity: ANY_PEER,
    };
    let [a, b, c, d] = peers.learned;
    consider(rules, ask, a, &mut best);
    consider(rules, ask, b, &mut best);
    consider(rules, ask, c, &mut best);
    consider(rules, ask, d, &mut best);
    consider(rules, ask, peers.identity, &mut best);
    let learned = best.identity != peers.identity;
    weigh(rules, ask, ANY_PEER, &mut best);
    if best.rank == 0 {
        return judgement;
    }
    if matches!(best.entry.action(), Action::Refuse) {
        judgement.action = Action::Deny;
        return judgement;
    }
    judgement.action = best.entry.action();
    judgement.match_type = MatchType::of(best.identity, best.entry.l4_bits());
    judgement.rule_set = best.entry.rule_set();
    if best.identity != ANY_PEER {
        judgement.identity = best.identity;
        if learned {
            judgement.learned = best.identity;
        }
    }
    judgement
}

#[inline(always)]
fn consider(rules: &impl Rules, ask: &Ask, identity: u32, best: &mut Best) {
    if identity != ANY_PEER {
        weigh(rules, ask, identity, best);
    }
}

#[inline(always)]
fn weigh(rules: &impl Rules, ask: &Ask, identity: u32, best: &mut Best) {
    let key = PolicyKey::new(ask.policy, identity, ask.direction, ask.protocol, ask.port);
    let Some(entry) = rules.policy(&key) else {
        return;
    };
    let rank = rank(&entry, identity);
    if rank > best.rank {
        *best = Best {
            rank,
            entry,
            identity,
        };
    }
}

/// What the entry weighs, never 0: precedence, deny, specificity, peer.
#[inline(always)]
const fn rank(entry: &PolicyEntry, identity: u32) -> u64 {
    (entry.precedence() as u64) << 16
        | (matches!(entry.action(), Action::Deny | Action::Mixed) as u64) << 15
        | (entry.l4_bits().get() as u64 & 0x1f) << 2
        | ((identity != ANY_PEER) as u64) << 1
        | 1
}
