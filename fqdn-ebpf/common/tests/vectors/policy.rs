//! Policy and connection tracking: who may open what, and what belongs to what was opened.
//!
//! In:  a bench.
//! Out: panics where an outcome is not the expected one.
//! Not here: malformed packets (`shape`).

use std::net::IpAddr;

use fqdn_ebpf_common::{metric::Passed, reason::DropReason};

use super::{
    ACK, Act, At, Bench, CIDR_ID, DENIED, DENY, DNS_ID, DNS4, DNS6, FIN_ACK, HOST, KNOWN, L4, NEW,
    NODE4, OTHER4, Outcome, PEER_ID, PEER4, POD4, POD6, Peer, RENEWED, RST, Rule, Rules, SYN,
    SYN_ACK, TCP, UDP, Vector, WEB4, WEB6, WORLD4, WORLD6, World, addresses, allow, drop, egress,
    frame::{self, Talk, echo},
    ingress, port,
};

pub(super) const VECTORS: &[Vector] = &[
    ("no policy allows and tracks", no_policy),
    ("default deny, v4 and v6, TCP and UDP", default_deny),
    ("an allowed connection, both ways", allowed_connection),
    ("a learned name opens its port only", learned),
    (
        "an expired slot opens nothing, its neighbour still does",
        two_lifetimes,
    ),
    ("names open only the world", names_and_managed),
    (
        "a live flow outlives its name, a new one does not",
        live_flow,
    ),
    ("deny beats allow whatever the specificity", deny_wins),
    ("port prefixes", port_prefixes),
    (
        "what only an L7 rule allows has a reason of its own",
        needs_proxy,
    ),
    (
        "a hole nobody fills is the default, not a deny rule",
        refused_hole,
    ),
    ("a short v6 prefix says nothing about v4", families),
    ("a SYN on a live flow is judged as new", syn_on_live),
    ("mid-stream without a record is judged as new", mid_stream),
    (
        "reset and close end a flow's record late, not at once",
        closing,
    ),
    (
        "a change of policy re-judges flows, both directions",
        rejudge,
    ),
    ("a change of addresses re-judges flows", rejudge_addresses),
    (
        "re-judging keeps the learned identity, expired or not",
        rejudge_learned,
    ),
    (
        "re-judging goes by the names that count, when the rule behind the one it was opened by is gone",
        rejudge_by_other_names,
    ),
    ("ingress by identity; node local or forwarded", from_node),
    ("ICMP echo by type, both directions apart", ping),
    ("DNS is steered, its replies pass by mark", steering),
    (
        "what was open before interception is steered too",
        steering_stale,
    ),
    ("audit: both policies are asked", audit),
    ("audit: what cannot be steered passes", audit_steering),
];

fn web(own_port: u16) -> Talk {
    Talk::new(POD4, WEB4, TCP, own_port, 443)
}

fn web6(own_port: u16) -> Talk {
    Talk::new(POD6, WEB6, TCP, own_port, 443)
}

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn no_policy(bench: &mut dyn Bench) {
    bench.install(&addresses());
    for talk in [web(1000), web6(1000), Talk::new(POD4, OTHER4, UDP, 1000, 9)] {
        bench.expect(At::From, &talk.out(SYN), NEW);
        bench.expect(At::To, &talk.back(SYN_ACK), KNOWN);
        bench.expect(At::From, &talk.out(ACK), KNOWN);
    }
    bench.expect(
        At::To,
        &Talk::new(POD4, PEER4, TCP, 80, 5000).back(SYN),
        NEW,
    );
}

fn default_deny(bench: &mut dyn Bench) {
    bench.install(&egress(&[]));
    for protocol in [TCP, UDP] {
        bench.expect(
            At::From,
            &Talk::new(POD4, WEB4, protocol, 1000, 443).out(SYN),
            DENIED,
        );
        bench.expect(
            At::From,
            &Talk::new(POD6, WEB6, protocol, 1000, 443).out(SYN),
            DENIED,
        );
    }
    // The other direction has no default deny.
    bench.expect(
        At::To,
        &Talk::new(POD4, PEER4, TCP, 80, 5000).back(SYN),
        NEW,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, PEER4, TCP, 80, 5000).out(SYN_ACK),
        KNOWN,
    );
}

fn allowed_connection(bench: &mut dyn Bench) {
    bench.install(&egress(&[
        allow(Peer::Id(WORLD4), port(TCP, 443)),
        allow(Peer::Id(WORLD6), port(TCP, 443)),
        allow(Peer::Any, L4::Proto(132)),
    ]));
    for talk in [web(1001), web6(1001)] {
        bench.expect(At::From, &talk.out(SYN), NEW);
        bench.expect(At::From, &talk.out(SYN), NEW);
        bench.expect(At::To, &talk.back(SYN_ACK), KNOWN);
        bench.expect(At::From, &talk.out(ACK), KNOWN);
        bench.expect(At::To, &talk.back(ACK), KNOWN);
    }
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, TCP, 1001, 80).out(SYN),
        DENIED,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, UDP, 1001, 443).out(0),
        DENIED,
    );
    bench.expect(
        At::From,
        &frame::from(&frame::ip(POD4, WEB4, 132, &[0; 12])),
        NEW,
    );
    // GRE: nobody allows it.
    bench.expect(
        At::From,
        &frame::from(&frame::ip(POD4, WEB4, 47, &[0; 8])),
        DENIED,
    );
}

fn learned(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Name(1), port(TCP, 443))]));
    bench.expect(At::From, &web(1002).out(SYN), DENIED);
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.learn(WEB6.into(), &[(1, true)]);
    bench.expect(At::From, &web(1002).out(SYN), NEW);
    bench.expect(At::From, &web6(1002).out(SYN), NEW);
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, TCP, 1002, 80).out(SYN),
        DENIED,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, OTHER4, TCP, 1002, 443).out(SYN),
        DENIED,
    );
    // A name nobody's rule is about.
    bench.learn(OTHER4.into(), &[(7, true)]);
    bench.expect(
        At::From,
        &Talk::new(POD4, OTHER4, TCP, 1002, 443).out(SYN),
        DENIED,
    );
}

fn two_lifetimes(bench: &mut dyn Bench) {
    bench.install(&egress(&[
        allow(Peer::Name(1), port(TCP, 443)),
        allow(Peer::Name(2), port(TCP, 8443)),
    ]));
    let other = Talk::new(POD4, WEB4, TCP, 1003, 8443);
    bench.learn(WEB4.into(), &[(1, true), (2, true)]);
    bench.expect(At::From, &web(1003).out(SYN), NEW);
    bench.expect(At::From, &other.out(SYN), NEW);
    bench.learn(WEB4.into(), &[(1, false), (2, true)]);
    bench.expect(At::From, &web(1004).out(SYN), DENIED);
    bench.expect(At::From, &other.out(SYN), NEW);
    bench.learn(WEB4.into(), &[(1, false), (2, false)]);
    bench.expect(At::From, &other.out(SYN), DENIED);
}

fn names_and_managed(bench: &mut dyn Bench) {
    let mut world = egress(&[allow(Peer::Name(1), L4::Any)]);
    world.prefixes = vec![("192.0.2.0/24", CIDR_ID)];
    bench.install(&world);
    for address in [
        v4("10.244.2.9"),
        v4("10.96.0.10"),
        v4("172.18.0.2"),
        WEB4.into(),
    ] {
        bench.learn(address, &[(1, true)]);
    }
    bench.expect(
        At::From,
        &Talk::new(POD4, PEER4, TCP, 1004, 80).out(SYN),
        DENIED,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, DNS4, TCP, 1004, 80).out(SYN),
        DENIED,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, NODE4, TCP, 1004, 80).out(SYN),
        DENIED,
    );
    bench.expect(At::From, &web(1004).out(SYN), NEW);
}

fn live_flow(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Name(1), port(TCP, 443))]));
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.expect(At::From, &web(1005).out(SYN), NEW);
    bench.expect(At::To, &web(1005).back(SYN_ACK), KNOWN);
    bench.learn(WEB4.into(), &[(1, false)]);
    bench.expect(At::From, &web(1005).out(ACK), KNOWN);
    bench.expect(At::To, &web(1005).back(ACK), KNOWN);
    bench.expect(At::From, &web(1006).out(SYN), DENIED);
}

fn deny_wins(bench: &mut dyn Bench) {
    let deny = |peer, l4| Rule {
        act: Act::Deny,
        ..allow(peer, l4)
    };
    bench.install(&egress(&[
        allow(Peer::Name(1), port(TCP, 443)),
        allow(Peer::Any, port(UDP, 123)),
        deny(Peer::Id(WORLD4), port(TCP, 443)),
        deny(Peer::Any, port(TCP, 25)),
        allow(Peer::Id(PEER_ID), L4::Any),
    ]));
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.learn(WEB6.into(), &[(1, true)]);
    bench.expect(At::From, &web(1007).out(SYN), DENY);
    bench.expect(At::From, &web6(1007).out(SYN), NEW);
    bench.expect(
        At::From,
        &Talk::new(POD4, PEER4, TCP, 1007, 25).out(SYN),
        DENY,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, PEER4, TCP, 1007, 26).out(SYN),
        NEW,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, OTHER4, UDP, 1007, 123).out(0),
        NEW,
    );
}

fn port_prefixes(bench: &mut dyn Bench) {
    bench.install(&egress(&[
        // 8080-8095, and 1024-65535 of UDP in six prefixes' worth of one.
        allow(Peer::Any, L4::Port(TCP, 8080, 12)),
        allow(Peer::Any, L4::Port(UDP, 0x8000, 1)),
    ]));
    for (protocol, at, want) in [
        (TCP, 8079, DENIED),
        (TCP, 8080, NEW),
        (TCP, 8095, NEW),
        (TCP, 8096, DENIED),
        (UDP, 0x7fff, DENIED),
        (UDP, 0x8000, NEW),
        (UDP, 0xffff, NEW),
        (UDP, 8080, DENIED),
    ] {
        bench.expect(
            At::From,
            &Talk::new(POD4, OTHER4, protocol, 1008, at).out(SYN),
            want,
        );
    }
}

fn families(bench: &mut dyn Bench) {
    let mut world = egress(&[allow(Peer::Id(CIDR_ID), L4::Any)]);
    world.prefixes = vec![("::/0", CIDR_ID)];
    bench.install(&world);
    bench.expect(At::From, &web(1009).out(SYN), DENIED);
    bench.expect(At::From, &web6(1009).out(SYN), NEW);
    world.prefixes = vec![("0.0.0.0/0", CIDR_ID)];
    bench.install(&world);
    bench.expect(At::From, &web(1010).out(SYN), NEW);
    bench.expect(At::From, &web6(1010).out(SYN), DENIED);
    world.prefixes = vec![
        ("0.0.0.0/0", CIDR_ID + 1),
        ("192.0.2.0/24", CIDR_ID),
        ("192.0.2.80/32", CIDR_ID + 2),
    ];
    bench.install(&world);
    bench.expect(At::From, &web(1011).out(SYN), DENIED);
    bench.expect(
        At::From,
        &Talk::new(POD4, v4("192.0.2.81"), TCP, 1011, 443).out(SYN),
        NEW,
    );
}

fn syn_on_live(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Name(1), port(TCP, 443))]));
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.expect(At::From, &web(1012).out(SYN), NEW);
    bench.expect(At::To, &web(1012).back(SYN_ACK), KNOWN);
    bench.expect(At::From, &web(1012).out(SYN), NEW);
    bench.expect(At::To, &web(1012).back(SYN_ACK), KNOWN);
    bench.learn(WEB4.into(), &[(1, false)]);
    bench.expect(At::From, &web(1012).out(SYN), DENIED);
    // And the live one still lives.
    bench.expect(At::From, &web(1012).out(ACK), KNOWN);
    // A SYN from the other side is no reply either.
    let mut world = egress(&[allow(Peer::Any, port(TCP, 443))]);
    if let Some(rules) = &mut world.enforced {
        rules.deny_ingress = true;
    }
    bench.install(&world);
    bench.expect(At::From, &web(1013).out(SYN), NEW);
    bench.expect(At::To, &web(1013).back(SYN), DENIED);
    bench.expect(At::To, &web(1013).back(SYN_ACK), KNOWN);
}

fn mid_stream(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Any, port(TCP, 443))]));
    bench.expect(At::From, &web(1014).out(ACK), NEW);
    bench.expect(At::From, &web(1014).out(ACK), KNOWN);
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, TCP, 1014, 80).out(ACK),
        DENIED,
    );
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, TCP, 1014, 80).out(RST),
        DENIED,
    );
}

fn closing(bench: &mut dyn Bench) {
    bench.install(&egress(&[allow(Peer::Any, port(TCP, 443))]));
    bench.expect(At::From, &web(1015).out(SYN), NEW);
    bench.expect(At::To, &web(1015).back(SYN_ACK), KNOWN);
    bench.expect(At::From, &web(1015).out(FIN_ACK), KNOWN);
    bench.expect(At::To, &web(1015).back(ACK), KNOWN);
    bench.expect(At::To, &web(1015).back(FIN_ACK), KNOWN);
    bench.expect(At::From, &web(1015).out(ACK), KNOWN);
    bench.expect(At::From, &web(1016).out(SYN), NEW);
    bench.expect(At::To, &web(1016).back(RST), KNOWN);
    bench.expect(At::From, &web(1016).out(SYN), NEW);
}

fn rejudge(bench: &mut dyn Bench) {
    let both = egress(&[
        allow(Peer::Any, port(TCP, 443)),
        allow(Peer::Any, port(UDP, 9)),
    ]);
    let one = egress(&[allow(Peer::Any, port(TCP, 443))]);
    let udp = Talk::new(POD4, WEB4, UDP, 1017, 9);
    bench.install(&both);
    for talk in [web(1017), udp] {
        bench.expect(At::From, &talk.out(SYN), NEW);
        bench.expect(At::To, &talk.back(SYN_ACK), KNOWN);
    }
    bench.install(&one);
    bench.expect(At::From, &web(1017).out(ACK), RENEWED);
    bench.expect(At::From, &web(1017).out(ACK), KNOWN);
    // The reply is what finds out, and the flow is cut then.
    bench.expect(At::To, &udp.back(0), DENIED);
    bench.expect(At::From, &udp.out(0), DENIED);
    bench.install(&egress(&[]));
    bench.expect(At::To, &web(1017).back(ACK), DENIED);
    // Ingress is open, but what the peer says in a flow that was cut opens nothing.
    bench.expect(At::To, &web(1017).back(ACK), DENIED);
    bench.expect(At::From, &web(1017).out(ACK), DENIED);
    bench.expect(At::To, &udp.back(0), DENIED);
    bench.expect(At::From, &udp.out(0), DENIED);
    bench.expect(At::To, &web(1017).back(SYN), NEW);
}

fn rejudge_addresses(bench: &mut dyn Bench) {
    let mut world = egress(&[allow(Peer::Id(CIDR_ID), L4::Any)]);
    world.prefixes = vec![("192.0.2.0/24", CIDR_ID)];
    bench.install(&world);
    bench.expect(At::From, &web(1018).out(SYN), NEW);
    world.prefixes = vec![("192.0.2.0/24", CIDR_ID), ("192.0.2.80/32", CIDR_ID + 1)];
    bench.install(&world);
    bench.expect(At::From, &web(1018).out(ACK), DENIED);
}

fn rejudge_learned(bench: &mut dyn Bench) {
    let rules = [allow(Peer::Name(1), port(TCP, 443))];
    bench.install(&egress(&rules));
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.expect(At::From, &web(1019).out(SYN), NEW);
    bench.expect(At::To, &web(1019).back(SYN_ACK), KNOWN);
    bench.learn(WEB4.into(), &[(1, false)]);
    bench.install(&egress(&rules));
    bench.expect(At::To, &web(1019).back(ACK), RENEWED);
    // Opened by a wider rule while a name would have done: the name carries it when the rule goes.
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.install(&egress(&[
        allow(Peer::Name(1), port(TCP, 443)),
        allow(Peer::Any, L4::Any),
    ]));
    bench.expect(At::From, &web(1020).out(SYN), NEW);
    bench.learn(WEB4.into(), &[(1, false)]);
    bench.install(&egress(&rules));
    bench.expect(At::From, &web(1020).out(ACK), RENEWED);
    // The name's rule goes: cut.
    bench.install(&egress(&[]));
    bench.expect(At::From, &web(1020).out(ACK), DENIED);
}

fn rejudge_by_other_names(bench: &mut dyn Bench) {
    let one = |name| egress(&[allow(Peer::Name(name), port(TCP, 443))]);
    bench.install(&one(1));
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.expect(At::From, &web(1021).out(SYN), NEW);
    // Another selector for the same name, known before the rules change.
    bench.learn(WEB4.into(), &[(1, true), (2, true)]);
    bench.install(&one(2));
    bench.expect(At::To, &web(1021).back(SYN_ACK), RENEWED);
    // From here on that one carries it, over or not.
    bench.learn(WEB4.into(), &[(2, false)]);
    bench.install(&one(2));
    bench.expect(At::From, &web(1021).out(ACK), RENEWED);
    // A name that is over opens nothing anew, and so carries nothing on.
    bench.learn(WEB4.into(), &[(3, false)]);
    bench.install(&one(3));
    bench.expect(At::From, &web(1021).out(ACK), DENIED);
}

fn from_node(bench: &mut dyn Bench) {
    bench.install(&ingress(&[
        allow(Peer::Id(HOST), port(TCP, 80)),
        allow(Peer::Id(PEER_ID), port(TCP, 81)),
    ]));
    let probe = Talk::new(POD4, NODE4, TCP, 80, 5001);
    bench.expect(At::ToLocal(0), &probe.back(SYN), NEW);
    bench.expect(At::From, &probe.out(SYN_ACK), KNOWN);
    // A node port: the node's address, but not the node.
    let node_port = Talk::new(POD4, NODE4, TCP, 80, 5002);
    bench.expect(At::To, &node_port.back(SYN), DENIED);
    bench.expect(
        At::To,
        &Talk::new(POD4, PEER4, TCP, 81, 5003).back(SYN),
        NEW,
    );
    bench.expect(
        At::To,
        &Talk::new(POD4, PEER4, TCP, 80, 5003).back(SYN),
        DENIED,
    );
    bench.expect(
        At::To,
        &Talk::new(POD4, WEB4, TCP, 81, 5003).back(SYN),
        DENIED,
    );
    // Re-judged at the reply, which cannot show where the first packet came from.
    bench.install(&ingress(&[
        allow(Peer::Id(WORLD4), port(TCP, 80)),
        allow(Peer::Id(HOST), port(TCP, 80)),
    ]));
    bench.expect(At::To, &node_port.back(SYN), NEW);
    bench.install(&ingress(&[allow(Peer::Id(HOST), port(TCP, 80))]));
    bench.expect(At::From, &node_port.out(SYN_ACK), DENIED);
}

fn ping(bench: &mut dyn Bench) {
    let mut world = egress(&[
        allow(Peer::Id(WORLD4), L4::Port(super::ICMP, 8, 16)),
        allow(Peer::Id(WORLD6), L4::Port(super::ICMPV6, 128, 16)),
    ]);
    if let Some(rules) = &mut world.enforced {
        rules.deny_ingress = true;
    }
    bench.install(&world);
    bench.expect(At::From, &frame::from(&echo(POD4, WEB4, false, 7)), NEW);
    bench.expect(At::To, &frame::to(&echo(WEB4, POD4, true, 7)), KNOWN);
    bench.expect(At::From, &frame::from(&echo(POD6, WEB6, false, 7)), NEW);
    bench.expect(At::To, &frame::to(&echo(WEB6, POD6, true, 7)), KNOWN);
    // Neither another identifier nor a request in the other direction belongs to it.
    bench.expect(At::To, &frame::to(&echo(WEB4, POD4, true, 8)), DENIED);
    bench.expect(At::To, &frame::to(&echo(WEB4, POD4, false, 7)), DENIED);
    bench.expect(At::From, &frame::from(&echo(POD4, PEER4, false, 7)), DENIED);
    // Type 13 is not type 8.
    let timestamp = frame::ip(POD4, WEB4, super::ICMP, &frame::icmp(13, 7, &[0; 12]));
    bench.expect(At::From, &frame::from(&timestamp), DENIED);
}

fn redirect(peer: Peer, l4: L4) -> Rule {
    Rule {
        act: Act::Redirect,
        ..allow(peer, l4)
    }
}

fn dns_rules() -> Vec<Rule> {
    vec![
        redirect(Peer::Id(DNS_ID), port(UDP, 53)),
        redirect(Peer::Id(DNS_ID), port(TCP, 53)),
        allow(Peer::Id(DNS_ID), L4::Any),
    ]
}

fn steering(bench: &mut dyn Bench) {
    bench.install(&egress(&dns_rules()));
    let query = Talk::new(POD4, DNS4, UDP, 1021, 53);
    for talk in [
        query,
        Talk::new(POD6, DNS6, UDP, 1021, 53),
        Talk::new(POD4, DNS4, TCP, 1021, 53),
        Talk::new(POD6, DNS6, TCP, 1021, 53),
    ] {
        bench.expect(At::From, &talk.out(SYN), Outcome::Steer);
        bench.expect(At::From, &talk.out(ACK), Outcome::Steer);
    }
    bench.expect(At::From, &Talk::new(POD4, DNS4, UDP, 1021, 54).out(0), NEW);
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, UDP, 1021, 53).out(0),
        DENIED,
    );
    bench.expect(
        At::ToLocal(0xa00),
        &query.back(0),
        Outcome::Pass(Passed::FromProxy),
    );
    bench.expect(
        At::ToLocal(0x1_0a00),
        &query.back(0),
        Outcome::Pass(Passed::FromProxy),
    );
    // Our mark on a packet that came from elsewhere is not ours; another mark is not ours either.
    let mut closed = egress(&dns_rules());
    if let Some(rules) = &mut closed.enforced {
        rules.deny_ingress = true;
    }
    bench.install(&closed);
    bench.expect(At::ToLocal(0x200), &query.back(0), DENIED);
    bench.expect(At::To, &query.back(0), DENIED);
}

fn steering_stale(bench: &mut dyn Bench) {
    let query = Talk::new(POD4, DNS4, UDP, 1022, 53);
    bench.install(&egress(&[allow(Peer::Id(DNS_ID), L4::Any)]));
    bench.expect(At::From, &query.out(0), NEW);
    bench.expect(At::To, &query.back(0), KNOWN);
    bench.install(&egress(&dns_rules()));
    bench.expect(At::From, &query.out(0), Outcome::Steer);
    let query = Talk::new(POD4, DNS4, UDP, 1023, 53);
    bench.install(&egress(&[allow(Peer::Id(DNS_ID), L4::Any)]));
    bench.expect(At::From, &query.out(0), NEW);
    bench.install(&egress(&dns_rules()));
    // An answer that went round the proxy teaches nothing: it does not arrive.
    bench.expect(At::To, &query.back(0), DENIED);
}

fn audit(bench: &mut dyn Bench) {
    let shadow = egress(&[allow(Peer::Any, port(TCP, 443))]).enforced;
    let only_shadow = World {
        shadow: shadow.clone(),
        audited: true,
        ..addresses()
    };
    bench.install(&only_shadow);
    bench.expect(At::From, &web(1024).out(SYN), NEW);
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, TCP, 1024, 80).out(SYN),
        Outcome::Pass(Passed::Audited),
    );
    bench.expect(
        At::To,
        &Talk::new(POD4, WEB4, TCP, 1024, 80).back(SYN_ACK),
        KNOWN,
    );
    bench.expect(
        At::To,
        &Talk::new(POD4, PEER4, TCP, 80, 1024).back(SYN),
        NEW,
    );
    // What is enforced is enforced, whatever the shadow would say.
    let both = World {
        shadow,
        ..egress(&[allow(Peer::Any, port(TCP, 80))])
    };
    bench.install(&both);
    bench.expect(At::From, &web(1025).out(SYN), DENIED);
    bench.expect(
        At::From,
        &Talk::new(POD4, WEB4, TCP, 1025, 80).out(SYN),
        Outcome::Pass(Passed::Audited),
    );
}

fn needs_proxy(bench: &mut dyn Bench) {
    const REFUSED: Outcome = Outcome::Drop(DropReason::NeedsProxy);
    let rule = |egress, peer, act, l4| Rule {
        egress,
        peer,
        l4,
        act,
    };
    let l7 = |peer, l4| rule(true, peer, Act::NeedsProxy, l4);
    bench.install(&egress(&[
        l7(Peer::Any, port(TCP, 443)),
        l7(Peer::Any, L4::Port(TCP, 8080, 12)),
        l7(Peer::Name(1), port(TCP, 80)),
        allow(Peer::Id(WORLD6), port(TCP, 443)),
        rule(true, Peer::Id(PEER_ID), Act::Deny, L4::Any),
    ]));
    bench.expect(At::From, &web(1030).out(SYN), REFUSED);
    let ranged = Talk::new(POD4, WEB4, TCP, 1030, 8095);
    bench.expect(At::From, &ranged.out(SYN), REFUSED);
    // The name opens nothing, and the reason says why.
    let named = Talk::new(POD4, WEB4, TCP, 1030, 80);
    bench.expect(At::From, &named.out(SYN), DENIED);
    bench.learn(WEB4.into(), &[(1, true)]);
    bench.expect(At::From, &named.out(SYN), REFUSED);
    // A plain allow lifts the L7 rule; a deny is a deny.
    bench.expect(At::From, &web6(1030).out(SYN), NEW);
    let denied = Talk::new(POD4, PEER4, TCP, 1030, 443);
    bench.expect(At::From, &denied.out(SYN), DENY);
    // A live flow that only an L7 rule would still allow is cut with the same reason.
    bench.install(&egress(&[allow(Peer::Any, port(TCP, 443))]));
    bench.expect(At::From, &web(1031).out(SYN), NEW);
    bench.install(&egress(&[l7(Peer::Any, port(TCP, 443))]));
    bench.expect(At::To, &web(1031).back(SYN_ACK), REFUSED);
    bench.expect(At::From, &web(1031).out(ACK), REFUSED);
    bench.install(&ingress(&[l7(Peer::Id(PEER_ID), port(TCP, 80))]));
    let inwards = Talk::new(POD4, PEER4, TCP, 80, 1030);
    bench.expect(At::To, &inwards.back(SYN), REFUSED);
    // In audit it passes and is told.
    let shadow = egress(&[l7(Peer::Any, port(TCP, 443))]).enforced;
    bench.install(&World {
        shadow,
        ..addresses()
    });
    let audited = Outcome::Pass(Passed::Audited);
    bench.expect(At::From, &web(1032).out(SYN), audited);
}

fn refused_hole(bench: &mut dyn Bench) {
    let to = |peer, act, l4| Rule {
        egress: true,
        peer,
        l4,
        act,
    };
    bench.install(&egress(&[
        to(Peer::Id(WORLD4), Act::Refuse, port(TCP, 443)),
        to(Peer::Id(WORLD4), Act::Deny, port(TCP, 80)),
        to(Peer::Id(PEER_ID), Act::Mixed, port(TCP, 443)),
        allow(Peer::Any, port(TCP, 443)),
    ]));
    // A service of which some backends may be reached.
    let mixed = Talk::new(POD4, PEER4, TCP, 1033, 443);
    let reason = Outcome::Drop(DropReason::MixedBackends);
    bench.expect(At::From, &mixed.out(SYN), reason);
    bench.expect(At::From, &web(1033).out(SYN), DENIED);
    let denied = Talk::new(POD4, WEB4, TCP, 1033, 80);
    bench.expect(At::From, &denied.out(SYN), DENY);
    bench.expect(At::From, &web6(1033).out(SYN), NEW);
}

fn audit_steering(bench: &mut dyn Bench) {
    let world = World {
        shadow: Some(Rules {
            deny_egress: true,
            rules: dns_rules(),
            ..Rules::default()
        }),
        audited: true,
        ..addresses()
    };
    bench.install(&world);
    let query = Talk::new(POD4, DNS4, UDP, 1026, 53);
    bench.expect(At::From, &query.out(0), Outcome::Steer);
    // Fragments cannot be steered; they pass here, and only here.
    let first = frame::from(&frame::v4(
        POD4,
        DNS4,
        UDP,
        &[],
        0x2000,
        &frame::udp(1026, 53),
    ));
    bench.expect(At::From, &first, Outcome::Pass(Passed::Spared));
    bench.install(&egress(&dns_rules()));
    bench.expect(At::From, &first, drop(DropReason::FragmentIntercepted));
}
