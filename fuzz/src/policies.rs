//! Compiled policies against reading every rule: `policy_vs_reference`.
//!
//! In:  policies put together from choices.
//! Out: a panic when entries decide about any packet otherwise than the rules read one by one.
//! Not here: text that may be no policy (`parse`).

use std::{net::IpAddr, sync::LazyLock};

use policy::{
    compiled::{Direction, Protocol},
    fqdn::Fqdn,
    parse,
};
use reference::policy::{Fact, Judgement, Packet, Situation};

use crate::{
    input::Input,
    policy_map::{CLUSTER, Datapath, managed, pod},
    policy_text,
};

/// Every packet that could make a difference.
static PACKETS: LazyLock<Vec<Packet>> = LazyLock::new(packets);
static ASKED: LazyLock<Vec<Fqdn>> = LazyLock::new(|| {
    ["a.test", "b.a.test", "bx.test", "other", "w/x.test"]
        .into_iter()
        .map(|name| Fqdn::from_labels(name.split('.')).unwrap())
        .collect()
});

/// Entries, selectors and DNS rules decide what the rules say, in whatever order they stand.
pub fn policy_vs_reference(data: &[u8]) {
    let text = policy_text::policies(&mut Input::new(data));
    let parsed =
        parse::documents("p.yaml", &text).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"));
    let subject = pod("a", Some("x"));
    let mut policies = parsed.policies;
    let datapath = Datapath::new(&policies, &subject);
    let judged: Vec<Judgement> = PACKETS.iter().map(|p| datapath.judge(p)).collect();
    let naive = Situation {
        policies: &policies,
        subject: subject.clone(),
        cluster: CLUSTER,
        allow_local_host: true,
        own_ports: Vec::new(),
        ports: Vec::new(),
    };
    for (packet, judgement) in PACKETS.iter().zip(&judged) {
        let expected = naive.judge(packet);
        // The one place where entries are narrower than the rules (docs/policy.md): a `Pass` that
        // comes before a name accepted in its tier decides without the names of later tiers.
        let by_name = matches!(&packet.peer, Fact::Outside(_, names) if !names.is_empty());
        let refused = matches!(judgement, Judgement::NotAllowed | Judgement::Denied);
        if by_name && refused && text.contains("Pass") && text.contains("domainNames") {
            continue;
        }
        assert_eq!(
            *judgement, expected,
            "{text}\n{packet:?}\n{:#?}",
            datapath.policy
        );
        let offline = datapath.offline(packet);
        assert_eq!(offline, expected, "offline\n{text}\n{packet:?}");
        if expected == Judgement::Redirected {
            check_names(&datapath, &naive, packet, &text);
        }
    }
    policies.reverse();
    let backward = Datapath::new(&policies, &subject);
    let other: Vec<Judgement> = PACKETS.iter().map(|p| backward.judge(p)).collect();
    assert_eq!(judged, other, "the order of policies matters\n{text}");
}

/// Which names may be asked at a server whose traffic goes through the proxy.
fn check_names(datapath: &Datapath, naive: &Situation<'_>, packet: &Packet, text: &str) {
    let identity = datapath.identity(&packet.peer);
    let learned = datapath.learned(&packet.peer);
    let tcp = packet.proto == Protocol::Tcp;
    for name in ASKED.iter() {
        let policy = &datapath.policy;
        let verdict = policy.may_ask_learned(identity, &learned, tcp, packet.port, name);
        assert_eq!(
            verdict.is_allowed(),
            naive.may_ask(packet, name),
            "{text}\n{packet:?} asks {name}\n{:#?}",
            policy.dns_rules
        );
    }
}

fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        for peer in peers() {
            for (proto, ports) in [
                (Protocol::Tcp, &[0, 49, 53, 55, 60, 61, 80, 443, 65535][..]),
                (Protocol::Udp, &[0, 53, 50, 80]),
                (Protocol::Sctp, &[53, 1000]),
                (Protocol::Icmp, &[0, 8]),
                (Protocol::Icmpv6, &[128, 129]),
            ] {
                packets.extend(ports.iter().map(|port| Packet {
                    direction,
                    peer: peer.clone(),
                    proto,
                    port: *port,
                }));
            }
        }
    }
    packets
}

fn peers() -> Vec<Fact> {
    let labels = managed().into_iter().map(|(_, labels)| labels);
    let mut facts: Vec<Fact> = labels.map(Fact::Managed).collect();
    // A learned address inside a prefix, and one outside of every prefix, are enough.
    let learned: &[&[&str]] = &[&[], &["a.test"], &["b.a.test"], &["a.test", "x.other"]];
    let plain: &[&[&str]] = &[&[]];
    for (address, names) in [
        ("10.9.9.9", learned),
        ("10.1.9.9", plain),
        ("10.1.2.9", plain),
        ("192.0.2.7", plain),
        ("192.0.2.8", plain),
        ("198.51.100.1", learned),
        ("2001:db8::1", plain),
        ("2001:db8:1::1", plain),
        ("2001:db9::1", plain),
    ] {
        let address: IpAddr = address.parse().unwrap();
        for names in names {
            let names = names.iter().map(|name| Fqdn::parse(name).unwrap());
            facts.push(Fact::Outside(address, names.collect()));
        }
    }
    facts
}
