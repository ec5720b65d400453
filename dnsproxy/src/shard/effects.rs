//! Carrying out what the core asks for, in its order.
//!
//! In:  the core's effects.
//! Out: bytes on sockets, map writes, records; proofs and failures back into the core.
//! Not here: inputs and the loop (`shard`).

use std::net::SocketAddr;

use dnsproxy_core::{
    Batch, Client, ConnectionId, Effect, ExchangeId, Installed, LearnedWriter, Moment, PortSlot,
    QueryRecord, Transport,
};

use super::Shard;
use crate::{
    connections::Lost,
    listeners::FamilySockets,
    opener::Family,
    poller::{Interest, Token},
};

impl<W: LearnedWriter, R: FnMut(QueryRecord)> Shard<W, R> {
    /// Carries out everything the core asks for, in its order.
    pub(super) fn carry_out(&mut self, now: Moment) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Forward {
                    exchange,
                    server,
                    transport,
                    slot,
                    connection,
                    message,
                } => match (transport, connection) {
                    (Transport::Udp, _) => self.forward_udp(now, exchange, slot, server, &message),
                    (Transport::Tcp, Some(id)) => {
                        self.forward_tcp(now, exchange, id, server, &message);
                    }
                    (Transport::Tcp, None) => self.lose(
                        now,
                        Lost {
                            exchanges: vec![exchange],
                            reason: "no connection of a client to belong to".into(),
                        },
                    ),
                },
                Effect::Reply { client, message } => self.reply(now, client, message),
                Effect::Install(batch) => self.install(now, batch),
                Effect::Release {
                    client,
                    message,
                    proof,
                } => self.release(now, client, message, proof),
                Effect::Close(id) => self.close(now, id),
                Effect::Record(record) => (self.records)(record),
            }
        }
    }

    fn forward_udp(
        &mut self,
        now: Moment,
        exchange: ExchangeId,
        slot: PortSlot,
        server: SocketAddr,
        message: &[u8],
    ) {
        let sent = self
            .upstreams
            .send(&self.poller, now, slot, server, message);
        if let Err(error) = sent {
            self.lose(
                now,
                Lost {
                    exchanges: vec![exchange],
                    reason: error.to_string(),
                },
            );
        }
    }

    fn forward_tcp(
        &mut self,
        now: Moment,
        exchange: ExchangeId,
        id: ConnectionId,
        server: SocketAddr,
        message: &[u8],
    ) {
        let opener = &self.upstreams.opener;
        let sent = self
            .connections
            .forward(&self.poller, opener, id, exchange, server, message);
        match sent {
            Ok(()) => self.settle(now, id),
            Err(lost) => self.lose(now, lost),
        }
    }

    fn install(&mut self, now: Moment, batch: Batch) {
        match batch.install(&mut self.writer) {
            Ok(proof) => self.core.handle_installed(now, proof),
            Err(failed) => {
                self.counters.installs_failed += 1;
                self.core.handle_install_failed(now, failed);
            }
        }
    }

    /// The proof is spent here: an answer that teaches has no other way out.
    fn release(&mut self, now: Moment, client: Client, message: Vec<u8>, _proof: Installed) {
        self.reply(now, client, message);
    }

    fn reply(&mut self, now: Moment, client: Client, message: Vec<u8>) {
        let Some(id) = client.connection else {
            self.replies.push(client.server, client.address, message);
            return;
        };
        if self.connections.reply(now, id, &message) {
            self.counters.replies += 1;
        } else {
            self.counters.replies_lost += 1;
        }
        self.settle(now, id);
    }

    pub(super) fn lose(&mut self, now: Moment, lost: Lost) {
        for exchange in lost.exchanges {
            self.counters.unreachable += 1;
            self.core
                .handle_unreachable(now, exchange, lost.reason.clone());
        }
    }

    /// Sends the datagrams of this turn of the loop.
    pub(super) fn flush(&mut self) {
        let v6 = self.listeners.v6.as_ref().map(|sockets| &sockets.raw);
        let flushed = self.replies.flush(&self.listeners.v4.raw, v6);
        self.counters.replies += flushed.sent;
        self.counters.replies_lost += flushed.failed;
    }

    pub(super) fn settle(&mut self, now: Moment, id: ConnectionId) {
        if self.connections.settle(&self.poller, id) {
            self.close(now, id);
        }
    }

    /// The core hears of it; what it makes of that is carried out before the turn ends.
    pub(super) fn close(&mut self, now: Moment, id: ConnectionId) {
        self.connections.close(id);
        self.core.handle_connection_closed(now, id);
    }

    pub(super) fn watch_connects(&self, interest: Interest) {
        for family in [Family::V4, Family::V6] {
            let lanes = self.listeners.of(family).into_iter();
            for (lane, sockets) in lanes.flat_map(FamilySockets::lanes) {
                let token = Token::Connects(family, lane);
                if let Err(error) = self.poller.change(&sockets.tcp, token, interest) {
                    tracing::warn!(%error, "watching a listener failed");
                }
            }
        }
    }
}
