//! The vectors through the kernel: the same table as on the host, by BPF_PROG_TEST_RUN.
//!
//! Which verdict the kernel reached shows in its counters, not only in the return code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; benches share helpers they do not all use"
)]

#[path = "../../common/tests/vectors/mod.rs"]
mod vectors;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use dnsproxy_core::{Learned, LearnedSlot, LearnedWriter as _, Moment};
use fqdn_ebpf_loader::{
    Config, Datapath, Direction, DropReason, EndpointSpec, EventKind, Events, Metrics, Passed,
    PolicyId, Program, Run, Sizes, Writer,
};
use identity::{AddressBook, EndpointId, IdentityId, LocalIdentities, SelectorId, SelectorSet};
use nix::{
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};
use policy::compiled::{self, EndpointPolicy, PortPrefix, Precedence, Protocol, RuleSetId};
use vectors::{Act, At, Bench, L4, Outcome, POD_MAC, POD4, POD6, Peer, World};

const ENDPOINT: EndpointId = EndpointId::new(5);
/// The loopback device of a network namespace.
const LO: u32 = 1;
const HOUR: Duration = Duration::from_secs(3600);

/// TC_ACT_UNSPEC and TC_ACT_SHOT.
const NEXT: i32 = -1;
const SHOT: i32 = 2;

struct Kernel {
    datapath: Datapath,
    writer: Writer,
    events: Events,
    policies: u32,
    in_force: Vec<PolicyId>,
}

fn now() -> Moment {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    Moment::from_nanos(u64::try_from(Duration::from(time).as_nanos()).unwrap())
}

impl Kernel {
    fn new() -> Self {
        let sizes = Sizes {
            learned: 64,
            addresses: 64,
            prefixes: 64,
            policy: 512,
            flows: 1024,
            ..Sizes::for_one_workload()
        };
        let identities = Arc::new(Mutex::new(LocalIdentities::default()));
        let config = Config::default().with_events(1_000_000, 1_000_000);
        let mut datapath =
            Datapath::load(&sizes, &config, identities).unwrap_or_else(|e| panic!("{e}"));
        Self {
            writer: datapath.writer().unwrap(),
            events: datapath.events().unwrap(),
            datapath,
            policies: 0,
            in_force: Vec::new(),
        }
    }

    fn policy(&mut self, rules: Option<&vectors::Rules>) -> Option<PolicyId> {
        let rules = rules?;
        self.policies += 1;
        let id = PolicyId::new(self.policies);
        let mut entries: Vec<_> = rules.rules.iter().enumerate().map(entry).collect();
        entries.sort_unstable();
        let policy = EndpointPolicy {
            default_deny_ingress: rules.deny_ingress,
            default_deny_egress: rules.deny_egress,
            entries,
            ..EndpointPolicy::default()
        };
        self.datapath.set_policy(id, &policy).unwrap();
        Some(id)
    }
}

fn entry((nth, rule): (usize, &vectors::Rule)) -> compiled::Entry {
    let proto = |number| Protocol::try_from(number).unwrap();
    let action = match rule.act {
        Act::Allow => compiled::Action::Allow,
        Act::Deny => compiled::Action::Deny,
        Act::Redirect => compiled::Action::RedirectDns,
        Act::NeedsProxy => compiled::Action::NeedsProxy,
        Act::Refuse => compiled::Action::Refuse,
        Act::Mixed => compiled::Action::Mixed,
    };
    compiled::Entry {
        direction: if rule.egress {
            compiled::Direction::Egress
        } else {
            compiled::Direction::Ingress
        },
        peer: match rule.peer {
            Peer::Any => compiled::Peer::Any,
            Peer::Id(id) => compiled::Peer::Identity(IdentityId::from_raw(id)),
            Peer::Name(n) => compiled::Peer::Fqdn(SelectorId::new(n)),
        },
        l4: match rule.l4 {
            L4::Any => compiled::L4::Any,
            L4::Proto(number) => compiled::L4::Protocol {
                proto: proto(number),
            },
            L4::Port(number, port, bits) => {
                let last = port | u16::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
                let ports = PortPrefix::split(port, last);
                assert_eq!(ports.len(), 1);
                compiled::L4::new(proto(number), ports[0])
            }
        },
        action,
        // A hole is told apart from a denial, and wins over everything else in its tier.
        precedence: match rule.act {
            Act::Refuse => Precedence::from_raw(Precedence::of(compiled::Action::Deny).get() - 1),
            _ => Precedence::of(action),
        },
        rule_set: RuleSetId::from_raw(u32::try_from(nth).unwrap()),
    }
}

impl Bench for Kernel {
    fn install(&mut self, world: &World) {
        let mut book = AddressBook::default();
        for (address, id) in &world.addresses {
            book.insert_address(*address, IdentityId::from_raw(*id));
        }
        for (prefix, id) in &world.prefixes {
            book.insert_prefix(prefix.parse().unwrap(), IdentityId::from_raw(*id));
        }
        self.datapath.ipcache(&book).unwrap();
        let enforced = self.policy(world.enforced.as_ref());
        let shadow = self.policy(world.shadow.as_ref());
        let spec = EndpointSpec {
            v4: Some(POD4),
            v6: vec![POD6],
            enforced,
            shadow,
            audited: world.audited,
            ..EndpointSpec::new(ENDPOINT, POD_MAC)
        };
        self.datapath.set_endpoint(LO, &spec).unwrap();
        for id in std::mem::take(&mut self.in_force) {
            self.datapath.remove_policy(id).unwrap();
        }
        self.in_force = [enforced, shadow].into_iter().flatten().collect();
    }

    fn learn(&mut self, address: IpAddr, names: &[(u32, bool)]) {
        let now = now();
        let slots = names
            .iter()
            .map(|(name, live)| LearnedSlot {
                set: SelectorSet::new([SelectorId::new(*name)]),
                expires: if *live { now.after(HOUR) } else { now },
            })
            .collect();
        self.writer
            .put(&Learned {
                endpoint: ENDPOINT,
                address,
                slots,
            })
            .unwrap();
    }

    fn send(&mut self, at: At, frame: &[u8]) -> Outcome {
        let (program, direction, ingress_ifindex, mark) = match at {
            At::From => (Program::FromPod, Direction::Egress, 7, 0),
            At::To => (Program::ToPod, Direction::Ingress, 9, 0xa00),
            At::ToLocal(mark) => (Program::ToPod, Direction::Ingress, 0, mark),
        };
        // The kernel pads no test frames, and takes none below an Ethernet header.
        let run = Run {
            frame,
            mark,
            ifindex: LO,
            ingress_ifindex,
            repeat: 1,
        };
        let before = self.datapath.metrics().unwrap();
        let ran = self.datapath.test_run(program, &run).unwrap();
        let after = self.datapath.metrics().unwrap();
        let outcome = difference(&before, &after, direction);
        let event = self.events.next();
        assert!(self.events.next().is_none());
        match outcome {
            Outcome::Pass(passed) => {
                assert_eq!(ran.code, NEXT, "{passed:?}");
                assert_eq!(ran.frame, frame);
                let kind = event.and_then(|event| event.kind());
                match passed {
                    Passed::Audited => assert_eq!(kind, Some(EventKind::Audit)),
                    Passed::New => assert!(matches!(kind, None | Some(EventKind::Flow))),
                    Passed::Unsteered => return Outcome::Steer,
                    Passed::Spared => {}
                    _ => assert_eq!(kind, None, "{passed:?}"),
                }
            }
            Outcome::Drop(reason) => {
                assert_eq!(ran.code, SHOT, "{reason}");
                let event = event.expect("a drop is reported");
                assert_eq!(
                    (event.kind(), event.reason()),
                    (Some(EventKind::Drop), Some(reason))
                );
                assert_eq!(event.endpoint(), ENDPOINT.get());
                if reason == DropReason::SocketLookupFailed {
                    // Nobody listens here: the program tried to steer it.
                    return Outcome::Steer;
                }
            }
            Outcome::Steer => unreachable!("counted only with a listener"),
        }
        outcome
    }
}

/// What one packet changed in the counters.
fn difference(before: &Metrics, after: &Metrics, direction: Direction) -> Outcome {
    let passed = Passed::ALL.iter().filter(|what| {
        after.passed(**what, direction).packets() > before.passed(**what, direction).packets()
    });
    let dropped = DropReason::ALL.iter().filter(|why| {
        after.dropped(**why, direction).packets() > before.dropped(**why, direction).packets()
    });
    let mut all = passed
        .map(|what| Outcome::Pass(*what))
        .chain(dropped.map(|why| Outcome::Drop(*why)));
    let outcome = all.next().expect("every packet is counted");
    assert_eq!(all.next(), None, "a packet is counted once");
    outcome
}

#[test]
fn every_vector_holds_in_the_kernel() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let mut count = 0;
    for (name, vector) in vectors::vectors() {
        println!("{name}");
        vector(&mut Kernel::new());
        count += 1;
    }
    println!("{count} vectors");
    assert!(count >= 40, "{count}");
}

#[test]
fn an_interface_without_endpoint_drops_everything() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let mut kernel = Kernel::new();
    kernel.install(&vectors::addresses());
    let talk = vectors::frame::Talk::new(POD4, vectors::WEB4, vectors::UDP, 1, 9);
    assert_eq!(kernel.send(At::From, &talk.out(0)), vectors::NEW);
    kernel.datapath.remove_endpoint(ENDPOINT).unwrap();
    for (program, frame) in [
        (Program::FromPod, talk.out(0)),
        (Program::ToPod, talk.back(0)),
    ] {
        let run = Run {
            frame: &frame,
            mark: 0,
            ifindex: LO,
            ingress_ifindex: 3,
            repeat: 1,
        };
        assert_eq!(kernel.datapath.test_run(program, &run).unwrap().code, SHOT);
        assert_eq!(
            kernel.events.next().unwrap().reason(),
            Some(DropReason::NoEndpoint)
        );
    }
}

#[test]
fn events_are_rationed_and_counts_are_exact() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let mut kernel = Kernel::new();
    kernel.install(&vectors::egress(&[]));
    kernel
        .datapath
        .configure(Config::default().with_events(0, 10))
        .unwrap();
    let frame = vectors::frame::Talk::new(POD4, vectors::WEB4, vectors::UDP, 1, 9).out(0);
    let run = Run {
        frame: &frame,
        mark: 0,
        ifindex: LO,
        ingress_ifindex: 0,
        repeat: 1000,
    };
    kernel.datapath.test_run(Program::FromPod, &run).unwrap();
    let metrics = kernel.datapath.metrics().unwrap();
    let drops = metrics
        .dropped(DropReason::PolicyDenied, Direction::Egress)
        .packets();
    let suppressed = metrics
        .passed(Passed::EventSuppressed, Direction::Egress)
        .packets();
    let mut told = 0;
    while kernel.events.next().is_some() {
        told += 1;
    }
    assert_eq!(drops, 1000);
    assert_eq!(told + suppressed, 1000);
    assert!(told <= 10, "{told}");
}

#[test]
fn a_full_map_is_an_error_with_its_name() {
    let mut kernel = Kernel::new();
    kernel.install(&vectors::addresses());
    let put = |kernel: &mut Kernel, n: u32| {
        kernel.writer.put(&Learned {
            endpoint: ENDPOINT,
            address: IpAddr::from([203, 0, (n >> 8) as u8, n as u8]),
            slots: [LearnedSlot {
                set: SelectorSet::new([SelectorId::new(1)]),
                expires: now(),
            }]
            .into_iter()
            .collect(),
        })
    };
    for n in 0..64 {
        put(&mut kernel, n).unwrap();
    }
    assert_eq!(
        put(&mut kernel, 64),
        Err(dnsproxy_core::WriteError::Full {
            map: "LEARNED",
            capacity: 64
        })
    );
    // What is there can still be renewed, and room can be made.
    put(&mut kernel, 3).unwrap();
    kernel
        .writer
        .remove(ENDPOINT, IpAddr::from([203, 0, 0, 3]))
        .unwrap();
    put(&mut kernel, 64).unwrap();
    assert_eq!(kernel.datapath.learned().unwrap().len(), 64);
    assert_eq!(
        kernel.writer.put(&Learned {
            endpoint: EndpointId::new(99),
            address: IpAddr::from([203, 0, 0, 3]),
            slots: std::iter::once(LearnedSlot {
                set: SelectorSet::new([SelectorId::new(1)]),
                expires: now(),
            })
            .collect(),
        }),
        Err(dnsproxy_core::WriteError::NoEndpoint(EndpointId::new(99)))
    );
}

#[test]
fn a_policy_that_does_not_fit_leaves_nothing_and_the_old_one_holds() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let mut kernel = Kernel::new();
    kernel.install(&vectors::egress(&[vectors::allow(
        Peer::Any,
        vectors::port(vectors::UDP, 9),
    )]));
    let before = kernel.datapath.policy_entries().unwrap().len();
    let rules: Vec<_> = (0..600)
        .map(|port| vectors::allow(Peer::Any, vectors::port(vectors::TCP, port)))
        .collect();
    let policy = EndpointPolicy {
        entries: rules.iter().enumerate().map(entry).collect(),
        ..EndpointPolicy::default()
    };
    let error = kernel
        .datapath
        .set_policy(PolicyId::new(77), &policy)
        .unwrap_err();
    assert_eq!(error.to_string(), "map POLICY is full (512 entries)");
    assert_eq!(kernel.datapath.policy_entries().unwrap().len(), before);
    let talk = vectors::frame::Talk::new(POD4, vectors::WEB4, vectors::UDP, 1, 9);
    assert_eq!(kernel.send(At::From, &talk.out(0)), vectors::NEW);
    let in_use = kernel.in_force[0];
    assert!(kernel.datapath.remove_policy(in_use).is_err());
}

#[test]
fn identities_go_when_nothing_names_them_any_more() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let mut kernel = Kernel::new();
    let world = vectors::egress(&[
        vectors::allow(Peer::Name(1), vectors::port(vectors::TCP, 443)),
        vectors::allow(Peer::Name(2), vectors::port(vectors::TCP, 443)),
    ]);
    kernel.install(&world);
    kernel.learn(vectors::WEB4.into(), &[(1, true)]);
    kernel.learn(vectors::OTHER4.into(), &[(2, true)]);
    assert_eq!(kernel.datapath.policy_entries().unwrap().len(), 2);
    assert_eq!(kernel.datapath.collect_identities().unwrap(), 0);
    let talk = vectors::frame::Talk::new(POD4, vectors::WEB4, vectors::TCP, 1, 443);
    assert_eq!(kernel.send(At::From, &talk.out(vectors::SYN)), vectors::NEW);
    kernel
        .writer
        .remove(ENDPOINT, vectors::WEB4.into())
        .unwrap();
    kernel
        .writer
        .remove(ENDPOINT, vectors::OTHER4.into())
        .unwrap();
    // One is held by a live flow, which survives a change of policy under it.
    assert_eq!(kernel.datapath.collect_identities().unwrap(), 1);
    kernel.install(&world);
    assert_eq!(
        kernel.send(At::From, &talk.out(vectors::ACK)),
        vectors::RENEWED
    );
    let flows = kernel.datapath.flows(ENDPOINT).unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].sent.0, 2);
    assert!(flows[0].learned.is_some());
}

#[test]
fn nanoseconds_per_packet() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let mut kernel = Kernel::new();
    kernel.install(&vectors::egress(&[vectors::allow(
        Peer::Name(1),
        vectors::port(vectors::TCP, 443),
    )]));
    kernel.learn(vectors::WEB4.into(), &[(1, true)]);
    let talk = vectors::frame::Talk::new(POD4, vectors::WEB4, vectors::TCP, 1, 443);
    assert_eq!(kernel.send(At::From, &talk.out(vectors::SYN)), vectors::NEW);
    assert_eq!(
        kernel.send(At::To, &talk.back(vectors::SYN_ACK)),
        vectors::KNOWN
    );
    for (what, program, frame) in [
        ("established, out", Program::FromPod, talk.out(vectors::ACK)),
        ("established, in", Program::ToPod, talk.back(vectors::ACK)),
        ("SYN judged again", Program::FromPod, talk.out(vectors::SYN)),
    ] {
        let run = Run {
            frame: &frame,
            mark: 0,
            ifindex: LO,
            ingress_ifindex: 3,
            repeat: 1_000_000,
        };
        let ran = kernel.datapath.test_run(program, &run).unwrap();
        assert_eq!(ran.code, NEXT);
        println!("{what}: {} ns", ran.took.as_nanos());
    }
}
