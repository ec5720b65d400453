//! Random policies, every packet: the compiled entries against reading the rules one by one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

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

const CLUSTER: &str = "default";

fn spec() -> impl Strategy<Value = String> {
    let ingress = proptest::collection::vec(clause(Direction::Ingress, true), 0..3);
    let egress = proptest::collection::vec(clause(Direction::Egress, true), 1..5);
    let ingress_deny = proptest::collection::vec(clause(Direction::Ingress, false), 0..2);
    let egress_deny = proptest::collection::vec(clause(Direction::Egress, false), 0..3);
    let subject = prop_oneof![
        Just("{}"),
        Just("{matchLabels: {app: x}}"),
        Just("{matchLabels: {app: y}}")
    ];
    let deny = prop_oneof![6 => Just(""), 1 => Just(", enableDefaultDeny: {egress: false, ingress: false}")];
    (subject, ingress, ingress_deny, egress, egress_deny, deny).prop_map(
        |(subject, ingress, ingress_deny, egress, egress_deny, deny)| {
            format!(
                "{{endpointSelector: {subject}, ingress: [{}], ingressDeny: [{}], egress: [{}], egressDeny: [{}]{deny}}}",
                ingress.join(", "),
                ingress_deny.join(", "),
                egress.join(", "),
                egress_deny.join(", ")
            )
        },
    )
}

fn clause(direction: Direction, allow: bool) -> impl Strategy<Value = String> {
    let (from, names) = match direction {
        Direction::Egress if allow => ("to", 4),
        Direction::Ingress => ("from", 0),
        Direction::Egress => ("to", 0),
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
        1 => list(kind("Nodes"), prop_oneof![Just("{}"), Just("{matchLabels: {role: worker}}")].boxed()),
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
        Just("{port: web, protocol: TCP}"),
        Just("{port: dns}"),
    ];
    let dns_port = prop_oneof![
        Just("{port: '53'}"),
        Just("{port: '53', protocol: UDP}"),
        Just("{port: '80', protocol: TCP}"),
        Just("{port: dns}")
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
    // Ports of their own: a port read by two proxies would be a contradiction.
    let inside = prop_oneof![
        Just("{ports: [{port: '60', protocol: TCP}, {port: '8000', endPort: 8007, protocol: TCP}], rules: {http: [{method: GET}]}}"),
        Just("{ports: [{port: '61', protocol: TCP}], rules: {http: [{}]}}"),
    ]
    .prop_map(str::to_owned);
    let port_rule = match direction {
        _ if !allow => plain.boxed(),
        Direction::Ingress => prop_oneof![3 => plain, 1 => inside].boxed(),
        Direction::Egress => prop_oneof![3 => plain, 2 => restricted, 1 => inside].boxed(),
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

fn cilium() -> impl Strategy<Value = String> {
    (any::<bool>(), spec()).prop_map(|(clusterwide, spec)| {
        let (kind, namespace) = if clusterwide {
            ("CiliumClusterwideNetworkPolicy", "")
        } else {
            ("CiliumNetworkPolicy", ", namespace: a")
        };
        format!("apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p{namespace}}}\nspec: {spec}\n")
    })
}

/// `NetworkPolicy`.
fn kubernetes() -> impl Strategy<Value = String> {
    let peer = prop_oneof![
        Just("{podSelector: {}}"),
        Just("{podSelector: {matchLabels: {app: y}}}"),
        Just("{namespaceSelector: {}}"),
        Just(
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}, podSelector: {matchLabels: {app: x}}}"
        ),
        Just("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}"),
        Just("{ipBlock: {cidr: '::/0'}}"),
    ];
    let port = prop_oneof![
        Just("{port: 53, protocol: UDP}"),
        Just("{port: 50, endPort: 60}"),
        Just("{port: web}"),
        Just("{protocol: SCTP}"),
    ];
    let rule = (
        proptest::collection::vec(peer, 0..3),
        proptest::collection::vec(port, 0..3),
    );
    let rules = proptest::collection::vec(rule, 0..3);
    let types = prop_oneof![
        Just(""),
        Just(", policyTypes: [Ingress]"),
        Just(", policyTypes: [Egress]"),
        Just(", policyTypes: [Ingress, Egress]"),
    ];
    (rules.clone(), rules, types).prop_map(|(ingress, egress, types)| {
        let text = |list: &str, rules: Vec<(Vec<&str>, Vec<&str>)>| {
            let rules: Vec<_> = rules
                .iter()
                .map(|(peers, ports)| format!("{{{list}: [{}], ports: [{}]}}", peers.join(", "), ports.join(", ")))
                .collect();
            rules.join(", ")
        };
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec: {{podSelector: {{}}, ingress: [{}], egress: [{}]{types}}}\n",
            text("from", ingress),
            text("to", egress)
        )
    })
}

/// `ClusterNetworkPolicy`.
fn tiered() -> impl Strategy<Value = String> {
    let workloads = || {
        prop_oneof![
            Just("{namespaces: {}}"),
            Just("{namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}}"),
            Just("{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}}"),
        ]
    };
    let outside = prop_oneof![
        Just("{networks: [10.0.0.0/8]}"),
        Just("{networks: [10.1.0.0/16, '2001:db8::/32']}"),
        Just("{nodes: {}}"),
    ];
    let port = prop_oneof![
        Just("{tcp: {destinationPort: {number: 53}}}"),
        Just("{udp: {destinationPort: {number: 53}}}"),
        Just("{tcp: {destinationPort: {range: {start: 50, end: 60}}}}"),
        Just("{tcp: {}}"),
        Just("{sctp: {}}"),
    ];
    let ports = proptest::collection::vec(port, 0..3).prop_map(|ports| {
        if ports.is_empty() {
            String::new()
        } else {
            format!(", protocols: [{}]", ports.join(", "))
        }
    });
    let action = || prop_oneof![Just("Accept"), Just("Deny"), Just("Pass")];
    let from = proptest::collection::vec(workloads(), 1..3);
    let ingress = (action(), from, ports.clone()).prop_map(|(action, from, ports)| {
        format!("{{action: {action}, from: [{}]{ports}}}", from.join(", "))
    });
    let to = proptest::collection::vec(prop_oneof![workloads(), outside], 1..3);
    let names = prop_oneof![
        Just("{domainNames: [a.test]}"),
        Just("{domainNames: ['*.test']}")
    ];
    let by_peer = (action(), to, ports.clone()).prop_map(|(action, to, ports)| {
        format!("{{action: {action}, to: [{}]{ports}}}", to.join(", "))
    });
    let by_name = (names, ports)
        .prop_map(|(names, ports)| format!("{{action: Accept, to: [{names}]{ports}}}"));
    let egress = prop_oneof![4 => by_peer, 1 => by_name];
    let tier = prop_oneof![Just("Admin"), Just("Baseline")];
    (
        tier,
        0u16..3,
        proptest::collection::vec(ingress, 0..3),
        proptest::collection::vec(egress, 0..4),
    )
        .prop_map(|(tier, priority, ingress, egress)| {
            format!(
                "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\nspec: {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, ingress: [{}], egress: [{}]}}\n",
                ingress.join(", "),
                egress.join(", ")
            )
        })
}

fn policies() -> impl Strategy<Value = String> {
    let document = prop_oneof![5 => cilium(), 1 => kubernetes()];
    proptest::collection::vec(document, 1..4).prop_map(|documents| documents.join("---\n"))
}

/// Policies of every kind; those of one tier and the tiers around it.
fn policies_in_tiers() -> impl Strategy<Value = String> {
    let normal = prop_oneof![1 => cilium(), 1 => kubernetes()];
    (
        proptest::collection::vec(tiered(), 1..4),
        proptest::collection::vec(normal, 0..2),
    )
        .prop_map(|(tiered, normal)| {
            let documents: Vec<_> = tiered.into_iter().chain(normal).collect();
            documents.join("---\n")
        })
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
            Some((_, Action::Deny)) => Judgement::Denied,
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
