//! What the core asks its shell to do.
//!
//! In:  the state machine's decisions.
//! Out: a closed set of effects; the shell carries each out, in order.
//! Not here: doing it (`dnsproxy`).

use std::{net::SocketAddr, time::Duration};

use identity::EndpointId;
use policy::fqdn::Fqdn;

use crate::{Batch, Client, ConnectionId, ExchangeId, Installed, PortSlot, Transport};

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Send a query to a resolver. For UDP from the socket behind `slot`; for TCP over the
    /// connection that belongs to the client's connection.
    Forward {
        /// Which exchange the bytes belong to.
        exchange: ExchangeId,
        /// Where to.
        server: SocketAddr,
        /// How.
        transport: Transport,
        /// The source port to use for UDP.
        slot: PortSlot,
        /// The client's connection whose upstream connection is to be used for TCP.
        connection: Option<ConnectionId>,
        /// The message without any TCP length prefix.
        message: Vec<u8>,
    },
    /// Send a message that teaches nothing back to the client: a refusal, a failure, an answer
    /// whose name no selector of the endpoint matches.
    Reply {
        /// To whom; the reply's source is `client.server`.
        client: Client,
        /// The message without any TCP length prefix.
        message: Vec<u8>,
    },
    /// Have the map writer install these changes; hand the proof or the failure back.
    Install(Batch),
    /// Send an answer that teaches. The proof says that the kernel already knows what it teaches.
    Release {
        /// To whom.
        client: Client,
        /// The message without any TCP length prefix.
        message: Vec<u8>,
        /// Every address of the answer is in the maps.
        proof: Installed,
    },
    /// Close a client's TCP connection (limits, nonsense on the stream).
    Close(ConnectionId),
    /// Tell the world what happened to a query.
    Record(QueryRecord),
}

/// One query and what became of it, for flow records, counters and the report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryRecord {
    /// Who asked.
    pub endpoint: EndpointId,
    /// From where.
    pub client: SocketAddr,
    /// Whom.
    pub server: SocketAddr,
    /// How.
    pub transport: Transport,
    /// For what; none when the message held no name that could be read.
    pub name: Option<Fqdn>,
    /// Query type number (RFC 1035 §3.2.2, IANA).
    pub qtype: u16,
    /// What became of it.
    pub verdict: QueryVerdict,
    /// Response code the client got, none when it got nothing.
    pub rcode: Option<u16>,
    /// Addresses of the answer, empty for refusals.
    pub addresses: Vec<std::net::IpAddr>,
    /// Those of them that no name may open (rebinding), so they were not learned.
    pub withheld: Vec<std::net::IpAddr>,
    /// CNAME targets on the chain, in order.
    pub cnames: Vec<Fqdn>,
    /// Lowest TTL on the chain.
    pub ttl: Option<u32>,
    /// From the query's arrival to the reply's departure.
    pub took: Duration,
}

/// Why an answer taught nothing when no rule matches its name: it is remembered for the day one does.
pub const UNMATCHED: &str = "no toFQDNs rule matches the name";

/// What became of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueryVerdict {
    /// Sent on to a resolver (the request half).
    Forwarded,
    /// Answered; its addresses were written to the maps first.
    Taught,
    /// Answered; it teaches nothing, and why.
    Answered(&'static str),
    /// Refused by policy; the policies that restrict this endpoint's names.
    Refused {
        /// `kind/namespace/name` of each.
        policies: Vec<String>,
        /// A person's next step.
        hint: String,
    },
    /// Policy would refuse it, but the endpoint is in audit mode: it was sent on.
    WouldRefuse {
        /// `kind/namespace/name` of each.
        policies: Vec<String>,
        /// A person's next step.
        hint: String,
    },
    /// Failed, and why: the client got SERVFAIL (or nothing, if the resolver was silent).
    Failed(String),
}
