//! ICMP errors: only about flows that are known, only to who sent the quoted packet.
//!
//! In:  a bench.
//! Out: panics where an outcome is not the expected one.
//! Not here: echo (`policy`).

use std::net::IpAddr;

use fqdn_ebpf_common::reason::DropReason;

use super::{
    At, Bench, ICMP, ICMPV6, KNOWN, NEW, OTHER4, Outcome, PEER4, POD4, POD6, Peer, RELATED, SYN,
    TCP, UDP, Vector, WEB4, WEB6, allow, drop, egress,
    frame::{echo, from, icmp, ip, tcp, to, udp, v4},
    port,
};

pub(super) const VECTORS: &[Vector] = &[
    ("errors about known flows, towards the workload", towards),
    ("errors about known flows, from the workload", away),
    ("errors that quote too little or nonsense", nonsense),
    ("errors about pings", pings),
];

const UNRELATED: Outcome = drop(DropReason::IcmpErrorUnrelated);

/// An error about a packet, from a router or host, to an address.
fn error(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, quoted: &[u8]) -> Vec<u8> {
    let (source, destination) = (source.into(), destination.into());
    if source.is_ipv4() {
        ip(source, destination, ICMP, &icmp(3, 0, quoted))
    } else {
        ip(source, destination, ICMPV6, &icmp(2, 0, quoted))
    }
}

fn rules(bench: &mut dyn Bench) {
    let mut world = egress(&[
        allow(Peer::Any, port(TCP, 443)),
        allow(Peer::Any, port(UDP, 9)),
        allow(Peer::Any, port(ICMP, 8)),
    ]);
    if let Some(rules) = &mut world.enforced {
        rules.deny_ingress = true;
        rules.rules.push(super::Rule {
            egress: false,
            ..allow(Peer::Any, port(UDP, 53))
        });
    }
    bench.install(&world);
}

fn towards(bench: &mut dyn Bench) {
    rules(bench);
    let router: IpAddr = "203.0.113.1".parse().unwrap();
    let sent = ip(POD4, WEB4, TCP, &tcp(2001, 443, SYN));
    bench.expect(At::To, &to(&error(router, POD4, &sent)), UNRELATED);
    bench.expect(At::From, &from(&sent), NEW);
    bench.expect(At::To, &to(&error(router, POD4, &sent)), RELATED);
    bench.expect(At::To, &to(&error(WEB4, POD4, &sent[..28])), RELATED);
    // The quoted packet was not sent by whom the error goes to.
    let spoofed = ip(OTHER4, WEB4, TCP, &tcp(2001, 443, SYN));
    bench.expect(At::To, &to(&error(router, POD4, &spoofed)), UNRELATED);
    let other_port = ip(POD4, WEB4, TCP, &tcp(2002, 443, SYN));
    bench.expect(At::To, &to(&error(router, POD4, &other_port)), UNRELATED);
    let received = ip(WEB4, POD4, TCP, &tcp(443, 2001, SYN));
    bench.expect(At::To, &to(&error(router, POD4, &received)), UNRELATED);
    // IPv6: packet too big.
    let router: IpAddr = "2001:db8:1::1".parse().unwrap();
    let sent = ip(POD6, WEB6, TCP, &tcp(2003, 443, SYN));
    bench.expect(At::To, &to(&error(router, POD6, &sent)), UNRELATED);
    bench.expect(At::From, &from(&sent), NEW);
    bench.expect(At::To, &to(&error(router, POD6, &sent)), RELATED);
}

fn away(bench: &mut dyn Bench) {
    rules(bench);
    let received = ip(PEER4, POD4, UDP, &udp(2004, 53));
    bench.expect(At::From, &from(&error(POD4, PEER4, &received)), UNRELATED);
    bench.expect(At::To, &to(&received), NEW);
    bench.expect(At::From, &from(&error(POD4, PEER4, &received)), RELATED);
    // Not to a third party, whatever is quoted.
    bench.expect(At::From, &from(&error(POD4, OTHER4, &received)), UNRELATED);
}

fn nonsense(bench: &mut dyn Bench) {
    rules(bench);
    let sent = ip(POD4, WEB4, UDP, &udp(2005, 9));
    bench.expect(At::From, &from(&sent), NEW);
    for cut in [0, 1, 19, 20, 27] {
        bench.expect(At::To, &to(&error(WEB4, POD4, &sent[..cut])), UNRELATED);
    }
    bench.expect(At::To, &to(&error(WEB4, POD4, &sent[..28])), RELATED);
    let mut broken = sent.clone();
    broken[0] = 0x4f;
    bench.expect(At::To, &to(&error(WEB4, POD4, &broken)), UNRELATED);
    broken[0] = 0x41;
    bench.expect(At::To, &to(&error(WEB4, POD4, &broken)), UNRELATED);
    // A later fragment quotes data where ports would be.
    let later = v4(POD4, WEB4, UDP, &[], 2, &udp(2005, 9));
    bench.expect(At::To, &to(&error(WEB4, POD4, &later)), UNRELATED);
    // An error about an error.
    let nested = error(POD4, WEB4, &sent);
    bench.expect(At::To, &to(&error(WEB4, POD4, &nested)), UNRELATED);
    // A fragmented error.
    let fragmented = v4(WEB4, POD4, ICMP, &[], 0x2000, &icmp(3, 0, &sent));
    bench.expect(At::To, &to(&fragmented), UNRELATED);
}

fn pings(bench: &mut dyn Bench) {
    rules(bench);
    let ping = echo(POD4, WEB4, false, 77);
    bench.expect(At::To, &to(&error(WEB4, POD4, &ping)), UNRELATED);
    bench.expect(At::From, &from(&ping), NEW);
    bench.expect(At::To, &to(&error(WEB4, POD4, &ping)), RELATED);
    bench.expect(At::To, &to(&echo(WEB4, POD4, true, 77)), KNOWN);
    let other = echo(POD4, WEB4, false, 78);
    bench.expect(At::To, &to(&error(WEB4, POD4, &other)), UNRELATED);
}
