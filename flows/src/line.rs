//! A record as one line for people, in the shape of `hubble observe -o compact`.
//!
//! In:  a [`FlowRecord`].
//! Out: `TIME: SRC (ID) ARROW DST (ID) TYPE VERDICT (SUMMARY)`.
//! Not here: colours, filters.

use std::fmt;

use crate::{Endpoint, FlowKind, FlowRecord, Layer4, TrafficDirection, Verdict};

const RESERVED: [&str; 11] = [
    "unknown",
    "host",
    "world",
    "unmanaged",
    "health",
    "init",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "world-ipv4",
    "world-ipv6",
];

const MATCHES: [&str; 7] = [
    "none",
    "L3-Only",
    "L3-L4",
    "L4-Only",
    "all",
    "L3-Proto",
    "Proto-Only",
];

impl fmt::Display for FlowRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zoned = self.time.to_zoned(jiff::tz::TimeZone::system());
        write!(f, "{}: ", zoned.strftime("%b %e %H:%M:%S%.3f"))?;
        let (source_port, destination_port) = self.ports();
        let ip = self.ip.as_ref();
        side(
            f,
            &self.source,
            &self.source_names,
            ip.map(|ip| ip.source),
            source_port,
        )?;
        f.write_str(match self.is_reply {
            Some(true) => " <- ",
            Some(false) => " -> ",
            None => " <> ",
        })?;
        side(
            f,
            &self.destination,
            &self.destination_names,
            ip.map(|ip| ip.destination),
            destination_port,
        )?;
        write!(f, " {} {}", self.type_text(), self.verdict_text())?;
        let by = self.deciding_policies();
        if !by.is_empty() {
            f.write_str(" BY ")?;
            for (i, policy) in by.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{} ({})", policy.name, policy.kind)?;
            }
        }
        write!(f, " ({})", self.summary)
    }
}

impl FlowRecord {
    /// The policies whose rules decided this flow, in either direction.
    pub fn deciding_policies(&self) -> &[crate::Policy] {
        [
            &self.egress_denied_by,
            &self.ingress_denied_by,
            &self.egress_allowed_by,
            &self.ingress_allowed_by,
        ]
        .into_iter()
        .find(|list| !list.is_empty())
        .map_or(&[], Vec::as_slice)
    }

    fn ports(&self) -> (u16, u16) {
        match self.l4 {
            Some(Layer4::Tcp(p) | Layer4::Udp(p) | Layer4::Sctp(p)) => {
                (p.source_port, p.destination_port)
            }
            _ => (0, 0),
        }
    }

    fn type_text(&self) -> String {
        match (&self.l7, self.kind) {
            (Some(l7), _) if l7.r#type == "REQUEST" => "dns-request proxy".to_owned(),
            (Some(_), _) => "dns-response proxy".to_owned(),
            (None, FlowKind::L7) => "proxy".to_owned(),
            (None, FlowKind::L3L4) => match (&self.drop_reason_desc, self.drop_reason) {
                (Some(name), reason) if reason != 133 && reason != 181 => {
                    name.to_lowercase().replace('_', " ")
                }
                _ => {
                    let matched = usize::try_from(self.policy_match_type)
                        .ok()
                        .and_then(|i| MATCHES.get(i))
                        .unwrap_or(&"unknown");
                    let direction = match self.traffic_direction {
                        TrafficDirection::Ingress => "INGRESS",
                        TrafficDirection::Egress => "EGRESS",
                    };
                    format!("policy-verdict:{matched} {direction}")
                }
            },
        }
    }

    fn verdict_text(&self) -> &'static str {
        let policy_verdict = self.kind == FlowKind::L3L4
            && (self.drop_reason == 0 || self.drop_reason == 133 || self.drop_reason == 181);
        match (self.verdict, policy_verdict) {
            (Verdict::Forwarded | Verdict::Redirected, true) => "ALLOWED",
            (Verdict::Dropped | Verdict::Error, true) => "DENIED",
            (Verdict::Audit, true) => "AUDITED",
            (Verdict::Forwarded, false) => "FORWARDED",
            (Verdict::Redirected, false) => "REDIRECTED",
            (Verdict::Dropped, false) => "DROPPED",
            (Verdict::Error, false) => "ERROR",
            (Verdict::Audit, false) => "AUDIT",
        }
    }
}

fn side(
    f: &mut fmt::Formatter<'_>,
    endpoint: &Endpoint,
    names: &[String],
    address: Option<std::net::IpAddr>,
    port: u16,
) -> fmt::Result {
    if !endpoint.pod_name.is_empty() {
        write!(f, "{}/{}", endpoint.namespace, endpoint.pod_name)?;
    } else if !names.is_empty() {
        f.write_str(&names.join(","))?;
    } else {
        match address {
            Some(address) if address.is_ipv6() && port != 0 => write!(f, "[{address}]")?,
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("?")?,
        }
    }
    if port != 0 {
        write!(f, ":{port}")?;
    }
    match usize::try_from(endpoint.identity)
        .ok()
        .and_then(|i| RESERVED.get(i))
    {
        Some(name) => write!(f, " ({name})"),
        None => write!(f, " (ID:{})", endpoint.identity),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Ip, Ports, record::*};

    fn denied() -> FlowRecord {
        FlowRecord {
            time: jiff::Timestamp::UNIX_EPOCH,
            verdict: Verdict::Dropped,
            drop_reason: 133,
            drop_reason_desc: Some("POLICY_DENIED".into()),
            ip: Some(Ip {
                source: "198.18.0.2".parse().unwrap(),
                destination: "203.0.113.7".parse().unwrap(),
            }),
            l4: Some(Layer4::Tcp(Ports {
                source_port: 40000,
                destination_port: 80,
            })),
            source: Endpoint {
                id: 1,
                identity: 256,
                namespace: "ci".into(),
                pod_name: "job".into(),
                ..Endpoint::default()
            },
            destination: Endpoint {
                identity: 9,
                ..Endpoint::default()
            },
            kind: FlowKind::L3L4,
            source_names: vec![],
            destination_names: vec!["github.com".into()],
            l7: None,
            traffic_direction: TrafficDirection::Egress,
            policy_match_type: 0,
            is_reply: None,
            egress_allowed_by: vec![],
            ingress_allowed_by: vec![],
            egress_denied_by: vec![],
            ingress_denied_by: vec![],
            summary: "TCP Flags: SYN".into(),
        }
    }

    #[test]
    fn a_denied_connection_reads_like_hubble_prints_it() {
        let line = denied().to_string();
        assert!(
            line.ends_with(
                "ci/job:40000 (ID:256) <> github.com:80 (world-ipv4) \
                 policy-verdict:none EGRESS DENIED (TCP Flags: SYN)"
            ),
            "{line}"
        );
    }

    #[test]
    fn a_drop_that_no_policy_decided_is_named_by_its_reason() {
        let mut record = denied();
        record.drop_reason = 132;
        record.drop_reason_desc = Some("INVALID_SOURCE_IP".into());
        assert!(
            record.to_string().contains("invalid source ip DROPPED"),
            "{record}"
        );
    }

    #[test]
    fn json_uses_the_field_names_of_the_proto() {
        let json = serde_json::to_value(denied()).unwrap();
        assert_eq!(json["IP"]["destination"], "203.0.113.7");
        assert_eq!(json["l4"]["TCP"]["destination_port"], 80);
        assert_eq!(json["verdict"], "DROPPED");
        assert_eq!(json["traffic_direction"], "EGRESS");
        assert_eq!(json["Type"], "L3_L4");
        let back: FlowRecord = serde_json::from_value(json).unwrap();
        assert_eq!(back, denied());
    }
}
