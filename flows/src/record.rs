//! One flow or one DNS message, with the fields and names of Hubble's `flow.Flow`.
//!
//! In:  what the agent knows about an event.
//! Out: a value that serialises to the JSON that readers of Hubble's `-o jsonpb` know.
//! Not here: rendering for people (`line`), protobuf.
//!
//! Field names follow `api/v1/flow/flow.proto` of Cilium 1.20: snake case, `IP` in capitals,
//! absent when unknown.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What became of a packet, connection or query.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Let through.
    Forwarded,
    /// Refused, by the datapath or by the DNS proxy.
    Dropped,
    /// Something of ours failed.
    Error,
    /// Let through because of audit; enforcement would have refused it.
    Audit,
    /// Handed to a proxy.
    Redirected,
}

/// Seen from the workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TrafficDirection {
    /// Towards the workload.
    Ingress,
    /// From the workload.
    Egress,
}

/// Which kind of event the record stems from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FlowKind {
    /// A verdict on the first packet of a connection, or on a packet that was refused.
    #[serde(rename = "L3_L4")]
    L3L4,
    /// A message that a proxy saw.
    #[serde(rename = "L7")]
    L7,
}

/// Addresses of the packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
}

/// Ports of a TCP, UDP or SCTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// The transport header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Layer4 {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp(Ports),
    /// UDP.
    #[serde(rename = "UDP")]
    Udp(Ports),
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp(Ports),
    /// ICMP.
    #[serde(rename = "ICMPv4")]
    Icmpv4 {
        /// Type.
        r#type: u8,
        /// Code.
        code: u8,
    },
    /// ICMPv6.
    #[serde(rename = "ICMPv6")]
    Icmpv6 {
        /// Type.
        r#type: u8,
        /// Code.
        code: u8,
    },
    /// Any other protocol, by its IANA number. Not in Hubble's proto.
    #[serde(rename = "other")]
    Other {
        /// IP protocol number.
        protocol: u8,
    },
}

impl Layer4 {
    /// The ports, of protocols that have them.
    pub const fn ports(&self) -> Option<Ports> {
        match self {
            Self::Tcp(ports) | Self::Udp(ports) | Self::Sctp(ports) => Some(*ports),
            Self::Icmpv4 { .. } | Self::Icmpv6 { .. } | Self::Other { .. } => None,
        }
    }
}

/// One side of the flow.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// Endpoint number on this node, 0 when it is not an endpoint of this node.
    #[serde(rename = "ID", default, skip_serializing_if = "is_zero")]
    pub id: u32,
    /// Security identity.
    pub identity: u32,
    /// Namespace of the workload.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels, `source:key=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
}

/// A policy that decided.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Name of the object.
    pub name: String,
    /// Its namespace, empty for cluster-wide ones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `CiliumNetworkPolicy`, …
    pub kind: String,
}

/// A DNS message as the proxy saw it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Dns {
    /// The name asked for.
    pub query: String,
    /// Addresses of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// Lowest TTL on the chain, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// CNAME targets in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cnames: Vec<String>,
    /// Who saw it: `proxy`.
    pub observation_source: String,
    /// Response code, absent for requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<u16>,
    /// Query types.
    pub qtypes: Vec<String>,
}

/// The application layer part of a record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layer7 {
    /// `REQUEST` or `RESPONSE`.
    pub r#type: String,
    /// Nanoseconds between request and response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<u64>,
    /// The DNS message.
    pub dns: Dns,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowRecord {
    /// When.
    pub time: Timestamp,
    /// What became of it.
    pub verdict: Verdict,
    /// Number of the drop reason, 0 when nothing was dropped by the datapath.
    #[serde(default)]
    pub drop_reason: u32,
    /// Name of the drop reason as in Hubble, absent when nothing was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason_desc: Option<String>,
    /// Addresses.
    #[serde(rename = "IP", default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    /// Transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l4: Option<Layer4>,
    /// Who sent it.
    pub source: Endpoint,
    /// Who was to get it.
    pub destination: Endpoint,
    /// Kind of event.
    #[serde(rename = "Type")]
    pub kind: FlowKind,
    /// Names known for the source address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_names: Vec<String>,
    /// Names known for the destination address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_names: Vec<String>,
    /// The message, for records of a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l7: Option<Layer7>,
    /// Direction as the workload sees it.
    pub traffic_direction: TrafficDirection,
    /// What the deciding entry matched on: 0 none, 1 L3-only, 2 L3-L4, 3 L4-only, 4 all, 5
    /// L3-proto, 6 proto-only.
    #[serde(default)]
    pub policy_match_type: u32,
    /// Whether it is a reply; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_reply: Option<bool>,
    /// Policies that allowed egress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_allowed_by: Vec<Policy>,
    /// Policies that allowed ingress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress_allowed_by: Vec<Policy>,
    /// Policies whose deny rule refused egress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_denied_by: Vec<Policy>,
    /// Policies whose deny rule refused ingress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress_denied_by: Vec<Policy>,
    /// One-line description of the packet or message.
    #[serde(rename = "Summary")]
    pub summary: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
