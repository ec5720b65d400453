//! EVENTS: what the kernel tells user space about single packets.
//!
//! In:  packets that opened a flow, were dropped, or were let through by an audit.
//! Out: [`Event`] records on the ring buffer; [`Event::decode`] for the other end.
//! Not here: counting (`metric`): events are rationed, counters are exact.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Direction,
    address::Addr,
    endpoint::Endpoint,
    packet::Packet,
    policy::{Action, MatchType},
    reason::DropReason,
    verdict::Judgement,
};

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A flow was opened.
    Flow = 1,
    /// A packet was dropped.
    Drop = 2,
    /// A flow was opened that the shadow policy denies.
    Audit = 3,
}

/// What `path` found out about the packet, for the event. Only the marks are cleared for every
/// packet; the numbers count when their mark is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// [`Kind`], 0 for no event.
    kind: u8,
    reason: u8,
    match_type: u8,
    /// Action of the shadow policy, 0 without one.
    shadow_action: u8,
    shadow_match_type: u8,
    /// Whether policy was asked: 1 when it was.
    judged: u8,
    identity: u32,
    learned: u32,
    rule_set: u32,
    shadow_rule_set: u32,
}

impl Report {
    /// Nothing to report.
    pub const NONE: Self = Self {
        kind: 0,
        reason: 0,
        match_type: 0,
        shadow_action: 0,
        shadow_match_type: 0,
        judged: 0,
        identity: 0,
        learned: 0,
        rule_set: 0,
        shadow_rule_set: 0,
    };

    /// Forgets the packet before.
    #[inline(always)]
    pub const fn clear(&mut self) {
        self.kind = 0;
        self.reason = 0;
        self.match_type = 0;
        self.shadow_action = 0;
        self.shadow_match_type = 0;
        self.judged = 0;
    }

    /// Whether there is an event to make.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.kind != 0
    }

    /// Nothing to report after all.
    #[inline(always)]
    pub const fn silence(&mut self) {
        self.kind = 0;
    }

    /// What the enforced policy decided.
    #[inline(always)]
    pub const fn judged(&mut self, kind: Kind, judgement: &Judgement) {
        self.kind = kind as u8;
        self.judged = 1;
        self.match_type = judgement.match_type as u8;
        self.identity = judgement.identity;
        self.learned = judgement.learned;
        self.rule_set = judgement.rule_set;
    }

    /// What the shadow policy would have decided.
    #[inline(always)]
    pub const fn shadow(&mut self, judgement: &Judgement) {
        self.shadow_action = judgement.action as u8;
        self.shadow_match_type = judgement.match_type as u8;
        self.shadow_rule_set = judgement.rule_set;
    }

    /// The packet is dropped.
    #[inline(always)]
    pub const fn dropped(&mut self, reason: DropReason) {
        self.kind = Kind::Drop as u8;
        self.reason = reason.number();
    }
}

/// The record on the ring buffer.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Event {
    time: u64,
    abi_version: u32,
    endpoint: u32,
    policy: u32,
    shadow_policy: u32,
    identity: u32,
    learned: u32,
    rule_set: u32,
    shadow_rule_set: u32,
    length: u32,
    ifindex: u32,
    source: Addr,
    destination: Addr,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    tcp_flags: u8,
    icmp_code: u8,
    kind: u8,
    reason: u8,
    direction: u8,
    match_type: u8,
    shadow_action: u8,
    shadow_match_type: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<Event>() == 96);

/// Where a packet was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scene {
    /// When.
    pub time: u64,
    /// Which way it went.
    pub direction: Direction,
    /// At which interface.
    pub ifindex: u32,
    /// Its length.
    pub length: u32,
}

impl Event {
    /// The event of a packet. Without an endpoint the packet met an unknown interface.
    #[inline(always)]
    pub const fn new(
        scene: &Scene,
        endpoint: Option<&Endpoint>,
        packet: &Packet,
        report: &Report,
    ) -> Self {
        let (id, policy, shadow) = match endpoint {
            Some(endpoint) => (endpoint.id(), endpoint.policy(), endpoint.shadow()),
            None => (0, 0, 0),
        };
        Self {
            time: scene.time,
            abi_version: crate::ABI_VERSION,
            endpoint: id,
            policy,
            shadow_policy: shadow,
            identity: if report.judged == 0 {
                0
            } else {
                report.identity
            },
            learned: if report.judged == 0 {
                0
            } else {
                report.learned
            },
            rule_set: if report.judged == 0 {
                0
            } else {
                report.rule_set
            },
            shadow_rule_set: if report.shadow_action == 0 {
                0
            } else {
                report.shadow_rule_set
            },
            length: scene.length,
            ifindex: scene.ifindex,
            source: packet.source,
            destination: packet.destination,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            protocol: packet.protocol,
            tcp_flags: packet.tcp_flags,
            icmp_code: packet.icmp_code,
            kind: report.kind,
            reason: report.reason,
            direction: scene.direction.number(),
            match_type: report.match_type,
            shadow_action: report.shadow_action,
            shadow_match_type: report.shadow_match_type,
            reserved: [0; 3],
        }
    }

    /// The event in these bytes; `None` for anything this version did not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let event = Self::read_from_bytes(bytes).ok()?;
        event.is_sound().then_some(event)
    }

    fn is_sound(&self) -> bool {
        let reason_fits = match self.kind() {
            Some(Kind::Drop) => DropReason::from_number(self.reason).is_some(),
            Some(Kind::Flow | Kind::Audit) => self.reason == 0,
            None => false,
        };
        reason_fits
            && self.abi_version == crate::ABI_VERSION
            && Direction::from_number(self.direction).is_some()
            && MatchType::from_number(self.match_type).is_some()
            && (self.shadow_action == 0 || Action::from_number(self.shadow_action).is_some())
            && MatchType::from_number(self.shadow_match_type).is_some()
    }

    /// What it is about.
    pub const fn kind(&self) -> Option<Kind> {
        match self.kind {
            1 => Some(Kind::Flow),
            2 => Some(Kind::Drop),
            3 => Some(Kind::Audit),
            _ => None,
        }
    }

    /// Nanoseconds after boot.
    pub const fn time(&self) -> u64 {
        self.time
    }

    /// Which workload; 0 for an unknown interface.
    pub const fn endpoint(&self) -> u32 {
        self.endpoint
    }

    /// Number of the policy in force, 0 for none.
    pub const fn policy(&self) -> u32 {
        self.policy
    }

    /// Number of the shadow policy, 0 for none.
    pub const fn shadow_policy(&self) -> u32 {
        self.shadow_policy
    }

    /// The peer's identity whose entry decided.
    pub const fn identity(&self) -> u32 {
        self.identity
    }

    /// The learned identity of the flow, 0 for none.
    pub const fn learned(&self) -> u32 {
        self.learned
    }

    /// The rules that decided.
    pub const fn rule_set(&self) -> u32 {
        self.rule_set
    }

    /// The rules by which the shadow policy decided.
    pub const fn shadow_rule_set(&self) -> u32 {
        self.shadow_rule_set
    }

    /// Length of the frame.
    pub const fn length(&self) -> u32 {
        self.length
    }

    /// At which interface.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Source address; unspecified when the packet could not be read.
    pub const fn source(&self) -> Addr {
        self.source
    }

    /// Destination address; unspecified when the packet could not be read.
    pub const fn destination(&self) -> Addr {
        self.destination
    }

    /// Source port, or ICMP identifier.
    pub const fn source_port(&self) -> u16 {
        self.source_port
    }

    /// Destination port, or ICMP type.
    pub const fn destination_port(&self) -> u16 {
        self.destination_port
    }

    /// Protocol number.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// TCP flags.
    pub const fn tcp_flags(&self) -> u8 {
        self.tcp_flags
    }

    /// ICMP code.
    pub const fn icmp_code(&self) -> u8 {
        self.icmp_code
    }

    /// Why it was dropped; `None` for what was not.
    pub const fn reason(&self) -> Option<DropReason> {
        DropReason::from_number(self.reason)
    }

    /// Which way the packet went.
    pub const fn direction(&self) -> Option<Direction> {
        Direction::from_number(self.direction)
    }

    /// How the deciding entry matched.
    pub const fn match_type(&self) -> Option<MatchType> {
        MatchType::from_number(self.match_type)
    }

    /// What the shadow policy would have done; `None` without one.
    pub const fn shadow_action(&self) -> Option<Action> {
        Action::from_number(self.shadow_action)
    }

    /// How the entry matched by which the shadow policy decided.
    pub const fn shadow_match_type(&self) -> Option<MatchType> {
        MatchType::from_number(self.shadow_match_type)
    }
}
