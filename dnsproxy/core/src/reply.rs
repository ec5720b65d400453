//! A reply comes in, or does not: what the client gets, and what its answer teaches.
//!
//! In:  one message from a resolver, an error of the way there, or silence.
//! Out: a reply that teaches nothing, or a lesson that is installed first (`install`).
//! Not here: pairing (`exchange`), following aliases (`answer`), the ledger.
//!
//! An answer teaches when all of this holds: NOERROR, class IN, a trusted server, addresses on
//! the alias chain, selectors of the endpoint's policy that match the queried name. A truncated
//! answer teaches what it holds. Everything else passes as it came.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    Core, Effect, ExchangeId, Moment, QueryRecord, QueryVerdict, UNMATCHED, Via,
    answer::{self, Answer},
    exchange::{Exchange, NoId, Pairing},
    install::PendingAnswer,
    knowledge::Workload,
    ledger::Lesson,
    query::canonical,
    rebinding,
    refusal::{self, Info},
    wire::{self, Header, Records, number, rcode},
};

/// A reply on its way to the client.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exchange: Box<Exchange>,
    pub(crate) message: Vec<u8>,
    pub(crate) rcode: u16,
    pub(crate) answer: Answer,
    pub(crate) withheld: Vec<IpAddr>,
}

impl Core {
    /// One DNS message from a resolver, without TCP framing.
    pub fn handle_reply(&mut self, now: Moment, server: SocketAddr, via: Via, message: &[u8]) {
        let header = match Header::read(message) {
            Some(header) if header.is_response() => header,
            _ => {
                self.counters.garbage += 1;
                return;
            }
        };
        match self.exchanges.pair(canonical(server), via, header, message) {
            Pairing::Paired(exchange) => self.replied(now, exchange, header, message),
            Pairing::WrongQuestion => self.counters.wrong_question += 1,
            Pairing::Unsolicited => self.counters.unsolicited += 1,
        }
    }

    /// The query could not be brought to its resolver.
    pub fn handle_unreachable(
        &mut self,
        now: Moment,
        exchange: ExchangeId,
        reason: impl Into<String>,
    ) {
        let Some(exchange) = self.exchanges.close(exchange) else {
            return;
        };
        let reason: String = reason.into();
        self.rest_upstream(now, &exchange);
        let Some(exchange) = self.ask_next(now, exchange) else {
            return;
        };
        let text = format!("resolver {} cannot be reached: {reason}", exchange.server);
        self.fail(now, exchange, Info::NetworkError, text);
    }

    /// Nothing came in time. The last resolver's silence is passed on: an answer made up here
    /// would be cached by clients as the truth.
    pub(crate) fn silent(&mut self, now: Moment, exchange: Box<Exchange>) {
        self.rest_upstream(now, &exchange);
        let Some(exchange) = self.ask_next(now, exchange) else {
            return;
        };
        self.counters.silent += 1;
        self.left_flight(exchange.client.endpoint);
        let reason = format!("resolver {} did not answer", exchange.server);
        let record = exchange.record(now, QueryVerdict::Failed(reason), None);
        self.effects.push_back(Effect::Record(record));
    }

    /// Gives SERVFAIL with a reason.
    pub(crate) fn fail(
        &mut self,
        now: Moment,
        exchange: Box<Exchange>,
        info: Info,
        reason: String,
    ) {
        self.left_flight(exchange.client.endpoint);
        let message = refusal::reply(
            exchange.header,
            Some(&exchange.question.bytes),
            exchange.edns,
            rcode::SERVFAIL,
            info,
            &reason,
        );
        let record = exchange.record(now, QueryVerdict::Failed(reason), Some(rcode::SERVFAIL));
        self.effects.push_back(Effect::Reply {
            client: exchange.client,
            message,
        });
        self.effects.push_back(Effect::Record(record));
    }

    /// Sends the answer on as it came.
    pub(crate) fn pass(&mut self, now: Moment, outcome: Outcome, why: &'static str) {
        self.left_flight(outcome.exchange.client.endpoint);
        let record = outcome.record(now, QueryVerdict::Answered(why));
        self.effects.push_back(Effect::Reply {
            client: outcome.exchange.client,
            message: outcome.message,
        });
        self.effects.push_back(Effect::Record(record));
    }

    fn replied(&mut self, now: Moment, exchange: Box<Exchange>, header: Header, message: &[u8]) {
        let rcode = header.rcode();
        let helpless = matches!(rcode, rcode::SERVFAIL | rcode::NOTIMP | rcode::REFUSED);
        let exchange = if helpless && !exchange.rest.is_empty() {
            // As stub resolvers do: another one may know.
            match self.ask_next(now, exchange) {
                Some(exchange) => exchange,
                None => return,
            }
        } else {
            exchange
        };
        let Some(workload) = self.knowledge.workload(exchange.client.endpoint).cloned() else {
            self.left_flight(exchange.client.endpoint);
            return;
        };
        let section = Records::read(message, header, &exchange.question);
        let readable = section
            .as_ref()
            .is_ok_and(|s| s.complete || header.is_truncated());
        let answer = section
            .map(|section| Answer::follow(&section))
            .unwrap_or_default();
        let mut message = message.to_vec();
        wire::set_id(&mut message, exchange.header.id);
        let outcome = Outcome {
            exchange,
            message,
            rcode,
            answer,
            withheld: Vec::new(),
        };
        if !readable {
            if workload.audit {
                return self.pass(now, outcome, "audit: its records cannot be read");
            }
            let reason = format!(
                "the answer of resolver {} cannot be read",
                outcome.exchange.server
            );
            return self.fail(now, outcome.exchange, Info::Other, reason);
        }
        self.judge(now, outcome, &workload);
    }

    /// What an answer teaches under a policy.
    pub(crate) fn judge(&mut self, now: Moment, mut outcome: Outcome, workload: &Arc<Workload>) {
        if outcome.rcode != rcode::NOERROR {
            return self.pass(now, outcome, "the response code is an error");
        }
        if outcome.exchange.question.qclass != number::IN {
            return self.pass(now, outcome, "the class is not IN");
        }
        let (Some(ttl), false) = (outcome.answer.ttl, outcome.answer.addresses.is_empty()) else {
            return self.pass(now, outcome, "it has no address for the name");
        };
        if !self.knowledge.teaches(outcome.exchange.client.server) {
            return self.pass(now, outcome, "the server is not a trusted resolver");
        }
        let (setting, knowledge) = (&self.config.rebinding, &self.knowledge);
        let (withheld, addresses): (SmallVec<[IpAddr; 4]>, SmallVec<[IpAddr; 4]>) = outcome
            .answer
            .addresses
            .iter()
            .copied()
            .partition(|address| rebinding::withheld(setting, knowledge, *address).is_some());
        outcome.withheld = withheld.into_vec();
        if addresses.is_empty() {
            return self.pass(now, outcome, "no name may open its addresses");
        }
        let name = outcome.exchange.question.name.clone();
        let set = workload.selectors_matching(&name);
        let lesson = Lesson {
            endpoint: outcome.exchange.client.endpoint,
            name,
            set,
            addresses,
            ttl,
            looked_up: now,
            expires: now.after(self.config.ttl.lifetime(ttl)),
        };
        if lesson.set.is_empty() {
            self.ledger.note_unmatched(now, &lesson);
            return self.pass(now, outcome, UNMATCHED);
        }
        let shortened = answer::shorten(
            &mut outcome.message,
            &outcome.answer,
            &outcome.exchange.question,
            self.config.ttl.granted(ttl),
        );
        if !shortened {
            let reason = format!(
                "the answer of resolver {} has a name inside a TTL",
                outcome.exchange.server
            );
            return self.fail(now, outcome.exchange, Info::Other, reason);
        }
        self.teach(
            now,
            Box::new(PendingAnswer::new(outcome, lesson, Arc::clone(workload))),
        );
    }

    /// Asks the next resolver; gives the exchange back when there is none.
    fn ask_next(&mut self, now: Moment, mut exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        if exchange.rest.is_empty() || now >= exchange.arrived.after(self.config.upstream_timeout) {
            return Some(exchange);
        }
        exchange.server = exchange.rest.remove(0);
        let message = if exchange.rest.is_empty() {
            std::mem::take(&mut exchange.message)
        } else {
            exchange.message.clone()
        };
        let endpoint = exchange.client.endpoint;
        if let Err(NoId) = self.forward(now, exchange, message) {
            self.left_flight(endpoint);
        }
        None
    }

    /// Asks an upstream that failed last for a while.
    fn rest_upstream(&mut self, now: Moment, exchange: &Exchange) {
        if self.knowledge.upstreams(exchange.client.server).is_some() {
            let until = now.after(self.config.upstream_rest);
            self.resting.insert(exchange.server, until);
        }
    }
}

impl Exchange {
    pub(crate) fn record(
        &self,
        now: Moment,
        verdict: QueryVerdict,
        code: Option<u16>,
    ) -> QueryRecord {
        QueryRecord {
            endpoint: self.client.endpoint,
            client: self.client.address,
            server: self.client.server,
            transport: self.client.transport(),
            name: Some(self.question.name.clone()),
            qtype: self.question.qtype,
            verdict,
            rcode: code,
            addresses: Vec::new(),
            withheld: Vec::new(),
            cnames: Vec::new(),
            ttl: None,
            took: now.since(self.arrived),
        }
    }
}

impl Outcome {
    pub(crate) fn record(&self, now: Moment, verdict: QueryVerdict) -> QueryRecord {
        QueryRecord {
            addresses: self.answer.addresses.to_vec(),
            withheld: self.withheld.clone(),
            cnames: self.answer.cnames.clone(),
            ttl: self.answer.ttl,
            ..self.exchange.record(now, verdict, Some(self.rcode))
        }
    }
}
