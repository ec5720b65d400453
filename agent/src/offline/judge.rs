//! Judging flows: who is at both ends, what each end's policy says.
//!
//! In:  a world, policies, flows.
//! Out: one [`Outcome`] per flow, in order.
//! Not here: one peer on one port (`compiled`), frontends of services (`service`), proxies (`l7`).

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use fqdn_ebpf_common::{
    policy::{Action, MatchType},
    reason::DropReason,
};
use identity::{Label, LocalIdentities};
use ipnet::IpNet;
use policy::{
    compile::{CompileInput, NamedPorts, SelectorTable, Surroundings, prefixes_in},
    compiled::{self, Direction, L7Grant, Peer, Protocol},
    fqdn::Fqdn,
    model::{CidrGroup, Policy},
};
use serde_saphyr::Spanned;

use super::{
    Cause, Decision, InputError, L7, OfflineError, Outcome, Sourced, Verdict,
    compiled::{Compiled, Layer, PeerIs, Taught},
    entries,
    flow::{self, Flow},
    l7::Said,
    outcome::match_name,
    service,
    universe::{Party, Universe},
    view::View,
    world::{Config, World},
};
use crate::{WorldError, policies::Loaded};

/// How to judge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// As the datapath judges where the L7 proxy is not there.
    pub datapath_only: bool,
}

/// The verdicts of flows, in order.
///
/// # Errors
/// The first mistake in the world or the flows.
pub fn judge(
    world: &Sourced<World>,
    policies: &Loaded,
    flows: &Sourced<Vec<Spanned<Flow>>>,
    options: Options,
) -> Result<Vec<Outcome>, OfflineError> {
    let mut judge = Judge::new(world, policies, options)?;
    flows
        .value
        .iter()
        .enumerate()
        .map(|(at, flow)| {
            let case = judge.case(flows, at, &flow.value)?;
            Ok(judge.outcome(&case)?)
        })
        .collect()
}

/// A flow whose ends are known.
pub(super) struct Case {
    from: (Party, IpAddr),
    to: (Party, IpAddr),
    pub(super) protocol: Protocol,
    /// Destination port or ICMP type.
    pub(super) port: u16,
    pub(super) said: Said,
}

pub(super) struct Judge<'a> {
    pub(super) universe: Universe,
    config: &'a Config,
    policies: &'a [Policy],
    groups: Vec<CidrGroup>,
    options: Options,
    prefixes: BTreeSet<IpNet>,
    /// What each endpoint learned.
    names: HashMap<usize, Vec<Taught>>,
    locals: LocalIdentities,
    selectors: SelectorTable,
    views: HashMap<Option<usize>, View>,
    compiled: HashMap<usize, Compiled>,
}

impl<'a> Judge<'a> {
    fn new(
        world: &'a Sourced<World>,
        loaded: &'a Loaded,
        options: Options,
    ) -> Result<Self, OfflineError> {
        let universe = Universe::new(world)?;
        let policies = &loaded.policies;
        let groups: Vec<_> = groups_of(world)?
            .into_iter()
            .chain(loaded.groups.iter().cloned())
            .collect();
        let around = Surroundings {
            groups: groups.clone(),
            ..Surroundings::default()
        };
        Ok(Self {
            names: names(world, &universe)?,
            universe,
            config: &world.value.config,
            policies,
            options,
            prefixes: prefixes_in(policies, &around),
            groups,
            locals: LocalIdentities::default(),
            selectors: SelectorTable::default(),
            views: HashMap::new(),
            compiled: HashMap::new(),
        })
    }

    /// Who is at both ends of a flow, and what is said over it.
    fn case(
        &self,
        flows: &Sourced<Vec<Spanned<Flow>>>,
        at: usize,
        flow: &Flow,
    ) -> Result<Case, InputError> {
        let field = |name: &str| format!("flows[{at}].{name}");
        let party = |end: &Spanned<String>, name: &str| {
            self.universe
                .party(&end.value)
                .map_err(|cause| flows.wrong(end, field(name), cause))
        };
        let from = party(&flow.from, "from")?;
        let to = party(&flow.to, "to")?;
        if let Party::Service(..) = from {
            let cause = Cause::FromService(self.universe.name(from));
            return Err(flows.wrong(&flow.from, field("from"), cause));
        }
        let (from_address, to_address) = self
            .family(from, to, flow)
            .map_err(|cause| flows.wrong(&flow.to, field("to"), cause))?;
        let port =
            port(flow).map_err(|(name, cause)| flows.wrong(&flow.protocol, field(name), cause))?;
        let said = Said::of(flow)
            .map_err(|(name, cause)| flows.wrong(&flow.protocol, field(name), cause))?;
        Ok(Case {
            from: (from, from_address),
            to: (to, to_address),
            protocol: flow.protocol.value.into(),
            port,
            said,
        })
    }

    /// The addresses of both ends: the first of each in a family both have, IPv4 first.
    fn family(&self, from: Party, to: Party, flow: &Flow) -> Result<(IpAddr, IpAddr), Cause> {
        let families: &[bool] = match flow.protocol.value {
            flow::Protocol::Icmp => &[true],
            flow::Protocol::Icmpv6 => &[false],
            _ => &[true, false],
        };
        // What is written as an address is that one, whoever it belongs to.
        let addresses = |party, text: &str| match text.parse::<IpAddr>() {
            Ok(address) => vec![address.to_canonical()],
            Err(_) => self.universe.addresses(party),
        };
        let of_from = addresses(from, &flow.from.value);
        let of_to = addresses(to, &flow.to.value);
        let first = |all: &[IpAddr], v4| all.iter().copied().find(|a| a.is_ipv4() == v4);
        families
            .iter()
            .find_map(|v4| Some((first(&of_from, *v4)?, first(&of_to, *v4)?)))
            .ok_or_else(|| Cause::NoCommonFamily {
                from: flow.from.value.clone(),
                to: flow.to.value.clone(),
                protocol: (families.len() == 1).then_some(flow.protocol.value),
            })
    }

    /// A pod is judged on egress when it opens the flow, on ingress when the flow is to it.
    fn outcome(&mut self, case: &Case) -> Result<Outcome, WorldError> {
        let egress = match case.from.0 {
            Party::Pod(pod) => {
                self.prepare(pod)?;
                Some(match case.to.0 {
                    Party::Service(at, address) => service::decide(self, pod, at, address, case),
                    party => self.decide(pod, Direction::Egress, party, case.to.1, case, case.port),
                })
            }
            _ => None,
        };
        let ingress = match case.to.0 {
            Party::Pod(pod) => {
                self.prepare(pod)?;
                let (party, address) = case.from;
                Some(self.decide(pod, Direction::Ingress, party, address, case, case.port))
            }
            _ => None,
        };
        Ok(Outcome::of(egress, ingress))
    }

    /// Compiles an endpoint's policies the first time it is judged.
    fn prepare(&mut self, at: usize) -> Result<(), WorldError> {
        let Some(pod) = self.universe.pods.get(at) else {
            return Ok(());
        };
        if self.compiled.contains_key(&at) {
            return Ok(());
        }
        if !self.views.contains_key(&pod.home) {
            let view = View::new(
                &self.universe,
                pod.home,
                &self.config.cluster,
                self.prefixes.iter().copied(),
                &self.groups,
                &mut self.locals,
            )?;
            self.views.insert(pod.home, view);
        }
        let Some(view) = self.views.get_mut(&pod.home) else {
            return Ok(());
        };
        view.around.own_ports = NamedPorts::default();
        pod.name_ports(&mut view.around.own_ports);
        let input = CompileInput {
            policies: self.policies,
            subject: &pod.labels,
            identities: &view.identities,
            mode: self.config.policy_enforcement_mode.into(),
            allow_local_host: true,
            steer_dns: false,
        };
        let names = self.names.get(&at).map_or(&[][..], Vec::as_slice);
        let compiled = Compiled::new(
            &input,
            &view.around,
            self.config.policy_audit_mode,
            names,
            &mut self.selectors,
            &mut self.locals,
        )?;
        self.compiled.insert(at, compiled);
        Ok(())
    }

    /// What one endpoint's policies say about one peer.
    pub(super) fn decide(
        &self,
        pod: usize,
        direction: Direction,
        party: Party,
        address: IpAddr,
        case: &Case,
        port: u16,
    ) -> Decision {
        let home = self.universe.pods.get(pod).map(|pod| pod.home);
        let (Some(compiled), Some(view)) = (
            self.compiled.get(&pod),
            home.and_then(|h| self.views.get(&h)),
        ) else {
            // Only endpoints that were prepared are judged.
            return dropped(
                DropReason::NoEndpoint.number(),
                DropReason::NoEndpoint.text(),
            );
        };
        let peer = compiled.peer(view.identity(party, address), address);
        let ask = |layer| judged(layer, direction, &peer, case, port, self.options);
        let enforced = ask(&compiled.enforced);
        let Some(shadow) = compiled.shadow.as_ref().map(ask) else {
            return enforced;
        };
        match (enforced.verdict, shadow.verdict) {
            (Verdict::Dropped, _) => enforced,
            (_, Verdict::Dropped) => Decision {
                verdict: Verdict::Audit,
                reason: 0,
                reason_text: format!("audit lets it through: {}", shadow.reason_text),
                ..shadow
            },
            _ => shadow,
        }
    }

    /// Whether names teach this endpoint anything.
    pub(super) fn learns(&self, pod: usize) -> bool {
        self.compiled.get(&pod).is_some_and(|compiled| {
            std::iter::once(&compiled.enforced)
                .chain(&compiled.shadow)
                .any(|layer| !layer.policy.selectors.is_empty())
        })
    }
}

/// One policy about one peer. The kernel's function decides; what is known only here explains it,
/// and says what a proxy that is not part of the datapath would make of it.
fn judged(
    layer: &Layer,
    direction: Direction,
    peer: &PeerIs,
    case: &Case,
    port: u16,
    options: Options,
) -> Decision {
    let judgement = layer.judge(direction, peer, case.protocol, port);
    let explained = layer.explain(direction, peer, case.protocol, port);
    if let (compiled::Outcome::Redirected(proxy), false) =
        (explained.outcome, options.datapath_only)
    {
        let decision = Decision {
            match_type: match_name(strongest(&explained.grants)),
            rules: layer.policies(&explained.rule_sets, &explained.grants),
            ..forwarded()
        };
        let refused = case.said.refused_by(proxy, &explained);
        return redirected(decision, proxy.into(), refused);
    }
    let by_rule = matches!(
        explained.datapath,
        compiled::Outcome::Allowed | compiled::Outcome::Denied | compiled::Outcome::RedirectedDns
    );
    let decision = if by_rule {
        Decision {
            match_type: match_name(judgement.match_type),
            rules: layer.policies(&explained.rule_sets, &[]),
            ..forwarded()
        }
    } else {
        forwarded()
    };
    match judgement.action {
        Action::Allow => decision,
        Action::Deny => {
            let reason = if by_rule {
                DropReason::PolicyDeny
            } else {
                DropReason::PolicyDenied
            };
            let text = match explained.datapath {
                compiled::Outcome::Redirected(proxy) => format!(
                    "{}: only the {proxy} proxy could let it pass, and it is not there",
                    reason.text()
                ),
                _ => reason.text().to_owned(),
            };
            Decision {
                match_type: decision.match_type,
                rules: decision.rules,
                ..dropped(reason.number(), &text)
            }
        }
        Action::RedirectDns => {
            let refused = case.said.refused_by_dns(layer, peer, case.protocol, port);
            redirected(decision, L7::Dns, refused)
        }
    }
}

/// How the most specific of the L7 parts matched.
fn strongest(grants: &[&L7Grant]) -> MatchType {
    let of = |grant: &&L7Grant| (grant.peer != Peer::Any, entries::bits_of(grant.l4));
    grants
        .iter()
        .map(of)
        .max()
        .map_or(MatchType::None, |(specific, bits)| {
            MatchType::of(u32::from(specific), bits)
        })
}

/// What the proxy makes of it. A refusal of its own is no drop of the datapath.
fn redirected(decision: Decision, l7: L7, refused: Option<String>) -> Decision {
    let (verdict, reason_text) = match refused {
        Some(why) => (Verdict::Dropped, why),
        None => (Verdict::Redirected, String::new()),
    };
    Decision {
        verdict,
        l7: Some(l7),
        reason_text,
        ..decision
    }
}

const fn forwarded() -> Decision {
    Decision {
        verdict: Verdict::Forwarded,
        reason: 0,
        match_type: "none",
        l7: None,
        rules: Vec::new(),
        reason_text: String::new(),
    }
}

fn dropped(reason: u8, text: &str) -> Decision {
    Decision {
        verdict: Verdict::Dropped,
        reason,
        reason_text: text.to_owned(),
        ..forwarded()
    }
}

/// The destination port, or the ICMP type.
fn port(flow: &Flow) -> Result<u16, (&'static str, Cause)> {
    let protocol = flow.protocol.value;
    match (flow.port, protocol.is_icmp()) {
        (Some(_), true) => Err(("port", Cause::PortWithIcmp(protocol))),
        (None, true) => Ok(u16::from(flow.icmp_type())),
        (_, false) if flow.icmp.is_some() => Err(("icmp", Cause::IcmpWithout(protocol))),
        (Some(port), false) => Ok(port),
        (None, false) => Err(("port", Cause::PortMissing(protocol))),
    }
}

/// The groups of prefixes of the world.
fn groups_of(world: &Sourced<World>) -> Result<Vec<CidrGroup>, InputError> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (at, written) in world.value.cidr_groups.iter().enumerate() {
        let group = &written.value;
        if !seen.insert(&*group.name) {
            let cause = Cause::Twice {
                kind: "CIDR group",
                name: group.name.clone(),
            };
            return Err(world.wrong(written, format!("cidrGroups[{at}].name"), cause));
        }
        let labels = group.labels.iter();
        all.push(CidrGroup {
            name: (&*group.name).into(),
            labels: labels.map(|(key, value)| Label::k8s(key, value)).collect(),
            prefixes: group.cidrs.iter().map(|prefix| prefix.0).collect(),
            file: Arc::clone(&world.file),
            line: u32::try_from(written.referenced.line()).unwrap_or(0),
        });
    }
    Ok(all)
}

/// What each endpoint learned by name.
fn names(
    world: &Sourced<World>,
    universe: &Universe,
) -> Result<HashMap<usize, Vec<Taught>>, InputError> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for (at, written) in world.value.names.iter().enumerate() {
        let entry = &written.value;
        let field = |name: &str| format!("names[{at}].{name}");
        let party = universe
            .party(&entry.endpoint.value)
            .map_err(|cause| world.wrong(&entry.endpoint, field("endpoint"), cause))?;
        let Party::Pod(pod) = party else {
            let cause = Cause::Unknown {
                kind: "endpoint",
                name: entry.endpoint.value.clone(),
                suggestion: None,
            };
            return Err(world.wrong(&entry.endpoint, field("endpoint"), cause));
        };
        let name = Fqdn::parse(&entry.name.value).map_err(|why| {
            let cause = Cause::Name {
                name: entry.name.value.clone(),
                why: why.to_string(),
            };
            world.wrong(&entry.name, field("name"), cause)
        })?;
        let addresses = entry.ips.iter().map(|ip| ip.0).collect();
        all.entry(pod).or_default().push(Taught { name, addresses });
    }
    Ok(all)
}
