//! What happened, for `observe`, `status` and the report.
//!
//! In:  events of the kernel, query records of the DNS proxy.
//! Out: [`FlowRecord`]s to a bounded history and to followers, and a bounded [`Summary`].
//! Not here: exact packet counts (the kernel's METRICS), who listens (`control`).
//!
//! Names are annotations: an address is given the names its last answers carried, at most
//! [`NAMES_PER_ADDRESS`] each for the [`ADDRESSES`] used last. No verdict depends on them.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dnsproxy_core::{Moment, QueryRecord, QueryVerdict};
use flows::{
    Dns, Endpoint, Filter, FlowKind, FlowRecord, History, Ip, Layer4, Layer7, PeerKey, Policy,
    Ports, RuleRef, Summary, TrafficDirection, Verdict,
};
use fqdn_ebpf_common::{
    Direction,
    event::{Event, Kind},
    policy::{Action, MatchType},
    protocol,
    reason::DropReason,
};
use fqdn_ebpf_loader::Events;
use identity::AddressBook;
use jiff::{SignedDuration, Timestamp};
use lru::LruCache;
use policy::{
    compiled::{DeniedFlow, EndpointPolicy, Protocol, RuleOrigin, RuleSetId},
    fqdn::Fqdn,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::broadcast,
};

use crate::{control::FOLLOW_BUFFER, hint, qtype, totals};

/// Records kept for `observe --last`.
const HISTORY: usize = 10_000;
/// Addresses whose names are remembered.
const ADDRESSES: usize = 8192;
/// Names remembered per address.
const NAMES_PER_ADDRESS: usize = 8;

/// What the records are told with.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The workload as it appears in records.
    pub(crate) endpoint: Endpoint,
    /// Its policy, the source of rule texts.
    pub(crate) policy: Arc<EndpointPolicy>,
    /// Who has which address.
    pub(crate) book: Arc<AddressBook>,
}

/// Counts of DNS queries by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookupCounts {
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
}

/// Records for readers: the newest ones, and those to come. Recorders may share one.
#[derive(Debug)]
pub(crate) struct Tail {
    history: History,
    followers: broadcast::Sender<Arc<FlowRecord>>,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            history: History::new(HISTORY),
            followers: broadcast::channel(FOLLOW_BUFFER).0,
        }
    }
}

impl Tail {
    /// The newest records, and those to come.
    pub(crate) fn records(
        &self,
        last: usize,
        filter: &Filter,
    ) -> (Vec<FlowRecord>, broadcast::Receiver<Arc<FlowRecord>>) {
        (self.history.last(last, filter), self.followers.subscribe())
    }

    fn keep(&mut self, record: FlowRecord) {
        if self.followers.receiver_count() > 0 {
            // A send fails only when the last follower left in between.
            let _nobody = self.followers.send(Arc::new(record.clone()));
        }
        self.history.push(record);
    }
}

/// Makes records and keeps them.
#[derive(Debug)]
pub(crate) struct Recorder {
    subject: Subject,
    clock: WallClock,
    names: LruCache<IpAddr, Vec<Fqdn>>,
    tail: Arc<Mutex<Tail>>,
    summary: Summary,
    lookups: LookupCounts,
}

/// Turns moments since boot into times of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    boot: Timestamp,
}

impl WallClock {
    /// A clock by what two clocks showed at the same time.
    pub(crate) fn new(wall: Timestamp, since_boot: Moment) -> Self {
        let uptime =
            SignedDuration::try_from(since_boot.since(Moment::BOOT)).unwrap_or(SignedDuration::MAX);
        Self {
            boot: wall.saturating_sub(uptime).unwrap_or(Timestamp::MIN),
        }
    }

    /// The time of day of a moment.
    pub(crate) fn time(self, moment: Moment) -> Timestamp {
        let uptime =
            SignedDuration::try_from(moment.since(Moment::BOOT)).unwrap_or(SignedDuration::MAX);
        self.boot.saturating_add(uptime).unwrap_or(Timestamp::MAX)
    }
}

impl Recorder {
    pub(crate) fn new(subject: Subject, clock: WallClock) -> Self {
        Self::with_tail(subject, clock, Arc::default())
    }

    /// One of several that tell the same readers.
    pub(crate) fn with_tail(subject: Subject, clock: WallClock, tail: Arc<Mutex<Tail>>) -> Self {
        Self {
            subject,
            clock,
            names: LruCache::unbounded(),
            tail,
            summary: Summary::default(),
            lookups: LookupCounts::default(),
        }
    }

    /// The newest records, and those to come.
    pub(crate) fn records(
        &self,
        last: usize,
        filter: &Filter,
    ) -> (Vec<FlowRecord>, broadcast::Receiver<Arc<FlowRecord>>) {
        self.tail().records(last, filter)
    }

    /// The policy or the addresses have changed: what comes is told by these.
    pub(crate) fn update(&mut self, policy: Arc<EndpointPolicy>, book: Arc<AddressBook>) {
        self.subject.policy = policy;
        self.subject.book = book;
    }

    /// A panic elsewhere leaves it whole: every record is added in one step.
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(crate) fn lookups(&self) -> LookupCounts {
        self.lookups
    }

    /// A packet opened a flow or was dropped.
    pub(crate) fn packet(&mut self, event: &Event) {
        let (Some(kind), Some(direction)) = (event.kind(), event.direction()) else {
            return;
        };
        let record = self.packet_record(event, kind, direction);
        self.sum_up(event, kind, direction, &record);
        self.keep(record);
    }

    /// The proxy saw a query.
    pub(crate) fn query(&mut self, query: &QueryRecord, now: Moment) {
        for address in &query.addresses {
            self.remember(*address, query.name.as_ref());
        }
        let name = query.name.as_ref().map_or(".", Fqdn::as_str);
        let qtype = qtype::name(query.qtype);
        match &query.verdict {
            QueryVerdict::Forwarded => {}
            QueryVerdict::Taught | QueryVerdict::Answered(_) => {
                self.lookups.answered += 1;
                self.summary.answered();
            }
            QueryVerdict::Refused { policies, hint }
            | QueryVerdict::WouldRefuse { policies, hint } => {
                self.lookups.refused += 1;
                let reason = hint::refused_name(policies);
                let hint = hint::or_allow_name(hint, name);
                self.summary.refuse_lookup(name, &qtype, &reason, &hint);
            }
            QueryVerdict::Failed(reason) => {
                self.lookups.failed += 1;
                self.summary.fail_lookup(name, &qtype, reason);
            }
        }
        let record = self.query_record(query, &qtype, now);
        self.keep(record);
    }

    fn keep(&self, record: FlowRecord) {
        self.tail().keep(record);
    }

    fn remember(&mut self, address: IpAddr, name: Option<&Fqdn>) {
        let Some(name) = name else { return };
        let names = self.names.get_or_insert_mut(address, Vec::new);
        if let Some(at) = names.iter().position(|known| known == name) {
            names.remove(at);
        }
        names.insert(0, name.clone());
        names.truncate(NAMES_PER_ADDRESS);
        while self.names.len() > ADDRESSES {
            self.names.pop_lru();
        }
    }

    fn names_of(&self, address: IpAddr) -> Vec<String> {
        self.names
            .peek(&address)
            .into_iter()
            .flatten()
            .map(|name| name.as_str().to_owned())
            .collect()
    }

    fn packet_record(&self, event: &Event, kind: Kind, direction: Direction) -> FlowRecord {
        let (source, destination) = (event.source().ip(), event.destination().ip());
        let outside = match direction {
            Direction::Egress => destination,
            Direction::Ingress => source,
        };
        let own = self.subject.endpoint.clone();
        let peer = Endpoint {
            identity: self.subject.book.lookup(outside).get(),
            ..Endpoint::default()
        };
        let peer = if event.learned() != 0 {
            Endpoint {
                identity: event.learned(),
                ..peer
            }
        } else {
            peer
        };
        let names = self.names_of(outside);
        let deciding = policies(rules(&self.subject.policy, event));
        let denied = kind == Kind::Drop;
        let by = |wanted: Direction, when_denied: bool| {
            if wanted == direction && when_denied == denied {
                deciding.clone()
            } else {
                Vec::new()
            }
        };
        let reason = event.reason();
        let (source_side, destination_side, source_names, destination_names, traffic_direction) =
            match direction {
                Direction::Egress => (own, peer, Vec::new(), names, TrafficDirection::Egress),
                Direction::Ingress => (peer, own, names, Vec::new(), TrafficDirection::Ingress),
            };
        FlowRecord {
            time: self.clock.time(Moment::from_nanos(event.time())),
            verdict: match kind {
                Kind::Flow => Verdict::Forwarded,
                Kind::Drop => Verdict::Dropped,
                Kind::Audit => Verdict::Audit,
            },
            drop_reason: reason.map_or(0, |r| u32::from(r.number())),
            drop_reason_desc: reason.map(|r| r.name().to_owned()),
            ip: Some(Ip {
                source,
                destination,
            }),
            l4: Some(layer4(event)),
            source: source_side,
            destination: destination_side,
            kind: FlowKind::L3L4,
            source_names,
            destination_names,
            l7: None,
            traffic_direction,
            policy_match_type: event.match_type().map_or(0, |m| m as u32),
            is_reply: (kind == Kind::Flow).then_some(false),
            egress_allowed_by: by(Direction::Egress, false),
            ingress_allowed_by: by(Direction::Ingress, false),
            egress_denied_by: by(Direction::Egress, true),
            ingress_denied_by: by(Direction::Ingress, true),
            summary: packet_summary(event),
        }
    }

    fn sum_up(&mut self, event: &Event, kind: Kind, direction: Direction, record: &FlowRecord) {
        let (address, names) = match direction {
            Direction::Egress => (event.destination().ip(), &record.destination_names),
            Direction::Ingress => (event.source().ip(), &record.source_names),
        };
        let key = PeerKey {
            direction: record.traffic_direction,
            protocol: protocol_name(event.protocol()),
            address,
            port: event.destination_port(),
        };
        let policy = Arc::clone(&self.subject.policy);
        match kind {
            Kind::Flow => self.summary.allow(key, names, || {
                rules(&policy, event)
                    .iter()
                    .map(|rule| rule_ref(rule))
                    .collect()
            }),
            Kind::Drop | Kind::Audit => {
                let reason = event.reason().unwrap_or(DropReason::PolicyDenied);
                if !totals::is_denial(reason, direction) {
                    return;
                }
                let flow = DeniedFlow {
                    peer: self.subject.book.lookup(address),
                    names: self.names.peek(&address).cloned().unwrap_or_default(),
                    proto: known_protocol(event.protocol()),
                    port: event.destination_port(),
                };
                self.summary
                    .deny(key, names, u32::from(reason.number()), || {
                        explain(&policy, direction, reason, &flow)
                    });
            }
        }
    }

    fn query_record(&self, query: &QueryRecord, qtype: &str, now: Moment) -> FlowRecord {
        let name = query
            .name
            .as_ref()
            .map_or_else(String::new, |name| name.as_str().to_owned());
        let request = query.rcode.is_none();
        let verdict = match &query.verdict {
            QueryVerdict::Forwarded | QueryVerdict::Taught | QueryVerdict::Answered(_) => {
                Verdict::Forwarded
            }
            QueryVerdict::WouldRefuse { .. } => Verdict::Audit,
            QueryVerdict::Refused { .. } => Verdict::Dropped,
            QueryVerdict::Failed(_) => Verdict::Error,
        };
        let own = self.subject.endpoint.clone();
        let server = Endpoint {
            identity: self.subject.book.lookup(query.server.ip()).get(),
            ..Endpoint::default()
        };
        let ports = |from: u16, to: u16| Ports {
            source_port: from,
            destination_port: to,
        };
        // A refusal is about the request: it never became a response of the server.
        let is_reply = !request && !matches!(query.verdict, QueryVerdict::Refused { .. });
        let (client, server_address) = (query.client, query.server);
        let (from, to, source, destination) = if is_reply {
            (server_address, client, server, own)
        } else {
            (client, server_address, own, server)
        };
        let ports = ports(from.port(), to.port());
        FlowRecord {
            time: self.clock.time(now),
            verdict,
            drop_reason: 0,
            drop_reason_desc: None,
            ip: Some(Ip {
                source: from.ip(),
                destination: to.ip(),
            }),
            l4: Some(match query.transport {
                dnsproxy_core::Transport::Udp => Layer4::Udp(ports),
                dnsproxy_core::Transport::Tcp => Layer4::Tcp(ports),
            }),
            source,
            destination,
            kind: FlowKind::L7,
            source_names: Vec::new(),
            destination_names: Vec::new(),
            l7: Some(Layer7 {
                r#type: if is_reply { "RESPONSE" } else { "REQUEST" }.to_owned(),
                latency_ns: is_reply.then(|| nanos(query.took)),
                dns: Dns {
                    query: name.clone(),
                    ips: query.addresses.clone(),
                    ttl: query.ttl,
                    cnames: query.cnames.iter().map(|c| c.as_str().to_owned()).collect(),
                    observation_source: "proxy".to_owned(),
                    rcode: query.rcode,
                    qtypes: vec![qtype.to_owned()],
                },
            }),
            traffic_direction: if is_reply {
                TrafficDirection::Ingress
            } else {
                TrafficDirection::Egress
            },
            policy_match_type: 0,
            is_reply: Some(is_reply),
            egress_allowed_by: Vec::new(),
            ingress_allowed_by: Vec::new(),
            egress_denied_by: Vec::new(),
            ingress_denied_by: Vec::new(),
            summary: query_summary(query, &name, qtype, is_reply),
        }
    }
}

/// The rules that decided; none when no entry matched and the direction's default decided. Where
/// everything is in the shadow, the shadow's rules are the ones a reader wants to see.
fn rules<'a>(policy: &'a EndpointPolicy, event: &Event) -> &'a [Arc<RuleOrigin>] {
    let rule_set = match event.match_type() {
        None | Some(MatchType::None) => {
            let denies = match event.direction() {
                Some(Direction::Egress) => policy.default_deny_egress,
                Some(Direction::Ingress) => policy.default_deny_ingress,
                None => false,
            };
            let allowed_in_shadow = event.policy() == 0
                && event.shadow_policy() != 0
                && event.shadow_action() == Some(Action::Allow);
            if !(denies && allowed_in_shadow) {
                return &[];
            }
            event.shadow_rule_set()
        }
        Some(_) => event.rule_set(),
    };
    policy.rule_set(RuleSetId::from_raw(rule_set))
}

/// The reason in words, the nearest rule, and what a person can do.
fn explain(
    policy: &EndpointPolicy,
    direction: Direction,
    reason: DropReason,
    flow: &DeniedFlow,
) -> (String, Option<RuleRef>, String) {
    let decided_by_policy = matches!(reason, DropReason::PolicyDenied | DropReason::PolicyDeny);
    let nearest = decided_by_policy
        .then(|| {
            let direction = match direction {
                Direction::Egress => policy::compiled::Direction::Egress,
                Direction::Ingress => policy::compiled::Direction::Ingress,
            };
            policy.nearest(direction, flow).map(rule_ref)
        })
        .flatten();
    (
        reason.text().to_owned(),
        nearest,
        hint::denied_packet(reason, flow),
    )
}

pub(crate) fn rule_ref(rule: &RuleOrigin) -> RuleRef {
    RuleRef {
        policy: rule.policy.to_string(),
        file: rule.file.to_string(),
        line: rule.line,
        text: rule.text.clone(),
    }
}

fn policies(rules: &[Arc<RuleOrigin>]) -> Vec<Policy> {
    let mut all: Vec<_> = rules
        .iter()
        .map(|rule| Policy {
            name: rule.policy.name.to_string(),
            namespace: rule.policy.namespace.to_string(),
            kind: rule.policy.kind.as_str().to_owned(),
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

fn layer4(event: &Event) -> Layer4 {
    let ports = Ports {
        source_port: event.source_port(),
        destination_port: event.destination_port(),
    };
    let r#type = u8::try_from(event.destination_port()).unwrap_or(u8::MAX);
    let code = event.icmp_code();
    match event.protocol() {
        protocol::TCP => Layer4::Tcp(ports),
        protocol::UDP => Layer4::Udp(ports),
        protocol::SCTP => Layer4::Sctp(ports),
        protocol::ICMP => Layer4::Icmpv4 { r#type, code },
        protocol::ICMPV6 => Layer4::Icmpv6 { r#type, code },
        protocol => Layer4::Other { protocol },
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        protocol::ICMP => "ICMPv4".to_owned(),
        protocol::ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn known_protocol(number: u8) -> Option<Protocol> {
    Some(match number {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::SCTP => Protocol::Sctp,
        protocol::ICMP => Protocol::Icmp,
        protocol::ICMPV6 => Protocol::Icmpv6,
        _ => return None,
    })
}

/// As Hubble words it: `TCP Flags: SYN`, `UDP`, `ICMPv4 type 8 code 0`.
fn packet_summary(event: &Event) -> String {
    /// Hubble's order, and the bits in the header's byte.
    const FLAGS: [(&str, u8); 8] = [
        ("SYN", 0x02),
        ("ACK", 0x10),
        ("RST", 0x04),
        ("FIN", 0x01),
        ("PSH", 0x08),
        ("URG", 0x20),
        ("ECE", 0x40),
        ("CWR", 0x80),
    ];
    let protocol = protocol_name(event.protocol());
    match event.protocol() {
        protocol::TCP => {
            let set: Vec<_> = FLAGS
                .iter()
                .filter(|(_, bit)| event.tcp_flags() & bit != 0)
                .map(|(name, _)| *name)
                .collect();
            format!("TCP Flags: {}", set.join(", "))
        }
        protocol::ICMP | protocol::ICMPV6 => format!(
            "{protocol} type {} code {}",
            event.destination_port(),
            event.icmp_code()
        ),
        _ => protocol,
    }
}

/// As Hubble words it: `DNS Query name A`, `DNS Answer "ips" TTL: n (Proxy name A)`.
fn query_summary(query: &QueryRecord, name: &str, qtype: &str, is_reply: bool) -> String {
    let why = match &query.verdict {
        QueryVerdict::Refused { policies, .. } | QueryVerdict::WouldRefuse { policies, .. } => {
            format!("; {}", hint::refused_name(policies))
        }
        QueryVerdict::Failed(reason) => format!("; {reason}"),
        QueryVerdict::Answered(reason) if !reason.is_empty() => format!("; {reason}"),
        QueryVerdict::Forwarded | QueryVerdict::Taught | QueryVerdict::Answered(_) => String::new(),
    };
    if !is_reply {
        return format!("DNS Query {name} {qtype}{why}");
    }
    let mut text = String::from("DNS Answer ");
    match query.rcode {
        Some(0) | None => {
            let ips: Vec<_> = query.addresses.iter().map(ToString::to_string).collect();
            text.push_str(&format!("\"{}\" ", ips.join(",")));
        }
        Some(rcode) => text.push_str(&format!("RCode: {} ", qtype::rcode(rcode))),
    }
    if !query.cnames.is_empty() {
        let names: Vec<_> = query.cnames.iter().map(Fqdn::as_str).collect();
        text.push_str(&format!("CNAMEs: \"{}\" ", names.join(",")));
    }
    if let Some(ttl) = query.ttl {
        text.push_str(&format!("TTL: {ttl} "));
    }
    text.push_str(&format!("(Proxy {name} {qtype}){why}"));
    text
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The ring buffer's descriptor, watched by the runtime.
#[expect(
    deprecated,
    reason = "the successor is unsafe, which this crate forbids; it is sound for a descriptor that \
              the watcher owns"
)]
pub(crate) fn readable(events: &Events) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(events.as_fd().try_clone_to_owned()?, Interest::READABLE)
}
