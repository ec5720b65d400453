//! Random policies, every packet: the compiled entries against reading the rules one by one.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, net::IpAddr, sync::LazyLock};

use identity::{AddressBook, IdentityId, Label, LabelSet, LocalIdentities, reserved};
use policy::{
    compile::{CompileInput, EnforcementMode, Identities, SelectorTable, compile, prefixes},
    compiled::{Action, Direction, EndpointPolicy, L4, Peer, Precedence, Protocol},
    fqdn::Fqdn,
    model::Policy,
    parse,
};
use proptest::prelude::*;
use reference::policy::{Fact, Judgement, Packet, Situation};

const CLUSTER: &str = "default";

fn spec() -> impl Strategy<Value = String> {
    let ingress = proptest::collection::vec(clause(Direction::Ingress), 0..3);
    let egress = proptest::collection::vec(clause(Direction::Egress), 1..5);
    let subject = prop_oneof![
        Just("{}"),
        Just("{matchLabels: {app: x}}"),
        Just("{matchLabels: {app: y}}")
    ];
    let deny = prop_oneof![6 => Just(""), 1 => Just(", enableDefaultDeny: {egress: false, ingress: false}")];
    (subject, ingress, egress, deny).prop_map(|(subject, ingress, egress, deny)| {
        format!(
            "{{endpointSelector: {subject}, ingress: [{}], egress: [{}]{deny}}}",
            ingress.join(", "),
            egress.join(", ")
        )
    })
}

fn clause(direction: Direction) -> impl Strategy<Value = String> {
    let (from, names) = match direction {
        Direction::Ingress => ("from", 0),
        Direction::Egress => ("to", 4),
    };
    let labels = prop_oneof![
        Just("{}"),
        Just("{matchLabels: {app: y}}"),
        Just("{matchLabels: {'k8s:io.kubernetes.pod.namespace': b}}"),
        Just("{matchLabels: {'io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name': b}}"),
        Just("{matchExpressions: [{key: app, operator: NotIn, values: [x]}]}"),
        Just(
            "{matchExpressions: [{key: app, operator: DoesNotExist}, {key: io.kubernetes.pod.namespace, operator: Exists}]}"
        ),
        Just("{matchLabels: {'reserved:world': ''}}"),
        Just("{matchLabels: {'reserved:host': ''}}"),
    ];
    let entity = prop_oneof![
        Just("all"),
        Just("world"),
        Just("host"),
        Just("cluster"),
        Just("health"),
        Just("none"),
        Just("remote-node")
    ];
    let cidr = prop_oneof![
        Just("{cidr: 10.0.0.0/8}"),
        Just("{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}"),
        Just("{cidr: 10.1.2.0/24}"),
        Just("{cidr: 0.0.0.0/0}"),
        Just("{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.0.2.0/24]}"),
        Just("{cidr: '::/0'}"),
        Just("{cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}"),
        Just("{cidr: 192.0.2.7/32}"),
    ];
    let fqdn = prop_oneof![
        Just("{matchName: a.test}"),
        Just("{matchPattern: '*.test'}"),
        Just("{matchPattern: '**.test'}"),
        Just("{matchPattern: '*'}"),
        Just("{matchName: b.a.test}")
    ];
    let list = move |kind: &'static str, items: BoxedStrategy<&'static str>| {
        proptest::collection::vec(items, 0..3)
            .prop_map(move |items| format!("{kind}: [{}]", items.join(", ")))
    };
    let kind = |text: &str| -> &'static str { Box::leak(format!("{from}{text}").into_boxed_str()) };
    let peers = prop_oneof![
        2 => Just(String::new()),
        4 => list(kind("Endpoints"), labels.boxed()),
        3 => list(kind("Entities"), entity.boxed()),
        4 => list(kind("CIDRSet"), cidr.boxed()),
        names => list("toFQDNs", fqdn.boxed()),
    ];
    let port = prop_oneof![
        Just("{port: '53', protocol: UDP}"),
        Just("{port: '53'}"),
        Just("{port: '53', protocol: TCP}"),
        Just("{port: '50', endPort: 60}"),
        Just("{port: '0', protocol: TCP}"),
        Just("{port: '0'}"),
        Just("{port: '443', protocol: TCP}"),
        Just("{port: '1', endPort: 65535, protocol: UDP}"),
        Just("{port: '80', endPort: 79}"),
    ];
    let dns_port = prop_oneof![
        Just("{port: '53'}"),
        Just("{port: '53', protocol: UDP}"),
        Just("{port: '80', protocol: TCP}")
    ];
    let dns = prop_oneof![
        Just("{matchName: a.test}"),
        Just("{matchPattern: '*.a.test'}"),
        Just("{matchPattern: '*'}"),
        Just("{matchName: a.test, matchPattern: 'b*.test'}")
    ];
    let plain = proptest::collection::vec(port, 0..3)
        .prop_map(|p| format!("{{ports: [{}]}}", p.join(", ")));
    let restricted = (dns_port, proptest::collection::vec(dns, 1..3)).prop_map(|(port, dns)| {
        format!("{{ports: [{port}], rules: {{dns: [{}]}}}}", dns.join(", "))
    });
    let port_rule = match direction {
        Direction::Ingress => plain.boxed(),
        Direction::Egress => prop_oneof![2 => plain, 1 => restricted].boxed(),
    };
    let ports = prop_oneof![
        2 => Just(String::new()),
        5 => proptest::collection::vec(port_rule, 0..3).prop_map(|p| format!("toPorts: [{}]", p.join(", "))),
        1 => Just("icmps: [{fields: [{type: 8}, {family: IPv6, type: 128}]}]".to_owned()),
    ];
    (peers, ports).prop_map(|(peers, ports)| {
        let parts: Vec<_> = [peers, ports]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        format!("{{{}}}", parts.join(", "))
    })
}

fn policies() -> impl Strategy<Value = String> {
    let document = (any::<bool>(), spec()).prop_map(|(clusterwide, spec)| {
        let (kind, namespace) = if clusterwide {
            ("CiliumClusterwideNetworkPolicy", "")
        } else {
            ("CiliumNetworkPolicy", ", namespace: a")
        };
        format!("apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p{namespace}}}\nspec: {spec}\n")
    });
    proptest::collection::vec(document, 1..4).prop_map(|documents| documents.join("---\n"))
}

fn pod(namespace: &str, app: Option<&str>) -> LabelSet {
    let app = app.map(|app| Label::k8s("app", app));
    std::iter::once(Label::k8s("io.kubernetes.pod.namespace", namespace))
        .chain(app)
        .collect()
}

fn entity(name: &str) -> LabelSet {
    [Label::reserved(name)].into_iter().collect()
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
        let policy = compile(&input, &mut SelectorTable::default()).unwrap();
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
        match found.into_iter().max_by_key(|(precedence, _)| *precedence) {
            Some((_, Action::Allow)) => Judgement::Allowed,
            Some((_, Action::RedirectDns)) => Judgement::Redirected,
            Some((_, Action::Deny)) => Judgement::NotAllowed,
            None if self.policy.default_deny(packet.direction) => Judgement::NotAllowed,
            None => Judgement::Allowed,
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
                (Protocol::Tcp, &[0, 49, 53, 55, 60, 61, 80, 443, 65535][..]),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn entries_decide_what_the_rules_say(text in policies()) {
        let parsed = parse::documents("p.yaml", &text).unwrap_or_else(|e| panic!("{text}\n{e:#?}"));
        let subject = pod("a", Some("x"));
        let datapath = Datapath::new(&parsed.policies, &subject);
        let naive = Situation { policies: &parsed.policies, subject, cluster: CLUSTER, allow_local_host: true };
        for packet in PACKETS.iter() {
            let expected = naive.judge(packet);
            prop_assert_eq!(datapath.judge(packet), expected, "{}\n{:?}\n{:#?}", &text, &packet, &datapath.policy);
            if expected != Judgement::Redirected {
                continue;
            }
            let learned = match &packet.peer {
                Fact::Managed(_) => Default::default(),
                Fact::Outside(_, names) => names.iter()
                    .map(|n| datapath.policy.selectors_matching(n))
                    .fold(Default::default(), |a: identity::SelectorSet, b| a.union(&b)),
            };
            for asked in ["a.test", "b.a.test", "bx.test", "other", "w/x.test"] {
                let asked = Fqdn::from_labels(asked.split('.')).unwrap();
                let verdict = datapath.policy.may_ask_learned(
                    datapath.address_identity(&packet.peer), &learned,
                    packet.proto == Protocol::Tcp, packet.port, &asked);
                prop_assert_eq!(verdict.is_allowed(), naive.may_ask(packet, &asked),
                    "{}\n{:?} asks {}\n{:#?}", &text, &packet, &asked, &datapath.policy.dns_rules);
            }
        }
    }

    #[test]
    fn no_entry_is_hidden_behind_a_longer_and_weaker_one(text in policies()) {
        let parsed = parse::documents("p.yaml", &text).unwrap();
        let datapath = Datapath::new(&parsed.policies, &pod("a", Some("x")));
        let all: Vec<_> = datapath.policy.selectors.iter().map(|(id, _)| id).collect();
        let everything = identity::SelectorSet::new(all);
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
