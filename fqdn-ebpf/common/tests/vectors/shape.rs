//! Shapes of packets: options, extension headers, fragments, things cut short.
//!
//! In:  a bench.
//! Out: panics where an outcome is not the expected one.
//! Not here: ICMP errors (`icmp`).

use fqdn_ebpf_common::reason::DropReason;

use super::{
    At, Bench, DENIED, KNOWN, L4, NEW, OTHER4, POD4, POD6, Peer, SYN, TCP, UDP, Vector, WEB4, WEB6,
    addresses, allow, drop, egress,
    frame::{fragment6, from, ip, tcp, to, udp, v4, v6},
    port,
};

pub(super) const VECTORS: &[Vector] = &[
    (
        "IPv4 options: source routing goes, the rest passes",
        options,
    ),
    ("IPv4 lengths that do not add up", lengths),
    ("IPv6 extension headers are walked", extensions),
    ("IPv6 extension headers that may not pass", bad_extensions),
    ("transport headers cut short", truncated),
    ("IPv4 fragments", fragments_v4),
    ("IPv6 fragments", fragments_v6),
    ("fragments of a denied datagram", denied_fragments),
    ("the overlapping TCP fragment", tiny_fragment),
];

fn options(bench: &mut dyn Bench) {
    bench.install(&addresses());
    let with = |options: &[u8]| from(&v4(POD4, WEB4, UDP, options, 0, &udp(1, 9)));
    bench.expect(At::From, &with(&[1, 1, 1, 0]), NEW);
    // Router alert, then record route.
    bench.expect(
        At::From,
        &with(&[148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0]),
        KNOWN,
    );
    for kind in [131, 137] {
        bench.expect(
            At::From,
            &with(&[kind, 7, 4, 10, 0, 0, 1, 0]),
            drop(DropReason::SourceRouting),
        );
        bench.expect(
            At::From,
            &with(&[1, 148, 4, 0, 0, 1, kind, 3]),
            drop(DropReason::SourceRouting),
        );
        bench.expect(
            At::To,
            &to(&v4(WEB4, POD4, UDP, &[kind, 3, 4, 0], 0, &udp(9, 1))),
            drop(DropReason::SourceRouting),
        );
        // Behind the end of the list it is not an option any more.
        bench.expect(At::From, &with(&[0, kind, 3, 4]), KNOWN);
        // Inside another option's data neither.
        bench.expect(At::From, &with(&[7, 7, 4, kind, 3, 4, 0, 0]), KNOWN);
    }
    let mut last = [1; 40];
    last[37..].copy_from_slice(&[131, 3, 4]);
    bench.expect(At::From, &with(&last), drop(DropReason::SourceRouting));
    bench.expect(At::From, &with(&[1; 40]), KNOWN);
    bench.expect(
        At::From,
        &with(&[7, 1, 0, 0]),
        drop(DropReason::InvalidPacket),
    );
    bench.expect(
        At::From,
        &with(&[7, 0, 0, 0]),
        drop(DropReason::InvalidPacket),
    );
}

fn lengths(bench: &mut dyn Bench) {
    bench.install(&addresses());
    let good = v4(POD4, WEB4, UDP, &[], 0, &udp(2, 9));
    let broken = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        from(&packet)
    };
    let invalid = drop(DropReason::InvalidPacket);
    bench.expect(At::From, &from(&good), NEW);
    // Header length 4 words, and 15 words where 5 are there.
    bench.expect(At::From, &broken(0, 0x44), invalid);
    bench.expect(At::From, &broken(0, 0x4f), invalid);
    // Longer than the frame; shorter than the header; nothing.
    bench.expect(At::From, &broken(2, 0xff), invalid);
    bench.expect(At::From, &broken(3, 19), invalid);
    bench.expect(At::From, &broken(3, 0), invalid);
    // Padding behind the datagram is not part of it.
    let mut padded = good.clone();
    padded.extend([0; 20]);
    bench.expect(At::From, &from(&padded), KNOWN);
    padded[3] = 26;
    bench.expect(At::From, &from(&padded), drop(DropReason::TruncatedHeader));
    let mut six = v6(POD6, WEB6, UDP, 64, &udp(2, 9));
    six[5] = 200;
    bench.expect(At::From, &from(&six), invalid);
}

/// An extension header of eight bytes.
fn extension(next: u8, two: u8, three: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0, two, three, 0, 0, 0, 0];
    header.extend(payload);
    header
}

fn extensions(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Any, port(UDP, 9))]));
    let packet = |next, payload: &[u8]| from(&v6(POD6, WEB6, next, 64, payload));
    let datagram = udp(3, 9);
    let padding = [1, 4];
    bench.expect(
        At::From,
        &packet(0, &extension(UDP, padding[0], padding[1], &datagram)),
        NEW,
    );
    bench.expect(
        At::From,
        &packet(60, &extension(UDP, 1, 4, &datagram)),
        KNOWN,
    );
    // Hop by hop, destination, routing that is done, destination.
    let chain = extension(
        60,
        1,
        4,
        &extension(
            43,
            1,
            4,
            &extension(60, 2, 0, &extension(UDP, 1, 4, &datagram)),
        ),
    );
    bench.expect(At::From, &packet(0, &chain), KNOWN);
    // Authentication: four words and two.
    let mut authentication = vec![UDP, 4, 0, 0];
    authentication.extend([0; 20]);
    authentication.extend(&datagram);
    bench.expect(At::From, &packet(51, &authentication), KNOWN);
    // An atomic fragment is a whole packet.
    bench.expect(
        At::From,
        &packet(44, &fragment6(UDP, 0, false, &datagram)),
        KNOWN,
    );
    // The port behind the headers is the one that counts.
    bench.expect(
        At::From,
        &packet(60, &extension(UDP, 1, 4, &udp(3, 10))),
        DENIED,
    );
}

fn bad_extensions(bench: &mut dyn Bench) {
    bench.install(&addresses());
    let packet = |next, payload: &[u8]| from(&v6(POD6, WEB6, next, 64, payload));
    let bad = drop(DropReason::InvalidExtensionHeader);
    let datagram = udp(3, 9);
    bench.expect(
        At::From,
        &packet(43, &extension(UDP, 0, 1, &datagram)),
        drop(DropReason::RoutingHeader),
    );
    bench.expect(
        At::From,
        &packet(43, &extension(UDP, 2, 1, &datagram)),
        drop(DropReason::RoutingHeader),
    );
    let back = to(&v6(WEB6, POD6, 43, 64, &extension(UDP, 4, 3, &datagram)));
    bench.expect(At::To, &back, drop(DropReason::RoutingHeader));
    // Hop by hop anywhere but first.
    bench.expect(
        At::From,
        &packet(60, &extension(0, 1, 4, &extension(UDP, 1, 4, &datagram))),
        bad,
    );
    // Longer than the packet, and not there at all.
    let mut long = extension(UDP, 1, 4, &datagram);
    long[1] = 40;
    bench.expect(
        At::From,
        &packet(60, &long),
        drop(DropReason::TruncatedHeader),
    );
    bench.expect(At::From, &packet(60, &[UDP, 0, 1]), bad);
    bench.expect(At::From, &packet(60, &[]), bad);
    let mut many = datagram.clone();
    for nth in 0..9 {
        many = extension(if nth == 0 { UDP } else { 60 }, 1, 4, &many);
    }
    bench.expect(At::From, &packet(60, &many), bad);
}

fn truncated(bench: &mut dyn Bench) {
    bench.install(&addresses());
    let short = drop(DropReason::TruncatedHeader);
    for (protocol, header) in [(TCP, tcp(4, 443, SYN)), (UDP, udp(4, 9))] {
        let need = if protocol == TCP { 20 } else { 8 };
        for cut in [0, 1, need - 1] {
            bench.expect(
                At::From,
                &from(&ip(POD4, WEB4, protocol, &header[..cut])),
                short,
            );
            bench.expect(
                At::From,
                &from(&ip(POD6, WEB6, protocol, &header[..cut])),
                short,
            );
        }
        bench.expect(
            At::From,
            &from(&ip(POD4, WEB4, protocol, &header[..need])),
            NEW,
        );
    }
    let mut offset = tcp(5, 443, SYN);
    offset[12] = 0x40;
    bench.expect(At::From, &from(&ip(POD4, WEB4, TCP, &offset)), short);
    // A first fragment must hold the header as well.
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, TCP, &[], 0x2000, &tcp(6, 443, SYN)[..16])),
        short,
    );
    // ICMP in the wrong family.
    bench.expect(
        At::From,
        &from(&ip(POD4, WEB4, 58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        drop(DropReason::InvalidPacket),
    );
    bench.expect(
        At::From,
        &from(&ip(POD6, WEB6, 1, &[8, 0, 0, 0, 0, 0, 0, 0])),
        drop(DropReason::InvalidPacket),
    );
}

fn fragments_v4(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Any, port(UDP, 9))]));
    let missing = drop(DropReason::FirstFragmentMissing);
    let later = |offset| from(&v4(POD4, WEB4, UDP, &[], offset, &[7; 16]));
    bench.expect(At::From, &later(2), missing);
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, UDP, &[], 0x2000, &udp(7, 9))),
        NEW,
    );
    bench.expect(At::From, &later(0x2002), KNOWN);
    bench.expect(At::From, &later(4), KNOWN);
    // Same identification towards somebody else is another datagram.
    bench.expect(
        At::From,
        &from(&v4(POD4, OTHER4, UDP, &[], 2, &[7; 16])),
        missing,
    );
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, TCP, &[], 2, &[7; 16])),
        missing,
    );
    // And back.
    bench.expect(
        At::To,
        &to(&v4(WEB4, POD4, UDP, &[], 0x2000, &udp(9, 7))),
        KNOWN,
    );
    bench.expect(At::To, &to(&v4(WEB4, POD4, UDP, &[], 2, &[7; 16])), KNOWN);
}

fn fragments_v6(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Any, port(UDP, 9))]));
    let missing = drop(DropReason::FirstFragmentMissing);
    let packet = |payload: &[u8]| from(&v6(POD6, WEB6, 44, 64, payload));
    bench.expect(
        At::From,
        &packet(&fragment6(UDP, 2, false, &[7; 16])),
        missing,
    );
    bench.expect(At::From, &packet(&fragment6(UDP, 0, true, &udp(8, 9))), NEW);
    bench.expect(At::From, &packet(&fragment6(UDP, 2, true, &[7; 16])), KNOWN);
    // Destination options in the first fragment: the later ones say so, and mean the same.
    bench.expect(At::From, &packet(&fragment6(60, 4, false, &[7; 16])), KNOWN);
    bench.expect(
        At::To,
        &to(&v6(
            WEB6,
            POD6,
            44,
            64,
            &fragment6(UDP, 0, true, &udp(9, 8)),
        )),
        KNOWN,
    );
    bench.expect(
        At::To,
        &to(&v6(WEB6, POD6, 44, 64, &fragment6(UDP, 2, false, &[7; 16]))),
        KNOWN,
    );
}

fn denied_fragments(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Id(9), L4::Proto(TCP))]));
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, UDP, &[], 0x2000, &udp(9, 9))),
        DENIED,
    );
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, UDP, &[], 2, &[7; 16])),
        drop(DropReason::FirstFragmentMissing),
    );
}

fn tiny_fragment(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Any, port(TCP, 443))]));
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, TCP, &[], 0x2000, &tcp(10, 443, SYN))),
        NEW,
    );
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, TCP, &[], 1, &[7; 16])),
        drop(DropReason::InvalidPacket),
    );
    bench.expect(
        At::From,
        &from(&v4(POD4, WEB4, TCP, &[], 3, &[7; 16])),
        KNOWN,
    );
}
