//! A DNS query as a record.
//!
//! In:  what the proxy reported.
//! Out: a [`FlowRecord`] as Hubble words it.
//! Not here: packets (`packet`).

use std::time::Duration;

use dnsproxy_core::{Moment, QueryRecord, QueryVerdict};
use flows::{
    Dns, Endpoint, FlowKind, FlowRecord, Ip, Layer4, Layer7, Ports, TrafficDirection, Verdict,
};
use policy::fqdn::Fqdn;

use crate::{hint, qtype};

use super::Recorder;

impl Recorder {
    pub(super) fn query_record(&self, query: &QueryRecord, qtype: &str, now: Moment) -> FlowRecord {
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
