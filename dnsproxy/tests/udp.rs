//! Datagrams through the proxy, with real sockets, steering and an unbound nobody here wrote.
//!
//! In:  root.
//! Out: what a client sees, what the map writer was told, what was counted.
//! Not here: TCP (`tcp`), decisions (`dnsproxy-core`'s own tests).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod world;

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use dnsproxy::ControlMsg;
use identity::EndpointId;
use policy::fqdn::Pattern;
use tokio::sync::oneshot;
use world::{CLIENT4, CLIENT6, NOBODY4, RESOLVER4, RESOLVER6, STRANGER4, World, message, snapshot};

fn server(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 53)
}

#[test]
fn both_families_are_answered_by_the_server_they_asked_after_the_maps_were_written() {
    let world = World::new();
    // dig refuses a reply that does not come from the address it asked.
    for (asked, qtype, expected) in [
        (RESOLVER4, "A", "203.0.113.1\n"),
        (RESOLVER6, "A", "203.0.113.1\n"),
        (RESOLVER4, "AAAA", "2001:db8:113::1\n"),
        (RESOLVER6, "AAAA", "2001:db8:113::1\n"),
    ] {
        let (status, output) = world.dig(&format!("+short @{asked} {qtype} a.example.test"));
        assert_eq!((status, output.as_str()), (0, expected), "{asked} {qtype}");
    }
    for (local, asked) in [(CLIENT4, RESOLVER4), (CLIENT6, RESOLVER6)] {
        let socket = world.datagrams(local);
        let query = message::query(0xbeef, "A.eXample.TEST", 1);
        socket.send_to(&query, server(asked)).unwrap();
        let mut room = [0; 1500];
        let (length, from) = socket.recv_from(&mut room).unwrap();
        assert_eq!(from, server(asked));
        assert_eq!(message::id(&room[..length]), 0xbeef);
        assert_eq!(message::answers(&room[..length]), 1);
        // The question comes back in the case it was asked in.
        assert_eq!(room[12..query.len()], query[12..]);
    }
    let addresses: Vec<String> = world
        .written()
        .puts
        .iter()
        .map(|learned| learned.address.to_string())
        .collect();
    assert!(addresses.contains(&"203.0.113.1".into()), "{addresses:?}");
    assert!(
        addresses.contains(&"2001:db8:113::1".into()),
        "{addresses:?}"
    );
    assert_eq!(world.cache().len(), 1);
    let (sockets, core) = world.counters();
    assert_eq!((sockets.udp_queries, sockets.replies), (6, 6));
    assert_eq!((core.taught, sockets.replies_lost), (6, 0));
    assert!(
        world
            .records()
            .iter()
            .any(|record| record.server == server(RESOLVER6))
    );
}

#[test]
fn four_kilobytes_arrive_in_one_datagram() {
    let world = World::new();
    for asked in [RESOLVER4, RESOLVER6] {
        let (status, output) = world.dig(&format!(
            "+ignore +bufsize=4096 +notcp @{asked} TXT big.example.test"
        ));
        assert_eq!(status, 0, "{output}");
        assert!(output.contains("x0018\""), "{asked}: {output}");
        assert!(output.contains("(UDP)"), "{output}");
        assert!(!output.contains("flags: qr aa tc"), "{output}");
        let size: usize = output
            .lines()
            .find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "))
            .unwrap()
            .parse()
            .unwrap();
        assert!(size > 3800, "{size}");
    }
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    let world = World::new();
    for asked in [RESOLVER4, RESOLVER6] {
        let (status, output) = world.dig(&format!("@{asked} TXT huge.example.test"));
        assert_eq!(status, 0, "{output}");
        assert!(output.contains("retrying in TCP mode"), "{output}");
        assert!(output.contains("x0099\""), "{output}");
    }
}

#[test]
fn two_thousand_queries_at_once_are_all_answered() {
    let world = World::new();
    let socket = world.datagrams(CLIENT4);
    socket2::SockRef::from(&socket)
        .set_recv_buffer_size(8 << 20)
        .unwrap();
    let count = 2000;
    let start = Instant::now();
    for n in 0..count {
        let query = message::query(n, &format!("n{n}.example.test"), 1);
        socket.send_to(&query, server(RESOLVER4)).unwrap();
    }
    let mut rcodes: HashMap<u8, u16> = HashMap::new();
    let mut seen = vec![false; usize::from(count)];
    let mut room = [0; 1500];
    for _ in 0..count {
        let (length, _) = socket.recv_from(&mut room).unwrap();
        let answer = &room[..length];
        let place = &mut seen[usize::from(message::id(answer))];
        assert!(!*place, "answered twice");
        *place = true;
        *rcodes.entry(message::rcode(answer)).or_default() += 1;
        assert!(message::rcode(answer) != 0 || message::answers(answer) == 1);
    }
    println!("{count} queries in {:?}: {rcodes:?}", start.elapsed());
    // 1,024 may be in flight; what comes on top of that is refused at once (SERVFAIL), not lost.
    let answered = rcodes.get(&0).copied().unwrap_or(0);
    let refused = rcodes.get(&2).copied().unwrap_or(0);
    assert_eq!(answered + refused, count);
    assert!(answered >= 1024, "{rcodes:?}");
    let (sockets, core) = world.counters();
    assert_eq!(core.over_limit, u64::from(refused));
    assert_eq!(sockets.replies_lost, 0);
    assert_eq!(world.written().puts.len(), usize::from(answered));
}

#[test]
fn a_silent_resolver_costs_only_those_who_ask_it() {
    let world = World::new();
    let socket = world.datagrams(CLIENT4);
    for n in 0..50 {
        let query = message::query(n, "a.example.test", 1);
        socket.send_to(&query, server(NOBODY4)).unwrap();
    }
    let (status, output) = world.dig(&format!("+short @{RESOLVER4} a.example.test"));
    assert_eq!((status, output.as_str()), (0, "203.0.113.1\n"));
    // Silence of the resolver is silence towards the client.
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let silence = socket.recv_from(&mut [0; 1500]).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn who_is_no_endpoint_gets_nothing() {
    let world = World::new();
    let socket = world.datagrams(STRANGER4);
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let query = message::query(1, "a.example.test", 1);
    socket.send_to(&query, server(RESOLVER4)).unwrap();
    assert!(socket.recv_from(&mut [0; 1500]).is_err());
    let (sockets, _) = world.counters();
    assert_eq!((sockets.unknown_source, sockets.udp_queries), (1, 0));
    assert!(world.written().puts.is_empty());
}

#[test]
fn garbage_and_oversized_datagrams_change_nothing() {
    let world = World::new();
    let socket = world.datagrams(CLIENT4);
    for length in [0, 1, 11, 12, 40, 1400] {
        socket
            .send_to(&vec![0xff; length], server(RESOLVER4))
            .unwrap();
    }
    let (status, output) = world.dig(&format!("+short @{RESOLVER4} a.example.test"));
    assert_eq!((status, output.as_str()), (0, "203.0.113.1\n"));
    assert_eq!(world.counters().1.garbage, 6);
}

#[test]
fn an_answer_that_could_not_be_written_is_not_released() {
    let world = World::new();
    world.written().full = true;
    let (_, output) = world.dig(&format!("@{RESOLVER4} a.example.test"));
    assert!(output.contains("status: SERVFAIL"), "{output}");
    assert!(!output.contains("203.0.113.1"), "{output}");
    assert!(world.counters().0.installs_failed > 0);
    world.written().full = false;
    let (_, output) = world.dig(&format!("+short @{RESOLVER4} a.example.test"));
    assert_eq!(output, "203.0.113.1\n");
}

#[test]
fn a_snapshot_changes_whose_address_it_is() {
    let world = World::new();
    let other = EndpointId::new(8);
    world.tell(ControlMsg::Snapshot(Box::new(snapshot(2, other))));
    world.dig(&format!("+short @{RESOLVER4} a.example.test"));
    let put = world.written().puts.last().unwrap().clone();
    assert_eq!(put.endpoint, other);
}

#[test]
fn names_are_forgotten_when_an_operator_says_so() {
    let world = World::new();
    let ask = |name: &str| world.dig(&format!("+short @{RESOLVER4} A {name}")).0;
    assert_eq!((ask("a.example.test"), ask("n1.example.test")), (0, 0));
    let clean = |pattern: Option<&str>| {
        let (answer, cleaned) = oneshot::channel();
        world.tell(ControlMsg::Clean {
            endpoint: None,
            pattern: pattern.map(|text| Pattern::parse(text).unwrap()),
            answer,
        });
        let cleaned = cleaned.blocking_recv().unwrap();
        (cleaned.names, cleaned.addresses, world.written().removes)
    };
    assert_eq!(clean(Some("c.example.test")), (0, 0, 0));
    let (names, addresses, removes) = clean(Some("a.example.test"));
    // By the time of the answer the kernel knows.
    assert_eq!((names, addresses), (1, removes));
    let left = world.cache();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(clean(None).0, 1);
    assert_eq!(world.cache(), []);
}

#[test]
fn a_raw_reply_socket_hears_nothing() {
    let world = World::new();
    for _ in 0..20 {
        world.dig(&format!("+short @{RESOLVER4} a.example.test"));
    }
    let raw = world.gateway.output("cat", &["/proc/net/raw"]).unwrap();
    let bound = raw.stdout.lines().find(|line| line.contains(" 350200C0:"));
    let fields: Vec<&str> = bound.unwrap().split_whitespace().collect();
    // tx_queue:rx_queue, and drops as the last field.
    assert_eq!(
        (fields[4], fields[12]),
        ("00000000:00000000", "0"),
        "{raw:?}"
    );
}
