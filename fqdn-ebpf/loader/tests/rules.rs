//! Random policies through the kernel: what BPF_PROG_TEST_RUN makes of a packet is what reading the
//! rules one by one makes of it.
//!
//! Policies of every kind, both directions, TCP, UDP, SCTP and ICMP, IPv4 and IPv6.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; shared helpers are not all used"
)]

#[path = "../../../policy/tests/texts/mod.rs"]
mod texts;
#[path = "../../common/tests/vectors/mod.rs"]
mod vectors;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use dnsproxy_core::{Learned, LearnedSlot, LearnedWriter as _, Moment};
use fqdn_ebpf_loader::{
    Config, Count, Datapath, Direction, DropReason, EndpointSpec, Metrics, Passed, PolicyId,
    Program, Run, Sizes, Writer,
};
use identity::{
    AddressBook, EndpointId, IdentityId, Label, LabelSet, LocalIdentities, SelectorSet, reserved,
};
use nix::{
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};
use policy::{
    compile::{CompileInput, EnforcementMode, Identities, SelectorTable, compile, prefixes},
    compiled::{self, EndpointPolicy, Protocol, RuleSetId},
    fqdn::Fqdn,
    parse,
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use reference::policy::{Fact, Judgement, Packet, Situation};
use vectors::{POD_MAC, POD4, POD6, SYN, frame};

const ENDPOINT: EndpointId = EndpointId::new(5);
/// The loopback device of a network namespace.
const LO: u32 = 1;
const HOUR: Duration = Duration::from_secs(3600);
const CLUSTER: &str = "default";
/// How many sets of policies.
const CASES: usize = 16;

/// Someone a packet can go to or come from.
struct Peer {
    address: IpAddr,
    fact: Fact,
    /// The identity by address, where it is not the prefix's.
    managed: Option<IdentityId>,
}

fn pod(namespace: &str, app: &str) -> LabelSet {
    [
        Label::k8s("io.kubernetes.pod.namespace", namespace),
        Label::k8s("app", app),
    ]
    .into_iter()
    .collect()
}

fn peers() -> Vec<Peer> {
    let host = [Label::reserved("host")].into_iter().collect();
    let remote = [Label::reserved("remote-node")].into_iter().collect();
    let managed = [
        ("172.16.0.7", 257, pod("a", "y")),
        ("172.16.0.8", 258, pod("b", "y")),
        ("fd16::8", 258, pod("b", "y")),
        ("172.18.0.2", reserved::HOST.get(), host),
        ("172.18.0.3", reserved::REMOTE_NODE.get(), remote),
    ];
    let managed = managed.map(|(address, id, labels)| Peer {
        address: address.parse().unwrap(),
        fact: Fact::Managed(labels),
        managed: Some(IdentityId::from_raw(id)),
    });
    let outside = [
        ("10.9.9.9", &["a.test"][..]),
        ("10.1.9.9", &[]),
        ("10.1.2.9", &["b.a.test"]),
        ("192.0.2.7", &[]),
        ("198.51.100.1", &["a.test", "x.other"]),
        ("198.51.100.2", &[]),
        ("2001:db8::1", &["a.test"]),
        ("2001:db8:1::1", &[]),
        ("2001:db9::1", &[]),
    ];
    let outside = outside.map(|(address, names)| {
        let address = address.parse().unwrap();
        let names = names.iter().map(|name| Fqdn::parse(name).unwrap());
        Peer {
            address,
            fact: Fact::Outside(address, names.collect()),
            managed: None,
        }
    });
    managed.into_iter().chain(outside).collect()
}

struct Kernel {
    datapath: Datapath,
    writer: Writer,
    locals: Arc<Mutex<LocalIdentities>>,
    selectors: SelectorTable,
    policies: u32,
    /// The counters after the packet before.
    counted: Metrics,
    /// Those of the rules, by number of the set.
    hits: Vec<Count>,
    /// Who everybody is.
    book: AddressBook,
    /// What names taught about everybody.
    learned: BTreeMap<IpAddr, Vec<SelectorSet>>,
    /// Ports and identifiers: every packet opens a flow of its own.
    fresh: u16,
}

impl Kernel {
    fn new() -> Self {
        let sizes = Sizes {
            learned: 64,
            addresses: 64,
            prefixes: 64,
            policy: 16_384,
            flows: 1024,
            ..Sizes::for_one_workload()
        };
        let locals = Arc::new(Mutex::new(LocalIdentities::default()));
        let datapath = Datapath::load(&sizes, &Config::default(), Arc::clone(&locals))
            .unwrap_or_else(|e| panic!("{e}"));
        Self {
            writer: datapath.writer().unwrap(),
            counted: datapath.metrics().unwrap(),
            hits: Vec::new(),
            book: AddressBook::default(),
            learned: BTreeMap::new(),
            datapath,
            locals,
            selectors: SelectorTable::default(),
            policies: 0,
            fresh: 1024,
        }
    }

    /// Puts policies in force, and teaches what the peers' names say.
    fn install(&mut self, policies: &[policy::model::Policy], peers: &[Peer]) -> EndpointPolicy {
        let mut book = AddressBook::default();
        let mut known = Vec::new();
        for prefix in prefixes(policies) {
            let id = self.locals.lock().unwrap().cidr(prefix).unwrap();
            book.insert_prefix(prefix, id);
            known.push((id, prefix));
        }
        let mut labels = vec![(IdentityId::from_raw(256), pod("a", "x"))];
        for peer in peers {
            if let (Some(id), Fact::Managed(own)) = (peer.managed, &peer.fact) {
                book.insert_address(peer.address, id);
                labels.push((id, own.clone()));
            }
        }
        let identities = Identities::new(CLUSTER, labels, known);
        let input = CompileInput {
            policies,
            subject: &pod("a", "x"),
            identities: &identities,
            mode: EnforcementMode::Default,
            allow_local_host: true,
            steer_dns: false,
        };
        let policy = compile(&input, &mut self.selectors).unwrap();
        self.datapath.ipcache(&book).unwrap();
        let before = PolicyId::new(self.policies);
        self.policies += 1;
        let id = PolicyId::new(self.policies);
        self.datapath.set_policy(id, &policy).unwrap();
        let spec = EndpointSpec {
            v4: Some(POD4),
            v6: vec![POD6],
            enforced: Some(id),
            ..EndpointSpec::new(ENDPOINT, POD_MAC)
        };
        self.datapath.set_endpoint(LO, &spec).unwrap();
        if before.get() > 0 {
            self.datapath.remove_policy(before).unwrap();
        }
        self.book = book;
        self.hits = self.datapath.hits(id).unwrap();
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
        let now = Moment::from_nanos(u64::try_from(Duration::from(time).as_nanos()).unwrap());
        for peer in peers {
            let Fact::Outside(address, names) = &peer.fact else {
                continue;
            };
            let sets = names.iter().map(|name| policy.selectors_matching(name));
            let mut sets: Vec<_> = sets.filter(|set| !set.is_empty()).collect();
            sets.sort_unstable();
            sets.dedup();
            self.learned.insert(*address, sets.clone());
            let slots: Vec<_> = sets
                .into_iter()
                .map(|set| LearnedSlot {
                    set,
                    expires: now.after(HOUR),
                })
                .collect();
            if slots.is_empty() {
                self.writer.remove(ENDPOINT, *address).unwrap();
                continue;
            }
            self.writer
                .put(&Learned {
                    endpoint: ENDPOINT,
                    address: *address,
                    slots: slots.into_iter().collect(),
                })
                .unwrap();
        }
        policy
    }

    /// What the kernel makes of the first packet of a flow.
    fn judge(&mut self, packet: &Packet, peer: &Peer) -> Judgement {
        self.fresh = self.fresh.checked_add(1).unwrap_or(1024);
        let (fresh, port) = (self.fresh, packet.port);
        let transport = match packet.proto {
            Protocol::Tcp => frame::tcp(fresh, port, SYN),
            Protocol::Udp => frame::udp(fresh, port),
            Protocol::Sctp => {
                let ports = [fresh.to_be_bytes(), port.to_be_bytes()].concat();
                [&ports[..], &[0; 8]].concat()
            }
            Protocol::Icmp | Protocol::Icmpv6 => {
                frame::icmp(u8::try_from(port).unwrap(), fresh, b"data")
            }
        };
        let own: IpAddr = match peer.address {
            IpAddr::V4(_) => POD4.into(),
            IpAddr::V6(_) => POD6.into(),
        };
        let number = packet.proto.number();
        let local = peer.managed == Some(reserved::HOST);
        let (program, direction, ingress_ifindex, bytes) = match packet.direction {
            compiled::Direction::Egress => {
                let bytes = frame::from(&frame::ip(own, peer.address, number, &transport));
                (Program::FromPod, Direction::Egress, 7, bytes)
            }
            compiled::Direction::Ingress => {
                let bytes = frame::to(&frame::ip(peer.address, own, number, &transport));
                let from = if local { 0 } else { 9 };
                (Program::ToPod, Direction::Ingress, from, bytes)
            }
        };
        let run = Run {
            frame: &bytes,
            mark: 0,
            ifindex: LO,
            ingress_ifindex,
            repeat: 1,
        };
        self.datapath.test_run(program, &run).unwrap();
        let after = self.datapath.metrics().unwrap();
        let before = std::mem::replace(&mut self.counted, after.clone());
        let passed = |what| count(&after, &before, |all| all.passed(what, direction).packets());
        let dropped = |why| count(&after, &before, |all| all.dropped(why, direction).packets());
        let all = [
            (Judgement::Allowed, passed(Passed::New)),
            // Nobody listens here: the program tried to steer it.
            (
                Judgement::Redirected,
                dropped(DropReason::SocketLookupFailed),
            ),
            (Judgement::NeedsProxy, dropped(DropReason::NeedsProxy)),
            (Judgement::NotAllowed, dropped(DropReason::PolicyDenied)),
            (Judgement::Denied, dropped(DropReason::PolicyDeny)),
        ];
        let mut found = all.into_iter().filter(|(_, counted)| *counted);
        let (judgement, _) = found
            .next()
            .unwrap_or_else(|| panic!("not a matter of policy: {packet:?}"));
        judgement
    }
}

impl Kernel {
    /// What rules the last packet was counted for: one set, once, if any rule speaks about it.
    fn check_hits(&mut self, packet: &Packet, peer: &Peer, policy: &EndpointPolicy) {
        let after = self.datapath.hits(PolicyId::new(self.policies)).unwrap();
        let before = std::mem::replace(&mut self.hits, after);
        let counted = before.iter().zip(&self.hits).enumerate();
        let counted: Vec<_> = counted
            .filter(|(_, (before, after))| before != after)
            .map(|(set, (before, after))| {
                assert_eq!(after.packets(), before.packets() + 1);
                assert!(after.bytes() > before.bytes());
                u32::try_from(set).unwrap()
            })
            .collect();
        let verdict = policy.judge(&compiled::Flow {
            direction: packet.direction,
            peer: self.book.lookup(peer.address),
            learned: self.learned.get(&peer.address).map_or(&[], |sets| sets),
            proto: Some(packet.proto),
            port: packet.port,
        });
        // An entry without rules stands for the direction's default.
        let written = |set: &u32| !policy.rule_set(RuleSetId::from_raw(*set)).is_empty();
        let counted: Vec<_> = counted.into_iter().filter(written).collect();
        let sets = verdict.rule_sets.iter().map(|set| set.get());
        let sets: Vec<_> = sets.filter(written).collect();
        assert!(
            match counted[..] {
                [] => sets.is_empty(),
                [set] => sets.contains(&set),
                _ => false,
            },
            "{counted:?}: {packet:?}\n{verdict:?}\n{policy:#?}"
        );
    }
}

fn count(after: &Metrics, before: &Metrics, of: impl Fn(&Metrics) -> u64) -> bool {
    of(after) > of(before)
}

/// Packets to and from everybody.
fn packets(peers: &[Peer]) -> Vec<(usize, Packet)> {
    let mut all = Vec::new();
    for (nth, peer) in peers.iter().enumerate() {
        let (icmp, echo) = match peer.address {
            IpAddr::V4(_) => (Protocol::Icmp, 8),
            IpAddr::V6(_) => (Protocol::Icmpv6, 128),
        };
        for direction in [compiled::Direction::Ingress, compiled::Direction::Egress] {
            for (proto, ports) in [
                (
                    Protocol::Tcp,
                    &[49, 53, 55, 60, 61, 80, 443, 8003, 65535][..],
                ),
                (Protocol::Udp, &[53, 50, 80]),
                (Protocol::Sctp, &[53, 1000]),
                (icmp, &[echo]),
            ] {
                all.extend(ports.iter().map(|port| {
                    let packet = Packet {
                        direction,
                        peer: peer.fact.clone(),
                        proto,
                        port: *port,
                    };
                    (nth, packet)
                }));
            }
        }
    }
    all
}

#[test]
fn the_kernel_decides_what_the_rules_say() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let peers = peers();
    let packets = packets(&peers);
    let mut kernel = Kernel::new();
    let mut runner = TestRunner::deterministic();
    let mut judged = BTreeMap::new();
    for case in 0..CASES {
        let texts = if case % 2 == 0 {
            texts::policies().boxed()
        } else {
            texts::policies_in_tiers().boxed()
        };
        let text = texts.new_tree(&mut runner).unwrap().current();
        let parsed = parse::documents("p.yaml", &text).unwrap_or_else(|e| panic!("{text}\n{e:#?}"));
        let policy = kernel.install(&parsed.policies, &peers);
        let naive = Situation {
            policies: &parsed.policies,
            subject: pod("a", "x"),
            cluster: CLUSTER,
            allow_local_host: true,
            own_ports: Vec::new(),
            ports: Vec::new(),
        };
        for (nth, packet) in &packets {
            let peer = &peers[*nth];
            let found = kernel.judge(packet, peer);
            kernel.check_hits(packet, peer, &policy);
            let expected = naive.judge(packet);
            // A `Pass` before a name accepted in its tier decides without the names of later tiers
            // (docs/policy.md).
            let by_name = matches!(&peer.fact, Fact::Outside(_, names) if !names.is_empty());
            if by_name
                && text.contains("Pass")
                && text.contains("domainNames")
                && matches!(found, Judgement::NotAllowed | Judgement::Denied)
            {
                continue;
            }
            assert_eq!(found, expected, "{text}\n{packet:?}\n{policy:#?}");
            *judged.entry(format!("{found:?}")).or_insert(0_usize) += 1;
        }
    }
    println!("{judged:?}");
    assert_eq!(judged.len(), 5, "every judgement is met: {judged:?}");
}
