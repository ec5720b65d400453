//! Packets and what must become of them: one table for the host and for the kernel.
//!
//! In:  a [`Bench`]: something that can be given a world and sent packets.
//! Out: [`VECTORS`], each a function that panics when an outcome is not the expected one.
//! Not here: the benches (`../host.rs`, and `tests/vectors.rs` of the loader).

pub(crate) mod frame;
mod icmp;
mod policy;
mod shape;
mod source;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fqdn_ebpf_common::{metric::Passed, reason::DropReason};

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Pass(Passed),
    /// For the proxy (which does not exist here).
    Steer,
    Drop(DropReason),
}

/// Where a packet is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum At {
    /// Sent by the workload.
    From,
    /// Sent to the workload by another machine or workload.
    To,
    /// Sent to the workload by this node, with this mark.
    ToLocal(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Any,
    Id(u32),
    /// What name number n opens; [`Bench::learn`] says which addresses have it.
    Name(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Allow,
    Deny,
    Redirect,
    /// Only an L7 rule allows it.
    NeedsProxy,
    /// A tier passed it on, and nobody after it allows it.
    Refuse,
    /// Some behind the address may be reached, others not.
    Mixed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum L4 {
    Any,
    Proto(u8),
    /// Protocol, first port, how many bits of it count.
    Port(u8, u16, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    pub(crate) egress: bool,
    pub(crate) peer: Peer,
    pub(crate) l4: L4,
    pub(crate) act: Act,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) deny_ingress: bool,
    pub(crate) deny_egress: bool,
    pub(crate) rules: Vec<Rule>,
}

/// Everything but what DNS taught.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) enforced: Option<Rules>,
    pub(crate) shadow: Option<Rules>,
    pub(crate) audited: bool,
    pub(crate) addresses: Vec<(IpAddr, u32)>,
    pub(crate) prefixes: Vec<(&'static str, u32)>,
}

/// Something that can be given a world and sent packets.
pub(crate) trait Bench {
    /// Makes the world so. A second call is a change of policy and addresses.
    fn install(&mut self, world: &World);
    /// What the workload's lookups taught about an address: names and whether each still counts.
    fn learn(&mut self, address: IpAddr, names: &[(u32, bool)]);
    fn send(&mut self, at: At, frame: &[u8]) -> Outcome;

    #[track_caller]
    fn expect(&mut self, at: At, frame: &[u8], want: Outcome) {
        let got = self.send(at, frame);
        assert_eq!(got, want, "{at:?}");
    }
}

pub(crate) type Vector = (&'static str, fn(&mut dyn Bench));

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    all.extend_from_slice(policy::VECTORS);
    all.extend_from_slice(source::VECTORS);
    all.extend_from_slice(shape::VECTORS);
    all.extend_from_slice(icmp::VECTORS);
    all
}

// The workload, and whom it talks to.
pub(crate) const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const POD4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 7);
pub(crate) const POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 7);
pub(crate) const WEB4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
pub(crate) const WEB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);
pub(crate) const OTHER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
pub(crate) const DNS4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(crate) const DNS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0xa);
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 9);

// Identities.
pub(crate) const HOST: u32 = 1;
pub(crate) const WORLD4: u32 = 9;
pub(crate) const WORLD6: u32 = 10;
pub(crate) const DNS_ID: u32 = 300;
pub(crate) const PEER_ID: u32 = 301;
/// A prefix; chosen out of the way of the names' numbers.
pub(crate) const CIDR_ID: u32 = 0x0100_4000;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
pub(crate) const SYN_ACK: u8 = 18;
pub(crate) const FIN_ACK: u8 = 17;
pub(crate) const RST: u8 = 4;

pub(crate) const NEW: Outcome = Outcome::Pass(Passed::New);
pub(crate) const KNOWN: Outcome = Outcome::Pass(Passed::Established);
pub(crate) const CONTROL: Outcome = Outcome::Pass(Passed::Control);
pub(crate) const RENEWED: Outcome = Outcome::Pass(Passed::Renewed);
pub(crate) const RELATED: Outcome = Outcome::Pass(Passed::Related);
pub(crate) const DENIED: Outcome = Outcome::Drop(DropReason::PolicyDenied);
pub(crate) const DENY: Outcome = Outcome::Drop(DropReason::PolicyDeny);

pub(crate) const fn drop(reason: DropReason) -> Outcome {
    Outcome::Drop(reason)
}

pub(crate) fn allow(peer: Peer, l4: L4) -> Rule {
    Rule {
        egress: true,
        peer,
        l4,
        act: Act::Allow,
    }
}

pub(crate) fn port(protocol: u8, port: u16) -> L4 {
    L4::Port(protocol, port, 16)
}

/// Egress in default deny with these rules, and the addresses above.
pub(crate) fn egress(rules: &[Rule]) -> World {
    World {
        enforced: Some(Rules {
            deny_egress: true,
            rules: rules.to_vec(),
            ..Rules::default()
        }),
        ..addresses()
    }
}

/// Ingress in default deny with these rules, and the addresses above.
pub(crate) fn ingress(rules: &[Rule]) -> World {
    World {
        enforced: Some(Rules {
            deny_ingress: true,
            rules: rules
                .iter()
                .map(|rule| Rule {
                    egress: false,
                    ..*rule
                })
                .collect(),
            ..Rules::default()
        }),
        ..addresses()
    }
}

/// No policy, and the addresses above.
pub(crate) fn addresses() -> World {
    World {
        addresses: vec![
            (DNS4.into(), DNS_ID),
            (DNS6.into(), DNS_ID),
            (PEER4.into(), PEER_ID),
            (NODE4.into(), HOST),
        ],
        ..World::default()
    }
}
