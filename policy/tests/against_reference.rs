//! Random policies, every packet: the compiled entries against reading the rules one by one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod texts;

use std::{collections::BTreeMap, net::IpAddr, sync::LazyLock};

use identity::{AddressBook, IdentityId, Label, LabelSet, LocalIdentities, SelectorSet, reserved};
use policy::{
    compile::{
        CompileInput, EnforcementMode, Identities, NamedPorts, SelectorTable, Surroundings,
        compile_in, prefixes,
    },
    compiled::{Action, Direction, EndpointPolicy, Flow, L4, Outcome, Peer, Precedence, Protocol},
    fqdn::Fqdn,
    model::Policy,
    parse,
};
use proptest::prelude::*;
use reference::policy::{Fact, Judgement, Packet, Situation};
use texts::{policies, policies_in_tiers};

const CLUSTER: &str = "default";

fn pod(namespace: &str, app: Option<&str>) -> LabelSet {
    let app = app.map(|app| Label::k8s("app", app));
    std::iter::once(Label::k8s("io.kubernetes.pod.namespace", namespace))
        .chain(app)
        .collect()
}

fn entity(name: &str) -> LabelSet {
    [Label::reserved(name)].into_iter().collect()
}

fn worker() -> LabelSet {
    [Label::reserved("remote-node"), Label::k8s("role", "worker")]
        .into_iter()
        .collect()
}

fn managed() -> Vec<(IdentityId, LabelSet)> {
    let id = IdentityId::from_raw;
    vec![
        (id(256), pod("a", Some("x"))),
        (id(257), pod("a", Some("y"))),
        (id(258), pod("b", Some("y"))),
        (id(259), pod("b", None)),
        (reserved::HOST, entity("host")),
        (reserved::HEALTH, entity("health")),
        (reserved::REMOTE_NODE, entity("remote-node")),
        (id(300), worker()),
    ]
}

fn name(text: &str) -> Fqdn {
    Fqdn::parse(text).unwrap()
}

fn peers() -> Vec<Fact> {
    let mut facts: Vec<_> = managed()
        .into_iter()
        .map(|(_, labels)| Fact::Managed(labels))
        .collect();
    for address in [
        "10.9.9.9",
        "10.1.9.9",
        "10.1.2.9",
        "192.0.2.7",
        "192.0.2.8",
        "198.51.100.1",
        "2001:db8::1",
        "2001:db8:1::1",
        "2001:db9::1",
    ] {
        let address: IpAddr = address.parse().unwrap();
        // A learned address inside a prefix, and one outside of every prefix, are enough.
        let names: &[&[&str]] = match address {
            IpAddr::V4(v4) if v4.octets()[3] == 9 || v4.octets()[0] == 198 => {
                &[&[], &["a.test"], &["b.a.test"], &["a.test", "x.other"]]
            }
            _ => &[&[]],
        };
        for names in names {
            facts.push(Fact::Outside(
                address,
                names.iter().map(|n| name(n)).collect(),
            ));
        }
    }
    facts
}

/// Who calls which port how; one name stands for two numbers.
const OWN_PORTS: [(&str, Protocol, u16); 2] =
    [("web", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)];

fn peer_ports() -> Vec<(LabelSet, &'static str, Protocol, u16)> {
    vec![
        (pod("a", Some("y")), "web", Protocol::Tcp, 443),
        (pod("b", Some("y")), "web", Protocol::Tcp, 80),
        (pod("b", Some("y")), "web", Protocol::Tcp, 443),
        (pod("b", Some("y")), "dns", Protocol::Udp, 53),
        (pod("b", Some("y")), "dns", Protocol::Tcp, 53),
    ]
}

fn surroundings() -> Surroundings {
    let mut around = Surroundings::default();
    for (name, proto, port) in OWN_PORTS {
        around.own_ports.insert(name, proto, port);
    }
    for (labels, name, proto, port) in peer_ports() {
        let (id, _) = managed().into_iter().find(|(_, l)| *l == labels).unwrap();
        let ports: &mut NamedPorts = around.ports.entry(id).or_default();
        ports.insert(name, proto, port);
    }
    around
}

fn situation<'a>(policies: &'a [Policy], subject: &LabelSet) -> Situation<'a> {
    Situation {
        policies,
        subject: subject.clone(),
        cluster: CLUSTER,
        allow_local_host: true,
        own_ports: OWN_PORTS.to_vec(),
        ports: peer_ports(),
    }
}

/// One row of the POLICY map.
type Row = (L4, Precedence, Action);

/// The datapath: maps, longest-prefix look-ups, and "highest precedence wins".
struct Datapath {
    policy: EndpointPolicy,
    book: AddressBook,
    map: BTreeMap<(Direction, IdentityId), Vec<Row>>,
}

impl Datapath {
    fn new(policies: &[Policy], subject: &LabelSet) -> Self {
        let mut local = LocalIdentities::default();
        let mut book = AddressBook::default();
        let mut known = Vec::new();
        for prefix in prefixes(policies) {
            let id = local.cidr(prefix).unwrap();
            book.insert_prefix(prefix, id);
            known.push((id, prefix));
        }
        let identities = Identities::new(CLUSTER, managed(), known);
        let input = CompileInput {
            policies,
            subject,
            identities: &identities,
            mode: EnforcementMode::Default,
            allow_local_host: true,
            steer_dns: false,
        };
        let policy = compile_in(&input, &surroundings(), &mut SelectorTable::default()).unwrap();
        let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for e in &policy.entries {
            if let Some(id) = e.peer.map_identity() {
                map.entry((e.direction, id))
                    .or_default()
                    .push((e.l4, e.precedence, e.action));
            }
        }
        Self { policy, book, map }
    }

    fn address_identity(&self, fact: &Fact) -> IdentityId {
        match fact {
            Fact::Managed(labels) => managed().into_iter().find(|(_, l)| l == labels).unwrap().0,
            Fact::Outside(address, _) => self.book.lookup(*address),
        }
    }

    fn judge(&self, packet: &Packet) -> Judgement {
        let lookup = |entries: &[Row]| {
            entries
                .iter()
                .filter(|(l4, ..)| l4.contains(packet.proto, packet.port))
                .max_by_key(|(l4, ..)| l4.specificity())
                .map(|(_, precedence, action)| (*precedence, *action))
        };
        let mut found = Vec::new();
        for id in [self.address_identity(&packet.peer), reserved::UNKNOWN] {
            found.extend(
                self.map
                    .get(&(packet.direction, id))
                    .and_then(|e| lookup(e)),
            );
        }
        if let Fact::Outside(_, names) = &packet.peer {
            for name in names {
                let set = self.policy.selectors_matching(name);
                let entries = self.policy.entries_of_set(&set).into_iter();
                let entries: Vec<_> = entries
                    .filter(|e| e.direction == packet.direction)
                    .map(|e| (e.l4, e.precedence, e.action))
                    .collect();
                found.extend(lookup(&entries));
            }
        }
        let default_deny = self.policy.default_deny(packet.direction);
        match found.into_iter().max_by_key(|(precedence, _)| *precedence) {
            Some((_, Action::Allow)) => Judgement::Allowed,
            Some((_, Action::RedirectDns)) => Judgement::Redirected,
            Some((_, Action::Deny | Action::Mixed)) => Judgement::Denied,
            Some((_, Action::NeedsProxy)) => Judgement::NeedsProxy,
            Some((_, Action::Refuse)) => Judgement::NotAllowed,
            None if default_deny => Judgement::NotAllowed,
            None => Judgement::Allowed,
        }
    }

    /// What the offline judge says, without proxies.
    fn offline(&self, packet: &Packet) -> Judgement {
        let learned: Vec<_> = match &packet.peer {
            Fact::Managed(_) => Vec::new(),
            Fact::Outside(_, names) => names
                .iter()
                .map(|name| self.policy.selectors_matching(name))
                .collect(),
        };
        let verdict = self.policy.judge(&Flow {
            direction: packet.direction,
            peer: self.address_identity(&packet.peer),
            learned: &learned,
            proto: Some(packet.proto),
            port: packet.port,
        });
        match verdict.datapath {
            Outcome::Allowed | Outcome::AllowedByDefault => Judgement::Allowed,
            Outcome::RedirectedDns => Judgement::Redirected,
            Outcome::Redirected(_) => Judgement::NeedsProxy,
            Outcome::NotAllowed => Judgement::NotAllowed,
            Outcome::Denied => Judgement::Denied,
        }
    }
}

/// Every packet that could make a difference.
static PACKETS: LazyLock<Vec<Packet>> = LazyLock::new(packets);

fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        for peer in peers() {
            for (proto, ports) in [
                (
                    Protocol::Tcp,
                    &[0, 49, 53, 55, 60, 61, 80, 443, 8003, 65535][..],
                ),
                (Protocol::Udp, &[0, 53, 50, 80]),
                (Protocol::Sctp, &[53, 1000]),
                (Protocol::Icmp, &[0, 8]),
                (Protocol::Icmpv6, &[128, 129]),
            ] {
                packets.extend(ports.iter().map(|port| Packet {
                    direction,
                    peer: peer.clone(),
                    proto,
                    port: *port,
                }));
            }
        }
    }
    packets
}

/// Every packet is judged alike by entries and by rules.
fn agree(text: &str) -> Result<(), TestCaseError> {
    let parsed = parse::documents("p.yaml", text).unwrap_or_else(|e| panic!("{text}\n{e:#?}"));
    let subject = pod("a", Some("x"));
    let datapath = Datapath::new(&parsed.policies, &subject);
    let naive = situation(&parsed.policies, &subject);
    for packet in PACKETS.iter() {
        let expected = naive.judge(packet);
        let found = datapath.judge(packet);
        // The one place where entries are narrower than the rules (docs/policy.md): a `Pass` that
        // comes before a name accepted in its tier decides without the names of later tiers.
        let by_name = matches!(&packet.peer, Fact::Outside(_, names) if !names.is_empty());
        if by_name
            && text.contains("Pass")
            && text.contains("domainNames")
            && matches!(found, Judgement::NotAllowed | Judgement::Denied)
        {
            continue;
        }
        prop_assert_eq!(
            found,
            expected,
            "{}\n{:?}\n{:#?}",
            text,
            packet,
            &datapath.policy
        );
        let offline = datapath.offline(packet);
        prop_assert_eq!(
            offline,
            expected,
            "{}\n{:?}\n{:#?}",
            text,
            packet,
            &datapath.policy
        );
        if expected == Judgement::Redirected {
            names_agree(text, &datapath, &naive, packet)?;
        }
    }
    Ok(())
}

fn names_agree(
    text: &str,
    datapath: &Datapath,
    naive: &Situation<'_>,
    packet: &Packet,
) -> Result<(), TestCaseError> {
    let learned = match &packet.peer {
        Fact::Managed(_) => SelectorSet::default(),
        Fact::Outside(_, names) => names
            .iter()
            .map(|n| datapath.policy.selectors_matching(n))
            .fold(SelectorSet::default(), |a, b| a.union(&b)),
    };
    for asked in ["a.test", "b.a.test", "bx.test", "other", "w/x.test"] {
        let asked = Fqdn::from_labels(asked.split('.')).unwrap();
        let verdict = datapath.policy.may_ask_learned(
            datapath.address_identity(&packet.peer),
            &learned,
            packet.proto == Protocol::Tcp,
            packet.port,
            &asked,
        );
        let rules = &datapath.policy.dns_rules;
        prop_assert_eq!(
            verdict.is_allowed(),
            naive.may_ask(packet, &asked),
            "{}\n{:?} asks {}\n{:#?}",
            text,
            packet,
            &asked,
            rules
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn entries_decide_what_the_rules_say(text in policies()) {
        agree(&text)?;
    }

    #[test]
    fn tiers_decide_one_after_the_other(text in policies_in_tiers()) {
        agree(&text)?;
    }

    #[test]
    fn no_entry_is_hidden_behind_a_longer_and_weaker_one(text in policies()) {
        let parsed = parse::documents("p.yaml", &text).unwrap();
        let datapath = Datapath::new(&parsed.policies, &pod("a", Some("x")));
        let all: Vec<_> = datapath.policy.selectors.iter().map(|(id, _)| id).collect();
        let everything = SelectorSet::new(all);
        let of_set = datapath.policy.entries_of_set(&everything);
        let mut groups: BTreeMap<_, Vec<(L4, Precedence)>> = BTreeMap::new();
        for e in &datapath.policy.entries {
            groups.entry((e.direction, e.peer)).or_default().push((e.l4, e.precedence));
        }
        for e in &of_set {
            // Stands for an identity nothing else has.
            let key = (e.direction, Peer::Identity(IdentityId::from_raw(u32::MAX)));
            groups.entry(key).or_default().push((e.l4, e.precedence));
        }
        for (key, entries) in groups {
            for (wide, stronger) in &entries {
                for (narrow, weaker) in &entries {
                    prop_assert!(!(wide != narrow && wide.covers(*narrow) && stronger > weaker), "{:?}: {:?} hides {:?}\n{}", key, narrow, wide, text);
                }
            }
            let mut l4s: Vec<_> = entries.iter().map(|(l4, _)| *l4).collect();
            l4s.sort_unstable();
            let before = l4s.len();
            l4s.dedup();
            prop_assert_eq!(l4s.len(), before);
        }
    }

    #[test]
    fn the_order_of_policies_does_not_matter(text in policies()) {
        let mut parsed = parse::documents("p.yaml", &text).unwrap().policies;
        let subject = pod("a", Some("x"));
        let forward = Datapath::new(&parsed, &subject);
        parsed.reverse();
        let backward = Datapath::new(&parsed, &subject);
        for packet in PACKETS.iter() {
            prop_assert_eq!(forward.judge(packet), backward.judge(packet));
        }
    }
}
