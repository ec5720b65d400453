//! Our proxy with a policy of many rules, its map writer included.
//!
//! In:  the datapath, a port; the calling thread's network namespace.
//! Out: a running shard.
//! Not here: the relay beside it.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, bail};
use dnsproxy::{ControlMsg, ListenerSpec, Listeners, ShardThread, Upstreams};
use dnsproxy_core::{Config, Core, EndpointSnapshot, Snapshot};
use fqdn_ebpf_loader::Datapath;
use identity::SelectorId;
use policy::{
    compiled::{
        Action, Direction, DnsNames, DnsRule, DnsRuleKind, EndpointPolicy, Entry, L4, Peer,
        PortPrefix, Precedence, Protocol, RuleSetId,
    },
    fqdn::NameSelector,
};

use super::{
    arena::{ENDPOINT, RULES, SERVER},
    cpu::Cpu,
};

const NAME: &str = "bench-shard";

/// The shard.
#[derive(Debug)]
pub(super) struct Ours {
    shard: Option<ShardThread>,
    pub(super) cpu: Cpu,
}

impl Ours {
    pub(super) fn start(datapath: &Datapath, pod: IpAddr, port: u16) -> anyhow::Result<Self> {
        let listeners = Listeners::open(&ListenerSpec::new([port]))?;
        let upstreams = Upstreams::new(dnsproxy::local_opener());
        let core = Core::new(Config::default(), dnsproxy::entropy()?);
        let mut recorded = 0_u64;
        let record = move |_| recorded = recorded.wrapping_add(1);
        let writer = datapath.writer()?;
        let shard = dnsproxy::spawn(NAME, core, listeners, upstreams, writer, record)?;
        let snapshot = Snapshot {
            revision: 1,
            endpoints: vec![EndpointSnapshot {
                id: ENDPOINT,
                addresses: vec![pod],
                policy: Arc::new(policy()?),
                enforced: None,
                next: None,
                audit: false,
            }],
            trusted: [SERVER].into(),
            ..Snapshot::default()
        };
        let told = shard
            .control
            .blocking_send(ControlMsg::Snapshot(Box::new(snapshot)));
        if told.is_err() {
            bail!("the shard ended");
        }
        let cpu = support::until(
            std::time::Duration::from_secs(5),
            "the shard's thread",
            || Cpu::thread(NAME).ok(),
        )
        .context("starting the shard")?;
        Ok(Self {
            shard: Some(shard),
            cpu,
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            let _ = shard.control.blocking_send(ControlMsg::Stop);
            let _ = shard.end.join();
        }
    }
}

/// Rules by name, each for names of its own; every name may be asked for.
pub(super) fn policy() -> anyhow::Result<EndpointPolicy> {
    let entry = |peer, protocol, port, action| Entry {
        direction: Direction::Egress,
        peer,
        l4: L4::new(protocol, PortPrefix::one(port)),
        action,
        precedence: Precedence::of(action),
        rule_set: RuleSetId::from_raw(0),
    };
    let mut entries = vec![entry(Peer::Any, Protocol::Udp, 53, Action::RedirectDns)];
    entries.extend((0..RULES).map(|rule| {
        let peer = Peer::Fqdn(SelectorId::new(rule));
        entry(peer, Protocol::Tcp, 443, Action::Allow)
    }));
    let selectors = (0..RULES)
        .map(|rule| {
            let selector = NameSelector::pattern(&format!("*.r{rule:03}.bench.test"))?;
            Ok((SelectorId::new(rule), selector))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(EndpointPolicy {
        default_deny_egress: true,
        entries,
        selectors: selectors.into_iter().collect(),
        dns_rules: vec![DnsRule {
            kind: DnsRuleKind::Port,
            server: Peer::Any,
            proto: None,
            ports: PortPrefix::one(53),
            names: DnsNames::All,
            origin: None,
        }],
        ..EndpointPolicy::default()
    }
    .sorted())
}
