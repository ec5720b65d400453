//! Any bytes at a workload's interface: `packet_path`.
//!
//! In:  a policy, what is known and learned about addresses, frames, time.
//! Out: a panic when a frame passes that the source guard, the policy or the table of flows does
//!      not explain, or when a plain packet is judged otherwise than by scanning the policy.
//! Not here: the kernel programs around it (`fqdn-ebpf`).

use std::net::IpAddr;

use fqdn_ebpf_common::{
    Direction,
    address::Addr,
    config::Config,
    endpoint::{Endpoint, InForce, PolicyId},
    env::Meta,
    event::{Event, Scene},
    ipcache::{Entry, V4_BITS},
    learned::{Learned, LearnedKey, SLOTS, Slot},
    metric::{self, Passed},
    path::{Scratch, Verdict, decide},
    reason::DropReason,
};
use reference::verdict::{self as naive, Decision};
use zerocopy::IntoBytes as _;

use crate::{
    input::Input,
    maps::{Frame, Maps},
    verdict::{compiled, entry, insert},
};

const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const POD4: [u8; 4] = [10, 244, 1, 7];
const POD6: [u8; 16] = [0xfd, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const ENDPOINT: u32 = 5;
const SLOT: u32 = 3;
const SECOND: u64 = 1_000_000_000;
const WORLD4: u32 = 9;
const WORLD6: u32 = 10;
/// What the entries of a policy call peers 1 to 4 (`verdict::entry`).
const IDS: [u32; 4] = [WORLD4, 300, 0x0100_4000, 0x0100_0001];
/// Known addresses: the node, a workload, a prefix of the world.
const PEERS: [[u8; 4]; 6] = [
    [172, 18, 0, 2],
    [10, 244, 2, 9],
    [192, 0, 2, 80],
    [192, 0, 2, 81],
    [198, 51, 100, 9],
    [224, 0, 0, 251],
];
/// First bytes of IPv6 peers.
const NETWORKS: [[u8; 2]; 5] = [[0x20, 1], [0xfe, 0x80], [0xff, 2], [0xfd, 0], [0, 0]];
const STEPS: usize = 60;

/// Any frame: parsed without a panic, judged as a plain reading of it would be.
pub fn packet_path(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS {
        if input.is_over() {
            break;
        }
        world.step(&mut input);
    }
}

struct World {
    maps: Maps,
    config: Config,
    endpoint: Endpoint,
    audited: bool,
    /// Entries for each direction, with the identities of the map.
    ingress: Vec<naive::Entry>,
    egress: Vec<naive::Entry>,
    deny: [bool; 2],
    revision: u32,
    now: u64,
    /// Something opened a flow.
    opened: bool,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let flags = input.byte();
        let mut world = Self {
            maps: Maps::default(),
            config: Config::default(),
            endpoint: Endpoint::new(ENDPOINT, SLOT, POD_MAC),
            audited: flags & 4 != 0,
            ingress: Vec::new(),
            egress: Vec::new(),
            deny: [flags & 1 != 0, flags & 2 != 0],
            revision: 0,
            now: 1000 * SECOND,
            opened: false,
        };
        let exact = [([172, 18, 0, 2], 1), ([10, 244, 2, 9], 300)];
        for (address, id) in exact {
            let entry = Entry::new(id, 128);
            world.maps.addresses.insert(Addr::v4(address), entry);
        }
        let prefix = Addr::v4([192, 0, 2, 0]);
        let len = V4_BITS + 24;
        let entry = Entry::new(IDS[2], len);
        world.maps.prefixes.insert(len, prefix, entry);
        world.policy(input);
        world
    }

    /// Another policy: counts of entries, entries.
    fn policy(&mut self, input: &mut Input<'_>) {
        let mut read = |count: u8| {
            let mut entries = compiled((0..count % 12).map(|_| entry(input)).collect());
            for entry in &mut entries {
                entry.identity = entry.identity.map(|nth| IDS[nth as usize - 1]);
            }
            entries
        };
        self.egress = read(6);
        self.ingress = read(3);
        self.revision += 1;
        let policy = 2 * self.revision;
        self.maps.policy = Default::default();
        let map = &mut self.maps.policy;
        insert(map, policy, Direction::Egress, &self.egress);
        insert(map, policy, Direction::Ingress, &self.ingress);
        let [deny_ingress, deny_egress] = self.deny;
        let enforced = InForce {
            id: PolicyId::new(policy),
            deny_ingress,
            deny_egress,
        };
        self.endpoint = Endpoint::new(ENDPOINT, SLOT, POD_MAC)
            .with_addresses(Some(POD4), [Addr::v6(POD6), Addr::UNSPECIFIED])
            .with_audit(self.audited)
            .with_policy(enforced, InForce::default(), self.revision);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 => {
                let len = usize::from(input.byte());
                let frame = input.bytes(len).to_vec();
                self.send(input.flag(), &frame);
            }
            1 => self.policy(input),
            2 => {
                let seconds = u64::from(input.short());
                self.now += seconds * SECOND;
            }
            3 => {
                let address = Addr::v4(*input.pick(&PEERS));
                let slots: [Slot; SLOTS] = std::array::from_fn(|_| {
                    let until = u64::from(input.byte()) * SECOND;
                    let id = *input.pick(&[0, IDS[3], 0x0100_0002]);
                    Slot::new(id, self.now.saturating_sub(100 * SECOND) + until)
                });
                let key = LearnedKey::new(ENDPOINT, address);
                self.maps.learned.insert(key, Learned::new(slots));
            }
            4..=8 => {
                let (out, mut frame) = v4(input);
                input.spoil(&mut frame);
                self.send(out, &frame);
            }
            9 | 10 => {
                let (out, mut frame) = v6(input);
                input.spoil(&mut frame);
                self.send(out, &frame);
            }
            _ => {
                let mut frame = ethernet(POD_MAC, 0x0806);
                frame.extend([0, 1, 8, 0, 6, 4, 0, 1 + input.below(2)]);
                frame.extend(POD_MAC);
                frame.extend(*input.pick(&[POD4, [10, 244, 1, 8], [0; 4]]));
                frame.extend([0; 10]);
                input.spoil(&mut frame);
                self.send(input.flag(), &frame);
            }
        }
    }

    fn send(&mut self, out: bool, bytes: &[u8]) {
        let meta = Meta {
            direction: if out {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            mark: 0,
            ingress_ifindex: 7,
            vlan: false,
            now: self.now,
        };
        if let Some(plain) = Plain::read(out, bytes) {
            self.check_plain(&plain, &meta, bytes);
        }
        let (verdict, scratch) = self.decide(&self.maps, &meta, bytes);
        self.check_event(&meta, bytes, verdict, &scratch);
        if out {
            check_guard(verdict, bytes);
        }
        match verdict {
            Verdict::Pass(Passed::New | Passed::Audited) => self.opened = true,
            Verdict::Pass(Passed::Established | Passed::Related | Passed::Renewed) => {
                assert!(self.opened, "part of a flow that nothing opened");
            }
            Verdict::Pass(Passed::Spared) => assert!(self.audited, "nobody is audited"),
            Verdict::Pass(passed) => assert_eq!(passed, Passed::Control, "not at this hook"),
            Verdict::Steer => assert!(out, "only what the workload sends is steered"),
            Verdict::Drop(_) => {}
        }
        // Without a configuration of its own version, or without an endpoint, nothing passes.
        let frame = Frame {
            maps: &self.maps,
            bytes,
        };
        let mut scratch = Scratch::default();
        for (config, endpoint, reason) in [
            (None, Some(&self.endpoint), DropReason::NoConfig),
            (Some(&self.config), None, DropReason::NoEndpoint),
        ] {
            let verdict = decide(&frame, &meta, config, endpoint, &mut scratch);
            assert_eq!(verdict, Verdict::Drop(reason));
        }
    }

    fn decide(&self, maps: &Maps, meta: &Meta, bytes: &[u8]) -> (Verdict, Scratch) {
        let mut scratch = Scratch::default();
        let frame = Frame { maps, bytes };
        let (config, endpoint) = (Some(&self.config), Some(&self.endpoint));
        let verdict = decide(&frame, meta, config, endpoint, &mut scratch);
        (verdict, scratch)
    }

    /// What is told about a packet survives the ring buffer and is counted in a place of its own.
    fn check_event(&self, meta: &Meta, bytes: &[u8], verdict: Verdict, scratch: &Scratch) {
        if let Verdict::Drop(reason) = verdict {
            assert!(scratch.report.is_some(), "a drop without a reason");
            assert!(metric::dropped(reason, meta.direction) < metric::ENTRIES);
        }
        if !scratch.report.is_some() {
            return;
        }
        let scene = Scene {
            time: meta.now,
            direction: meta.direction,
            ifindex: 7,
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        let endpoint = Some(&self.endpoint);
        let event = Event::new(&scene, endpoint, &scratch.packet, &scratch.report);
        assert_eq!(Event::decode(event.as_bytes()), Some(event), "{event:?}");
        if let Verdict::Drop(reason) = verdict {
            assert_eq!(event.reason(), Some(reason));
        }
    }

    /// A plain packet that opens a flow is judged by scanning the policy.
    fn check_plain(&self, plain: &Plain, meta: &Meta, bytes: &[u8]) {
        let empty = Maps {
            flows: Default::default(),
            datagrams: Default::default(),
            ..self.maps.clone()
        };
        let (verdict, scratch) = self.decide(&empty, meta, bytes);
        let (entries, deny) = match meta.direction {
            Direction::Ingress => (&self.ingress, self.deny[0]),
            Direction::Egress => (&self.egress, self.deny[1]),
        };
        let (identity, learned) = self.identities(plain.out, plain.peer);
        let all = [&[identity], &learned[..]].concat();
        let want = naive::verdict(entries, deny, &all, plain.protocol, plain.port);
        let context = || format!("{plain:?}: {want:?} but {verdict:?} {scratch:?}\n{entries:?}");
        let shown = |decision| match decision {
            Decision::Allow => Verdict::Pass(Passed::New),
            Decision::Deny if want.match_type == 0 => Verdict::Drop(DropReason::PolicyDenied),
            Decision::Deny | Decision::Refuse => Verdict::Drop(DropReason::PolicyDeny),
            Decision::NeedsProxy => Verdict::Drop(DropReason::NeedsProxy),
            Decision::Mixed => Verdict::Drop(DropReason::MixedBackends),
            Decision::Redirect if plain.out => Verdict::Steer,
            Decision::Redirect if self.audited => Verdict::Pass(Passed::Spared),
            Decision::Redirect => Verdict::Drop(DropReason::SocketLookupFailed),
        };
        let right = [want.decision, Decision::Deny, Decision::Mixed]
            .into_iter()
            .any(|decision| want.admits(decision) && shown(decision) == verdict);
        assert!(right, "{}", context());
        assert_eq!(scratch.packet.destination_port, plain.port, "{}", context());
        assert_eq!(scratch.packet.protocol, plain.protocol, "{}", context());
        let opened = empty.flows.borrow().len();
        assert_eq!(opened, usize::from(verdict == Verdict::Pass(Passed::New)));
        if opened == 1 {
            // The same packet again is the same flow; only a SYN is judged each time.
            let (again, _) = self.decide(&empty, meta, bytes);
            let expected = if plain.opens_tcp {
                Passed::New
            } else {
                Passed::Established
            };
            assert_eq!(again, Verdict::Pass(expected), "again: {}", context());
            assert_eq!(empty.flows.borrow().len(), 1);
        }
    }

    /// By address, and by what names taught about it where they count. What comes in from the
    /// node's address was forwarded here, so it is not the node's.
    fn identities(&self, out: bool, peer: IpAddr) -> (u32, Vec<u32>) {
        let world = if peer.is_ipv4() { WORLD4 } else { WORLD6 };
        let identity = match peer {
            IpAddr::V4(v4) => match v4.octets() {
                [10, 244, 2, 9] => 300,
                [172, 18, 0, 2] if out => 1,
                [192, 0, 2, _] => IDS[2],
                _ => world,
            },
            IpAddr::V6(_) => world,
        };
        if identity == 300 || identity == 1 {
            return (identity, Vec::new());
        }
        let slots = self
            .maps
            .learned
            .get(&LearnedKey::new(ENDPOINT, peer.into()));
        let live = slots.into_iter().flat_map(|learned| learned.slots());
        let live = live.filter(|slot| slot.identity() != 0 && slot.expires() > self.now);
        (identity, live.map(Slot::identity).collect())
    }
}

/// Whatever the policy: a packet leaves with the workload's own addresses, or is link control.
fn check_guard(verdict: Verdict, bytes: &[u8]) {
    let passed = match verdict {
        Verdict::Drop(_) => return,
        Verdict::Pass(passed) => Some(passed),
        Verdict::Steer => None,
    };
    assert_eq!(bytes[6..12], POD_MAC, "another source address");
    let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
    match (passed, ethertype) {
        (Some(Passed::Control), 0x0806) => {
            let sender = &bytes[28..32];
            assert!(sender == POD4 || sender == [0; 4], "another sender");
        }
        (Some(Passed::Control), ethertype) => assert_eq!(ethertype, 0x86dd),
        (_, 0x0800) => assert_eq!(bytes[26..30], POD4),
        (_, ethertype) => {
            assert_eq!(ethertype, 0x86dd);
            assert_eq!(bytes[22..38], POD6);
        }
    }
}

/// A TCP or UDP packet without anything special about it.
#[derive(Debug)]
struct Plain {
    out: bool,
    peer: IpAddr,
    protocol: u8,
    port: u16,
    opens_tcp: bool,
}

impl Plain {
    fn read(out: bool, bytes: &[u8]) -> Option<Self> {
        let short = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        if out && *bytes.get(6..12)? != POD_MAC {
            return None;
        }
        let (source, destination, protocol, at) = match short(12)? {
            0x0800 => {
                let whole = *bytes.get(14)? == 0x45
                    && usize::from(short(16)?) == bytes.len() - 14
                    && short(20)? & 0xbfff == 0;
                let header: [u8; 20] = bytes.get(14..34)?.try_into().ok()?;
                let [.., a, b, c, d, e, f, g, h] = header;
                if !whole {
                    return None;
                }
                (
                    IpAddr::from([a, b, c, d]),
                    IpAddr::from([e, f, g, h]),
                    header[9],
                    34,
                )
            }
            0x86dd => {
                let whole =
                    *bytes.get(14)? >> 4 == 6 && usize::from(short(18)?) + 54 == bytes.len();
                let source: [u8; 16] = bytes.get(22..38)?.try_into().ok()?;
                let destination: [u8; 16] = bytes.get(38..54)?.try_into().ok()?;
                if !whole {
                    return None;
                }
                (
                    IpAddr::from(source),
                    IpAddr::from(destination),
                    *bytes.get(20)?,
                    54,
                )
            }
            _ => return None,
        };
        let (own, peer) = if out {
            (source, destination)
        } else {
            (destination, source)
        };
        let (from, port) = (short(at)?, short(at + 2)?);
        let header = match protocol {
            6 => {
                let len = usize::from(*bytes.get(at + 12)? >> 4) * 4;
                len >= 20 && at + len <= bytes.len()
            }
            17 => usize::from(short(at + 4)?) == bytes.len() - at && bytes.len() >= at + 8,
            _ => false,
        };
        let dhcp = protocol == 17 && [(67, 68), (547, 546)].contains(&(from, port));
        let ordinary = match peer {
            IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] != 127 && !v4.is_broadcast(),
            IpAddr::V6(v6) => v6.octets()[..10] != [0; 10] && !v6.is_multicast(),
        };
        let is_own = own == IpAddr::from(POD4) || own == IpAddr::from(POD6);
        let opens_tcp = protocol == 6 && *bytes.get(at + 13)? & 0x12 == 2;
        (header && ordinary && is_own && !dhcp).then_some(Self {
            out,
            peer,
            protocol,
            port,
            opens_tcp,
        })
    }
}

fn ethernet(source: [u8; 6], ethertype: u16) -> Vec<u8> {
    let target = if source == POD_MAC { NODE_MAC } else { POD_MAC };
    [&target[..], &source, &ethertype.to_be_bytes()].concat()
}

/// Direction, peer, transport, fragment, options.
fn v4(input: &mut Input<'_>) -> (bool, Vec<u8>) {
    let out = input.flag();
    let peer = match input.below(8) {
        7 => input.array(),
        nth => PEERS[usize::from(nth) % PEERS.len()],
    };
    let (protocol, transport) = transport(input, POD4.as_slice(), peer.as_slice(), out);
    let fragment: u16 = *input.pick(&[0, 0, 0, 0x4000, 0x2000, 0x0001, 0x2001, 0x8000]);
    let options: &[u8] = input.pick::<&[u8]>(&[
        &[][..],
        &[],
        &[],
        &[1, 1, 1, 0],
        &[131, 3, 4, 0],
        &[137, 3, 4, 0],
        &[7, 4, 4, 0],
        &[68, 1, 0, 0],
    ]);
    let len = u16::try_from(20 + options.len() + transport.len()).unwrap_or(0);
    let mut frame = ethernet(if out { POD_MAC } else { NODE_MAC }, 0x0800);
    let words = u8::try_from(5 + options.len() / 4).unwrap_or(5);
    frame.extend([0x40 | words, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0]);
    let (source, destination) = if out { (POD4, peer) } else { (peer, POD4) };
    frame.extend(source);
    frame.extend(destination);
    frame.extend(options);
    frame.extend(transport);
    (out, frame)
}

/// Direction, peer, transport, an extension header.
fn v6(input: &mut Input<'_>) -> (bool, Vec<u8>) {
    let out = input.flag();
    let mut peer = [0; 16];
    peer[..2].copy_from_slice(&NETWORKS[usize::from(input.below(5))]);
    peer[15] = input.byte();
    let (protocol, transport) = transport(input, &POD6, &peer, out);
    let extension: (u8, Vec<u8>) = match input.below(8) {
        0 => (0, vec![protocol, 0, 1, 4, 0, 0, 0, 0]),
        1 => (43, vec![protocol, 0, 4, input.below(2), 0, 0, 0, 0]),
        2 => {
            let offset = input.short();
            let [high, low] = offset.to_be_bytes();
            (44, vec![protocol, 0, high, low, 0, 0, 0, 9])
        }
        3 => (60, vec![protocol, input.below(3), 1, 4, 0, 0, 0, 0]),
        _ => (protocol, Vec::new()),
    };
    let len = u16::try_from(extension.1.len() + transport.len()).unwrap_or(0);
    let mut frame = ethernet(if out { POD_MAC } else { NODE_MAC }, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([extension.0, *input.pick(&[64, 255, 1])]);
    let (source, destination) = if out { (POD6, peer) } else { (peer, POD6) };
    frame.extend(source);
    frame.extend(destination);
    frame.extend(extension.1);
    frame.extend(transport);
    (out, frame)
}

/// Ports, or an ICMP type, or an error that quotes the flow with these ports.
fn transport(input: &mut Input<'_>, own: &[u8], peer: &[u8], out: bool) -> (u8, Vec<u8>) {
    let is_v6 = own.len() == 16;
    let kind = input.below(8);
    let (own_port, peer_port) = (u16::from(input.byte()), u16::from(input.byte()) % 80);
    let (from, to) = if out {
        (own_port, peer_port)
    } else {
        (peer_port, own_port)
    };
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    match kind {
        0..=3 => {
            let flags = *input.pick(&[2, 0x10, 0x12, 0x11, 4, 0x18]);
            let tcp = [&ports[..], &[0; 8], &[0x50, flags, 0, 0, 0, 0, 0, 0]].concat();
            (6, tcp)
        }
        4 | 5 => (17, [&ports[..], &[0, 8, 0, 0]].concat()),
        6 => {
            let kinds: &[u8] = if is_v6 {
                &[128, 129, 133, 134, 135, 136, 137, 143]
            } else {
                &[8, 0, 13, 14, 5, 9, 3, 30]
            };
            let kind = *input.pick(kinds);
            let body = [&[kind, 0, 0, 0, 0, 7, 0, 1][..], &[0; 16]].concat();
            (if is_v6 { 58 } else { 1 }, body)
        }
        _ => {
            // An error towards `to` quotes what its receiver sent.
            let quoted = [to.to_be_bytes(), from.to_be_bytes(), [0, 8], [0, 0]].concat();
            let (source, destination) = if out { (peer, own) } else { (own, peer) };
            let mut body = if is_v6 {
                let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, 17, 64];
                body.extend(source);
                body.extend(destination);
                body
            } else {
                let mut body = vec![3, 1, 0, 0, 0, 0, 0, 0];
                body.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
                body.extend(source);
                body.extend(destination);
                body
            };
            body.extend(quoted);
            (if is_v6 { 58 } else { 1 }, body)
        }
    }
}
