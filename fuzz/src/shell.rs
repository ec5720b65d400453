//! The proxy core with everything around it that has sockets and maps in production.
//!
//! In:  messages, time, policies.
//! Out: what clients got, what went to resolvers, what the kernel holds.
//! Not here: what messages say (`message`), what must be true (the targets).

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dnsproxy_core::{
    Client, Config, ConnectionId, Core, Effect, EndpointSnapshot, ExchangeId, Moment, Snapshot,
    Transport, Via,
};
use identity::{EndpointId, SelectorId};
use policy::{
    compiled::{DnsNames, DnsRule, DnsRuleKind, EndpointPolicy, Peer, PortPrefix},
    fqdn::NameSelector,
};

use crate::kernel::Kernel;

/// A resolver whose answers teach.
pub(crate) const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
/// One whose answers do not.
pub(crate) const FOREIGN: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));

/// A query on its way to a resolver.
#[derive(Clone)]
pub(crate) struct Flying {
    pub(crate) exchange: ExchangeId,
    pub(crate) server: SocketAddr,
    pub(crate) via: Via,
    pub(crate) message: Vec<u8>,
}

/// A message that went to a client.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) message: Vec<u8>,
    /// It came with a proof.
    pub(crate) released: bool,
}

/// The core and its surroundings.
pub(crate) struct Shell {
    pub(crate) core: Core,
    pub(crate) kernel: Kernel,
    pub(crate) now: Moment,
    pub(crate) flying: VecDeque<Flying>,
    pub(crate) sent: Vec<Sent>,
    /// Endpoints and their policies.
    pub(crate) policies: BTreeMap<EndpointId, Arc<EndpointPolicy>>,
    pub(crate) audit: bool,
    revision: u64,
    /// Questions less answers, by client.
    balance: BTreeMap<(u16, bool, u16), i64>,
}

impl Shell {
    pub(crate) fn new(config: Config) -> Self {
        let mut drawn = 1_u64;
        let entropy = move || {
            drawn = drawn
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            drawn >> 16
        };
        Self {
            core: Core::new(config, Box::new(entropy)),
            kernel: Kernel::default(),
            now: Moment::from_nanos(1_000_000_000),
            flying: VecDeque::new(),
            sent: Vec::new(),
            policies: BTreeMap::new(),
            audit: false,
            revision: 0,
            balance: BTreeMap::new(),
        }
    }

    /// Puts `policies` in force.
    pub(crate) fn publish(&mut self) {
        self.revision += 1;
        let endpoints = self.policies.iter().map(|(id, policy)| EndpointSnapshot {
            id: *id,
            addresses: vec![address_of(*id)],
            policy: policy.clone(),
            next: None,
            enforced: None,
            audit: self.audit,
        });
        let snapshot = Snapshot {
            revision: self.revision,
            endpoints: endpoints.collect(),
            trusted: [(TRUSTED, 53).into()].into(),
            ..Snapshot::default()
        };
        self.core.handle_snapshot(self.now, snapshot);
        self.drain();
    }

    pub(crate) fn query(&mut self, client: Client, message: &[u8]) {
        if let Some(id) = message.first_chunk::<2>() {
            *self.balance.entry(key(&client, *id)).or_default() += 1;
        }
        self.core.handle_query(self.now, client, message);
        self.drain();
    }

    pub(crate) fn reply(&mut self, server: SocketAddr, via: Via, message: &[u8]) {
        self.core.handle_reply(self.now, server, via, message);
        self.drain();
    }

    /// Lets time pass; `at_deadline` sees the world after everything that happens in between.
    pub(crate) fn wait(&mut self, span: Duration, mut at_deadline: impl FnMut(&Self)) {
        let until = self.now.after(span);
        for _ in 0..100_000 {
            match self.core.poll_timeout() {
                Some(deadline) if deadline <= until => {
                    self.now = self.now.max(deadline);
                    self.core.handle_timeout(self.now);
                    self.drain();
                    at_deadline(self);
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("time does not get on");
    }

    /// Carries out every effect.
    pub(crate) fn drain(&mut self) {
        for _ in 0..100_000 {
            let Some(effect) = self.core.poll_effect() else {
                return;
            };
            match effect {
                Effect::Forward {
                    exchange,
                    server,
                    transport,
                    slot,
                    connection,
                    message,
                } => {
                    let via = match (transport, connection) {
                        (Transport::Tcp, Some(connection)) => Via::Tcp(connection),
                        _ => Via::Udp(slot),
                    };
                    self.flying.push_back(Flying {
                        exchange,
                        server,
                        via,
                        message,
                    });
                    self.flying.truncate(256);
                }
                Effect::Reply { client, message } => self.answered(&client, message, false),
                Effect::Release {
                    client, message, ..
                } => self.answered(&client, message, true),
                Effect::Install(batch) => match batch.install(&mut self.kernel) {
                    Ok(proof) => self.core.handle_installed(self.now, proof),
                    Err(failed) => self.core.handle_install_failed(self.now, failed),
                },
                Effect::Close(_) | Effect::Record(_) => {}
            }
        }
        panic!("effects do not end");
    }

    /// No client gets more answers than it asked questions, and each is a response.
    fn answered(&mut self, client: &Client, message: Vec<u8>, released: bool) {
        assert!(message.len() >= 12 && message[2] & 0x80 != 0, "no response");
        assert!(message.len() <= dnsproxy_core::MAX_MESSAGE, "too long");
        let balance = self
            .balance
            .entry(key(client, [message[0], message[1]]))
            .or_default();
        *balance -= 1;
        assert!(*balance >= 0, "an answer nobody asked for");
        self.sent.push(Sent { message, released });
    }

    /// When everything is over, nothing is left in any table.
    pub(crate) fn nothing_is_left(&mut self) {
        self.wait(Duration::from_secs(400_000), |_| {});
        assert_eq!(self.core.poll_timeout(), None, "a deadline is left");
        for endpoint in self.policies.keys() {
            let usage = self.core.usage(*endpoint);
            let left = (usage.in_flight, usage.names, usage.addresses);
            assert_eq!(left, (0, 0, 0), "{endpoint}: in flight, names, addresses");
        }
        assert!(self.kernel.entries.is_empty(), "{:?}", self.kernel.entries);
        let text = format!("{:?}", self.core);
        assert!(text.contains("waiting: 0, pending: 0,"), "{text}");
    }
}

/// A client of an endpoint; over TCP its port names its connection.
pub(crate) fn client(endpoint: EndpointId, port: u16, tcp: bool, server: IpAddr) -> Client {
    Client {
        endpoint,
        address: SocketAddr::new(address_of(endpoint), port),
        server: SocketAddr::new(server, 53),
        connection: tcp.then_some(ConnectionId(u64::from(port))),
    }
}

/// A policy that learns from these patterns and may ask for every name.
pub(crate) fn learning(patterns: impl IntoIterator<Item = (u32, &'static str)>) -> EndpointPolicy {
    EndpointPolicy {
        selectors: patterns
            .into_iter()
            .map(|(id, text)| (SelectorId::new(id), NameSelector::pattern(text).unwrap()))
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
    }
}

fn address_of(endpoint: EndpointId) -> IpAddr {
    let [.., low] = endpoint.get().to_be_bytes();
    IpAddr::from([10, 244, 1, low])
}

fn key(client: &Client, id: [u8; 2]) -> (u16, bool, u16) {
    let tcp = client.connection.is_some();
    (client.address.port(), tcp, u16::from_be_bytes(id))
}
