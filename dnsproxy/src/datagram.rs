//! Datagrams, many per system call.
//!
//! In:  a transparent UDP socket with something to read.
//! Out: each datagram with its sender and the address it was going to before it was steered.
//! Not here: what they say (`dnsproxy-core`).

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, SockaddrIn6,
        SockaddrStorage, recvmmsg,
    },
};

/// One datagram.
#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) from: SocketAddr,
    /// Where it was going before it was steered, if the socket tells.
    pub(crate) to: Option<SocketAddr>,
    /// Its bytes; none when it did not fit the buffer.
    pub(crate) bytes: Option<&'a [u8]>,
}

/// Room for one batch of datagrams. One inbox reads sockets of one family: the system shortens the
/// room for addresses and control messages to what it used, and it is used again.
pub(crate) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    buffer: Vec<u8>,
    each: usize,
}

impl Inbox {
    /// Room for `batch` datagrams of up to `each` bytes.
    pub(crate) fn new(batch: usize, each: usize) -> Self {
        Self {
            headers: headers(batch),
            buffer: vec![0; batch * each],
            each,
        }
    }

    /// Hands on what is there, at most one batch; how many datagrams that was.
    ///
    /// # Errors
    /// The error that the socket reports, `WouldBlock` when there is nothing.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
        mut consume: impl FnMut(Datagram<'_>),
    ) -> io::Result<usize> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffer
            .chunks_exact_mut(self.each)
            .map(|room| [IoSliceMut::new(room)])
            .collect();
        let batch = slices.len();
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )
        .map_err(io::Error::from)?;
        let mut count = 0;
        let mut whole = true;
        for message in received {
            count += 1;
            let to = destination(&message);
            whole &= to.is_some();
            if let Some(from) = message.address.as_ref().and_then(address) {
                let bytes = (!message.flags.contains(MsgFlags::MSG_TRUNC))
                    .then(|| message.iovs().next().unwrap_or_default());
                consume(Datagram { from, to, bytes });
            }
        }
        // One datagram without a destination must not cost the next ones theirs.
        if !whole {
            self.headers = headers(batch);
        }
        Ok(count)
    }
}

fn headers(batch: usize) -> MultiHeaders<SockaddrStorage> {
    MultiHeaders::preallocate(batch, Some(cmsg_space!(libc::sockaddr_in6)))
}

fn destination(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<SocketAddr> {
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => {
            Some(SocketAddrV4::from(SockaddrIn::from(to)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(to) => {
            Some(SocketAddrV6::from(SockaddrIn6::from(to)).into())
        }
        _ => None,
    })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddrV6::from(*v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_batches_and_reports_what_does_not_fit() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = receiver.local_addr().unwrap();
        for length in [0, 1, 16, 17, 16, 16] {
            sender.send_to(&vec![7; length], target).unwrap();
        }
        let mut inbox = Inbox::new(4, 16);
        let mut lengths = Vec::new();
        for expected in [4, 2] {
            let count = inbox
                .receive(&receiver, |datagram| {
                    assert_eq!(datagram.from, sender.local_addr().unwrap());
                    assert_eq!(datagram.to, None);
                    lengths.push(datagram.bytes.map(<[u8]>::len));
                })
                .unwrap();
            assert_eq!(count, expected);
        }
        assert_eq!(
            lengths,
            [Some(0), Some(1), Some(16), None, Some(16), Some(16)]
        );
        let nothing = inbox.receive(&receiver, |_| panic!("nothing was sent"));
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
