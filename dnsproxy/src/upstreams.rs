//! The source ports that UDP queries leave from.
//!
//! In:  a message, a resolver, the port slot that the core picked.
//! Out: the datagram on its way; replies with the slot they came in on.
//! Not here: picking slots, pairing replies (`dnsproxy-core`), TCP (`connections`).
//!
//! Each slot keeps one unconnected socket per family and takes a new one, with a new random port,
//! after a number of queries. The old one stays open until its replies have come or timed out.

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use dnsproxy_core::{Moment, PortSlot, Transport};

use crate::{
    opener::{Family, Opener, PerFamily},
    poller::{Interest, Poller, PortToken, Token},
};

/// Queries that leave from one port before it is given up.
const USES: u32 = 4096;
/// How long replies to a given-up port are still read: longer than any exchange lasts.
const REST: Duration = Duration::from_secs(30);

/// The source ports of one shard.
pub struct Upstreams {
    pub(crate) opener: Opener,
    /// By the number of the slot.
    slots: PerFamily<Vec<Slot>>,
}

/// Two places, so that one port can rest while the other is used.
#[derive(Default, Debug)]
struct Slot {
    places: [Option<Port>; 2],
    second: bool,
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    uses: u32,
    last_used: Moment,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

impl Upstreams {
    /// Opens nothing yet: each port is opened when the core first picks its slot.
    pub fn new(opener: Opener) -> Self {
        Self {
            opener,
            slots: PerFamily::new(Vec::new),
        }
    }

    /// Sends a query from the port behind `slot`.
    pub(crate) fn send(
        &mut self,
        poller: &Poller,
        now: Moment,
        slot: PortSlot,
        server: SocketAddr,
        message: &[u8],
    ) -> io::Result<()> {
        let family = Family::of(&server);
        let slots = self.slots.of_mut(family);
        let at = usize::from(slot.0);
        if slots.len() <= at {
            slots.resize_with(at + 1, Slot::default);
        }
        let Some(entry) = slots.get_mut(at) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        entry.rotate(now);
        let second = entry.second;
        let [first_place, second_place] = &mut entry.places;
        let place = if second { second_place } else { first_place };
        let port = match place {
            Some(port) => port,
            None => {
                let socket = UdpSocket::from((self.opener)(family, Transport::Udp)?);
                let token = Token::Port(PortToken {
                    family,
                    slot,
                    second,
                });
                poller.add(&socket, token, Interest::READ)?;
                place.insert(Port {
                    socket,
                    uses: 0,
                    last_used: now,
                })
            }
        };
        port.uses = port.uses.saturating_add(1);
        port.last_used = now;
        match port.socket.send_to(message, server) {
            // An error that an earlier datagram caused is reported once; this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                port.socket.send_to(message, server)?;
            }
            sent => {
                sent?;
            }
        }
        Ok(())
    }

    /// The socket behind a token, if it is still there.
    pub(crate) fn socket(&self, token: PortToken) -> Option<&UdpSocket> {
        let slots = self.slots.of(token.family);
        let slot = slots.get(usize::from(token.slot.0))?;
        let [first, second] = &slot.places;
        let place = if token.second { second } else { first };
        place.as_ref().map(|port| &port.socket)
    }
}

impl Slot {
    /// Changes to the other place when this one's port is worn and the other's has rested.
    fn rotate(&mut self, now: Moment) {
        let [first, second] = &mut self.places;
        let (current, other) = if self.second {
            (second, first)
        } else {
            (first, second)
        };
        let worn = current.as_ref().is_some_and(|port| port.uses >= USES);
        let free = other
            .as_ref()
            .is_none_or(|port| now.since(port.last_used) > REST);
        if worn && free {
            *other = None;
            self.second = !self.second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opener::local_opener;

    #[test]
    fn a_worn_port_is_replaced_and_still_heard() {
        let poller = Poller::new().unwrap();
        let mut upstreams = Upstreams::new(local_opener());
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let slot = PortSlot(3);
        let start = Moment::BOOT.after(Duration::from_secs(1));
        let mut room = [0; 8];
        let mut port_at = |upstreams: &mut Upstreams, now| {
            upstreams.send(&poller, now, slot, target, b"q").unwrap();
            server.recv_from(&mut room).unwrap().1
        };
        let first = port_at(&mut upstreams, start);
        for _ in 1..USES {
            assert_eq!(port_at(&mut upstreams, start), first);
        }
        let second = port_at(&mut upstreams, start);
        assert_ne!(second.port(), first.port());
        let token = |second| PortToken {
            family: Family::V4,
            slot,
            second,
        };
        // Both are read: replies to the first may be under way.
        for place in [false, true] {
            assert!(upstreams.socket(token(place)).is_some());
        }
        // Worn again at once: the first has not rested, so the second goes on.
        for _ in 1..USES {
            port_at(&mut upstreams, start);
        }
        assert_eq!(port_at(&mut upstreams, start), second);
        let later = start.after(REST + Duration::from_secs(1));
        let third = port_at(&mut upstreams, later);
        assert_ne!(third.port(), second.port());
    }
}
