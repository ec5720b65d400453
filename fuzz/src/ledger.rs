//! The ledger against a list, through the whole core: `ledger_vs_reference`.
//!
//! In:  a script of answers, changes of policy, writes that fail, workloads that go, and time.
//! Out: a panic when the kernel opens what the list does not, or does not open what it does.
//! Not here: what one reply teaches (`answer`).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use dnsproxy_core::{Config, LearnedSlot, Limits, MAX_SLOTS, TtlBounds};
use identity::EndpointId;
use policy::{compiled::EndpointPolicy, fqdn::Fqdn};
use reference::ledger::Ledger;

use crate::{
    input::Input,
    message,
    shell::{Shell, TRUSTED, client, learning},
};

const SECOND: u64 = 1_000_000_000;
const QUOTA: usize = 4;
const ADDRESSES: u8 = 6;
const NAMES: [(&str, &[u8]); 6] = [
    ("a.x", b"\x01a\x01x\x00"),
    ("b.x", b"\x01b\x01x\x00"),
    ("ab.x", b"\x02ab\x01x\x00"),
    ("ba.x", b"\x02ba\x01x\x00"),
    ("a.y", b"\x01a\x01y\x00"),
    ("b.y", b"\x01b\x01y\x00"),
];
/// They overlap, so that one address can be open under many sets.
const SELECTORS: [(u32, &str); 4] = [(0, "a*.x"), (1, "*b.x"), (2, "*.x"), (3, "a.*")];
const STEPS: usize = 150;

/// Answers, policies, failures and time: what is open is what the list says.
pub fn ledger_vs_reference(data: &[u8]) {
    let mut input = Input::new(data);
    let mut both = Both::new();
    for nth in 0..STEPS {
        if input.is_over() {
            break;
        }
        both.step(&mut input, u16::try_from(nth).unwrap_or(0));
        both.agree();
    }
    both.shell.nothing_is_left();
}

/// The core, and a list per endpoint.
struct Both {
    shell: Shell,
    lists: BTreeMap<EndpointId, Ledger>,
}

impl Both {
    fn new() -> Self {
        let config = Config {
            limits: Limits {
                addresses_per_endpoint: QUOTA,
                ..Limits::default()
            },
            ttl: TtlBounds {
                min: Duration::ZERO,
                grace: Duration::ZERO,
                ..TtlBounds::default()
            },
            ..Config::default()
        };
        let mut both = Self {
            shell: Shell::new(config),
            lists: BTreeMap::new(),
        };
        for endpoint in [1, 2].map(EndpointId::new) {
            both.arrive(endpoint, 0xf);
        }
        both.shell.publish();
        both
    }

    fn arrive(&mut self, endpoint: EndpointId, which: u8) {
        self.lists.insert(endpoint, Ledger::new(QUOTA));
        self.shell.policies.insert(endpoint, policy(which));
    }

    fn step(&mut self, input: &mut Input<'_>, nth: u16) {
        let kind = input.below(10);
        let endpoint = EndpointId::new(1 + u32::from(kind & 1));
        match kind {
            0..=5 => self.answer(endpoint, input, nth),
            6 | 7 => {
                let policy = policy(input.byte());
                let Some(list) = self.lists.get_mut(&endpoint) else {
                    return;
                };
                list.rematch(endpoint, |name| {
                    policy.selectors_matching(&Fqdn::parse(name).unwrap())
                });
                self.shell.policies.insert(endpoint, policy);
                self.shell.publish();
            }
            8 => self.wait(u64::from(input.byte())),
            _ => {
                // Whoever gets the number next inherits nothing.
                let which = input.byte();
                self.shell.policies.remove(&endpoint);
                self.lists.remove(&endpoint);
                self.shell.publish();
                assert_eq!(self.shell.kernel.count(endpoint), 0, "left behind");
                self.arrive(endpoint, which);
                self.shell.publish();
            }
        }
    }

    /// One answer: which name, which addresses (bits), its TTL, and which write fails if any.
    fn answer(&mut self, endpoint: EndpointId, input: &mut Input<'_>, nth: u16) {
        let (name, wire) = *input.pick(&NAMES);
        let which = input.byte();
        let ttl = u32::from(input.byte()) * 2 + 1;
        let fails = input.byte();
        let addresses: Vec<IpAddr> = (0..ADDRESSES)
            .filter(|nth| which & (1 << nth) != 0)
            .map(address)
            .take(QUOTA)
            .collect();
        if addresses.is_empty() {
            return;
        }
        let set = self.shell.policies[&endpoint].selectors_matching(&Fqdn::parse(name).unwrap());
        let question = message::question(wire, 1);
        let query = message::query(nth, &question);
        self.shell
            .query(client(endpoint, 4000, false, TRUSTED), &query);
        let flying = self.shell.flying.pop_front().unwrap();
        let id = u16::from_be_bytes([flying.message[0], flying.message[1]]);
        let count = u16::try_from(addresses.len()).unwrap_or(0);
        let mut reply = message::header(id, 0x8180, [1, count, 0, 0]);
        reply.extend(&question);
        for address in &addresses {
            reply.extend([0xc0, 12, 0, 1, 0, 1]);
            reply.extend(ttl.to_be_bytes());
            reply.extend([0, 4]);
            if let IpAddr::V4(v4) = address {
                reply.extend(v4.octets());
            }
        }
        self.shell.kernel.fail_in = (fails >= 200).then(|| usize::from(fails % 4));
        self.shell.sent.clear();
        self.shell.reply(flying.server, flying.via, &reply);
        self.shell.kernel.fail_in = None;
        let sent = &self.shell.sent[0];
        let written = set.is_empty() || sent.released;
        assert!(
            set.is_empty() || fails >= 200 || sent.released,
            "not taught"
        );
        let expires = self.shell.now.nanos() + u64::from(ttl) * SECOND;
        if let Some(list) = self.lists.get_mut(&endpoint) {
            list.teach(endpoint, name, &set, &addresses, expires, written);
        }
    }

    fn wait(&mut self, seconds: u64) {
        let lists = &mut self.lists;
        let span = Duration::from_secs(seconds);
        self.shell.wait(span, |shell| {
            expire(lists, shell);
            agree(lists, shell);
        });
        expire(&mut self.lists, &self.shell);
    }

    fn agree(&self) {
        agree(&self.lists, &self.shell);
    }
}

fn expire(lists: &mut BTreeMap<EndpointId, Ledger>, shell: &Shell) {
    for list in lists.values_mut() {
        list.expire(shell.now.nanos());
    }
}

fn agree(lists: &BTreeMap<EndpointId, Ledger>, shell: &Shell) {
    for (endpoint, list) in lists {
        for address in (0..ADDRESSES).map(address) {
            agree_on(list, shell, *endpoint, address);
        }
        assert!(shell.kernel.count(*endpoint) <= QUOTA);
    }
}

/// To within the second that saves writes and the two that a shared slot is written early.
fn agree_on(list: &Ledger, shell: &Shell, endpoint: EndpointId, address: IpAddr) {
    let now = shell.now.nanos();
    let expected = list.open(endpoint, address);
    let slots: Vec<&LearnedSlot> = shell
        .kernel
        .entries
        .get(&(endpoint, address))
        .into_iter()
        .flatten()
        .filter(|slot| slot.expires.nanos() > now)
        .collect();
    let context = || format!("{endpoint} {address} at {now}: {expected:?} but {slots:?}");
    for (set, expires) in &expected {
        if *expires > now + 3 * SECOND {
            let open = slots
                .iter()
                .any(|slot| set.iter().all(|s| slot.set.contains(s)));
            assert!(open, "allowed and not open: {}", context());
        }
        if expected.len() <= MAX_SLOTS && *expires > now + SECOND {
            let own = slots
                .iter()
                .find(|slot| slot.set == *set)
                .unwrap_or_else(|| panic!("no slot of its own: {}", context()));
            let early = own.expires.nanos() + SECOND < *expires;
            assert!(!early, "ends early: {}", context());
        }
    }
    for slot in &slots {
        for selector in slot.set.iter() {
            let allowed = expected
                .iter()
                .any(|(set, expires)| set.contains(selector) && slot.expires.nanos() <= *expires);
            assert!(allowed, "open and not allowed: {}", context());
        }
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, last])
}

/// The selectors whose bits are set.
fn policy(which: u8) -> Arc<EndpointPolicy> {
    let used = SELECTORS
        .into_iter()
        .filter(|(nth, _)| which & (1 << nth) != 0);
    Arc::new(learning(used))
}
