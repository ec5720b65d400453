//! Traffic of the workload, everything on one processor.
//!
//! In:  the place, and how long.
//! Out: a rate or a time.
//! Not here: what is in its way (`subject`).
//!
//! Sender, network stack and receiver share a processor: what is measured is the work of all of
//! them together, not who waits for whom. A rate is the median of short windows, so that a moment
//! in which somebody else had the processor does not count.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, gettid},
};
use socket2::{Domain, Socket, Type};

use super::{engine::PORT, place::Place};

const WINDOW: Duration = Duration::from_millis(10);
/// Nothing here takes longer; then something is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Socket buffers: large enough that neither side waits for single packets.
const BUFFER: usize = 1 << 20;
const MESSAGE: usize = 64;

/// Keeps this thread on one processor, before everybody else's.
pub(super) fn pin() -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    // The last one: interrupts tend to go to the first.
    let last = std::thread::available_parallelism()?
        .get()
        .saturating_sub(1);
    set.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("choosing a processor")?;
    // Real time: a nice value counts only within a session (sched(7), "The autogroup feature").
    let thread = gettid().to_string();
    let status = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .status()
        .context("chrt is missing: install the package util-linux")?;
    ensure!(status.success(), "chrt ended with {status}");
    Ok(())
}

/// Counts by windows of time.
struct Windows {
    begun: Instant,
    count: u64,
    rates: Vec<f64>,
}

impl Windows {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            count: 0,
            rates: Vec::new(),
        }
    }

    fn add(&mut self, count: u64) {
        self.count += count;
        let elapsed = self.begun.elapsed();
        if elapsed >= WINDOW {
            self.rates.push(self.count as f64 / elapsed.as_secs_f64());
            self.count = 0;
            self.begun = Instant::now();
        }
    }

    /// A second, in the middle window.
    fn rate(mut self) -> anyhow::Result<f64> {
        self.rates.sort_by(f64::total_cmp);
        let middle = self.rates.get(self.rates.len() / 2);
        middle.copied().context("the time was too short")
    }
}

/// Runs both sides; the server says when it listens.
fn both<T: Send, R>(
    place: &Place,
    server: impl FnOnce(mpsc::Sender<()>) -> anyhow::Result<T> + Send,
    client: impl FnOnce() -> anyhow::Result<R> + Send,
) -> anyhow::Result<(T, R)>
where
    R: Send,
{
    std::thread::scope(|scope| {
        let (ready, listens) = mpsc::channel();
        let server = scope.spawn(|| {
            place.outside.run(|| {
                pin()?;
                server(ready)
            })?
        });
        // An error of the server closes the channel, and is the one to report.
        let client = if listens.recv().is_ok() {
            place.pod.run(|| {
                pin()?;
                client()
            })?
        } else {
            Err(anyhow::anyhow!("the server did not start"))
        };
        let Ok(server) = server.join() else {
            bail!("the server panicked");
        };
        Ok((server?, client?))
    })
}

fn listener(at: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&at.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// Bytes a second over one connection.
pub(super) fn stream(place: &Place, peer: Ipv4Addr, time: Duration) -> anyhow::Result<f64> {
    let at = SocketAddr::from((peer, PORT));
    let server = move |ready: mpsc::Sender<()>| {
        let listener = listener(at)?;
        ready.send(())?;
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = vec![0; 256 * 1024];
        // The window has opened by then.
        let settled = Instant::now() + time / 5;
        while Instant::now() < settled {
            ensure!(stream.read(&mut buffer)? > 0, "the sender went away");
        }
        let mut windows = Windows::new();
        let end = Instant::now() + time;
        while Instant::now() < end {
            let read = stream.read(&mut buffer)?;
            ensure!(read > 0, "the sender went away");
            windows.add(read as u64);
        }
        windows.rate()
    };
    let client = move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.connect_timeout(&at.into(), PATIENCE)?;
        let mut stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(PATIENCE))?;
        let data = vec![7; 64 * 1024];
        loop {
            match stream.write_all(&data) {
                Ok(()) => {}
                // The receiver has seen enough.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    Ok(both(place, server, client)?.0)
}

/// Connections a second: connect, ask, be answered, close; one after another.
pub(super) fn connects(place: &Place, peer: Ipv4Addr, time: Duration) -> anyhow::Result<f64> {
    let at = SocketAddr::from((peer, PORT));
    let done = AtomicBool::new(false);
    let server = |ready: mpsc::Sender<()>| {
        let listener = listener(at)?;
        ready.send(())?;
        let mut message = [0; MESSAGE];
        loop {
            let (mut stream, _) = listener.accept()?;
            if done.load(Ordering::Acquire) {
                return Ok(());
            }
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read_exact(&mut message)?;
            stream.write_all(&message)?;
        }
    };
    let client = || {
        let begin = Instant::now();
        let mut windows = Windows::new();
        let mut message = [7; MESSAGE];
        while begin.elapsed() < time {
            let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            // The server closes first.
            ensure!(stream.read(&mut message)? == 0, "more than was asked");
            drop(stream);
            windows.add(1);
        }
        windows.rate()
    };
    let client = || {
        let rate = client();
        done.store(true, Ordering::Release);
        // Wakes the server; if nothing gets through, its error is the one above.
        let _ = TcpStream::connect_timeout(&at, PATIENCE);
        rate
    };
    Ok(both(place, server, client)?.1)
}

/// Microseconds from a question by UDP to its answer.
pub(super) fn round_trip(place: &Place, peer: Ipv4Addr, time: Duration) -> anyhow::Result<f64> {
    let at = SocketAddr::from((peer, PORT));
    let server = move |ready: mpsc::Sender<()>| {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        ready.send(())?;
        let mut message = [0; MESSAGE];
        loop {
            let (length, from) = socket.recv_from(&mut message)?;
            if length == 0 {
                return Ok(());
            }
            socket.send_to(&message, from)?;
        }
    };
    let client = move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut message = [7; MESSAGE];
        let begin = Instant::now();
        let mut windows = Windows::new();
        while begin.elapsed() < time {
            socket.send(&message)?;
            socket.recv(&mut message)?;
            windows.add(1);
        }
        socket.send(&[])?;
        Ok(1e6 / windows.rate()?)
    };
    Ok(both(place, server, client)?.1)
}
