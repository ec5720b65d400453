//! Our programs with maps as full as on a busy node.
//!
//! In:  the event budget.
//! Out: a loaded [`Engine`] with one endpoint, and peers of every kind that it may reach.
//! Not here: attaching it anywhere.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use dnsproxy_core::{Learned, LearnedSlot, LearnedWriter as _, Moment};
use fqdn_ebpf_loader::{Config, Datapath, EndpointSpec, Events, PolicyId, Sizes};
use identity::{AddressBook, EndpointId, IdentityId, LocalIdentities, SelectorId, SelectorSet};
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use policy::compiled::{
    Action, Direction, EndpointPolicy, Entry, L4, Peer, PortPrefix, Precedence, Protocol, RuleSetId,
};

use super::frame::{POD, POD_MAC};

/// The port everything allowed is reached at.
pub(super) const PORT: u16 = 443;
/// A peer that the workload knows by name only.
pub(super) const BY_NAME: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// A peer with an identity of its own.
pub(super) const BY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 77);
/// A peer within a prefix.
pub(super) const BY_PREFIX: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 5);
/// A prefix with many peers.
pub(super) const MANY: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 19, 0, 0), 16);

const ADDRESSES: u32 = 100_000;
const PREFIXES: u32 = 16_000;
const IDENTITIES: u32 = 3_750;
/// With the sixteenth of [`PREFIXES`] that is allowed: 16,000 entries.
const PORTS: [u16; 4] = [80, PORT, 5432, 8080];

const FIRST_IDENTITY: u32 = 256;
const PREFIX_IDENTITY: u32 = 0x0100_1000;
const MANY_IDENTITY: u32 = 0x0100_0500;
const NAME: u32 = 1;
const ENDPOINT: EndpointId = EndpointId::new(5);
const POLICY: PolicyId = PolicyId::new(1);

/// Programs and maps in the kernel.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) datapath: Datapath,
    /// Taken by whoever consumes them.
    pub(super) events: Option<Events>,
}

impl Engine {
    /// Loads, fills, and puts the endpoint behind this interface.
    pub(super) fn new(config: &Config, ifindex: u32) -> anyhow::Result<Self> {
        let sizes = Sizes {
            endpoints: 256,
            addresses: ADDRESSES,
            prefixes: PREFIXES + 8,
            ..Sizes::default()
        };
        let identities = Arc::new(Mutex::new(LocalIdentities::default()));
        let mut datapath = Datapath::load(&sizes, config, identities)?;
        datapath.ipcache(&addresses()?)?;
        datapath.set_policy(POLICY, &policy())?;
        let spec = EndpointSpec {
            v4: Some(POD),
            enforced: Some(POLICY),
            ..EndpointSpec::new(ENDPOINT, POD_MAC)
        };
        datapath.set_endpoint(ifindex, &spec)?;
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        let expires = Moment::from_nanos(u64::try_from(now.as_nanos())?);
        datapath
            .writer()?
            .put(&Learned {
                endpoint: ENDPOINT,
                address: BY_NAME.into(),
                slots: std::iter::once(LearnedSlot {
                    set: SelectorSet::new([SelectorId::new(NAME)]),
                    expires: expires.after(Duration::from_secs(24 * 3600)),
                })
                .collect(),
            })
            .context("writing what a name taught")?;
        let events = datapath.events();
        Ok(Self { datapath, events })
    }
}

fn addresses() -> anyhow::Result<AddressBook> {
    let mut book = AddressBook::default();
    let at = |base: [u8; 4], offset: u32| Ipv4Addr::from_bits(u32::from_be_bytes(base) + offset);
    for n in 0..ADDRESSES {
        let identity = IdentityId::from_raw(FIRST_IDENTITY + n % IDENTITIES);
        book.insert_address(IpAddr::V4(at([10, 64, 0, 0], n)), identity);
    }
    for n in 0..PREFIXES {
        let prefix = IpNet::new(IpAddr::V4(at([172, 16, 0, 0], n * 16)), 28)?;
        book.insert_prefix(prefix, IdentityId::from_raw(PREFIX_IDENTITY + n));
    }
    let many = IpNet::new(IpAddr::V4(MANY.0), MANY.1)?;
    book.insert_prefix(many, IdentityId::from_raw(MANY_IDENTITY));
    Ok(book)
}

fn policy() -> EndpointPolicy {
    let allow_l4 = |peer, protocol, port| Entry {
        direction: Direction::Egress,
        peer,
        l4: L4::new(protocol, PortPrefix::one(port)),
        action: Action::Allow,
        precedence: Precedence::of(Action::Allow),
        rule_set: RuleSetId::from_raw(0),
    };
    let allow = |peer, port| allow_l4(peer, Protocol::Tcp, port);
    let identity = |n| Peer::Identity(IdentityId::from_raw(n));
    let name = Peer::Fqdn(SelectorId::new(NAME));
    let mut entries = vec![
        allow(name, PORT),
        allow_l4(name, Protocol::Udp, PORT),
        allow(identity(MANY_IDENTITY), PORT),
    ];
    for n in 0..IDENTITIES {
        entries.extend(PORTS.map(|port| allow(identity(FIRST_IDENTITY + n), port)));
    }
    entries.extend(
        (0..PREFIXES)
            .step_by(16)
            .map(|n| allow(identity(PREFIX_IDENTITY + n), PORT)),
    );
    EndpointPolicy {
        default_deny_egress: true,
        entries,
        ..EndpointPolicy::default()
    }
    .sorted()
}
