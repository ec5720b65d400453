//! The TCP connections of clients, and those to resolvers on their behalf.
//!
//! In:  accepted sockets, readiness, messages to send either way.
//! Out: whole messages, and which connections and exchanges are over.
//! Not here: what the messages say (`dnsproxy-core`), reading and writing bytes (`stream`).
//!
//! A client's connection has one connection of its own to each resolver it asks, so that one
//! client's stream never waits behind another's; they end together. What one endpoint can hold is
//! bounded: connections, bytes on each, and the time without progress.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use dnsproxy_core::{Client, ConnectionId, ExchangeId, Moment, Transport};
use identity::EndpointId;
use socket2::Socket;

use crate::{
    opener::{Family, Opener},
    poller::{Poller, Token},
    stream::{Heard, READ, Stream},
};

/// Resolvers that one client's connection may reach: the asked one, or the upstreams of a redirect.
const RESOLVERS: u8 = 8;
/// Exchanges remembered per resolver connection, to fail them together with it. Whatever is older
/// has been answered or times out.
const EXCHANGES: usize = 2048;

/// What TCP clients may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpLimits {
    /// Open connections of one endpoint.
    pub connections_per_endpoint: usize,
    /// Open connections of all endpoints of the shard.
    pub connections: usize,
    /// A connection without a whole message or a reply for this long is closed.
    pub idle: Duration,
    /// Bytes that wait for one connection before reading what feeds it pauses.
    pub buffered: usize,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            connections_per_endpoint: 128,
            connections: 2048,
            idle: Duration::from_secs(10),
            buffered: 64 << 10,
        }
    }
}

/// All TCP connections of a shard.
#[derive(Debug)]
pub(crate) struct Connections {
    table: HashMap<ConnectionId, Connection>,
    per_endpoint: HashMap<EndpointId, usize>,
    last: u64,
    limits: TcpLimits,
    room: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    stream: Stream,
    resolvers: Vec<Resolver>,
    /// Messages handed on, less replies sent: nothing is due when it is zero.
    unanswered: usize,
    progress: Moment,
    broken: bool,
}

#[derive(Debug)]
struct Resolver {
    index: u8,
    server: SocketAddr,
    stream: Stream,
    exchanges: VecDeque<ExchangeId>,
}

/// Exchanges that a broken resolver connection leaves without an answer.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) exchanges: Vec<ExchangeId>,
    pub(crate) reason: String,
}

impl Connections {
    pub(crate) fn new(limits: TcpLimits) -> Self {
        Self {
            table: HashMap::new(),
            per_endpoint: HashMap::new(),
            last: 0,
            limits,
            room: vec![0; READ],
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.table.len()
    }

    /// Takes a client's connection in; refuses it at a limit, which closes it.
    pub(crate) fn accept(
        &mut self,
        poller: &Poller,
        now: Moment,
        endpoint: EndpointId,
        address: SocketAddr,
        socket: TcpStream,
    ) -> io::Result<()> {
        let held = self.per_endpoint.get(&endpoint).copied().unwrap_or(0);
        if held >= self.limits.connections_per_endpoint
            || self.table.len() >= self.limits.connections
        {
            return Err(io::Error::other("too many connections"));
        }
        // Not translated on its way here, so its own end is the server that was asked.
        let server = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        self.last += 1;
        let id = ConnectionId(self.last);
        let stream = Stream::new(socket, Token::Client(id), poller)?;
        let client = Client {
            endpoint,
            address,
            server,
            connection: Some(id),
        };
        self.table.insert(
            id,
            Connection {
                client,
                stream,
                resolvers: Vec::new(),
                unanswered: 0,
                progress: now,
                broken: false,
            },
        );
        self.per_endpoint.insert(endpoint, held + 1);
        Ok(())
    }

    /// Reads and writes a client's connection once; who it is and its whole messages.
    pub(crate) fn serve_client(
        &mut self,
        now: Moment,
        id: ConnectionId,
        broken: bool,
    ) -> Option<(Client, Vec<Vec<u8>>)> {
        let connection = self.table.get_mut(&id)?;
        connection.broken |= broken || connection.stream.flush().is_err();
        if connection.broken {
            return Some((connection.client, Vec::new()));
        }
        let messages = match connection.stream.read(&mut self.room) {
            Ok(heard) => heard.messages,
            Err(_) => {
                connection.broken = true;
                Vec::new()
            }
        };
        if !messages.is_empty() {
            connection.progress = now;
            connection.unanswered += messages.len();
        }
        Some((connection.client, messages))
    }

    /// Reads and writes a resolver's connection once; which resolver, its whole messages, and what
    /// is lost if it broke.
    pub(crate) fn serve_resolver(
        &mut self,
        id: ConnectionId,
        index: u8,
        broken: bool,
    ) -> Option<(SocketAddr, Vec<Vec<u8>>, Option<Lost>)> {
        let connection = self.table.get_mut(&id)?;
        let at = connection
            .resolvers
            .iter()
            .position(|resolver| resolver.index == index)?;
        let resolver = connection.resolvers.get_mut(at)?;
        let server = resolver.server;
        // What it sent before it broke still counts.
        let outcome = resolver
            .stream
            .flush()
            .and_then(|()| resolver.stream.read(&mut self.room));
        let (heard, reason) = match outcome {
            Ok(heard) => {
                let reason = (heard.ended || (broken && heard.messages.is_empty())).then(|| {
                    resolver
                        .stream
                        .error()
                        .map_or("the resolver closed the connection".into(), |error| {
                            error.to_string()
                        })
                });
                (heard, reason)
            }
            Err(error) => (Heard::default(), Some(error.to_string())),
        };
        let lost = reason.map(|reason| Lost {
            exchanges: connection.resolvers.swap_remove(at).exchanges.into(),
            reason,
        });
        Some((server, heard.messages, lost))
    }

    /// Sends a query to a resolver over the connection that belongs to the client's.
    pub(crate) fn forward(
        &mut self,
        poller: &Poller,
        opener: &Opener,
        id: ConnectionId,
        exchange: ExchangeId,
        server: SocketAddr,
        message: &[u8],
    ) -> Result<(), Lost> {
        let lost = |reason: String| Lost {
            exchanges: vec![exchange],
            reason,
        };
        let connection = self
            .table
            .get_mut(&id)
            .ok_or_else(|| lost("the client closed the connection".into()))?;
        let at = match connection
            .resolvers
            .iter()
            .position(|resolver| resolver.server == server)
        {
            Some(at) => at,
            None => {
                let resolver = connect(poller, opener, id, server, &connection.resolvers)
                    .map_err(|error| lost(error.to_string()))?;
                connection.resolvers.push(resolver);
                connection.resolvers.len() - 1
            }
        };
        let Some(resolver) = connection.resolvers.get_mut(at) else {
            return Err(lost("the connection is gone".into()));
        };
        if resolver.exchanges.len() == EXCHANGES {
            resolver.exchanges.pop_front();
        }
        resolver.exchanges.push_back(exchange);
        resolver.stream.send(message).map_err(|error| Lost {
            exchanges: connection.resolvers.swap_remove(at).exchanges.into(),
            reason: error.to_string(),
        })
    }

    /// Sends a message to a client; false when it is gone.
    pub(crate) fn reply(&mut self, now: Moment, id: ConnectionId, message: &[u8]) -> bool {
        let Some(connection) = self.table.get_mut(&id) else {
            return false;
        };
        connection.unanswered = connection.unanswered.saturating_sub(1);
        connection.broken |= connection.stream.send(message).is_err();
        // A client that does not read makes no progress, whatever is sent to it.
        if connection.stream.waiting() == 0 {
            connection.progress = now;
        }
        !connection.broken
    }

    /// Brings what the poller watches up to date; true when the connection is over.
    pub(crate) fn settle(&mut self, poller: &Poller, id: ConnectionId) -> bool {
        let Some(connection) = self.table.get_mut(&id) else {
            return false;
        };
        let full = |stream: &Stream| stream.waiting() > self.limits.buffered;
        let client_full = full(&connection.stream);
        let resolver_full = connection
            .resolvers
            .iter()
            .any(|resolver| full(&resolver.stream));
        for resolver in &mut connection.resolvers {
            connection.broken |= resolver.stream.settle(poller, client_full).is_err();
        }
        connection.broken |= connection
            .stream
            .settle(poller, client_full || resolver_full)
            .is_err();
        let done = connection.stream.has_ended()
            && connection.unanswered == 0
            && connection.stream.waiting() == 0;
        connection.broken || done
    }

    /// Closes a connection and those to its resolvers.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.remove(&id) else {
            return;
        };
        let endpoint = connection.client.endpoint;
        if let Some(held) = self.per_endpoint.get_mut(&endpoint) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.per_endpoint.remove(&endpoint);
            }
        }
    }

    /// Connections without progress for too long.
    pub(crate) fn idle(&self, now: Moment) -> Vec<ConnectionId> {
        self.table
            .iter()
            .filter(|(_, connection)| now.since(connection.progress) >= self.limits.idle)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Connections of endpoints that `known` does not know.
    pub(crate) fn orphans(&self, known: impl Fn(&Client) -> bool) -> Vec<ConnectionId> {
        self.table
            .iter()
            .filter(|(_, connection)| !known(&connection.client))
            .map(|(id, _)| *id)
            .collect()
    }
}

/// Starts a connection to a resolver; whether it succeeds shows later.
fn connect(
    poller: &Poller,
    opener: &Opener,
    id: ConnectionId,
    server: SocketAddr,
    others: &[Resolver],
) -> io::Result<Resolver> {
    let index = (0..RESOLVERS)
        .find(|index| others.iter().all(|other| other.index != *index))
        .ok_or_else(|| io::Error::other("one connection asks too many resolvers"))?;
    let socket = Socket::from(opener(Family::of(&server), Transport::Tcp)?);
    match socket.connect(&server.into()) {
        Err(error)
            if error.raw_os_error() != Some(nix::libc::EINPROGRESS)
                && error.kind() != io::ErrorKind::WouldBlock =>
        {
            return Err(error);
        }
        _ => {}
    }
    Ok(Resolver {
        index,
        server,
        stream: Stream::new(socket.into(), Token::Resolver(id, index), poller)?,
        exchanges: VecDeque::new(),
    })
}
