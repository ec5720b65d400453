//! What one reply teaches, against reading it a second time: `answer_acceptance`.
//!
//! In:  a question, a reply with records, some of its bytes spoilt.
//! Out: a panic when something is learned that a plain reading of the message does not say, when
//!      something is withheld from learning that it says, or when the client gets another message
//!      than the resolver's with shorter TTLs.
//! Not here: many replies (`ledger`), messages in any order (`wire`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use dnsproxy_core::{Config, Moment, Rebinding, TtlBounds};
use hickory_proto::{
    op::Message,
    rr::{
        DNSClass, Name, RData, Record,
        rdata::svcb::{IpHint, SVCB, SvcParamValue},
    },
};
use identity::EndpointId;

use crate::{
    input::Input,
    message::{self, NAMES},
    shell::{FOREIGN, Sent, Shell, TRUSTED, client, learning},
};

const ENDPOINT: EndpointId = EndpointId::new(7);
/// The core follows as many aliases.
const LONGEST_CHAIN: usize = 32;

/// One reply to one question: what it teaches and what the client gets.
pub fn answer_acceptance(data: &[u8]) {
    let mut input = Input::new(data);
    let settings = input.byte();
    let (private, foreign, tcp, deaf) = (
        settings & 1 != 0,
        settings & 2 != 0,
        settings & 4 != 0,
        settings & 8 != 0,
    );
    let config = Config {
        rebinding: Rebinding {
            withhold_private: private,
            allow: Vec::new(),
        },
        ..Config::default()
    };
    let bounds = config.ttl;
    let mut shell = Shell::new(config);
    let pattern = if deaf { "nothing.test" } else { "*" };
    shell
        .policies
        .insert(ENDPOINT, Arc::new(learning([(1, pattern)])));
    shell.publish();
    let server = if foreign { FOREIGN } else { TRUSTED };
    let qtype = *input.pick(&[1, 28, 65, 64, 5, 255]);
    let name: &[u8] = input.pick::<&[u8]>(&NAMES);
    let question = message::question(name, qtype);
    let query = message::query(0x4242, &question);
    shell.query(client(ENDPOINT, 5000, tcp, server), &query);
    let flying = shell.flying.pop_front().unwrap();
    let id = u16::from_be_bytes([flying.message[0], flying.message[1]]);
    let reply = reply(id, &question, &mut input);
    shell.reply(flying.server, flying.via, &reply);

    let case = Case {
        id,
        question: &question,
        reply: &reply,
        private,
        teaches: !foreign && !deaf,
        bounds,
    };
    case.check(&shell);
    shell.nothing_is_left();
}

/// Flags, records, announced counts, spoilt bytes.
fn reply(id: u16, question: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let flags = *input.pick(&[
        0x8180, 0x8180, 0x8180, 0x8180, 0x8380, 0x8182, 0x8183, 0x8400, 0x8185,
    ]);
    let count = input.below(20);
    let odd = input.byte();
    let announced = if odd == 255 { input.byte() } else { count };
    let mut reply = message::header(id, flags, [1, u16::from(announced), 0, 0]);
    reply.extend(question);
    for _ in 0..count {
        message::push_record(&mut reply, input);
    }
    input.spoil(&mut reply);
    reply
}

struct Case<'a> {
    /// What the resolver was asked with.
    id: u16,
    question: &'a [u8],
    reply: &'a [u8],
    private: bool,
    teaches: bool,
    bounds: TtlBounds,
}

impl Case<'_> {
    fn check(&self, shell: &Shell) {
        let learned: BTreeMap<IpAddr, Moment> = shell
            .kernel
            .entries
            .iter()
            .map(|((_, address), slots)| {
                assert_eq!(slots.len(), 1, "one name has one set");
                (*address, slots[0].expires)
            })
            .collect();
        assert!(shell.sent.len() <= 1);
        if !self.is_echo() {
            assert!(shell.sent.is_empty() && learned.is_empty(), "no pair");
            return;
        }
        let sent = shell.sent.first().unwrap_or_else(|| panic!("no answer"));
        assert_eq!(sent.message[..2], [0x42, 0x42]);
        for address in learned.keys() {
            assert!(!special(*address, self.private), "{address}");
            assert!(self.holds(*address), "{address} is not in the message");
        }
        assert_eq!(
            sent.released,
            !learned.is_empty(),
            "a proof is for learning"
        );
        // What another reader cannot read may be read in part; the checks above still hold.
        if let Ok(message) = Message::from_vec(self.reply) {
            let said = Said::by(&message);
            let expected = self.expected(&message, &said, shell.now);
            match self.survives(&said) {
                Some(false) if !expected.is_empty() => {
                    // A name points into a TTL, and would be another one once that is shortened.
                    assert!(learned.is_empty() && !sent.released, "{message:?}");
                    assert_eq!(sent.message[3] & 0xf, 2, "SERVFAIL");
                    return;
                }
                // A record that nobody believes cannot be read then: either is right.
                None if learned.is_empty() => return,
                _ => {}
            }
            assert_eq!(learned, expected, "{message:?}");
            self.check_message(sent, &said);
        }
    }

    /// A response with the id and the one question that were sent, in any casing.
    fn is_echo(&self) -> bool {
        let [i0, i1, f0, _, q0, q1, ..] = self.reply[..] else {
            return false;
        };
        let (name, numbers) = self.question.split_at(self.question.len() - 4);
        let echo = &self.reply[12..12 + self.question.len()];
        let (echoed_name, echoed_numbers) = echo.split_at(name.len());
        u16::from_be_bytes([i0, i1]) == self.id
            && f0 & 0x80 != 0
            && [q0, q1] == [0, 1]
            && echoed_name.eq_ignore_ascii_case(name)
            && echoed_numbers == numbers
    }

    /// Whether the message contains the bytes of this address.
    fn holds(&self, address: IpAddr) -> bool {
        let contains = |bytes: &[u8]| self.reply.windows(bytes.len()).any(|w| w == bytes);
        match address {
            IpAddr::V4(v4) => contains(&v4.octets()),
            IpAddr::V6(v6) => contains(&v6.octets()),
        }
    }

    fn expected(&self, message: &Message, said: &Said, now: Moment) -> BTreeMap<IpAddr, Moment> {
        let usable = self.teaches && u16::from(message.metadata.response_code) & 0xf == 0;
        let Some(ttl) = said.ttl.filter(|_| usable) else {
            return BTreeMap::new();
        };
        let span = self.granted(ttl) + self.bounds.grace;
        said.addresses
            .iter()
            .filter(|address| !special(**address, self.private))
            .map(|address| (*address, now.after(span)))
            .collect()
    }

    fn granted(&self, ttl: u32) -> Duration {
        Duration::from_secs(u64::from(ttl)).clamp(self.bounds.min, self.bounds.max)
    }

    /// Whether the message says the same after the TTLs on the chain were shortened; none when it
    /// can then no longer be read as a whole.
    fn survives(&self, said: &Said) -> Option<bool> {
        let granted = u32::try_from(self.granted(said.ttl.unwrap_or_default()).as_secs()).unwrap();
        let mut shortened = self.reply.to_vec();
        let places = self.ttl_places();
        for nth in &said.counted {
            let field = &mut shortened[places[*nth]..][..4];
            let raw = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&seconds(raw).min(granted).to_be_bytes());
        }
        let before = Message::from_vec(self.reply).unwrap();
        let after = Message::from_vec(&shortened).ok()?;
        Some(Self::believed(&before) == Self::believed(&after))
    }

    /// Addresses and aliases on the chain.
    fn believed(message: &Message) -> (Vec<IpAddr>, Vec<Name>) {
        let said = Said::by(message);
        (said.addresses, said.aliases)
    }

    /// Where the TTL of each answer stands.
    fn ttl_places(&self) -> Vec<usize> {
        let mut at = 12 + self.question.len();
        let count = usize::from(u16::from_be_bytes([self.reply[6], self.reply[7]]));
        (0..count)
            .map(|_| {
                while self.reply[at] != 0 && self.reply[at] < 0xc0 {
                    at += 1 + usize::from(self.reply[at]);
                }
                at += if self.reply[at] == 0 { 1 } else { 2 };
                let ttl = at + 4;
                let len = u16::from_be_bytes([self.reply[at + 8], self.reply[at + 9]]);
                at += 10 + usize::from(len);
                ttl
            })
            .collect()
    }

    /// The client gets what came, with its own id, and TTLs that end no later than the grant.
    fn check_message(&self, sent: &Sent, said: &Said) {
        assert_eq!(sent.message.len(), self.reply.len());
        if !sent.released {
            assert_eq!(sent.message[2..], self.reply[2..], "not a byte more");
            return;
        }
        let before = Message::from_vec(self.reply).unwrap();
        // What is believed is what it was; a record that is not may have become unreadable.
        let Ok(after) = Message::from_vec(&sent.message) else {
            return;
        };
        let lowest = said.ttl.unwrap_or_default();
        assert_eq!(Self::believed(&before), Self::believed(&after));
        for (old, new) in before.answers.iter().zip(&after.answers) {
            assert!(seconds(new.ttl) <= seconds(old.ttl), "a TTL grew");
        }
        let again = Said::by(&after);
        assert_eq!(again.addresses, said.addresses);
        for ttl in again.ttls {
            let granted = self.granted(lowest);
            assert!(Duration::from_secs(u64::from(ttl)) <= granted);
        }
        let changed = sent.message[2..]
            .iter()
            .zip(&self.reply[2..])
            .filter(|(new, old)| new != old)
            .count();
        assert!(changed <= 4 * said.ttls.len(), "more than TTLs changed");
    }
}

/// What a message says about the name in its question.
struct Said {
    addresses: Vec<IpAddr>,
    /// Lowest of `ttls`.
    ttl: Option<u32>,
    /// Of every record on the chain; with the top bit set it is none.
    ttls: Vec<u32>,
    /// Which records these are.
    counted: Vec<usize>,
    /// Where the aliases on the chain lead.
    aliases: Vec<Name>,
}

impl Said {
    fn by(message: &Message) -> Self {
        let records: Vec<(usize, &Record)> = message
            .answers
            .iter()
            .enumerate()
            .filter(|(_, record)| record.dns_class == DNSClass::IN)
            .collect();
        let mut chain: Vec<&Name> = vec![message.queries[0].name()];
        let (mut ttls, mut counted) = (Vec::new(), Vec::new());
        loop {
            let here = chain[chain.len() - 1];
            let followed = chain[..chain.len() - 1].contains(&here);
            let next = records.iter().find_map(|(nth, record)| match &record.data {
                RData::CNAME(target) if record.name == *here => Some((*nth, &target.0, record.ttl)),
                _ => None,
            });
            match next {
                Some((nth, target, ttl)) if !followed && chain.len() <= LONGEST_CHAIN => {
                    ttls.push(seconds(ttl));
                    counted.push(nth);
                    chain.push(target);
                }
                _ => break,
            }
        }
        let mut addresses = Vec::new();
        for (nth, record) in records.iter().filter(|(_, r)| chain.contains(&&r.name)) {
            let mut of = addresses_of(&record.data);
            if !of.is_empty() {
                ttls.push(seconds(record.ttl));
                counted.push(*nth);
            }
            addresses.append(&mut of);
        }
        // An answer without addresses teaches nothing, whatever its aliases' TTLs.
        let ttl = ttls.iter().min().copied().filter(|_| !addresses.is_empty());
        Self {
            addresses,
            ttl,
            ttls,
            counted,
            aliases: chain.into_iter().skip(1).cloned().collect(),
        }
    }
}

fn addresses_of(data: &RData) -> Vec<IpAddr> {
    let service: &SVCB = match data {
        RData::A(a) => return vec![IpAddr::V4(a.0)],
        RData::AAAA(a) => return vec![IpAddr::V6(a.0).to_canonical()],
        RData::SVCB(service) => service,
        RData::HTTPS(service) => service,
        _ => return Vec::new(),
    };
    if service.svc_priority == 0 {
        return Vec::new();
    }
    let hints = service
        .svc_params
        .iter()
        .flat_map(|(_, value)| match value {
            SvcParamValue::Ipv4Hint(IpHint(all)) => all.iter().map(|a| IpAddr::V4(a.0)).collect(),
            SvcParamValue::Ipv6Hint(IpHint(all)) => {
                all.iter().map(|a| IpAddr::V6(a.0).to_canonical()).collect()
            }
            _ => Vec::new(),
        });
    hints.collect()
}

/// RFC 2181 §8.
fn seconds(ttl: u32) -> u32 {
    if ttl & 0x8000_0000 == 0 { ttl } else { 0 }
}

/// Addresses no name opens, as ranges of numbers.
fn special(address: IpAddr, private: bool) -> bool {
    match address {
        IpAddr::V4(v4) => special_v4(v4, private),
        IpAddr::V6(v6) => {
            let number = v6.to_bits();
            let within = |text: &str, bits: u32| {
                let prefix: std::net::Ipv6Addr = text.parse().unwrap();
                number >> (128 - bits) == prefix.to_bits() >> (128 - bits)
            };
            let low = Ipv4Addr::from_bits(u32::try_from(number & 0xffff_ffff).unwrap_or(0));
            let inside = if within("::ffff:0:0:0", 96)
                || within("::ffff:0:0", 96)
                || within("64:ff9b::", 96)
                || within("64:ff9b:1::", 48)
                || (within("::", 96) && number > 1)
            {
                Some(low)
            } else if within("2002::", 16) {
                Some(Ipv4Addr::from_bits(
                    u32::try_from(number >> 80 & 0xffff_ffff).unwrap_or(0),
                ))
            } else if within("2001::", 32) {
                Some(Ipv4Addr::from_bits(!low.to_bits()))
            } else {
                None
            };
            number <= 1
                || within("fe80::", 10)
                || within("ff00::", 8)
                || within("fd00:ec2::254", 128)
                || (private && within("fc00::", 7))
                || inside.is_some_and(|v4| special_v4(v4, private))
        }
    }
}

fn special_v4(address: Ipv4Addr, private: bool) -> bool {
    let number = address.to_bits();
    let within = |prefix: [u8; 4], bits: u32| {
        number >> (32 - bits) == u32::from_be_bytes(prefix) >> (32 - bits)
    };
    let never = within([0, 0, 0, 0], 8)
        || within([127, 0, 0, 0], 8)
        || within([169, 254, 0, 0], 16)
        || within([224, 0, 0, 0], 4)
        || within([255, 255, 255, 255], 32)
        || within([100, 100, 100, 200], 32)
        || within([168, 63, 129, 16], 32);
    let inner = within([10, 0, 0, 0], 8)
        || within([172, 16, 0, 0], 12)
        || within([192, 168, 0, 0], 16)
        || within([100, 64, 0, 0], 10);
    never || (private && inner)
}
