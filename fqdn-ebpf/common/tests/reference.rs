//! The verdict against the second, naive implementation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; benches share helpers they do not all use"
)]

mod model;
mod vectors;

use fqdn_ebpf_common::{
    Direction,
    conntrack::{Flow, Opening, Seen, Sighting},
    learned::SLOTS,
    packet::tcp,
    policy::{ANY_PEER, Action, L4Bits, PolicyEntry, PolicyKey},
    protocol,
    verdict::{Ask, Judgement, Peers, Rules, judge},
};
use model::Lpm;
use proptest::prelude::*;
use reference::verdict::{self as naive, Decision};

struct Trie(Lpm<PolicyKey, PolicyEntry>);

impl Rules for Trie {
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry> {
        self.0.get(key)
    }
}

fn an_entry() -> impl Strategy<Value = naive::Entry> {
    (
        prop_oneof![Just(None), (1_u32..5).prop_map(Some)],
        prop_oneof![
            Just((None, 0, 0)),
            prop_oneof![Just(6_u8), Just(17)].prop_map(|p| (Some(p), 0, 0)),
            (prop_oneof![Just(6_u8), Just(17)], 0_u16..64, 8_u8..=16)
                .prop_map(|(p, port, bits)| (Some(p), port & (0xffff << (16 - bits)), bits)),
        ],
        0_u8..6,
        0_u32..3,
    )
        .prop_map(
            |(identity, (protocol, port, bits), action, tier)| naive::Entry {
                identity,
                protocol,
                port,
                bits,
                decision: match action {
                    0 => Decision::Allow,
                    1 => Decision::Deny,
                    2 => Decision::NeedsProxy,
                    3 => Decision::Refuse,
                    4 => Decision::Mixed,
                    _ => Decision::Redirect,
                },
                precedence: tier * 256
                    + match action {
                        0 => 2,
                        1 | 4 => 255,
                        2 => 1,
                        3 => 254,
                        _ => 121,
                    },
                tag: 0,
            },
        )
}

/// Entries as the policy compiler leaves them: one for each peer, protocol and port prefix, and
/// none hidden behind a longer prefix of the same peer with lower precedence.
fn compiled(mut entries: Vec<naive::Entry>) -> Vec<naive::Entry> {
    entries.sort_by_key(|e| (e.identity, e.protocol, e.port, e.bits));
    entries.dedup_by_key(|e| (e.identity, e.protocol, e.port, e.bits));
    let wide = entries.clone();
    for entry in &mut entries {
        let strongest = wide
            .iter()
            .filter(|w| w.identity == entry.identity && w.covers(entry))
            .max_by_key(|w| w.precedence);
        if let Some(strongest) = strongest.filter(|w| w.precedence > entry.precedence) {
            entry.precedence = strongest.precedence;
            entry.decision = strongest.decision;
        }
    }
    for (tag, entry) in entries.iter_mut().enumerate() {
        entry.tag = u32::try_from(tag).unwrap();
    }
    entries
}

fn trie(entries: &[naive::Entry]) -> Trie {
    let mut trie = Lpm::new();
    for entry in entries {
        let bits = match (entry.protocol, entry.bits) {
            (None, _) => L4Bits::ANY,
            (Some(_), 0) => L4Bits::PROTOCOL,
            (Some(_), bits) => L4Bits::port(bits),
        };
        let action = match entry.decision {
            Decision::Allow => Action::Allow,
            Decision::Deny => Action::Deny,
            Decision::Redirect => Action::RedirectDns,
            Decision::NeedsProxy => Action::NeedsProxy,
            Decision::Refuse => Action::Refuse,
            Decision::Mixed => Action::Mixed,
        };
        trie.insert(
            bits.prefix_len(),
            PolicyKey::new(
                1,
                entry.identity.unwrap_or(ANY_PEER),
                Direction::Egress,
                entry.protocol.unwrap_or(0),
                entry.port,
            ),
            PolicyEntry::new(action, entry.precedence, entry.tag, bits),
        );
    }
    Trie(trie)
}

fn asked(trie: &Trie, deny_by_default: bool, peers: &Peers, protocol: u8, port: u16) -> Judgement {
    let ask = Ask {
        policy: 1,
        deny_by_default,
        direction: Direction::Egress,
        protocol,
        port,
    };
    judge(trie, &ask, peers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_verdict_is_the_naive_one(
        entries in proptest::collection::vec(an_entry(), 0..24),
        deny in any::<bool>(),
        learned in proptest::array::uniform4(0_u32..5),
        identity in 1_u32..5,
        protocol in prop_oneof![Just(6_u8), Just(17), Just(47)],
        port in 0_u16..70,
    ) {
        let entries = compiled(entries);
        let peers = Peers { learned, identity };
        let got = asked(&trie(&entries), deny, &peers, protocol, port);
        let all: Vec<u32> = learned.into_iter().filter(|id| *id != 0).chain([identity]).collect();
        let want = naive::verdict(&entries, deny, &all, protocol, port);
        let decision = match got.action {
            Action::Allow => Decision::Allow,
            Action::Deny => Decision::Deny,
            Action::RedirectDns => Decision::Redirect,
            Action::NeedsProxy => Decision::NeedsProxy,
            Action::Refuse => Decision::Refuse,
            Action::Mixed => Decision::Mixed,
        };
        prop_assert!(want.admits(decision), "{decision:?}, not {want:?}");
        prop_assert_eq!(got.match_type as u8, want.match_type);
        // Ties between equal entries of several identities may be decided either way.
        if want.unique {
            prop_assert_eq!(got.rule_set, want.tag);
        }
    }

    #[test]
    fn more_allow_rules_never_deny_and_more_deny_rules_never_allow(
        entries in proptest::collection::vec(an_entry(), 0..16),
        more in an_entry(),
        learned in proptest::array::uniform4(0_u32..5),
        identity in 1_u32..5,
        port in 0_u16..70,
    ) {
        // Within one tier, as Cilium and Kubernetes policies are.
        let flat = |mut e: naive::Entry| { e.precedence %= 256; e };
        let before: Vec<_> = entries.into_iter().map(flat).collect();
        let more = flat(more);
        let mut after = before.clone();
        // The stronger of two entries for the same thing is what a compiler keeps.
        let same = |e: &naive::Entry| (e.identity, e.protocol, e.port, e.bits) == (more.identity, more.protocol, more.port, more.bits);
        if !after.iter().any(|e| same(e) && e.precedence >= more.precedence) {
            after.retain(|e| !same(e));
            after.push(more.clone());
        }
        let peers = Peers { learned, identity };
        let old = asked(&trie(&compiled(before)), true, &peers, 6, port).action;
        let new = asked(&trie(&compiled(after)), true, &peers, 6, port).action;
        match more.decision {
            Decision::Deny | Decision::Refuse | Decision::Mixed => prop_assert!(!old.drops() || new.drops()),
            Decision::Allow | Decision::Redirect => prop_assert!(old.drops() || !new.drops()),
            // It is the weakest: it takes nothing from what others allow.
            Decision::NeedsProxy => prop_assert!(old.drops() == new.drops()),
        }
    }

    #[test]
    fn an_expired_flow_never_passes_and_a_fresh_one_does(
        steps in proptest::collection::vec((any::<bool>(), 0_u8..32, 0_u64..30_000_000_000_000), 1..40),
        udp in any::<bool>(),
    ) {
        let mut now = 1_000_000_000_000;
        let sighting = |direction, flags, now| Sighting {
            direction,
            protocol: if udp { protocol::UDP } else { protocol::TCP },
            tcp_flags: flags,
            bytes: 100,
            now,
            revision: 1,
            epoch: 1,
        };
        let opening = Opening { revision: 1, epoch: 1, ..Opening::default() };
        let mut flow = Flow::open(&sighting(Direction::Egress, tcp::SYN, now), &opening);
        let mut counted = 1;
        for (outwards, flags, pause) in steps {
            now += pause;
            let direction = if outwards { Direction::Egress } else { Direction::Ingress };
            let was_live = flow.is_live(now);
            match flow.see(&sighting(direction, flags, now)) {
                Seen::Known => {
                    counted += 1;
                    prop_assert!(was_live && flow.is_live(now));
                }
                Seen::Expired => prop_assert!(!was_live),
                Seen::Reopens { .. } => {
                    prop_assert!(!udp && flags & (tcp::SYN | tcp::ACK) == tcp::SYN);
                }
                Seen::Stale { .. } => prop_assert!(false, "nothing changed"),
            }
            // Never longer than the longest lifetime there is.
            prop_assert!(!flow.is_live(now + fqdn_ebpf_common::conntrack::TCP_ESTABLISHED + 1));
        }
        prop_assert_eq!(flow.sent().0 + flow.received().0, counted);
    }

    #[test]
    fn no_bytes_make_it_panic_and_only_known_reasons_drop(
        frame in proptest::collection::vec(any::<u8>(), 0..140),
        ethertype in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), any::<u16>()],
        first in any::<u8>(),
        inward in any::<bool>(),
    ) {
        use vectors::Bench as _;
        let mut model = model::Model::new();
        model.install(&vectors::egress(&[]));
        let mut bytes = frame;
        if bytes.len() > 14 {
            bytes[6..12].copy_from_slice(&vectors::POD_MAC);
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            bytes[14] = if ethertype == 0x0800 { 0x45 | first & 0x0f } else { 0x60 };
        }
        let at = if inward { vectors::At::To } else { vectors::At::From };
        let outcome = model.send(at, &bytes);
        // Nothing random is the workload's own address: only control traffic and ingress pass.
        if let (vectors::Outcome::Pass(passed), vectors::At::From) = (outcome, at) {
            prop_assert_eq!(passed, fqdn_ebpf_common::metric::Passed::Control);
        }
    }

    #[test]
    fn events_survive_the_round_trip_and_garbage_does_not(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        if let Some(event) = fqdn_ebpf_common::event::Event::decode(&bytes) {
            prop_assert!(bytes.len() == size_of_val(&event) && event.kind().is_some() && event.direction().is_some());
        }
    }
}

#[test]
fn an_endpoint_without_policy_allows_whatever_the_maps_hold() {
    let entries = compiled(vec![]);
    let ask = Ask {
        policy: 0,
        deny_by_default: true,
        direction: Direction::Egress,
        protocol: 6,
        port: 1,
    };
    let peers = Peers {
        learned: [0; SLOTS],
        identity: 9,
    };
    assert_eq!(judge(&trie(&entries), &ask, &peers).action, Action::Allow);
}

#[test]
fn lifetimes() {
    use fqdn_ebpf_common::conntrack::{
        ICMP, TCP_CLOSING, TCP_ESTABLISHED, TCP_OPENING, UDP_OPENING, UDP_REPLIED,
    };
    let at = |direction, protocol, tcp_flags, now| Sighting {
        direction,
        protocol,
        tcp_flags,
        bytes: 60,
        now,
        revision: 0,
        epoch: 0,
    };
    let (out, back) = (Direction::Egress, Direction::Ingress);
    let lifetime = |protocol, steps: &[(Direction, u8)]| {
        let mut flow = Flow::open(&at(out, protocol, steps[0].1, 0), &Opening::default());
        for (nth, (direction, flags)) in steps.iter().enumerate().skip(1) {
            assert_eq!(
                flow.see(&at(*direction, protocol, *flags, nth as u64)),
                Seen::Known
            );
        }
        flow.expires() - (steps.len() as u64 - 1)
    };
    let (syn, ack, fin, rst) = (tcp::SYN, tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST);
    assert_eq!(lifetime(6, &[(out, syn)]), TCP_OPENING);
    assert_eq!(lifetime(6, &[(out, syn), (back, syn | ack)]), TCP_OPENING);
    let open = [(out, syn), (back, syn | ack), (out, ack)];
    assert_eq!(lifetime(6, &open), TCP_ESTABLISHED);
    let and = |more: &[(Direction, u8)]| [&open[..], more].concat();
    // Half closed lives on; closed on both sides, or reset, does not.
    assert_eq!(lifetime(6, &and(&[(out, fin)])), TCP_ESTABLISHED);
    assert_eq!(lifetime(6, &and(&[(out, fin), (back, fin)])), TCP_CLOSING);
    assert_eq!(lifetime(6, &and(&[(back, rst)])), TCP_CLOSING);
    // A reset that its alleged sender knows nothing about was forged.
    assert_eq!(
        lifetime(6, &and(&[(back, rst), (back, ack)])),
        TCP_ESTABLISHED
    );
    assert_eq!(lifetime(6, &and(&[(back, rst), (out, ack)])), TCP_CLOSING);
    assert_eq!(lifetime(17, &[(out, 0)]), UDP_OPENING);
    assert_eq!(lifetime(17, &[(out, 0), (out, 0)]), UDP_OPENING);
    assert_eq!(lifetime(17, &[(out, 0), (back, 0)]), UDP_REPLIED);
    assert_eq!(lifetime(1, &[(out, 0), (back, 0)]), ICMP);
}
