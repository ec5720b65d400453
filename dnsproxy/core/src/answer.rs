//! What an answer says about the name that was asked.
//!
//! In:  the answer section of a reply.
//! Out: [`Answer`]: the addresses the queried name leads to, the names on the way, the lowest TTL.
//! Not here: whether any of it is believed (`reply`), what it opens (`ledger`).
//!
//! Every address belongs to the *queried* name, as in Cilium; names on the way are annotations.
//! Records of owners that the chain does not pass are bait or noise and teach nothing.

use std::{collections::HashMap, net::IpAddr};

use policy::fqdn::Fqdn;
use smallvec::SmallVec;

use crate::wire::{self, AnswerRecord, Content, Records, TtlField, WireName};

/// Longest chain of aliases that is followed. Resolvers give up much earlier.
const MAX_CHAIN: usize = 32;

/// What the chain from the queried name leads to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Answer {
    /// Each once, in the order of the message.
    pub(crate) addresses: SmallVec<[IpAddr; 4]>,
    /// Alias targets, in the order of the chain.
    pub(crate) cnames: Vec<Fqdn>,
    /// Lowest TTL of everything on the chain; none when nothing is.
    pub(crate) ttl: Option<u32>,
    /// The TTLs of the chain, for shortening.
    pub(crate) ttl_fields: SmallVec<[TtlField; 4]>,
}

impl Answer {
    /// Follows the chain. Each owner counts with its first alias only: a name with two is
    /// malformed (RFC 2181 §10.1) and what a client makes of it is anybody's guess.
    pub(crate) fn follow(section: &Records) -> Self {
        let mut answer = Self::default();
        let mut aliases: HashMap<&WireName, (&WireName, TtlField)> = HashMap::new();
        for record in &section.records {
            if let Content::Alias(target) = &record.content {
                aliases.entry(&record.owner).or_insert((target, record.ttl));
            }
        }
        let mut chain: SmallVec<[&WireName; 4]> = SmallVec::new();
        let mut here = &section.asked;
        chain.push(here);
        while let Some((target, ttl)) = aliases.remove(here) {
            // An alias is taken out when it is followed, so a loop ends where it began.
            if chain.len() > MAX_CHAIN {
                break;
            }
            answer.saw(ttl);
            answer.cnames.extend(target.fqdn());
            chain.push(target);
            here = target;
        }
        for AnswerRecord {
            owner,
            ttl,
            content,
        } in &section.records
        {
            let Content::Addresses(addresses) = content else {
                continue;
            };
            if !chain.contains(&owner) {
                continue;
            }
            answer.saw(*ttl);
            answer.addresses.extend(addresses.iter().copied());
        }
        answer.keep_each_once();
        answer
    }

    fn saw(&mut self, ttl: TtlField) {
        let seconds = ttl.seconds();
        self.ttl = Some(self.ttl.map_or(seconds, |lowest| lowest.min(seconds)));
        self.ttl_fields.push(ttl);
    }

    fn keep_each_once(&mut self) {
        if self.addresses.len() < 16 {
            let mut seen = SmallVec::<[IpAddr; 16]>::new();
            self.addresses.retain(|address| {
                let new = !seen.contains(address);
                seen.push(*address);
                new
            });
            return;
        }
        let mut seen = std::collections::HashSet::new();
        self.addresses.retain(|address| seen.insert(*address));
    }
}

/// Shortens every TTL of the chain that would outlive a grant of `granted` seconds, and writes
/// one with the top bit set as the zero it means.
pub(crate) fn shorten(message: &mut [u8], fields: &[TtlField], granted: u32) {
    for field in fields {
        let seconds = field.seconds().min(granted);
        if seconds != field.raw {
            wire::set_ttl(message, *field, seconds);
        }
    }
}
