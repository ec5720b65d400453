//! A query comes in: forward it, or refuse it with a reason.
//!
//! In:  one message from a client.
//! Out: [`Effect::Forward`], or a refusal, and a record of either.
//! Not here: what policy says (`policy`), the reply (`reply`).
//!
//! | message | what the client gets |
//! |---|---|
//! | shorter than a header; a response sent as a query | nothing (a reply could start a loop); over TCP the connection is closed |
//! | opcode other than QUERY | NOTIMP (audit: relayed) |
//! | not exactly one question, a question or record that cannot be read | FORMERR |
//! | zone transfer (AXFR, IXFR) | NOTIMP: its reply is many messages |
//! | unknown endpoint | SERVFAIL |
//! | a datagram that repeats a question in flight | the question is sent on again; one answer |
//! | name not allowed by `rules.dns` | REFUSED or NXDOMAIN (audit: relayed and recorded) |
//! | more in flight than the endpoint may have, no free id, no upstream | SERVFAIL |
//! | anything else | its answer |
//!
//! Clients that speak EDNS get an extended error (RFC 8914) with every refusal.

use std::net::{SocketAddr, SocketAddrV6};

use policy::compiled::{DnsVerdict, EndpointPolicy};
use smallvec::SmallVec;

use crate::{
    Client, Core, Effect, ExchangeId, Moment, PortSlot, QueryRecord, QueryVerdict, RefuseWith, Via,
    exchange::{Exchange, NoId},
    refusal::{self, Info},
    wire::{self, Header, Question, number, rcode},
};

/// Why policy refuses a name.
struct Refusal {
    policies: Vec<String>,
    hint: String,
}

/// A query that will not be forwarded, as far as it could be read.
struct Rejected<'a> {
    client: Client,
    header: Header,
    question: Option<&'a Question>,
    edns: Option<wire::Edns>,
}

impl Core {
    /// One DNS message from a client, without TCP framing.
    pub fn handle_query(&mut self, now: Moment, client: Client, message: &[u8]) {
        let header = match Header::read(message) {
            Some(header) if !header.is_response() => header,
            _ => {
                self.counters.garbage += 1;
                if let Some(connection) = client.connection {
                    self.effects.push_back(Effect::Close(connection));
                }
                return;
            }
        };
        self.counters.queries += 1;
        let question = Question::read(message, header);
        let edns = match &question {
            Ok(question) => wire::edns(message, header, question),
            Err(_) => Ok(None),
        };
        let rejected = Rejected {
            client,
            header,
            question: question.as_ref().ok(),
            edns: edns.unwrap_or(None),
        };
        let Some(workload) = self.knowledge.workload(client.endpoint).cloned() else {
            return self.reject(
                rejected,
                rcode::SERVFAIL,
                Info::Other,
                "this endpoint is not known",
            );
        };
        let audit = workload.audit;
        if header.opcode() != 0 && !audit {
            return self.reject(
                rejected,
                rcode::NOTIMP,
                Info::NotSupported,
                "only queries are proxied",
            );
        }
        let question = match &question {
            Ok(question) => question,
            Err(error) => {
                let text = error.to_string();
                return self.reject(rejected, rcode::FORMERR, Info::Other, &text);
            }
        };
        if let Err(error) = edns {
            return self.reject(rejected, rcode::FORMERR, Info::Other, &error.to_string());
        }
        if matches!(question.qtype, number::AXFR | number::IXFR) {
            return self.reject(
                rejected,
                rcode::NOTIMP,
                Info::NotSupported,
                "zone transfers are not proxied",
            );
        }
        if let Some((exchange, server, via, id)) =
            self.exchanges.repeated(&client, header, question)
        {
            self.counters.repeated += 1;
            return self.send(exchange, server, via, id, &client, message.to_vec());
        }
        if let (Some(enforced), false) = (&workload.enforced, workload.audit)
            && let Some(refusal) = self.refusal_in_force(now, enforced, &client, question)
        {
            self.counters.refused += 1;
            return self.refuse(rejected, refusal);
        }
        if let Some(refusal) = self.refusal(now, &workload.policy, &client, question) {
            self.counters.refused += 1;
            if !workload.audit && workload.enforced.is_none() {
                return self.refuse(rejected, refusal);
            }
            let Refusal { policies, hint } = refusal;
            let record = rejected.record(QueryVerdict::WouldRefuse { policies, hint }, None);
            self.effects.push_back(Effect::Record(record));
        }
        if !self.enter_flight(&client) {
            self.counters.over_limit += 1;
            let text = "this endpoint has too many queries in flight";
            return self.reject(rejected, rcode::SERVFAIL, Info::Other, text);
        }
        let (server, rest) = self.resolvers(now, &client);
        let Some(server) = server else {
            self.left_flight(client.endpoint);
            return self.reject(
                rejected,
                rcode::SERVFAIL,
                Info::NetworkError,
                "no upstream resolver is configured",
            );
        };
        let record = rejected.record(QueryVerdict::Forwarded, None);
        let exchange = Box::new(Exchange {
            client,
            header,
            question: question.clone(),
            edns: rejected.edns,
            arrived: now,
            server,
            message: if rest.is_empty() {
                Vec::new()
            } else {
                message.to_vec()
            },
            rest,
        });
        match self.forward(now, exchange, message.to_vec()) {
            Ok(()) => self.effects.push_back(Effect::Record(record)),
            Err(NoId) => {
                self.left_flight(client.endpoint);
                self.reject(
                    rejected,
                    rcode::SERVFAIL,
                    Info::Other,
                    "too many queries to this resolver are in flight",
                );
            }
        }
    }

    /// Sends a query to the exchange's server and waits for the reply.
    pub(crate) fn forward(
        &mut self,
        now: Moment,
        exchange: Box<Exchange>,
        message: Vec<u8>,
    ) -> Result<(), NoId> {
        let client = exchange.client;
        let server = exchange.server;
        let last = exchange.arrived.after(self.config.upstream_timeout);
        let deadline = if exchange.rest.is_empty() {
            last
        } else {
            now.after(self.config.attempt_timeout).min(last)
        };
        let entropy = &mut self.entropy;
        let slots = u64::from(self.config.port_slots.max(1));
        let (id, via, wire_id) = self.exchanges.open(exchange, deadline, || {
            let drawn = entropy();
            // The low bits are the id, the others pick the socket.
            let id = (drawn & 0xffff) as u16;
            let via = match client.connection {
                Some(connection) => Via::Tcp(connection),
                None => Via::Udp(PortSlot((drawn >> 16).rem_euclid(slots) as u16)),
            };
            (via, id)
        })?;
        self.send(id, server, via, wire_id, &client, message);
        Ok(())
    }

    fn send(
        &mut self,
        exchange: ExchangeId,
        server: SocketAddr,
        via: Via,
        id: u16,
        client: &Client,
        mut message: Vec<u8>,
    ) {
        wire::set_id(&mut message, id);
        let slot = match via {
            Via::Udp(slot) => slot,
            Via::Tcp(_) => PortSlot(0),
        };
        self.effects.push_back(Effect::Forward {
            exchange,
            server,
            transport: client.transport(),
            slot,
            connection: client.connection,
            message,
        });
    }

    /// The resolver to ask and those to ask when it fails. Upstreams that failed lately come last.
    fn resolvers(
        &mut self,
        now: Moment,
        client: &Client,
    ) -> (Option<SocketAddr>, SmallVec<[SocketAddr; 2]>) {
        let Some(upstreams) = self.knowledge.upstreams(client.server) else {
            return (Some(canonical(client.server)), SmallVec::new());
        };
        self.resting.retain(|_, until| *until > now);
        let rests = |upstream: &&SocketAddr| self.resting.contains_key(*upstream);
        let mut ordered: SmallVec<[SocketAddr; 2]> =
            upstreams.iter().filter(|u| !rests(u)).copied().collect();
        ordered.extend(upstreams.iter().filter(rests).copied());
        if ordered.is_empty() {
            return (None, ordered);
        }
        let first = ordered.remove(0);
        (Some(first), ordered)
    }

    /// May this be asked, as far as the policies go that are not in audit? Where only those in
    /// audit look at names, the others have let the packet pass.
    fn refusal_in_force(
        &self,
        now: Moment,
        enforced: &EndpointPolicy,
        client: &Client,
        question: &Question,
    ) -> Option<Refusal> {
        let server = client.server.ip();
        let identity = self.knowledge.identity(server);
        let learned = self.learned(now, client);
        let tcp = client.connection.is_some();
        if !enforced.is_steered(identity, &learned, tcp, client.server.port()) {
            return None;
        }
        self.refusal(now, enforced, client, question)
    }

    /// What names taught about the server. It counts only for servers outside, as in the kernel.
    fn learned(&self, now: Moment, client: &Client) -> identity::SelectorSet {
        let server = client.server.ip();
        if self.knowledge.is_outside(server) {
            self.ledger
                .selectors(now, client.endpoint, server.to_canonical())
        } else {
            identity::SelectorSet::default()
        }
    }

    /// May this be asked?
    fn refusal(
        &self,
        now: Moment,
        policy: &EndpointPolicy,
        client: &Client,
        question: &Question,
    ) -> Option<Refusal> {
        let identity = self.knowledge.identity(client.server.ip());
        let learned = self.learned(now, client);
        let tcp = client.connection.is_some();
        let port = client.server.port();
        match policy.may_ask_learned(identity, &learned, tcp, port, &question.name) {
            DnsVerdict::Allowed { .. } => None,
            DnsVerdict::Refused { policies, nearest } => Some(Refusal {
                policies: policies.iter().map(ToString::to_string).collect(),
                hint: match nearest {
                    Some(rule) => format!("the nearest rule is {rule}"),
                    None => "no rule allows a name like this at this server".to_owned(),
                },
            }),
        }
    }

    fn refuse(&mut self, rejected: Rejected<'_>, refusal: Refusal) {
        let code = match self.config.refuse_with {
            RefuseWith::Refused => rcode::REFUSED,
            RefuseWith::NxDomain => rcode::NXDOMAIN,
        };
        let text = match refusal.policies.split_first() {
            None => "no policy allows DNS to this server".to_owned(),
            Some((one, [])) => format!("name not allowed by {one}"),
            Some((one, more)) => format!("name not allowed by {one} and {} more", more.len()),
        };
        let Refusal { policies, hint } = refusal;
        let record = rejected.record(QueryVerdict::Refused { policies, hint }, Some(code));
        self.effects.push_back(Effect::Reply {
            client: rejected.client,
            message: rejected.reply(code, Info::Blocked, &text),
        });
        self.effects.push_back(Effect::Record(record));
    }

    fn reject(&mut self, rejected: Rejected<'_>, code: u16, info: Info, text: &str) {
        self.effects.push_back(Effect::Reply {
            client: rejected.client,
            message: rejected.reply(code, info, text),
        });
        let record = rejected.record(QueryVerdict::Failed(text.to_owned()), Some(code));
        self.effects.push_back(Effect::Record(record));
    }
}

impl Rejected<'_> {
    fn reply(&self, code: u16, info: Info, text: &str) -> Vec<u8> {
        let question = self.question.map(|question| &question.bytes[..]);
        refusal::reply(self.header, question, self.edns, code, info, text)
    }

    fn record(&self, verdict: QueryVerdict, code: Option<u16>) -> QueryRecord {
        QueryRecord {
            endpoint: self.client.endpoint,
            client: self.client.address,
            server: self.client.server,
            transport: self.client.transport(),
            name: self.question.map(|question| question.name.clone()),
            qtype: self.question.map_or(0, |question| question.qtype),
            verdict,
            rcode: code,
            addresses: Vec::new(),
            withheld: Vec::new(),
            cnames: Vec::new(),
            ttl: None,
            took: std::time::Duration::ZERO,
        }
    }
}

/// One spelling for an address, whichever socket it came from.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            // The scope says on which link a link-local resolver is.
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
    }
}
