//! A packet that opened a flow or was dropped, as a record.
//!
//! In:  an event of the kernel, the policy it was judged by, who has which address.
//! Out: a [`FlowRecord`] as Hubble words it, and its line in the [`Summary`](flows::Summary).
//! Not here: DNS (`query`), exact counts (the kernel's METRICS).

use std::sync::Arc;

use dnsproxy_core::Moment;
use flows::{
    Endpoint, FlowKind, FlowRecord, Ip, Layer4, PeerKey, Policy, Ports, RuleRef, TrafficDirection,
    Verdict,
};
use fqdn_ebpf_common::{
    Direction,
    event::{Event, Kind},
    policy::{Action, MatchType},
    protocol,
    reason::DropReason,
};
use policy::compiled::{
    self, DeniedFlow, EndpointPolicy, Layered, PolicyRef, Protocol, RuleOrigin, RuleSetId,
};

use crate::{hint, totals};

use super::Recorder;

impl Recorder {
    pub(super) fn packet_record(
        &self,
        event: &Event,
        kind: Kind,
        direction: Direction,
    ) -> FlowRecord {
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
        let deciding = deciding(&self.subject.policy, event);
        let denied = kind != Kind::Flow;
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

    pub(super) fn sum_up(
        &mut self,
        event: &Event,
        kind: Kind,
        direction: Direction,
        record: &FlowRecord,
    ) {
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
        let policy = self.subject.policy.clone();
        match kind {
            Kind::Flow => self.summary.allow(key, names, || {
                rules(&policy, event)
                    .iter()
                    .map(|rule| rule_ref(rule))
                    .collect()
            }),
            Kind::Drop | Kind::Audit => {
                let reason = event.reason().unwrap_or_else(|| spared(event));
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
                        let judge = match kind {
                            Kind::Audit => &policy.whole,
                            Kind::Drop | Kind::Flow => policy.in_force(),
                        };
                        explain(judge, direction, reason, &flow)
                    });
            }
        }
    }
}

/// The policies that decided; those in audit where they alone would refuse. A default deny is
/// decided by whoever brought it about, which only an audit has reason to tell.
fn deciding(policy: &Layered, event: &Event) -> Vec<Policy> {
    let by_default = matches!(event.shadow_match_type(), None | Some(MatchType::None));
    if event.kind() == Some(Kind::Audit) && by_default {
        let direction = match event.direction() {
            Some(Direction::Egress) => compiled::Direction::Egress,
            Some(Direction::Ingress) | None => compiled::Direction::Ingress,
        };
        return policy.would_shut(direction).iter().map(named).collect();
    }
    policies(rules(policy, event))
}

/// The rules that decided; none when no entry matched and the direction's default decided. What
/// the shadow policy decides counts where it alone refuses, and where nothing else is in force.
fn rules<'a>(policy: &'a Layered, event: &Event) -> &'a [Arc<RuleOrigin>] {
    let watched = event.kind() == Some(Kind::Audit) || event.policy() == 0;
    let (policy, match_type, rule_set) = if watched {
        (
            &policy.whole,
            event.shadow_match_type(),
            event.shadow_rule_set(),
        )
    } else {
        (policy.in_force(), event.match_type(), event.rule_set())
    };
    match match_type {
        None | Some(MatchType::None) => &[],
        Some(_) => policy.rule_set(RuleSetId::from_raw(rule_set)),
    }
}

/// The reason that an audited packet was not dropped with.
fn spared(event: &Event) -> DropReason {
    match (event.shadow_action(), event.shadow_match_type()) {
        (Some(Action::NeedsProxy), _) => DropReason::NeedsProxy,
        (_, None | Some(MatchType::None)) => DropReason::PolicyDenied,
        (_, Some(_)) => DropReason::PolicyDeny,
    }
}

/// The reason in words, the nearest rule, and what a person can do.
fn explain(
    policy: &EndpointPolicy,
    direction: Direction,
    reason: DropReason,
    flow: &DeniedFlow,
) -> (String, Option<RuleRef>, String) {
    let decided_by_policy = matches!(
        reason,
        DropReason::PolicyDenied
            | DropReason::PolicyDeny
            | DropReason::NeedsProxy
            | DropReason::MixedBackends
    );
    let nearest = decided_by_policy
        .then(|| {
            let direction = match direction {
                Direction::Egress => compiled::Direction::Egress,
                Direction::Ingress => compiled::Direction::Ingress,
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

fn rule_ref(rule: &RuleOrigin) -> RuleRef {
    RuleRef {
        policy: rule.policy.to_string(),
        file: rule.file.to_string(),
        line: rule.line,
        text: rule.text.clone(),
    }
}

fn named(policy: &PolicyRef) -> Policy {
    Policy {
        name: policy.name.to_string(),
        namespace: policy.namespace.to_string(),
        kind: policy.kind.as_str().to_owned(),
    }
}

fn policies(rules: &[Arc<RuleOrigin>]) -> Vec<Policy> {
    let mut all: Vec<_> = rules.iter().map(|rule| named(&rule.policy)).collect();
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
