//! Real packets through a veth pair: both programs attached, by tcx and by clsact.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; benches share helpers they do not all use"
)]

mod pair;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use fqdn_ebpf_loader::{
    Attach, AttachError, Attached, Config, Datapath, Direction, DropReason, EndpointSpec, Marks,
    Passed, PolicyId, Sizes,
};
use identity::{AddressBook, EndpointId, LocalIdentities, reserved};
use pair::{NODE4, NODE6, POD4, POD6, Wire, ip, knows_tcx};
use policy::compiled::{
    Action, Direction as Way, EndpointPolicy, Entry, L4, Peer, PortPrefix, Precedence, Protocol,
    RuleSetId,
};
use socket2::{Domain, Socket, Type};

fn entry(way: Way, peer: Peer, l4: L4, action: Action) -> Entry {
    Entry {
        direction: way,
        peer,
        l4,
        action,
        precedence: Precedence::of(action),
        rule_set: RuleSetId::from_raw(0),
    }
}

fn load(marks: Marks, port: u16) -> Datapath {
    let identities = Arc::new(Mutex::new(LocalIdentities::default()));
    let config = Config::new(marks, port, 1);
    Datapath::load(&Sizes::for_one_workload(), &config, identities)
        .unwrap_or_else(|e| panic!("{e}"))
}

fn spec() -> EndpointSpec {
    EndpointSpec {
        v4: Some(POD4),
        v6: vec![POD6],
        ..EndpointSpec::new(EndpointId::new(1), [2, 0, 0, 0, 0x77, 2])
    }
}

/// Ping and port 8080 to the node, nothing else.
fn node_only() -> EndpointPolicy {
    let host = Peer::Identity(reserved::HOST);
    let mut entries = vec![
        entry(
            Way::Egress,
            host,
            L4::new(Protocol::Tcp, PortPrefix::one(8080)),
            Action::Allow,
        ),
        entry(
            Way::Egress,
            host,
            L4::new(Protocol::Icmp, PortPrefix::one(8)),
            Action::Allow,
        ),
        entry(
            Way::Egress,
            host,
            L4::new(Protocol::Icmpv6, PortPrefix::one(128)),
            Action::Allow,
        ),
    ];
    entries.sort_unstable();
    EndpointPolicy {
        default_deny_egress: true,
        entries,
        ..EndpointPolicy::default()
    }
}

fn book() -> AddressBook {
    let mut book = AddressBook::default();
    book.insert_address(NODE4.into(), reserved::HOST);
    book.insert_address(NODE6.into(), reserved::HOST);
    book
}

fn enforced_by(how: Attach, name: &str) {
    let wire = Wire::new(name);
    let mut datapath = load(Marks::default(), 0);
    datapath.ipcache(&book()).unwrap();
    let policy = PolicyId::new(1);
    datapath.set_policy(policy, &node_only()).unwrap();
    let listeners: Vec<_> = wire.in_node(|| {
        ["0.0.0.0:8080", "0.0.0.0:8081", "[::]:9080"]
            .map(|address| TcpListener::bind(address).unwrap())
            .into()
    });
    let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
    // The first packet of all resolves the neighbour and needs no help.
    assert!(wire.pings(NODE4.into()));
    assert!(wire.pings(NODE6.into()));
    assert!(wire.connects(at(NODE4.into(), 8081)) && wire.connects(at(NODE6.into(), 9080)));

    let attached: Attached = wire
        .in_node(|| datapath.attach("pod0", how))
        .unwrap_or_else(|e| panic!("{e}"));
    println!("attached by {}", attached.how());
    assert!(
        !wire.pings(NODE4.into()),
        "an interface without endpoint drops"
    );
    let spec = EndpointSpec {
        enforced: Some(policy),
        ..spec()
    };
    datapath.set_endpoint(wire.ifindex(), &spec).unwrap();
    // Neighbour entries that failed meanwhile come back through the guard.
    ip(&format!("-n {} neigh flush all", wire.pod));
    ip(&format!("-n {} neigh flush all", wire.node));
    assert!(wire.pings(NODE4.into()), "ping is allowed");
    assert!(wire.pings(NODE6.into()), "ping6 is allowed");
    assert!(wire.connects(at(NODE4.into(), 8080)), "8080 is allowed");
    assert!(!wire.connects(at(NODE4.into(), 8081)), "8081 is not");
    assert!(!wire.connects(at(NODE6.into(), 9080)), "9080 is not");
    // A whole conversation, both ways, through one allowed connection.
    let mut client = wire.in_pod(|| TcpStream::connect(at(NODE4.into(), 8080)).unwrap());
    let (mut server, _) = listeners[0].accept().unwrap();
    while server.peer_addr().unwrap() != client.local_addr().unwrap() {
        (server, _) = listeners[0].accept().unwrap();
    }
    let sent = vec![7; 3 << 20];
    let reader = thread::spawn(move || std::io::copy(&mut server, &mut std::io::sink()).unwrap());
    std::io::Write::write_all(&mut client, &sent).unwrap();
    drop(client);
    assert_eq!(reader.join().unwrap(), 3 << 20);
    // Somebody else's address.
    ip(&format!("-n {} addr add 10.77.0.9/24 dev eth0", wire.pod));
    wire.in_pod(|| {
        let socket = UdpSocket::bind("10.77.0.9:0").unwrap();
        let _ = socket.send_to(b"spoofed", (NODE4, 8080));
    });
    let metrics = datapath.metrics().unwrap();
    let dropped = |reason| metrics.dropped(reason, Direction::Egress).packets();
    assert!(dropped(DropReason::PolicyDenied) >= 2);
    assert!(dropped(DropReason::InvalidSourceIp) >= 1);
    assert!(dropped(DropReason::NoEndpoint) >= 1);
    assert!(
        metrics
            .passed(Passed::Established, Direction::Egress)
            .bytes()
            > 3 << 20
    );
    assert!(
        metrics
            .passed(Passed::Established, Direction::Ingress)
            .packets()
            > 10
    );
    println!("{:?}", metrics.drops().collect::<Vec<_>>());

    // Dropped on a thread of another namespace: detached where it was attached.
    drop(attached);
    assert!(wire.connects(at(NODE4.into(), 8081)), "detached");
}

#[test]
fn a_policy_holds_on_the_wire_by_tcx_or_tcx_is_refused_by_name() {
    if knows_tcx() {
        return enforced_by(Attach::Tcx, "tcx");
    }
    let wire = Wire::new("tcx");
    let mut datapath = load(Marks::default(), 0);
    let error = wire
        .in_node(|| datapath.attach("pod0", Attach::Tcx))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("by tcx") && error.contains("pod0"),
        "{error}"
    );
}

#[test]
fn a_policy_holds_on_the_wire_by_clsact() {
    enforced_by(Attach::Clsact, "cls");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let mut datapath = load(Marks::default(), 0);
    for how in [Attach::Auto, Attach::Tcx, Attach::Clsact] {
        let error = datapath.attach("nowhere0", how).unwrap_err();
        assert!(
            matches!(&error, AttachError::NoInterface(name) if name == "nowhere0"),
            "{error}"
        );
    }
}

/// The node's side of interception: the mark's route, as the agent sets it.
fn intercept(wire: &Wire) {
    for family in ["-4", "-6"] {
        ip(&format!(
            "-n {} {family} rule add pref 9 fwmark 0x200/0xf00 lookup 2004",
            wire.node
        ));
        ip(&format!(
            "-n {} {family} route add local default dev lo table 2004",
            wire.node
        ));
    }
    ip(&format!("-n {} route add default via {NODE4}", wire.pod));
    ip(&format!("-n {} -6 route add default via {NODE6}", wire.pod));
}

fn proxy_socket(kind: Type, address: SocketAddr, mark: u32) -> Socket {
    let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
    if address.is_ipv4() {
        socket.set_ip_transparent_v4(true).unwrap();
    } else {
        // Steered datagrams arrive without IPV6_TRANSPARENT; only answers would need it.
        socket.set_only_v6(true).unwrap();
    }
    socket.set_mark(mark).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    if kind == Type::STREAM {
        socket.listen(8).unwrap();
    }
    socket
}

#[test]
fn port_53_reaches_the_proxy_and_nobody_else() {
    const PORT: u16 = 40_053;
    let wire = Wire::new("dns");
    intercept(&wire);
    let mut datapath = load(Marks::default(), PORT);
    datapath.ipcache(&book()).unwrap();
    let mut entries: Vec<_> = [Protocol::Udp, Protocol::Tcp]
        .map(|proto| {
            entry(
                Way::Egress,
                Peer::Any,
                L4::new(proto, PortPrefix::one(53)),
                Action::RedirectDns,
            )
        })
        .into();
    entries.sort_unstable();
    let policy = EndpointPolicy {
        default_deny_egress: true,
        default_deny_ingress: true,
        entries,
        ..EndpointPolicy::default()
    };
    datapath.set_policy(PolicyId::new(3), &policy).unwrap();
    let spec = EndpointSpec {
        enforced: Some(PolicyId::new(3)),
        ..spec()
    };
    datapath.set_endpoint(wire.ifindex(), &spec).unwrap();
    let attached = wire
        .in_node(|| datapath.attach("pod0", Attach::Auto))
        .unwrap();
    let servers: [SocketAddr; 2] = [
        "192.0.2.53:53".parse().unwrap(),
        "[2001:db8::53]:53".parse().unwrap(),
    ];
    let ask = |server: SocketAddr| {
        wire.in_pod(|| {
            let any: IpAddr = if server.is_ipv4() {
                POD4.into()
            } else {
                POD6.into()
            };
            UdpSocket::bind((any, 0))
                .unwrap()
                .send_to(b"query", server)
                .unwrap();
        });
    };
    let local = |server: &SocketAddr| -> SocketAddr {
        if server.is_ipv4() {
            (Ipv4Addr::LOCALHOST, PORT).into()
        } else {
            (Ipv6Addr::LOCALHOST, PORT).into()
        }
    };
    let failed = |datapath: &Datapath| {
        datapath
            .metrics()
            .unwrap()
            .dropped(DropReason::SocketLookupFailed, Direction::Egress)
            .packets()
    };
    // No socket, and somebody else's socket: dropped.
    servers.iter().for_each(|server| ask(*server));
    assert_eq!(failed(&datapath), 2);
    let foreign: Vec<_> = wire.in_node(|| {
        servers
            .iter()
            .map(|s| proxy_socket(Type::DGRAM, local(s), 0))
            .collect()
    });
    servers.iter().for_each(|server| ask(*server));
    assert_eq!(failed(&datapath), 4);
    drop(foreign);
    // Ours: delivered, whatever the destination.
    for server in servers {
        let mut udp = wire.in_node(|| proxy_socket(Type::DGRAM, local(&server), 0xa00));
        ask(server);
        let mut buffer = [0; 64];
        let read = std::io::Read::read(&mut udp, &mut buffer).expect("the query arrives");
        assert_eq!(&buffer[..read], b"query");
    }
    let listener = wire.in_node(|| proxy_socket(Type::STREAM, local(&servers[0]), 0xa00));
    let mut client = wire.in_pod(|| {
        TcpStream::connect_timeout(&servers[0], Duration::from_secs(2)).expect("steered")
    });
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(accepted.local_addr().unwrap().as_socket(), Some(servers[0]));
    std::io::Write::write_all(&mut client, b"over tcp").unwrap();
    let mut buffer = [0; 8];
    std::io::Read::read_exact(&mut accepted, &mut buffer).unwrap();
    assert_eq!(&buffer, b"over tcp");
    std::io::Write::write_all(&mut accepted, b"and back").unwrap();
    std::io::Read::read_exact(&mut client, &mut buffer).unwrap();
    assert_eq!(&buffer, b"and back");
    let metrics = datapath.metrics().unwrap();
    assert!(metrics.passed(Passed::Steered, Direction::Egress).packets() >= 5);
    assert!(
        metrics
            .passed(Passed::FromProxy, Direction::Ingress)
            .packets()
            >= 2
    );
    assert_eq!(
        datapath.flows(EndpointId::new(1)).unwrap().len(),
        0,
        "steered packets make no flow"
    );
    drop(attached);
}
