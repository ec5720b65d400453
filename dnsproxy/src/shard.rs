//! One shard of the proxy: every input in one loop, carried to the core and its effects out again.
//!
//! In:  readiness of sockets, control messages, time.
//! Out: datagrams, stream messages, map writes through the [`LearnedWriter`], query records.
//! Not here: any decision about a query or an answer (`dnsproxy-core`).
//!
//! Runs on a thread of its own, which waits in one place. Nothing on the way of an answer changes
//! threads or waits, but for the map write that the answer needs.

mod effects;

use std::{collections::HashMap, fmt, io, net::IpAddr, ops::ControlFlow, time::Duration};

use dnsproxy_core::{
    Client, ConnectionId, Core, LearnedWriter, Moment, QueryRecord, Snapshot, Via,
};
use identity::EndpointId;

use crate::{
    clock::now,
    connections::Connections,
    control::{ControlMsg, Orders, ShardCounters},
    datagram::Inbox,
    listeners::{Lane, Listeners},
    opener::{Family, PerFamily},
    poller::{Event, Interest, Poller, PortToken, Token},
    reply::Replies,
    upstreams::Upstreams,
};

/// Queries per system call, and the room for each: no query without a fragment is longer.
const QUERIES: (usize, usize) = (16, 4096);
/// Room for a reply: it may fill a datagram.
const REPLY: usize = 1 << 16;
/// Connections accepted per turn of the loop.
const ACCEPTS: usize = 64;
/// How long a listener rests when the system has no descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(200);
/// How often connections are looked through for idle ones.
const SWEEP: Duration = Duration::from_secs(1);

/// One shard at work.
pub(crate) struct Shard<W, R> {
    core: Core,
    writer: W,
    records: R,
    endpoints: HashMap<IpAddr, EndpointId>,
    listeners: Listeners,
    upstreams: Upstreams,
    connections: Connections,
    replies: Replies,
    queries: PerFamily<Inbox>,
    room: Vec<u8>,
    poller: Poller,
    orders: Orders,
    next_sweep: Moment,
    accept_at: Option<Moment>,
    counters: ShardCounters,
}

impl<W, R> fmt::Debug for Shard<W, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("core", &self.core)
            .field("connections", &self.connections.count())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<W: LearnedWriter, R: FnMut(QueryRecord)> Shard<W, R> {
    /// Serves until told to stop or until the control side is gone. `records` is called on the way
    /// of answers: it must not wait.
    ///
    /// # Errors
    /// When the system refuses what the loop itself needs; single sockets failing is not that.
    pub(crate) fn run(
        core: Core,
        listeners: Listeners,
        upstreams: Upstreams,
        writer: W,
        orders: Orders,
        records: R,
    ) -> io::Result<()> {
        let mut shard = Self::new(core, listeners, upstreams, writer, orders, records)?;
        let mut events = Vec::new();
        let mut going_on = true;
        while going_on {
            let time = shard.deadline().map(|deadline| deadline.since(now()));
            shard.poller.wait(time, &mut events)?;
            for event in events.drain(..) {
                going_on &= shard.serve(event).is_continue();
            }
            // Sockets may keep the loop from ever waiting until something is due.
            let now = now();
            if shard.deadline().is_some_and(|deadline| deadline <= now) {
                shard.expire(now);
            }
            shard.carry_out(now);
            shard.flush();
        }
        Ok(())
    }

    fn new(
        core: Core,
        listeners: Listeners,
        upstreams: Upstreams,
        writer: W,
        orders: Orders,
        records: R,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&orders.bell(), Token::Bell, Interest::READ)?;
        for family in [Family::V4, Family::V6] {
            if let Some(sockets) = listeners.of(family) {
                for (lane, sockets) in sockets.lanes() {
                    let (udp, tcp) = (
                        Token::Datagrams(family, lane),
                        Token::Connects(family, lane),
                    );
                    poller.add(&sockets.udp, udp, Interest::READ)?;
                    poller.add(&sockets.tcp, tcp, Interest::READ)?;
                }
            }
        }
        Ok(Self {
            core,
            writer,
            records,
            endpoints: HashMap::new(),
            connections: Connections::new(listeners.tcp_limits),
            listeners,
            upstreams,
            replies: Replies::new(),
            queries: PerFamily::new(|| Inbox::new(QUERIES.0, QUERIES.1)),
            room: vec![0; REPLY],
            poller,
            orders,
            next_sweep: Moment::BOOT,
            accept_at: None,
            counters: ShardCounters::default(),
        })
    }

    /// When something is due without any input.
    fn deadline(&self) -> Option<Moment> {
        let sweep = (self.connections.count() > 0).then_some(self.next_sweep);
        [self.core.poll_timeout(), sweep, self.accept_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn serve(&mut self, event: Event) -> ControlFlow<()> {
        let now = now();
        match event.token {
            Token::Datagrams(family, lane) => self.serve_datagrams(now, family, lane),
            Token::Connects(family, lane) => self.serve_connects(now, family, lane),
            Token::Port(port) => self.serve_port(now, port),
            Token::Client(id) => self.serve_client(now, id, event.broken),
            Token::Resolver(id, index) => self.serve_resolver(now, id, index, event.broken),
            Token::Bell => match self.orders.next() {
                Some(ControlMsg::Stop) => return ControlFlow::Break(()),
                Some(message) => self.obey(now, message),
                None => {}
            },
        }
        ControlFlow::Continue(())
    }

    fn serve_datagrams(&mut self, now: Moment, family: Family, lane: Lane) {
        let Some(sockets) = self.listeners.lane(family, lane) else {
            return;
        };
        let (core, endpoints, counters) = (&mut self.core, &self.endpoints, &mut self.counters);
        let received = self
            .queries
            .of_mut(family)
            .receive(&sockets.udp, |datagram| {
                let Some(&endpoint) = endpoints.get(&datagram.from.ip()) else {
                    counters.unknown_source += 1;
                    return;
                };
                let Some(server) = datagram.to else {
                    counters.not_steered += 1;
                    return;
                };
                let Some(message) = datagram.bytes else {
                    counters.oversized += 1;
                    return;
                };
                counters.udp_queries += 1;
                let client = Client {
                    endpoint,
                    address: datagram.from,
                    server,
                    connection: None,
                };
                core.handle_query(now, client, message);
            });
        if let Err(error) = received
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!(%error, "reading queries failed");
        }
        self.carry_out(now);
    }

    fn serve_connects(&mut self, now: Moment, family: Family, lane: Lane) {
        for _ in 0..ACCEPTS {
            let Some(sockets) = self.listeners.lane(family, lane) else {
                return;
            };
            match sockets.tcp.accept() {
                Ok((socket, address)) => {
                    let Some(&endpoint) = self.endpoints.get(&address.ip()) else {
                        self.counters.unknown_source += 1;
                        continue;
                    };
                    match self
                        .connections
                        .accept(&self.poller, now, endpoint, address, socket)
                    {
                        Ok(()) => self.counters.connections += 1,
                        Err(_) => self.counters.connections_refused += 1,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client took its connection back before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    self.watch_connects(Interest::NONE);
                    self.accept_at = Some(now.after(ACCEPT_REST));
                    return;
                }
            }
        }
    }

    fn serve_port(&mut self, now: Moment, port: PortToken) {
        let Some(socket) = self.upstreams.socket(port) else {
            return;
        };
        // One at a time: with many ports there is rarely a second one, and looking for it costs as
        // much as reading it. The poller tells of what is left.
        match socket.recv_from(&mut self.room) {
            Ok((length, from)) => {
                self.counters.udp_upstream += 1;
                if let Some(message) = self.room.get(..length) {
                    self.core
                        .handle_reply(now, from, Via::Udp(port.slot), message);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::debug!(%error, "reading a reply failed"),
        }
        self.carry_out(now);
    }

    fn serve_client(&mut self, now: Moment, id: ConnectionId, broken: bool) {
        if let Some((client, messages)) = self.connections.serve_client(now, id, broken) {
            self.counters.tcp_queries += messages.len() as u64;
            for message in messages {
                self.core.handle_query(now, client, &message);
            }
        }
        self.carry_out(now);
        self.settle(now, id);
    }

    fn serve_resolver(&mut self, now: Moment, id: ConnectionId, index: u8, broken: bool) {
        if let Some((server, messages, lost)) = self.connections.serve_resolver(id, index, broken) {
            self.counters.tcp_upstream += messages.len() as u64;
            for message in messages {
                self.core.handle_reply(now, server, Via::Tcp(id), &message);
            }
            if let Some(lost) = lost {
                self.lose(now, lost);
            }
        }
        self.carry_out(now);
        self.settle(now, id);
    }

    fn obey(&mut self, now: Moment, message: ControlMsg) {
        match message {
            ControlMsg::Snapshot(snapshot) => self.adopt(now, *snapshot),
            ControlMsg::Restore(restored) => {
                self.core.handle_restore(now, *restored);
                self.carry_out(now);
            }
            ControlMsg::CacheRows { endpoint, answer } => {
                // Whoever asked may have gone.
                let _ = answer.send(self.core.cache(now, endpoint));
            }
            ControlMsg::Remembered(answer) => {
                let _ = answer.send(self.core.remembered(now));
            }
            ControlMsg::Clean {
                endpoint,
                pattern,
                answer,
            } => {
                let cleaned = self.core.handle_clean(now, endpoint, pattern.as_ref());
                self.carry_out(now);
                let _ = answer.send(cleaned);
            }
            ControlMsg::Counters(answer) => {
                let open = self.connections.count() as u64;
                let counters = ShardCounters {
                    connections_open: open,
                    ..self.counters
                };
                let _ = answer.send((counters, self.core.counters()));
            }
            ControlMsg::Usage { endpoint, answer } => {
                let _ = answer.send(self.core.usage(endpoint));
            }
            ControlMsg::NamesOf {
                endpoint,
                address,
                answer,
            } => {
                let _ = answer.send(self.core.names_of(endpoint, address).to_vec());
            }
            // Ends the loop itself.
            ControlMsg::Stop => {}
        }
    }

    fn adopt(&mut self, now: Moment, snapshot: Snapshot) {
        self.endpoints = snapshot
            .endpoints
            .iter()
            .flat_map(|endpoint| endpoint.addresses.iter().map(|ip| (*ip, endpoint.id)))
            .collect();
        // An address may belong to another endpoint than when the connection was made.
        let endpoints = &self.endpoints;
        let orphans = self
            .connections
            .orphans(|client| endpoints.get(&client.address.ip()) == Some(&client.endpoint));
        self.core.handle_snapshot(now, snapshot);
        for id in orphans {
            self.close(now, id);
        }
        self.carry_out(now);
    }

    fn expire(&mut self, now: Moment) {
        self.core.handle_timeout(now);
        if self.next_sweep <= now {
            self.next_sweep = now.after(SWEEP);
            for id in self.connections.idle(now) {
                self.counters.connections_idle += 1;
                self.close(now, id);
            }
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.watch_connects(Interest::READ);
        }
        self.carry_out(now);
    }
}
