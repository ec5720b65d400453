//! Streams through the proxy: framing, order, limits, and everything that ends a connection.
//!
//! In:  root.
//! Out: what a client sees and what was counted.
//! Not here: datagrams (`udp`), decisions (`dnsproxy-core`'s own tests).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod world;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use dnsproxy::{ControlMsg, TcpLimits};
use identity::EndpointId;
use support::wait::until_true;
use world::{NOBODY4, OWN4, RESOLVER4, RESOLVER6, STRANGER4, World, message, snapshot};

/// Accepts connections at [`OWN4`] in the resolver's namespace.
fn own_resolver(world: &World) -> TcpListener {
    let address = SocketAddr::new(OWN4.parse().unwrap(), 53);
    world
        .resolver
        .run(|| TcpListener::bind(address))
        .unwrap()
        .unwrap()
}

fn closed(stream: &mut TcpStream) -> bool {
    matches!(message::read(stream), Ok(None) | Err(_))
}

#[test]
fn both_families_are_answered() {
    let world = World::new();
    for asked in [RESOLVER4, RESOLVER6] {
        let (status, output) = world.dig(&format!("+tcp +short @{asked} a.example.test"));
        assert_eq!((status, output.as_str()), (0, "203.0.113.1\n"));
        let (_, output) = world.dig(&format!("+tcp @{asked} TXT huge.example.test"));
        assert!(output.contains("x0099\""), "{output}");
    }
    assert!(!world.written().puts.is_empty());
    let open = || world.counters().0.connections_open;
    until_true(Duration::from_secs(2), "closing", || open() == 0).unwrap();
}

#[test]
fn three_hundred_pipelined_queries_share_one_connection() {
    let world = World::new();
    for asked in [RESOLVER4, RESOLVER6] {
        let mut stream = world.connect(asked);
        assert_eq!(stream.peer_addr().unwrap().ip().to_string(), asked);
        let all: Vec<u8> = (0..300)
            .flat_map(|n| message::framed(&message::query(n, &format!("n{n}.example.test"), 1)))
            .collect();
        stream.write_all(&all).unwrap();
        let mut ids = BTreeSet::new();
        for _ in 0..300 {
            let answer = message::read(&mut stream).unwrap().unwrap();
            assert_eq!((message::rcode(&answer), message::answers(&answer)), (0, 1));
            ids.insert(message::id(&answer));
        }
        assert_eq!(ids, (0..300).collect());
    }
    assert_eq!(world.counters().0.connections, 2);
}

#[test]
fn messages_may_be_cut_anywhere() {
    let world = World::new();
    let mut stream = world.connect(RESOLVER4);
    stream.set_nodelay(true).unwrap();
    let two = [
        message::framed(&message::query(1, "n1.example.test", 1)),
        message::framed(&message::query(2, "n2.example.test", 1)),
    ]
    .concat();
    for byte in two {
        stream.write_all(&[byte]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    let mut ids: Vec<u16> = (0..2)
        .map(|_| message::id(&message::read(&mut stream).unwrap().unwrap()))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn replies_may_come_out_of_order() {
    let world = World::new();
    let resolver = own_resolver(&world);
    let mut stream = world.connect(OWN4);
    for n in 0..10 {
        message::send(
            &mut stream,
            &message::query(n, &format!("n{n}.example.test"), 1),
        );
    }
    let (mut upstream, _) = resolver.accept().unwrap();
    let queries: Vec<Vec<u8>> = (0..10)
        .map(|_| message::read(&mut upstream).unwrap().unwrap())
        .collect();
    for query in queries.iter().rev() {
        message::send(&mut upstream, &message::empty_answer(query));
    }
    let ids: Vec<u16> = (0..10)
        .map(|_| message::id(&message::read(&mut stream).unwrap().unwrap()))
        .collect();
    assert_eq!(ids, (0..10).rev().collect::<Vec<_>>());
}

#[test]
fn a_client_that_has_said_everything_still_gets_its_answers() {
    let world = World::new();
    let mut stream = world.connect(RESOLVER4);
    message::send(&mut stream, &message::query(9, "a.example.test", 1));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        message::id(&message::read(&mut stream).unwrap().unwrap()),
        9
    );
    assert_eq!(message::read(&mut stream).unwrap(), None);
}

#[test]
fn a_refused_upstream_connection_is_a_failure_at_once() {
    let world = World::new();
    let start = Instant::now();
    let (_, output) = world.dig(&format!("+tcp @{NOBODY4} a.example.test"));
    assert!(output.contains("status: SERVFAIL"), "{output}");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(world.counters().0.unreachable, 1);
}

#[test]
fn what_a_resolver_leaves_unanswered_fails_when_it_hangs_up() {
    let world = World::new();
    let resolver = own_resolver(&world);
    let mut stream = world.connect(OWN4);
    for n in 0..5 {
        message::send(
            &mut stream,
            &message::query(n, &format!("n{n}.example.test"), 1),
        );
    }
    let (mut upstream, _) = resolver.accept().unwrap();
    let first = message::read(&mut upstream).unwrap().unwrap();
    message::send(&mut upstream, &message::empty_answer(&first));
    for _ in 1..5 {
        message::read(&mut upstream).unwrap().unwrap();
    }
    drop(upstream);
    let mut rcodes: Vec<u8> = (0..5)
        .map(|_| message::rcode(&message::read(&mut stream).unwrap().unwrap()))
        .collect();
    rcodes.sort_unstable();
    assert_eq!(rcodes, [0, 2, 2, 2, 2]);
    // The client's connection lives on and gets a new one to the resolver.
    message::send(&mut stream, &message::query(7, "n7.example.test", 1));
    let (mut upstream, _) = resolver.accept().unwrap();
    let again = message::read(&mut upstream).unwrap().unwrap();
    message::send(&mut upstream, &message::empty_answer(&again));
    assert_eq!(
        message::id(&message::read(&mut stream).unwrap().unwrap()),
        7
    );
}

#[test]
fn the_upstream_connection_ends_with_the_clients() {
    let world = World::new();
    let resolver = own_resolver(&world);
    let mut stream = world.connect(OWN4);
    message::send(&mut stream, &message::query(1, "a.example.test", 1));
    let (mut upstream, _) = resolver.accept().unwrap();
    upstream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    message::read(&mut upstream).unwrap().unwrap();
    drop(stream);
    assert!(closed(&mut upstream));
}

#[test]
fn a_trickle_of_bytes_does_not_hold_a_connection() {
    let world = World::with_limits(TcpLimits {
        idle: Duration::from_secs(2),
        ..TcpLimits::default()
    });
    let start = Instant::now();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| world.connect(RESOLVER4)).collect();
    let bytes = message::framed(&message::query(1, "a.example.test", 1));
    let mut gone = 0;
    for byte in bytes.iter().cycle().take(20) {
        for stream in &mut slow {
            gone += usize::from(stream.write_all(&[*byte]).is_err());
        }
        if gone >= slow.len() {
            break;
        }
        thread::sleep(Duration::from_millis(300));
        // Everyone else is served meanwhile.
        let (_, output) = world.dig(&format!("+tcp +short @{RESOLVER4} a.example.test"));
        assert_eq!(output, "203.0.113.1\n");
    }
    assert!(slow.iter_mut().all(closed));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let (sockets, _) = world.counters();
    assert_eq!(
        (sockets.connections_idle, sockets.connections_open),
        (50, 0)
    );
}

#[test]
fn an_endpoint_has_so_many_connections_and_no_more() {
    let world = World::with_limits(TcpLimits {
        connections_per_endpoint: 4,
        ..TcpLimits::default()
    });
    let mut held: Vec<TcpStream> = (0..4).map(|_| world.connect(RESOLVER4)).collect();
    let all_open = || world.counters().0.connections_open == 4;
    until_true(Duration::from_secs(2), "four connections", all_open).unwrap();
    assert!(closed(&mut world.connect(RESOLVER6)));
    assert_eq!(world.counters().0.connections_refused, 1);
    for (n, stream) in held.iter_mut().enumerate() {
        message::send(stream, &message::query(n as u16, "a.example.test", 1));
        assert_eq!(
            message::id(&message::read(stream).unwrap().unwrap()),
            n as u16
        );
    }
    drop(held.pop());
    let one_left = || world.counters().0.connections_open == 3;
    until_true(Duration::from_secs(2), "one to go", one_left).unwrap();
    let (_, output) = world.dig(&format!("+tcp +short @{RESOLVER4} a.example.test"));
    assert_eq!(output, "203.0.113.1\n");
}

#[test]
fn a_client_that_never_reads_is_bounded_and_closed() {
    let world = World::with_limits(TcpLimits {
        idle: Duration::from_secs(2),
        ..TcpLimits::default()
    });
    let mut stream = world.connect(RESOLVER4);
    let written = {
        stream
            .set_write_timeout(Some(Duration::from_secs(6)))
            .unwrap();
        let batch: Vec<u8> = (0..200)
            .flat_map(|n| message::framed(&message::query(n, "huge.example.test", 16)))
            .collect();
        let mut written = 0;
        // The proxy stops reading, so the system's buffers fill and writing blocks, then fails.
        while let Ok(count) = stream.write(&batch) {
            written += count;
        }
        written
    };
    let closed = || world.counters().0.connections_open == 0;
    until_true(Duration::from_secs(20), "closing", closed).unwrap();
    let (sockets, _) = world.counters();
    assert_eq!(sockets.connections_idle, 1);
    // Far less was answered than asked: replies are 20 kB each, and few fit the buffers.
    assert!(
        sockets.tcp_queries < 20_000,
        "{sockets:?} after {written} bytes"
    );
    let (_, output) = world.dig(&format!("+tcp +short @{RESOLVER4} a.example.test"));
    assert_eq!(output, "203.0.113.1\n");
}

#[test]
fn garbage_on_a_stream_closes_it() {
    let world = World::new();
    let mut stream = world.connect(RESOLVER4);
    stream.write_all(&[0, 3, 1, 2, 3]).unwrap();
    assert!(closed(&mut stream));
}

#[test]
fn who_is_no_endpoint_is_disconnected() {
    let world = World::new();
    let from: SocketAddr = format!("{STRANGER4}:0").parse().unwrap();
    let to: SocketAddr = format!("{RESOLVER4}:53").parse().unwrap();
    let mut stream = world
        .client
        .run(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect(&to.into()).unwrap();
            TcpStream::from(socket)
        })
        .unwrap();
    assert!(closed(&mut stream));
    assert_eq!(world.counters().0.unknown_source, 1);
}

#[test]
fn an_address_that_changes_hands_loses_its_connections() {
    let world = World::new();
    let mut stream = world.connect(RESOLVER4);
    message::send(&mut stream, &message::query(1, "a.example.test", 1));
    message::read(&mut stream).unwrap().unwrap();
    let other = EndpointId::new(8);
    world.tell(ControlMsg::Snapshot(Box::new(snapshot(2, other))));
    assert!(closed(&mut stream));
}

#[test]
fn many_clients_at_once() {
    let world = World::new();
    let (done, finished) = mpsc::channel();
    for client in 0..100u16 {
        let mut stream = world.connect(if client % 2 == 0 {
            RESOLVER4
        } else {
            RESOLVER6
        });
        let done = done.clone();
        thread::spawn(move || {
            for n in 0..20 {
                let name = format!("n{}.example.test", client * 20 + n);
                message::send(&mut stream, &message::query(n, &name, 1));
                let answer = message::read(&mut stream).unwrap().unwrap();
                assert_eq!((message::id(&answer), message::rcode(&answer)), (n, 0));
            }
            let mut rest = Vec::new();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut rest).unwrap();
            done.send(rest.len()).unwrap();
        });
    }
    drop(done);
    assert_eq!(finished.iter().collect::<Vec<_>>(), vec![0; 100]);
    assert_eq!(world.counters().0.tcp_queries, 2000);
}
