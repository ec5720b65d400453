//! The verdict by scanning every entry.
//!
//! In:  entries as a list, the identities of a peer, protocol and port.
//! Out: what the datapath must do, and by which entry.
//! Not here: longest-prefix tries, map records (`fqdn-ebpf/common`).

/// What happens to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
    /// The DNS proxy gets it.
    Redirect,
    /// It does not: only a proxy that is not there could tell whether it may.
    NeedsProxy,
    /// As if no entry were there, and the direction in default deny.
    Refuse,
    /// Drop it: some behind the address may be reached, and others may not.
    Mixed,
}

/// One entry of a policy, for one direction.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which peer, `None` for any.
    pub identity: Option<u32>,
    /// Which protocol, `None` for any.
    pub protocol: Option<u8>,
    /// First port.
    pub port: u16,
    /// How many bits of the port count.
    pub bits: u8,
    /// What it says.
    pub decision: Decision,
    /// Against other entries.
    pub precedence: u32,
    /// Its name in the result.
    pub tag: u32,
}

impl Entry {
    fn ports(&self) -> (u32, u32) {
        let size = 1_u32 << (16 - u32::from(self.bits));
        (u32::from(self.port), u32::from(self.port) + size - 1)
    }

    fn matches(&self, identities: &[u32], protocol: u8, port: u16) -> bool {
        let (first, last) = self.ports();
        self.identity.is_none_or(|id| identities.contains(&id))
            && self.protocol.is_none_or(|own| own == protocol)
            && (self.protocol.is_none() || (first..=last).contains(&u32::from(port)))
    }

    /// Whether everything `other` is about on the wire is something this is about.
    pub fn covers(&self, other: &Self) -> bool {
        match (self.protocol, other.protocol) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(a), Some(b)) => {
                let ((f, l), (of, ol)) = (self.ports(), other.ports());
                a == b && f <= of && ol <= l
            }
        }
    }

    /// Any, protocol, port: the more the more specific.
    fn specificity(&self) -> u8 {
        match self.protocol {
            None => 0,
            Some(_) => 1 + self.bits,
        }
    }
}

/// A decision and what it rests on.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What happens.
    pub decision: Decision,
    /// The entry's tag, 0 without one.
    pub tag: u32,
    /// Cilium's number for how it matched.
    pub match_type: u8,
    /// Whether no other entry would have done as well.
    pub unique: bool,
}

impl Verdict {
    /// Whether a datapath that does `decision` is right. Of equal entries of several identities
    /// either may decide, a refusal of all or of some backends.
    pub fn admits(&self, decision: Decision) -> bool {
        let refuses = |d| matches!(d, Decision::Deny | Decision::Mixed);
        decision == self.decision || !self.unique && refuses(decision) && refuses(self.decision)
    }
}

/// Decides: precedence, then deny (of all or of some backends), then the more specific ports, then the peer over the wildcard.
pub fn verdict(
    entries: &[Entry],
    deny_by_default: bool,
    identities: &[u32],
    protocol: u8,
    port: u16,
) -> Verdict {
    let weight = |e: &Entry| {
        (
            e.precedence,
            matches!(e.decision, Decision::Deny | Decision::Mixed),
            e.specificity(),
            e.identity.is_some(),
        )
    };
    let matching: Vec<_> = entries
        .iter()
        .filter(|e| e.matches(identities, protocol, port))
        .collect();
    let Some(best) = matching.iter().max_by_key(|e| weight(e)) else {
        return Verdict {
            decision: if deny_by_default {
                Decision::Deny
            } else {
                Decision::Allow
            },
            tag: 0,
            match_type: 0,
            unique: true,
        };
    };
    if best.decision == Decision::Refuse {
        return Verdict {
            decision: Decision::Deny,
            tag: 0,
            match_type: 0,
            unique: true,
        };
    }
    let match_type = match (best.identity.is_some(), best.specificity()) {
        (true, 0) => 1,
        (true, 1) => 5,
        (true, _) => 2,
        (false, 0) => 4,
        (false, 1) => 6,
        (false, _) => 3,
    };
    Verdict {
        decision: best.decision,
        tag: best.tag,
        match_type,
        unique: matching
            .iter()
            .filter(|e| weight(e) == weight(best))
            .count()
            == 1,
    }
}
