//! The source guard: what a workload may say about itself.
//!
//! In:  a bench.
//! Out: panics where an outcome is not the expected one.
//! Not here: policy (`policy`).

use std::net::Ipv6Addr;

use fqdn_ebpf_common::reason::DropReason;

use super::{
    At, Bench, CONTROL, DENIED, ICMP, ICMPV6, NEW, NODE_MAC, OTHER4, PEER4, POD_MAC, POD4, POD6,
    SYN, TCP, UDP, Vector, WEB4, WEB6, World, addresses, drop, egress,
    frame::{self, Talk, ethernet, from, icmp, ip, to, udp, v6},
};

pub(super) const VECTORS: &[Vector] = &[
    ("spoofed addresses and MACs, in audit too", spoofed),
    ("ARP for one's own address only", arp),
    ("neighbour discovery for oneself only", discovery),
    ("discovery is no way out to the world", covert_discovery),
    ("router advertisements and redirects", advertisements),
    ("multicast listener reports", listeners),
    ("DHCP server replies", dhcp),
    ("VLAN tags and other ethertypes", ethertypes),
    ("destinations that cannot be", destinations),
];

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const OWN_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITED: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 7);

fn spoofed(bench: &mut dyn Bench) {
    for (port, world) in [
        (1, addresses()),
        (
            2,
            World {
                audited: true,
                ..addresses()
            },
        ),
    ] {
        bench.install(&world);
        let other6: Ipv6Addr = "fd00:10::8".parse().unwrap();
        bench.expect(
            At::From,
            &Talk::new(OTHER4, WEB4, TCP, 1, 443).out(SYN),
            drop(DropReason::InvalidSourceIp),
        );
        bench.expect(
            At::From,
            &Talk::new(other6, WEB6, TCP, 1, 443).out(SYN),
            drop(DropReason::InvalidSourceIp),
        );
        let packet = ip(POD4, WEB4, UDP, &udp(port, 9));
        bench.expect(
            At::From,
            &ethernet(NODE_MAC, 0x0800, &packet),
            drop(DropReason::InvalidSourceMac),
        );
        bench.expect(
            At::From,
            &ethernet([2, 0, 0, 0, 0, 3], 0x0800, &packet),
            drop(DropReason::InvalidSourceMac),
        );
        let zero = ip(
            "0.0.0.0".parse::<std::net::IpAddr>().unwrap(),
            WEB4,
            UDP,
            &udp(1, 9),
        );
        bench.expect(At::From, &from(&zero), drop(DropReason::InvalidSourceIp));
        let unspecified = ip(Ipv6Addr::UNSPECIFIED, WEB6, UDP, &udp(1, 9));
        bench.expect(
            At::From,
            &from(&unspecified),
            drop(DropReason::InvalidSourceIp),
        );
        let link_local = ip(OWN_LINK_LOCAL, WEB6, UDP, &udp(1, 9));
        bench.expect(
            At::From,
            &from(&link_local),
            drop(DropReason::InvalidSourceIp),
        );
        let mapped = ip(POD4.to_ipv6_mapped(), WEB6, UDP, &udp(1, 9));
        bench.expect(At::From, &from(&mapped), drop(DropReason::InvalidSourceIp));
        bench.expect(At::From, &from(&packet), NEW);
    }
}

fn arp_packet(operation: u8, mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(mac);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

fn arp(bench: &mut dyn Bench) {
    // No policy speaks about ARP.
    bench.install(&egress(&[]));
    let frame = |packet: &[u8]| ethernet(POD_MAC, 0x0806, packet);
    let (own, router) = (POD4.octets(), [10, 244, 1, 1]);
    bench.expect(
        At::From,
        &frame(&arp_packet(1, POD_MAC, own, router)),
        CONTROL,
    );
    bench.expect(
        At::From,
        &frame(&arp_packet(2, POD_MAC, own, router)),
        CONTROL,
    );
    bench.expect(
        At::From,
        &frame(&arp_packet(1, POD_MAC, [0; 4], own)),
        CONTROL,
    );
    bench.expect(
        At::From,
        &frame(&arp_packet(2, POD_MAC, router, own)),
        drop(DropReason::InvalidSourceIp),
    );
    bench.expect(
        At::From,
        &frame(&arp_packet(1, POD_MAC, [0; 4], router)),
        drop(DropReason::InvalidSourceIp),
    );
    bench.expect(
        At::From,
        &frame(&arp_packet(2, POD_MAC, [0; 4], own)),
        drop(DropReason::InvalidSourceIp),
    );
    bench.expect(
        At::From,
        &frame(&arp_packet(2, NODE_MAC, own, router)),
        drop(DropReason::InvalidSourceMac),
    );
    bench.expect(
        At::From,
        &frame(&arp_packet(3, POD_MAC, own, router)),
        drop(DropReason::InvalidPacket),
    );
    bench.expect(At::From, &frame(&[0; 20]), drop(DropReason::InvalidPacket));
    bench.expect(
        At::To,
        &ethernet(NODE_MAC, 0x0806, &arp_packet(1, NODE_MAC, router, own)),
        CONTROL,
    );
}

/// A discovery message with a target.
fn nd(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    kind: u8,
    target: Ipv6Addr,
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    v6(source, destination, ICMPV6, hop_limit, &message)
}

fn discovery(bench: &mut dyn Bench) {
    bench.install(&egress(&[]));
    let unspecified = Ipv6Addr::UNSPECIFIED;
    bench.expect(
        At::From,
        &from(&nd(unspecified, SOLICITED, 255, 135, POD6)),
        CONTROL,
    );
    bench.expect(
        At::From,
        &from(&nd(OWN_LINK_LOCAL, ROUTER, 255, 135, ROUTER)),
        CONTROL,
    );
    bench.expect(
        At::From,
        &from(&nd(POD6, SOLICITED, 255, 135, ROUTER)),
        CONTROL,
    );
    bench.expect(At::From, &from(&nd(POD6, ROUTER, 255, 136, POD6)), CONTROL);
    bench.expect(
        At::From,
        &from(&nd(OWN_LINK_LOCAL, ALL_NODES, 255, 136, OWN_LINK_LOCAL)),
        CONTROL,
    );
    bench.expect(
        At::From,
        &from(&nd(OWN_LINK_LOCAL, ALL_ROUTERS, 255, 133, unspecified)),
        CONTROL,
    );
    // For somebody else, or as somebody else.
    let neighbour: Ipv6Addr = "fd00:10::8".parse().unwrap();
    bench.expect(
        At::From,
        &from(&nd(POD6, ALL_NODES, 255, 136, neighbour)),
        drop(DropReason::InvalidSourceIp),
    );
    bench.expect(
        At::From,
        &from(&nd(neighbour, ALL_NODES, 255, 136, POD6)),
        drop(DropReason::InvalidSourceIp),
    );
    bench.expect(
        At::From,
        &from(&nd(neighbour, SOLICITED, 255, 135, ROUTER)),
        drop(DropReason::InvalidSourceIp),
    );
    let short = v6(POD6, ROUTER, ICMPV6, 255, &[136, 0, 0, 0, 0, 0, 0, 0]);
    bench.expect(At::From, &from(&short), drop(DropReason::TruncatedHeader));
    bench.expect(At::To, &to(&nd(ROUTER, POD6, 255, 135, POD6)), CONTROL);
    bench.expect(
        At::To,
        &to(&nd(ROUTER, ALL_NODES, 255, 134, unspecified)),
        CONTROL,
    );
}

fn covert_discovery(bench: &mut dyn Bench) {
    let mut world = egress(&[]);
    if let Some(rules) = &mut world.enforced {
        rules.deny_ingress = true;
    }
    let neighbour: Ipv6Addr = "fd00:10::8".parse().unwrap();
    world.addresses.push((neighbour.into(), 400));
    bench.install(&world);
    // Another workload's address on the same link is a neighbour; a web server is not.
    bench.expect(
        At::From,
        &from(&nd(POD6, neighbour, 255, 135, neighbour)),
        CONTROL,
    );
    bench.expect(At::From, &from(&nd(POD6, WEB6, 255, 135, WEB6)), DENIED);
    bench.expect(
        At::From,
        &from(&nd(POD6, neighbour, 64, 135, neighbour)),
        DENIED,
    );
    bench.expect(At::To, &to(&nd(WEB6, POD6, 254, 135, POD6)), DENIED);
}

fn advertisements(bench: &mut dyn Bench) {
    bench.install(&addresses());
    for kind in [134, 137] {
        let packet = nd(OWN_LINK_LOCAL, ALL_NODES, 255, kind, ROUTER);
        bench.expect(At::From, &from(&packet), drop(DropReason::ForbiddenIcmpv6));
        let packet = nd(POD6, WEB6, 64, kind, ROUTER);
        bench.expect(At::From, &from(&packet), drop(DropReason::ForbiddenIcmpv6));
    }
    for kind in [5, 9] {
        let packet = ip(POD4, PEER4, ICMP, &icmp(kind, 0, &[0; 28]));
        bench.expect(At::From, &from(&packet), drop(DropReason::ForbiddenIcmp));
    }
}

fn listeners(bench: &mut dyn Bench) {
    bench.install(&egress(&[]));
    let report = |source, destination, hop_limit| {
        from(&v6(
            source,
            destination,
            ICMPV6,
            hop_limit,
            &[143, 0, 0, 0, 0, 0, 0, 0],
        ))
    };
    let routers: Ipv6Addr = "ff02::16".parse().unwrap();
    bench.expect(At::From, &report(OWN_LINK_LOCAL, routers, 1), CONTROL);
    bench.expect(
        At::From,
        &report(Ipv6Addr::UNSPECIFIED, routers, 1),
        CONTROL,
    );
    bench.expect(At::From, &report(POD6, routers, 64), DENIED);
    bench.expect(At::From, &report(POD6, WEB6, 1), DENIED);
    bench.expect(
        At::From,
        &report(WEB6, routers, 1),
        drop(DropReason::InvalidSourceIp),
    );
}

fn dhcp(bench: &mut dyn Bench) {
    bench.install(&addresses());
    bench.expect(
        At::From,
        &from(&ip(POD4, PEER4, UDP, &udp(67, 68))),
        drop(DropReason::ForbiddenDhcp),
    );
    bench.expect(
        At::From,
        &from(&ip(POD6, WEB6, UDP, &udp(547, 546))),
        drop(DropReason::ForbiddenDhcp),
    );
    bench.expect(At::From, &from(&ip(POD4, PEER4, UDP, &udp(68, 67))), NEW);
}

fn ethertypes(bench: &mut dyn Bench) {
    bench.install(&addresses());
    let packet = ip(POD4, WEB4, UDP, &udp(1, 9));
    let mut tagged = vec![0, 5, 8, 0];
    tagged.extend(&packet);
    for (ethertype, reason) in [
        (0x8100, DropReason::VlanFiltered),
        (0x88a8, DropReason::VlanFiltered),
        (0x8847, DropReason::UnsupportedL3),
        (0x8863, DropReason::UnsupportedL3),
        (0x0040, DropReason::UnsupportedL2),
    ] {
        bench.expect(
            At::From,
            &ethernet(POD_MAC, ethertype, &tagged),
            drop(reason),
        );
        bench.expect(
            At::To,
            &ethernet(NODE_MAC, ethertype, &tagged),
            drop(reason),
        );
    }
    bench.expect(
        At::From,
        &ethernet(POD_MAC, 0x0800, &v6(POD6, WEB6, UDP, 64, &udp(1, 9))),
        drop(DropReason::InvalidPacket),
    );
    bench.expect(
        At::From,
        &ethernet(
            POD_MAC,
            0x86dd,
            &frame::v4(POD4, WEB4, UDP, &[], 0, &[0; 40]),
        ),
        drop(DropReason::InvalidPacket),
    );
}

fn destinations(bench: &mut dyn Bench) {
    bench.install(&addresses());
    for destination in ["127.0.0.1", "127.255.0.9", "0.0.0.0"] {
        let packet = ip(
            POD4,
            destination.parse::<std::net::IpAddr>().unwrap(),
            UDP,
            &udp(1, 9),
        );
        bench.expect(
            At::From,
            &from(&packet),
            drop(DropReason::InvalidDestinationIp),
        );
    }
    for destination in ["::1", "::", "::ffff:192.0.2.1"] {
        let packet = ip(
            POD6,
            destination.parse::<std::net::IpAddr>().unwrap(),
            UDP,
            &udp(1, 9),
        );
        bench.expect(
            At::From,
            &from(&packet),
            drop(DropReason::InvalidDestinationIp),
        );
    }
}
