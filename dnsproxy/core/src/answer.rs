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

use crate::wire::{self, AnswerRecord, Content, Header, Question, Records, TtlField, WireName};

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
        // Most answers have none, and a name is not hashed for nothing.
        while !aliases.is_empty()
            && let Some((target, ttl)) = aliases.remove(here)
        {
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
/// one with the top bit set as the zero it means. False when the message would then say something
/// else: a hostile one can have a name point into a TTL (RFC 1035 §4.1.4 does not forbid it).
pub(crate) fn shorten(
    message: &mut [u8],
    answer: &Answer,
    question: &Question,
    granted: u32,
) -> bool {
    let mut changed = false;
    for field in &answer.ttl_fields {
        let seconds = field.seconds().min(granted);
        if seconds != field.raw {
            wire::set_ttl(message, *field, seconds);
            changed = true;
        }
    }
    if !changed {
        return true;
    }
    let Some(Ok(section)) =
        Header::read(message).map(|header| Records::read(message, header, question))
    else {
        return false;
    };
    let after = Answer::follow(&section);
    after.addresses == answer.addresses && after.cnames == answer.cnames
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply about `0.x` whose aliases lead from `0.x` to `1.x` to `2.x` …, in this order, the
    /// last of which has an address.
    fn chain(links: impl Iterator<Item = u8> + Clone, last: u8) -> (Vec<u8>, Question) {
        let name = |n: u8| {
            [
                3,
                b'a' + n / 100,
                b'0' + n / 10 % 10,
                b'0' + n % 10,
                1,
                b'x',
                0,
            ]
        };
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes[7] = u8::try_from(links.clone().count() + 1).unwrap();
        bytes.extend(name(0));
        bytes.extend([0, 1, 0, 1]);
        for link in links {
            bytes.extend(name(link));
            bytes.extend([0, 5, 0, 1, 0, 0, 0, 200 - link, 0, 7]);
            bytes.extend(name(link + 1));
        }
        bytes.extend(name(last));
        bytes.extend([0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 203, 0, 113, 1]);
        let header = Header::read(&bytes).unwrap();
        let question = Question::read(&bytes, header).unwrap();
        (bytes, question)
    }

    fn follow((bytes, question): (Vec<u8>, Question)) -> Answer {
        let header = Header::read(&bytes).unwrap();
        let section = Records::read(&bytes, header, &question).unwrap();
        assert!(section.complete);
        Answer::follow(&section)
    }

    #[test]
    fn a_chain_is_followed_in_any_order_and_only_so_far() {
        for forth in [true, false] {
            let links: Vec<u8> = if forth {
                (0..20).collect()
            } else {
                (0..20).rev().collect()
            };
            let answer = follow(chain(links.into_iter(), 20));
            assert_eq!(answer.addresses[..], [IpAddr::from([203, 0, 113, 1])]);
            assert_eq!(answer.cnames.len(), 20);
            assert_eq!(answer.ttl, Some(181));
        }
        let answer = follow(chain(0..100, 100));
        assert!(answer.addresses.is_empty());
        assert_eq!(answer.cnames.len(), MAX_CHAIN);
    }

    #[test]
    fn a_link_that_is_missing_breaks_the_chain() {
        let answer = follow(chain((0..5).chain(6..9), 9));
        assert!(answer.addresses.is_empty());
        assert_eq!(answer.cnames.len(), 5);
    }

    #[test]
    fn ttls_are_shortened_where_they_stand_and_never_lengthened() {
        let (mut bytes, question) = chain(0..3, 3);
        let answer = follow((bytes.clone(), question.clone()));
        assert!(shorten(&mut bytes, &answer, &question, 199));
        let after = follow((bytes, question));
        let seconds: Vec<_> = after
            .ttl_fields
            .iter()
            .map(|field| field.seconds())
            .collect();
        assert_eq!(seconds, [199, 199, 198, 199]);
    }

    #[test]
    fn a_name_that_points_into_a_ttl_is_not_shortened_into_another() {
        // Question a.x; its alias has the TTL 0x01_62_c0_0e, which read as a name is `b.x`: the
        // address's owner is a pointer to it, and so is the alias's target.
        let question = [1, b'a', 1, b'x', 0, 0, 1, 0, 1];
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        bytes.extend(question);
        let alias = bytes.len();
        bytes.extend([0xc0, 12, 0, 5, 0, 1]);
        let ttl = u8::try_from(bytes.len()).unwrap();
        bytes.extend([1, b'b', 0xc0, 14, 0, 2, 0xc0, ttl]);
        bytes.extend([0xc0, ttl, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        assert_eq!(bytes.get(alias), Some(&0xc0));
        let header = Header::read(&bytes).unwrap();
        let question = Question::read(&bytes, header).unwrap();
        let answer = follow((bytes.clone(), question.clone()));
        assert_eq!(answer.cnames.len(), 1);
        assert_eq!(answer.addresses.len(), 1);
        assert!(!shorten(&mut bytes, &answer, &question, 30));
    }

    #[test]
    fn an_address_counts_once() {
        let section = |count: usize| {
            let (bytes, question) = chain(0..0, 0);
            let header = Header::read(&bytes).unwrap();
            let mut section = Records::read(&bytes, header, &question).unwrap();
            let record = section.records[0].clone();
            section.records.resize(count, record);
            section
        };
        for count in [2, 15, 16, 500] {
            assert_eq!(Answer::follow(&section(count)).addresses.len(), 1);
        }
    }
}
