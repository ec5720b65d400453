//! A resolver that sends what no resolver should.
//!
//! In:  a namespace, the address to listen on, and what to send for every question, in order.
//! Out: a thread that does so until it is dropped.
//! Not here: what a victim should make of it (`tests/resolvers.rs`).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use support::Netns;

use crate::wire::{self, Kind};

/// One thing to send for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// Bytes that are no DNS message.
    Garbage,
    /// A header that promises records which are not there.
    CutShort,
    /// The question back, as if it were an answer to nobody.
    Echo,
    /// The right question, this address, another id.
    WrongId(IpAddr),
    /// The right id, this address, another name.
    WrongQuestion(IpAddr),
    /// The right id and question, this address, sent from another port of the server.
    WrongPort(IpAddr),
    /// The right id and question, this address, sent from another server.
    WrongServer(IpAddr, IpAddr),
    /// 9,000 bytes: this address, then noise that no record explains.
    Oversized(IpAddr),
    /// An honest reply with this address.
    Honest(IpAddr),
}

/// The running resolver.
#[derive(Debug)]
pub struct Strange {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Strange {
    /// Starts to answer on port 53 of an address.
    pub fn start(netns: &Netns, address: &str, script: Vec<Send>) -> Result<Self> {
        let address: IpAddr = address.parse()?;
        let socket = netns.run(|| UdpSocket::bind((address, 53)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (stop, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = netns.thread(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                counted.fetch_add(1, Ordering::Relaxed);
                let message = buffer.get(..length).context("more than was received")?;
                for send in &script {
                    perform(&socket, client, message, *send)?;
                }
            }
            Ok(())
        })?;
        Ok(Self {
            stop,
            asked,
            thread: Some(thread),
        })
    }

    /// How many questions it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends it; an error when it could not send what it should.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .map_or(Ok(()), |thread| support::netns::join(thread)?)
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn perform(socket: &UdpSocket, client: SocketAddr, message: &[u8], send: Send) -> Result<()> {
    let id = wire::id(message).context("a question without an id")?;
    let question = wire::question_of(message).context("a question without a question")?;
    let own = socket.local_addr()?;
    let bytes = match send {
        Send::Garbage => vec![0xa5; 37],
        Send::CutShort => {
            let mut bytes = id.to_be_bytes().to_vec();
            bytes.extend([0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0]);
            bytes.extend(question);
            bytes.extend([0xc0, 12, 0, 1, 0, 1]);
            bytes
        }
        Send::Echo => message.to_vec(),
        Send::WrongId(address) => wire::reply(id.wrapping_add(1), question, address, 300),
        Send::WrongQuestion(address) => {
            wire::reply(id, &wire::question("elsewhere.test", Kind::A), address, 300)
        }
        Send::WrongPort(address) | Send::WrongServer(address, _) | Send::Honest(address) => {
            wire::reply(id, question, address, 300)
        }
        Send::Oversized(address) => {
            let mut bytes = wire::reply(id, question, address, 300);
            if let Some(count) = bytes.get_mut(6..8) {
                count.copy_from_slice(&[0x10, 0]);
            }
            bytes.resize(9000, 0xc0);
            bytes
        }
    };
    match send {
        Send::WrongPort(_) => UdpSocket::bind((own.ip(), 0))?.send_to(&bytes, client)?,
        Send::WrongServer(_, other) => UdpSocket::bind((other, 53))?.send_to(&bytes, client)?,
        _ => socket.send_to(&bytes, client)?,
    };
    Ok(())
}
