//! Questions on their way: which reply belongs to which of them.
//!
//! In:  a question to forward, or a reply with where it came from.
//! Out: the [`Exchange`] behind a reply, a retransmission or a deadline; at most once each.
//! Not here: what a reply says (`reply`), which server is asked (`query`).
//!
//! A reply is paired by server, socket and id, all of which an attacker off the path has to
//! guess, and must repeat the question (RFC 5452 §4). What does not fit changes nothing: the real
//! reply is still waited for.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    net::SocketAddr,
};

use hashbrown::HashTable;
use identity::EndpointId;
use smallvec::SmallVec;

use crate::{
    Client, ConnectionId, ExchangeId, Moment, Via,
    wire::{Edns, Header, Question},
};

/// How often another id is tried before a query is refused for want of one.
const ID_ATTEMPTS: usize = 16;

/// A question that was forwarded, and everything its reply needs.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) client: Client,
    /// Header of the client's query, its id included.
    pub(crate) header: Header,
    pub(crate) question: Question,
    pub(crate) edns: Option<Edns>,
    pub(crate) arrived: Moment,
    /// The resolver that was asked.
    pub(crate) server: SocketAddr,
    /// Resolvers still to ask when this one fails.
    pub(crate) rest: SmallVec<[SocketAddr; 2]>,
    /// The query itself, kept only while there is a resolver left to ask.
    pub(crate) message: Vec<u8>,
}

impl Exchange {
    /// A client that heard nothing sends the same datagram again from the same port. Over TCP,
    /// which retransmits by itself, every query is one.
    fn is_repeated_by(&self, client: &Client, header: Header, question: &Question) -> bool {
        self.client.connection.is_none()
            && self.client == *client
            && self.header.id == header.id
            && self.question.bytes == question.bytes
    }
}

/// Where an exchange is found in the tables.
#[derive(Debug)]
struct Place {
    exchange: Box<Exchange>,
    reply: ReplyKey,
    reply_hash: u64,
    /// None over TCP.
    ask_hash: Option<u64>,
    deadline: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct ReplyKey {
    server: SocketAddr,
    via: Via,
    id: u16,
}

/// What a reply turns out to be.
#[derive(Debug)]
pub(crate) enum Pairing {
    /// The reply to this; it is no longer waited for.
    Paired(Box<Exchange>),
    /// Server, socket and id fit a question, but the reply is about another one.
    WrongQuestion,
    /// Nobody waits for it: late, a duplicate, or made up.
    Unsolicited,
}

/// No free id towards a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoId;

/// Everything in flight.
#[derive(Default, Debug)]
pub(crate) struct Exchanges {
    next: u64,
    places: HashMap<ExchangeId, Place, BuildHasherDefault<Serial>>,
    by_reply: Index,
    by_ask: Index,
    by_connection: BTreeSet<(ConnectionId, ExchangeId)>,
    deadlines: BTreeSet<(Moment, ExchangeId)>,
    secret: RandomState,
}

impl Exchanges {
    /// Starts waiting for a reply; hands out the exchange's number and the id to ask with.
    /// `pick` draws a socket and an id.
    pub(crate) fn open(
        &mut self,
        exchange: Box<Exchange>,
        deadline: Moment,
        mut pick: impl FnMut() -> (Via, u16),
    ) -> Result<(ExchangeId, Via, u16), NoId> {
        let (reply, reply_hash) = (0..ID_ATTEMPTS)
            .find_map(|_| {
                let (via, id) = pick();
                let key = ReplyKey {
                    server: exchange.server,
                    via,
                    id,
                };
                let hash = self.secret.hash_one(key);
                self.awaiting(&key, hash).is_none().then_some((key, hash))
            })
            .ok_or(NoId)?;
        let id = ExchangeId(self.next);
        self.next += 1;
        self.by_reply.insert(reply_hash, id);
        let ask_hash = match exchange.client.connection {
            None => {
                let hash = self.ask_hash(&exchange.client, exchange.header, &exchange.question);
                self.by_ask.insert(hash, id);
                Some(hash)
            }
            Some(connection) => {
                self.by_connection.insert((connection, id));
                None
            }
        };
        self.deadlines.insert((deadline, id));
        self.places.insert(
            id,
            Place {
                exchange,
                reply,
                reply_hash,
                ask_hash,
                deadline,
            },
        );
        Ok((id, reply.via, reply.id))
    }

    /// The exchange a client's datagram repeats, and how it was sent on.
    pub(crate) fn repeated(
        &self,
        client: &Client,
        header: Header,
        question: &Question,
    ) -> Option<(ExchangeId, SocketAddr, Via, u16)> {
        let hash = self.ask_hash(client, header, question);
        let id = self.by_ask.find(hash, |id| {
            self.places
                .get(&id)
                .is_some_and(|place| place.exchange.is_repeated_by(client, header, question))
        })?;
        let place = self.places.get(&id)?;
        Some((id, place.reply.server, place.reply.via, place.reply.id))
    }

    /// Finds the question a reply answers.
    pub(crate) fn pair(
        &mut self,
        server: SocketAddr,
        via: Via,
        header: Header,
        reply: &[u8],
    ) -> Pairing {
        let key = ReplyKey {
            server,
            via,
            id: header.id,
        };
        let Some(id) = self.awaiting(&key, self.secret.hash_one(key)) else {
            return Pairing::Unsolicited;
        };
        let echoed = self
            .places
            .get(&id)
            .is_some_and(|place| place.exchange.question.is_echoed_in(reply, header));
        if !echoed {
            return Pairing::WrongQuestion;
        }
        match self.close(id) {
            Some(exchange) => Pairing::Paired(exchange),
            None => Pairing::Unsolicited,
        }
    }

    /// Stops waiting.
    pub(crate) fn close(&mut self, id: ExchangeId) -> Option<Box<Exchange>> {
        let place = self.places.remove(&id)?;
        self.by_reply.remove(place.reply_hash, id);
        if let Some(hash) = place.ask_hash {
            self.by_ask.remove(hash, id);
        }
        if let Some(connection) = place.exchange.client.connection {
            self.by_connection.remove(&(connection, id));
        }
        self.deadlines.remove(&(place.deadline, id));
        Some(place.exchange)
    }

    /// Stops waiting for everything a connection asked; the endpoints that did, each as often.
    pub(crate) fn close_connection(&mut self, connection: ConnectionId) -> Vec<EndpointId> {
        let range = (connection, ExchangeId(0))..=(connection, ExchangeId(u64::MAX));
        let ids: Vec<_> = self.by_connection.range(range).map(|(_, id)| *id).collect();
        ids.into_iter()
            .filter_map(|id| self.close(id))
            .map(|exchange| exchange.client.endpoint)
            .collect()
    }

    /// Stops waiting for everything an endpoint asked.
    pub(crate) fn close_endpoint(&mut self, endpoint: EndpointId) {
        let asked = |id: &ExchangeId| {
            self.places
                .get(id)
                .is_some_and(|place| place.exchange.client.endpoint == endpoint)
        };
        let ids: Vec<_> = self
            .deadlines
            .iter()
            .map(|(_, id)| *id)
            .filter(asked)
            .collect();
        for id in ids {
            self.close(id);
        }
    }

    /// An exchange whose deadline has come.
    pub(crate) fn close_due(&mut self, now: Moment) -> Option<Box<Exchange>> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.close(id)
    }

    /// The first deadline.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// How many questions wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Who waits for such a reply.
    fn awaiting(&self, key: &ReplyKey, hash: u64) -> Option<ExchangeId> {
        self.by_reply.find(hash, |id| {
            self.places
                .get(&id)
                .is_some_and(|place| place.reply == *key)
        })
    }

    fn ask_hash(&self, client: &Client, header: Header, question: &Question) -> u64 {
        self.secret
            .hash_one((client.address, header.id, &question.bytes[..]))
    }
}

/// Exchanges by a hash of something in them, which is computed once and not kept a second time.
#[derive(Default, Debug)]
struct Index(HashTable<(u64, ExchangeId)>);

impl Index {
    fn insert(&mut self, hash: u64, id: ExchangeId) {
        self.0.insert_unique(hash, (hash, id), |(hash, _)| *hash);
    }

    fn find(&self, hash: u64, mut is: impl FnMut(ExchangeId) -> bool) -> Option<ExchangeId> {
        let found = self.0.find(hash, |(other, id)| *other == hash && is(*id));
        found.map(|(_, id)| *id)
    }

    fn remove(&mut self, hash: u64, id: ExchangeId) {
        if let Ok(entry) = self.0.find_entry(hash, |(_, other)| *other == id) {
            entry.remove();
        }
    }
}

/// Spreads numbers that are handed out here: nobody else chooses them, so it needs no secret.
#[derive(Default)]
struct Serial(u64);

impl Hasher for Serial {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PortSlot;

    const QUESTION: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

    fn exchange(port: u16, connection: Option<u64>) -> Box<Exchange> {
        let header = Header::read(QUESTION).unwrap();
        Box::new(Exchange {
            client: Client {
                endpoint: EndpointId::new(7),
                address: ([10, 0, 0, 7], port).into(),
                server: ([10, 96, 0, 10], 53).into(),
                connection: connection.map(ConnectionId),
            },
            header,
            question: Question::read(QUESTION, header).unwrap(),
            edns: None,
            arrived: Moment::BOOT,
            server: ([10, 96, 0, 10], 53).into(),
            rest: SmallVec::new(),
            message: Vec::new(),
        })
    }

    #[test]
    fn an_id_that_is_taken_is_not_drawn_and_running_out_is_told() {
        let mut exchanges = Exchanges::default();
        let mut ids = [7, 7, 7, 8].into_iter();
        let mut pick = || (Via::Udp(PortSlot(3)), ids.next().unwrap_or(8));
        let later = Moment::from_nanos(9);
        let (_, _, first) = exchanges.open(exchange(1, None), later, &mut pick).unwrap();
        let (_, _, second) = exchanges.open(exchange(2, None), later, &mut pick).unwrap();
        assert_eq!((first, second), (7, 8));
        assert_eq!(
            exchanges.open(exchange(3, None), later, &mut pick).err(),
            Some(NoId)
        );
        assert_eq!(exchanges.len(), 2);
    }

    #[test]
    fn what_is_closed_is_in_no_table() {
        let mut exchanges = Exchanges::default();
        let mut next = 0;
        for connection in [None, None, Some(1), Some(1), Some(2)] {
            next += 1;
            let via = connection.map_or(Via::Udp(PortSlot(0)), |c| Via::Tcp(ConnectionId(c)));
            let deadline = Moment::from_nanos(u64::from(next));
            exchanges
                .open(exchange(next, connection), deadline, || (via, next))
                .unwrap();
        }
        assert_eq!(exchanges.close_connection(ConnectionId(1)).len(), 2);
        assert!(exchanges.close_due(Moment::from_nanos(1)).is_some());
        assert!(exchanges.close_due(Moment::from_nanos(1)).is_none());
        exchanges.close_endpoint(EndpointId::new(8));
        assert_eq!(exchanges.len(), 2);
        exchanges.close_endpoint(EndpointId::new(7));
        assert_eq!(exchanges.deadline(), None);
        let Exchanges {
            next: _,
            places,
            by_reply,
            by_ask,
            by_connection,
            deadlines,
            secret: _,
        } = exchanges;
        assert!(places.is_empty() && by_reply.0.is_empty() && by_ask.0.is_empty());
        assert!(by_connection.is_empty() && deadlines.is_empty());
    }

    #[test]
    fn only_datagrams_are_repeated() {
        let mut exchanges = Exchanges::default();
        let open = |exchanges: &mut Exchanges, connection: Option<u64>| {
            let via = connection.map_or(Via::Udp(PortSlot(0)), |c| Via::Tcp(ConnectionId(c)));
            exchanges
                .open(exchange(1, connection), Moment::BOOT, || (via, 1))
                .unwrap();
        };
        open(&mut exchanges, None);
        open(&mut exchanges, Some(5));
        let again = exchange(1, None);
        assert!(
            exchanges
                .repeated(&again.client, again.header, &again.question)
                .is_some()
        );
        let other = exchange(2, None);
        assert!(
            exchanges
                .repeated(&other.client, other.header, &other.question)
                .is_none()
        );
        let tcp = exchange(1, Some(5));
        assert!(
            exchanges
                .repeated(&tcp.client, tcp.header, &tcp.question)
                .is_none()
        );
    }
}
