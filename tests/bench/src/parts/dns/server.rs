//! A resolver that answers at once, whatever it is asked.
//!
//! In:  a socket.
//! Out: for every question one address, which belongs to the name's number alone.
//! Not here: being right about anything.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg},
};

use super::cpu::Cpu;
use crate::parts::dns::client::number_of;

const BATCH: usize = 64;
const ROOM: usize = 512;
const NAME: &str = "bench-server";
/// Names lead to addresses from here on.
const FIRST: Ipv4Addr = Ipv4Addr::new(60, 0, 0, 0);

/// The server's thread.
#[derive(Debug)]
pub(super) struct Server {
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub(super) cpu: Cpu,
}

impl Server {
    pub(super) fn start(socket: UdpSocket) -> anyhow::Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || serve(&socket, &ended))?;
        let cpu = support::until(Duration::from_secs(5), "the server's thread", || {
            Cpu::thread(NAME).ok()
        })
        .context("starting the server")?;
        Ok(Self {
            done,
            thread: Some(thread),
            cpu,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, done: &AtomicBool) {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut outgoing = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut buffer = vec![0; BATCH * ROOM];
    let mut replies: Vec<Vec<u8>> = Vec::new();
    let mut clients: Vec<Option<SockaddrIn>> = Vec::new();
    while !done.load(Ordering::Acquire) {
        replies.clear();
        clients.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffer
            .chunks_exact_mut(ROOM)
            .map(|room| [IoSliceMut::new(room)])
            .collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            flags,
            None,
        ) {
            Ok(received) => {
                for message in received {
                    let reply = message.iovs().next().and_then(reply);
                    if let (Some(reply), Some(client)) = (reply, message.address) {
                        replies.push(reply);
                        clients.push(Some(client));
                    }
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(_) => return,
        }
        let parts: Vec<[IoSlice<'_>; 1]> =
            replies.iter().map(|reply| [IoSlice::new(reply)]).collect();
        // What does not fit is lost, as anywhere.
        let _ = sendmmsg(
            socket.as_raw_fd(),
            &mut outgoing,
            &parts,
            &clients,
            [],
            MsgFlags::empty(),
        );
    }
}

/// The query itself with one answer that points to its name.
fn reply(query: &[u8]) -> Option<Vec<u8>> {
    let address = Ipv4Addr::from_bits(FIRST.to_bits() + number_of(query)?);
    let mut reply = query.to_vec();
    *reply.get_mut(2)? = 0x81;
    *reply.get_mut(3)? = 0x80;
    *reply.get_mut(7)? = 1;
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
    reply.extend(address.octets());
    Some(reply)
}
