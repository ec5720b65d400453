//! Nothing that comes from a client or a resolver panics, leaks, or is answered twice.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests are tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dnsproxy_core::{
    Client, Config, ConnectionId, Core, Effect, EndpointSnapshot, Learned, LearnedWriter, Limits,
    Moment, PortSlot, Snapshot, Transport, Via, WriteError,
};
use identity::{EndpointId, SelectorId};
use policy::{
    compiled::{DnsNames, DnsRule, DnsRuleKind, EndpointPolicy, Peer, PortPrefix},
    fqdn::NameSelector,
};
use proptest::prelude::*;

const RESOLVER: &str = "10.96.0.10:53";
const IN_FLIGHT: usize = 8;

#[derive(Default)]
struct Kernel {
    open: BTreeSet<(EndpointId, IpAddr)>,
    writes: usize,
}

impl LearnedWriter for Kernel {
    fn put(&mut self, learned: &Learned) -> Result<(), WriteError> {
        self.writes += 1;
        if self.writes.is_multiple_of(5) {
            return Err(WriteError::Full {
                map: "LEARNED",
                capacity: 1,
            });
        }
        self.open.insert((learned.endpoint, learned.address));
        Ok(())
    }

    fn remove(&mut self, endpoint: EndpointId, address: IpAddr) -> Result<(), WriteError> {
        self.open.remove(&(endpoint, address));
        Ok(())
    }
}

/// A core with one endpoint that may ask and learn everything, and the shell around it.
struct Shell {
    core: Core,
    kernel: Kernel,
    now: Moment,
    /// Forwarded and not yet answered: where a reply has to come from, and the query.
    flying: Vec<(SocketAddr, Via, Vec<u8>)>,
    /// Queries and answers by client port and id.
    balance: BTreeMap<(u16, u16), i64>,
}

impl Shell {
    fn new() -> Self {
        let policy = EndpointPolicy {
            selectors: [(SelectorId::new(1), NameSelector::pattern("*").unwrap())]
                .into_iter()
                .collect(),
            dns_rules: vec![DnsRule {
                kind: DnsRuleKind::Port,
                server: Peer::Any,
                proto: None,
                ports: PortPrefix::one(53),
                names: DnsNames::All,
                origin: None,
            }],
            ..EndpointPolicy::default()
        };
        let config = Config {
            limits: Limits {
                in_flight_per_endpoint: IN_FLIGHT,
                names_per_endpoint: 4,
                addresses_per_name: 8,
                addresses_per_endpoint: 8,
                unmatched_names: 4,
                names_per_address: 2,
            },
            ..Config::default()
        };
        let mut drawn = 1u64;
        let mut core = Core::new(
            config,
            Box::new(move || {
                drawn = drawn
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                drawn >> 16
            }),
        );
        let resolver: SocketAddr = RESOLVER.parse().unwrap();
        core.handle_snapshot(
            Moment::BOOT,
            Snapshot {
                revision: 1,
                endpoints: vec![EndpointSnapshot {
                    id: EndpointId::new(7),
                    addresses: vec!["10.0.0.7".parse().unwrap()],
                    policy: Arc::new(policy),
                    next: None,
                    enforced: None,
                    audit: false,
                }],
                trusted: [resolver].into(),
                ..Snapshot::default()
            },
        );
        Self {
            core,
            kernel: Kernel::default(),
            now: Moment::BOOT,
            flying: Vec::new(),
            balance: BTreeMap::new(),
        }
    }

    fn client(port: u16, tcp: bool) -> Client {
        Client {
            endpoint: EndpointId::new(7),
            address: SocketAddr::new("10.0.0.7".parse().unwrap(), port),
            server: RESOLVER.parse().unwrap(),
            connection: tcp.then_some(ConnectionId(u64::from(port))),
        }
    }

    fn query(&mut self, port: u16, tcp: bool, message: &[u8]) {
        if let Some(id) = message.first_chunk::<2>() {
            *self
                .balance
                .entry((port, u16::from_be_bytes(*id)))
                .or_default() += 1;
        }
        self.core
            .handle_query(self.now, Self::client(port, tcp), message);
        self.drain();
    }

    fn reply(&mut self, server: SocketAddr, via: Via, message: &[u8]) {
        self.core.handle_reply(self.now, server, via, message);
        self.drain();
    }

    fn wait(&mut self, span: Duration) {
        let until = self.now.after(span);
        for _ in 0..100_000 {
            match self.core.poll_timeout() {
                Some(deadline) if deadline <= until => {
                    self.now = self.now.max(deadline);
                    self.core.handle_timeout(self.now);
                    self.drain();
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("time does not get on");
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Forward {
                    server,
                    transport,
                    slot,
                    connection,
                    message,
                    ..
                } => {
                    let via = match (transport, connection) {
                        (Transport::Tcp, Some(connection)) => Via::Tcp(connection),
                        _ => Via::Udp(slot),
                    };
                    self.flying.push((server, via, message));
                }
                Effect::Reply { client, message } => self.answered(&client, &message),
                Effect::Release {
                    client, message, ..
                } => self.answered(&client, &message),
                Effect::Install(batch) => match batch.install(&mut self.kernel) {
                    Ok(proof) => self.core.handle_installed(self.now, proof),
                    Err(failed) => self.core.handle_install_failed(self.now, failed),
                },
                Effect::Close(_) | Effect::Record(_) => {}
            }
        }
        let usage = self.core.usage(EndpointId::new(7));
        assert!(usage.in_flight <= IN_FLIGHT && usage.names <= 4 && usage.addresses <= 8);
        assert!(self.kernel.open.len() <= 8);
    }

    /// No client gets more answers than it asked questions, and each is a response.
    fn answered(&mut self, client: &Client, message: &[u8]) {
        assert!(message.len() >= 12 && message[2] & 0x80 != 0);
        let id = u16::from_be_bytes([message[0], message[1]]);
        let balance = self.balance.entry((client.address.port(), id)).or_default();
        *balance -= 1;
        assert!(*balance >= 0, "an answer nobody asked for");
    }
}

/// What happens on the wire.
#[derive(Clone, Debug)]
enum Step {
    /// Anything at all.
    Noise {
        to_client: bool,
        tcp: bool,
        message: Vec<u8>,
    },
    /// A good query with some bytes changed.
    Query {
        port: u16,
        tcp: bool,
        name: usize,
        qtype: u16,
        mutations: Vec<(u16, u8)>,
        cut: u16,
    },
    /// A good reply to something in flight, with records, and some bytes changed.
    Reply {
        which: usize,
        records: Vec<Record>,
        mutations: Vec<(u16, u8)>,
        cut: u16,
    },
    Close(u16),
    Unreachable,
    Wait(u16),
}

#[derive(Clone, Debug)]
struct Record {
    /// A pointer to somewhere, or a name.
    owner: Result<u16, usize>,
    rtype: u16,
    class: u16,
    ttl: u32,
    data: Vec<u8>,
}

const NAMES: [&[u8]; 3] = [b"\x01a\x01x\x00", b"\x03wWw\x07example\x03com\x00", b"\x00"];

fn question(name: usize, qtype: u16) -> Vec<u8> {
    [NAMES[name], &qtype.to_be_bytes(), &[0, 1]].concat()
}

fn message(id: u16, flags: u16, question: &[u8], answers: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = u16::try_from(answers.len()).unwrap();
    for field in [id, flags, 1, count, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(question);
    for record in answers {
        match record.owner {
            Ok(pointer) => bytes.extend((0xc000 | pointer).to_be_bytes()),
            Err(name) => bytes.extend(NAMES[name]),
        }
        bytes.extend(record.rtype.to_be_bytes());
        bytes.extend(record.class.to_be_bytes());
        bytes.extend(record.ttl.to_be_bytes());
        bytes.extend(u16::try_from(record.data.len()).unwrap().to_be_bytes());
        bytes.extend(&record.data);
    }
    bytes
}

fn mutate(mut bytes: Vec<u8>, mutations: &[(u16, u8)], cut: u16) -> Vec<u8> {
    for (at, value) in mutations {
        if let Some(len) = std::num::NonZero::new(bytes.len()) {
            bytes[usize::from(*at) % len] = *value;
        }
    }
    bytes.truncate(bytes.len().saturating_sub(usize::from(cut)));
    bytes
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![honest_record(), any_record()]
}

fn honest_record() -> impl Strategy<Value = Record> {
    let content = prop_oneof![
        3 => any::<[u8; 4]>().prop_map(|address| (1, address.to_vec())),
        1 => any::<[u8; 16]>().prop_map(|address| (28, address.to_vec())),
        1 => Just((5, NAMES[1].to_vec())),
    ];
    let owner = prop_oneof![4 => Just(Ok(12)), 1 => Just(Err(1))];
    (owner, content, any::<u32>()).prop_map(|(owner, (rtype, data), ttl)| Record {
        owner,
        rtype,
        class: 1,
        ttl,
        data,
    })
}

fn any_record() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        proptest::collection::vec(any::<u8>(), 4),
        proptest::collection::vec(any::<u8>(), 16),
        // A pointer, as CNAME data or anything else.
        (0..60u8).prop_map(|at| vec![0xc0, at]),
        // A service record with hints.
        (any::<[u8; 4]>(), any::<u8>()).prop_map(|(hint, len)| {
            let len = if len % 4 == 0 { len } else { 4 };
            [&[0, 1, 0, 0, 4, 0, len][..], &hint].concat()
        }),
        Just(NAMES[1].to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let owner = prop_oneof![
        3 => Just(Ok(12)),
        1 => (0..80u16).prop_map(Ok),
        1 => (0..NAMES.len()).prop_map(Err),
    ];
    let rtype = prop_oneof![
        Just(1),
        Just(5),
        Just(28),
        Just(41),
        Just(64),
        Just(65),
        any::<u16>()
    ];
    let class = prop_oneof![9 => Just(1), 1 => any::<u16>()];
    (owner, rtype, class, any::<u32>(), data).prop_map(|(owner, rtype, class, ttl, data)| Record {
        owner,
        rtype,
        class,
        ttl,
        data,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let mutations = || {
        prop_oneof![
            2 => Just(Vec::new()),
            1 => proptest::collection::vec(any::<(u16, u8)>(), 1..4),
        ]
    };
    let cut = || prop_oneof![3 => Just(0u16), 1 => 1..40u16];
    prop_oneof![
        1 => (any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(to_client, tcp, message)| Step::Noise { to_client, tcp, message }),
        4 => (1..4u16, any::<bool>(), 0..NAMES.len(), prop_oneof![Just(1u16), Just(28), Just(65), any::<u16>()], mutations(), cut())
            .prop_map(|(port, tcp, name, qtype, mutations, cut)| Step::Query { port, tcp, name, qtype, mutations, cut }),
        4 => (any::<usize>(), proptest::collection::vec(record(), 0..8), mutations(), cut())
            .prop_map(|(which, records, mutations, cut)| Step::Reply { which, records, mutations, cut }),
        1 => (1..4u16).prop_map(Step::Close),
        1 => Just(Step::Unreachable),
        1 => (0..200u16).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_message_panics_leaks_or_answers_twice(steps in proptest::collection::vec(step(), 1..60)) {
        let mut shell = Shell::new();
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Noise { to_client: false, tcp, message } => shell.query(9, tcp, &message),
                Step::Noise { message, .. } => {
                    shell.reply(RESOLVER.parse().unwrap(), Via::Udp(PortSlot(0)), &message);
                }
                Step::Query { port, tcp, name, qtype, mutations, cut } => {
                    let id = u16::try_from(i).unwrap();
                    let good = message(id, 0x0100, &question(name, qtype), &[]);
                    shell.query(port, tcp, &mutate(good, &mutations, cut));
                }
                Step::Reply { which, records, mutations, cut } => {
                    if shell.flying.is_empty() {
                        continue;
                    }
                    let at = which % shell.flying.len();
                    let (server, via, query) = shell.flying[at].clone();
                    let id = u16::from_be_bytes([query[0], query[1]]);
                    let good = message(id, 0x8180, &query[12..], &records);
                    shell.reply(server, via, &mutate(good, &mutations, cut));
                }
                Step::Close(port) => {
                    shell.core.handle_connection_closed(shell.now, ConnectionId(u64::from(port)));
                    shell.drain();
                }
                Step::Unreachable => {
                    let exchange = dnsproxy_core::ExchangeId(i as u64 / 2);
                    shell.core.handle_unreachable(shell.now, exchange, "generated");
                    shell.drain();
                }
                Step::Wait(seconds) => shell.wait(Duration::from_secs(u64::from(seconds))),
            }
        }
        // When everything is over, nothing is left.
        shell.wait(Duration::from_secs(200_000));
        let usage = shell.core.usage(EndpointId::new(7));
        prop_assert_eq!((usage.in_flight, usage.names, usage.addresses), (0, 0, 0));
        prop_assert!(shell.kernel.open.is_empty());
        prop_assert_eq!(shell.core.poll_timeout(), None);
    }
}

/// Sixty-four kilobytes of whatever costs most must not take noticeable time or memory.
#[test]
fn the_biggest_messages_are_read() {
    let records = |count: usize, record: Record| vec![record; count];
    let alias = |i: u16| Record {
        owner: Ok(12 + i * 2),
        rtype: 5,
        class: 1,
        ttl: 1,
        data: vec![0xc0, 12],
    };
    let address = Record {
        owner: Ok(12),
        rtype: 1,
        class: 1,
        ttl: 1,
        data: vec![1, 2, 3, 4],
    };
    let opaque = Record {
        owner: Ok(12),
        rtype: 16,
        class: 1,
        ttl: 1,
        data: vec![0; 3],
    };
    for answers in [
        records(4000, address),
        records(4000, alias(0)),
        records(4000, opaque),
    ] {
        let mut shell = Shell::new();
        shell.query(1, true, &message(1, 0x0100, &question(1, 1), &[]));
        let (server, via, query) = shell.flying.pop().unwrap();
        let id = u16::from_be_bytes([query[0], query[1]]);
        let reply = message(id, 0x8180, &query[12..], &answers);
        assert!(reply.len() > 50_000 && reply.len() <= 65_535);
        shell.reply(server, via, &reply);
        assert_eq!(shell.balance[&(1, 1)], 0, "it was answered");
        assert_eq!(shell.core.usage(EndpointId::new(7)).in_flight, 0);
    }
}
