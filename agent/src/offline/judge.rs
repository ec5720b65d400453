//! Judging flows: who is at both ends, what each end's policy says.
//!
//! In:  a world, policies, flows.
//! Out: one [`Outcome`] per flow, in order.
//! Not here: one peer on one port (`direction`), frontends of services (`service`), proxies (`l7`).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use fqdn_ebpf_common::reason::DropReason;
use identity::{AddressBook, IdentityId, LabelIdentities, LocalIdentities, reserved};
use ipnet::IpNet;
use policy::{
    compile::{CompileInput, NamedPorts, SelectorTable, Surroundings, prefixes_in},
    compiled::{Direction, Protocol},
    model::{CidrGroup, Policy},
};
use serde_saphyr::Spanned;

use super::{
    Cause, Decision, InputError, OfflineError, Outcome, Sourced, Verdict,
    compiled::{Compiled, Taught},
    direction::{dropped, judged},
    flow::Flow,
    given,
    l7::Said,
    service,
};
use crate::{
    WorldError,
    facts::{self, Party, Universe, View, World, written::Config},
    policies::Loaded,
};

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
    label_identities: LabelIdentities,
    /// The numbers of prefixes.
    numbers: BTreeMap<IpNet, IdentityId>,
    /// What each endpoint learned.
    names: HashMap<usize, Vec<Taught>>,
    locals: LocalIdentities,
    selectors: SelectorTable,
    views: HashMap<Option<usize>, (View, AddressBook)>,
    compiled: HashMap<usize, Compiled>,
}

impl<'a> Judge<'a> {
    fn new(
        world: &'a Sourced<World>,
        loaded: &'a Loaded,
        options: Options,
    ) -> Result<Self, OfflineError> {
        let mut label_identities = LabelIdentities::default();
        let universe = Universe::new(world, &[], &mut label_identities)?;
        let policies = &loaded.policies;
        let groups: Vec<_> = facts::groups(world)?
            .into_iter()
            .chain(loaded.groups.iter().cloned())
            .collect();
        let around = Surroundings {
            groups: groups.clone(),
            ..Surroundings::default()
        };
        let mut locals = LocalIdentities::default();
        let wanted = prefixes_in(policies, &around);
        let numbers = wanted
            .into_iter()
            .chain(universe.prefixes())
            .map(|prefix| Ok((prefix, locals.cidr(prefix).map_err(WorldError::from)?)))
            .collect::<Result<_, WorldError>>()?;
        Ok(Self {
            names: given::names(world, &universe)?,
            universe,
            config: &world.value.config,
            policies,
            options,
            numbers,
            label_identities,
            groups,
            locals,
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
            facts::Protocol::Icmp => &[true],
            facts::Protocol::Icmpv6 => &[false],
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
                &self.label_identities,
                &self.numbers,
                &self.groups,
            );
            let book = view.address_book(&[], &[]);
            self.views.insert(pod.home, (view, book));
        }
        let Some((view, _)) = self.views.get_mut(&pod.home) else {
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
        let (Some(compiled), Some((_, book))) = (
            self.compiled.get(&pod),
            home.and_then(|h| self.views.get(&h)),
        ) else {
            // Only endpoints that were prepared are judged.
            return dropped(
                DropReason::NoEndpoint.number(),
                DropReason::NoEndpoint.text(),
            );
        };
        let peer = compiled.peer(identity(book, party, address), address);
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
                reason_text: format!(
                    "audit lets it through: {}{}",
                    shadow.reason_text,
                    compiled.blamed(direction, &shadow)
                ),
                ..shadow
            },
            // What policies in audit steer is steered.
            (Verdict::Forwarded, Verdict::Redirected) => shadow,
            _ if compiled.audited => shadow,
            _ => enforced,
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

/// The identity of one end of a flow. A service has none of its own: nobody selects it.
fn identity(book: &AddressBook, party: Party, address: IpAddr) -> IdentityId {
    match party {
        Party::Service(..) => reserved::UNKNOWN,
        Party::Pod(_) | Party::Node(_) | Party::Outside(_) => book.lookup(address),
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
