//! The verdict against scanning every entry: `verdict_vs_reference`.
//!
//! In:  entries of a policy, the identities of a peer, flows.
//! Out: a panic when a longest-prefix look-up per identity decides otherwise than a scan.
//! Not here: how packets become flows (`packet`), how policies become entries (`policies`).

use fqdn_ebpf_common::{
    Direction,
    learned::SLOTS,
    policy::{ANY_PEER, Action, L4Bits, PolicyEntry, PolicyKey},
    verdict::{Ask, Peers, Rules, judge},
};
use reference::verdict::{self as naive, Decision};

use crate::{input::Input, maps::Lpm};

const POLICY: u32 = 1;
const MOST_ENTRIES: usize = 32;
const MOST_FLOWS: usize = 64;

/// Longest prefix, then precedence, decides what scanning every entry decides.
pub fn verdict_vs_reference(data: &[u8]) {
    let mut input = Input::new(data);
    let count = usize::from(input.byte()).min(MOST_ENTRIES);
    let entries = compiled((0..count).map(|_| entry(&mut input)).collect());
    let mut map = Map(Lpm::default());
    insert(&mut map.0, POLICY, Direction::Egress, &entries);
    for _ in 0..MOST_FLOWS {
        if input.is_over() {
            break;
        }
        let deny_by_default = input.flag();
        let learned: [u32; SLOTS] = std::array::from_fn(|_| u32::from(input.below(5)));
        let identity = 1 + u32::from(input.below(4));
        let protocol = *input.pick(&[6, 17, 47]);
        let port = input.short() % 70;
        let ask = Ask {
            policy: POLICY,
            deny_by_default,
            direction: Direction::Egress,
            protocol,
            port,
        };
        let peers = Peers { learned, identity };
        let got = judge(&map, &ask, &peers);
        let ids: Vec<u32> = learned.into_iter().filter(|id| *id != 0).collect();
        let all = [&ids[..], &[identity]].concat();
        let want = naive::verdict(&entries, deny_by_default, &all, protocol, port);
        let context = || format!("{ask:?} {peers:?}: {want:?} but {got:?}\n{entries:?}");
        assert!(want.admits(decision(got.action)), "{}", context());
        assert_eq!(got.match_type as u8, want.match_type, "{}", context());
        if want.unique {
            assert_eq!(got.rule_set, want.tag, "{}", context());
        }
        let known = got.learned == 0 || ids.contains(&got.learned);
        assert!(known, "learned from nowhere: {}", context());
        assert_eq!(got.learned == 0, ids.is_empty(), "{}", context());
        assert!(all.contains(&got.identity), "{}", context());
        // No policy restricts nothing, whatever the map holds.
        let none = Ask { policy: 0, ..ask };
        assert_eq!(judge(&map, &none, &peers).action, Action::Allow);
    }
}

struct Map(Lpm<PolicyKey, PolicyEntry>);

impl Rules for Map {
    fn policy(&self, key: &PolicyKey) -> Option<PolicyEntry> {
        self.0.get(key)
    }
}

/// Peer, what it is about, port, bits, decision and tier: six bytes, or seven.
pub(crate) fn entry(input: &mut Input<'_>) -> naive::Entry {
    let identity = Some(u32::from(input.below(5))).filter(|id| *id != 0);
    let protocol = *input.pick(&[None, Some(6), Some(17), Some(6), Some(17)]);
    let bits = match input.below(12) {
        nth @ 0..9 => nth + 8,
        _ => 0,
    };
    let bits = if protocol.is_some() { bits } else { 0 };
    let port = input.short() % 64;
    let port = match bits {
        0 => 0,
        bits => port & (0xffff << (16 - bits)),
    };
    let (decision, base) = *input.pick(&[
        (Decision::Allow, 2),
        (Decision::Deny, 255),
        (Decision::Redirect, 121),
        (Decision::NeedsProxy, 1),
        (Decision::Refuse, 254),
        (Decision::Mixed, 255),
    ]);
    naive::Entry {
        identity,
        protocol,
        port,
        bits,
        decision,
        precedence: u32::from(input.below(3)) * 256 + base,
        tag: 0,
    }
}

/// Entries as the policy compiler leaves them: one for each peer, protocol and port prefix, and
/// none hidden behind a longer prefix of the same peer with lower precedence.
pub(crate) fn compiled(mut entries: Vec<naive::Entry>) -> Vec<naive::Entry> {
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
    for (tag, entry) in (0..).zip(&mut entries) {
        entry.tag = tag;
    }
    entries
}

/// The entries as the POLICY map holds them.
pub(crate) fn insert(
    map: &mut Lpm<PolicyKey, PolicyEntry>,
    policy: u32,
    direction: Direction,
    entries: &[naive::Entry],
) {
    for entry in entries {
        let l4 = match (entry.protocol, entry.bits) {
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
        let peer = entry.identity.unwrap_or(ANY_PEER);
        let protocol = entry.protocol.unwrap_or(0);
        map.insert(
            l4.prefix_len(),
            PolicyKey::new(policy, peer, direction, protocol, entry.port),
            PolicyEntry::new(action, entry.precedence, entry.tag, l4),
        );
    }
}

/// The decision behind an action.
pub(crate) const fn decision(action: Action) -> Decision {
    match action {
        Action::Allow => Decision::Allow,
        Action::Deny => Decision::Deny,
        Action::RedirectDns => Decision::Redirect,
        Action::NeedsProxy => Decision::NeedsProxy,
        Action::Refuse => Decision::Refuse,
        Action::Mixed => Decision::Mixed,
    }
}
