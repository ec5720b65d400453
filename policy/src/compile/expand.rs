//! One clause, taken apart: which peers, which L4, what happens.
//!
//! In:  a clause of a rule that selects the endpoint.
//! Out: grants (one rule, one peer, one L4) and the DNS and L7 rules that come with them.
//! Not here: merging (`compiled::resolve`, `tiers`), steering (`dns`).

use std::sync::Arc;

use super::{
    CompileError, SelectorTable, World,
    dns::Ask,
    interner::Interner,
    part::{Grant, GroupIndex, Part, RuleIndex},
    text, tiers,
    tiers::Say,
};
use crate::{
    compiled::{Action, Direction, L4, L7Grant, Level, Peer, PortPrefix, Protocol, RuleOrigin},
    model::{Clause, Effect, Peers, Policy, PortRange, PortRule, Ports, Prefix},
};

/// How many grants one endpoint's policies may come to before they are merged: far more than the
/// POLICY map holds, and little enough to be bounded in memory.
const MAX_GRANTS: usize = 2_000_000;
/// The same for pairs of peers as written and ports as written.
const MAX_ORIGINS: usize = 250_000;

/// Some peers of a clause: what selects them, where it stands.
struct Group {
    peers: Vec<Peer>,
    line: u32,
    what: String,
}

/// What every grant of a group has in common.
#[derive(Clone)]
struct Shared {
    direction: Direction,
    effect: Effect,
    level: Level,
    peers: Arc<[Peer]>,
    group: GroupIndex,
}

/// Values that rules share, by number.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) origins: Interner<RuleOrigin>,
    pub(super) groups: Interner<String>,
}

impl Shelf {
    /// A part needs its numbers no more.
    pub(super) fn release(&mut self, part: &Part) {
        for number in &part.origins {
            self.origins.release(*number);
        }
        for number in &part.groups {
            self.groups.release(*number);
        }
    }
}

/// How many more there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    grants: usize,
    origins: usize,
}

impl Room {
    /// What is left beside so many.
    pub(super) const fn beside(grants: usize, origins: usize) -> Self {
        Self {
            grants: MAX_GRANTS.saturating_sub(grants),
            origins: MAX_ORIGINS.saturating_sub(origins),
        }
    }
}

/// Expands one rule of a policy.
pub(super) fn part(
    policy: &Arc<Policy>,
    at: usize,
    world: &World<'_>,
    table: &mut SelectorTable,
    shelf: &mut Shelf,
    room: Room,
) -> Result<Part, CompileError> {
    let mut build = Build {
        world: *world,
        table,
        shelf,
        room,
        part: Part::new(Arc::clone(policy), at),
    };
    match build.rule(policy, at) {
        Ok(()) => {
            build.part.grants.sort_unstable();
            Ok(build.part)
        }
        Err(error) => {
            let Build { shelf, part, .. } = build;
            shelf.release(&part);
            Err(error)
        }
    }
}

struct Build<'a> {
    world: World<'a>,
    table: &'a mut SelectorTable,
    shelf: &'a mut Shelf,
    room: Room,
    part: Part,
}

impl Build<'_> {
    fn rule(&mut self, policy: &Policy, at: usize) -> Result<(), CompileError> {
        let Some(rule) = policy.rules.get(at) else {
            return Ok(());
        };
        for direction in [Direction::Ingress, Direction::Egress] {
            for clause in rule.clauses(direction) {
                let level = tiers::level(rule.tier, clause.order);
                self.clause(policy, level, direction, clause)?;
            }
        }
        Ok(())
    }

    fn clause(
        &mut self,
        policy: &Policy,
        level: Level,
        direction: Direction,
        clause: &Clause,
    ) -> Result<(), CompileError> {
        for group in self.groups(policy, direction, clause)? {
            let number = self.shelf.groups.acquire(group.what.clone());
            self.part.groups.push(number);
            let common = Shared {
                direction,
                effect: clause.effect,
                level,
                peers: group.peers.clone().into(),
                group: number,
            };
            self.grants_of(policy, clause, &common, &group)?;
        }
        Ok(())
    }

    /// The peers of a clause.
    fn groups(
        &mut self,
        policy: &Policy,
        direction: Direction,
        clause: &Clause,
    ) -> Result<Vec<Group>, CompileError> {
        let World { identities, around } = self.world;
        let group = |peers, line, what| Group { peers, line, what };
        let of_ids = |ids: Vec<_>| ids.into_iter().map(Peer::Identity).collect::<Vec<_>>();
        Ok(match &clause.peers {
            Peers::Nobody => Vec::new(),
            Peers::Any => vec![group(vec![Peer::Any], clause.line, "toPorts".into())],
            Peers::Endpoints(selectors) => selectors
                .iter()
                .map(|s| {
                    let what = text::endpoints(direction, &s.value);
                    group(of_ids(identities.select(&s.value)), s.line, what)
                })
                .collect(),
            Peers::Nodes(selectors) => selectors
                .iter()
                .map(|s| {
                    let what = text::nodes(direction, &s.value);
                    group(of_ids(identities.select(&s.value)), s.line, what)
                })
                .collect(),
            Peers::Entities(entities) => entities
                .iter()
                .map(|e| {
                    let what = text::entity(direction, e.value);
                    group(identities.entity(e.value), e.line, what)
                })
                .collect(),
            Peers::Services(services) => services
                .iter()
                .map(|s| {
                    let ids = around.backends(&s.value);
                    group(of_ids(ids), s.line, text::service(&s.value))
                })
                .collect(),
            Peers::Prefixes(rules) => {
                let mut groups = Vec::with_capacity(rules.len());
                for p in rules {
                    let what = text::prefix_rule(direction, &p.value);
                    let mut ids = Vec::new();
                    for prefix in around.prefixes(&p.value) {
                        ids.extend(self.within(&prefix, policy, p.line, &what)?);
                    }
                    groups.push(group(of_ids(ids), p.line, what));
                }
                groups
            }
            Peers::Networks(networks) => {
                let what = text::networks(networks.iter().map(|net| net.value));
                let nets: Vec<_> = networks.iter().map(|net| net.value).collect();
                let mut ids = around.in_networks(&nets, clause.effect);
                for net in networks {
                    let prefix = Prefix {
                        prefix: net.value,
                        except: Vec::new(),
                    };
                    ids.extend(self.within(&prefix, policy, net.line, &what)?);
                    // Without addresses nobody knows who is inside of a whole family: denying it
                    // denies everybody.
                    if net.value.prefix_len() == 0 && clause.effect == Effect::Deny {
                        let unknown = identities
                            .ids()
                            .filter(|id| !around.addresses.contains_key(id) && !id.is_world());
                        ids.extend(unknown);
                    }
                }
                ids.sort_unstable();
                ids.dedup();
                vec![group(of_ids(ids), clause.line, what)]
            }
            Peers::Names(names) => names
                .iter()
                .map(|n| {
                    let id = self.table.intern(&n.value);
                    self.part.selectors.push((id, n.value.clone()));
                    group(vec![Peer::Fqdn(id)], n.line, text::fqdn(&n.value))
                })
                .collect(),
        })
    }

    fn within(
        &self,
        prefix: &Prefix,
        policy: &Policy,
        line: u32,
        what: &str,
    ) -> Result<Vec<identity::IdentityId>, CompileError> {
        self.world
            .identities
            .within(prefix)
            .map_err(|prefix| CompileError::PrefixWithoutIdentity {
                prefix,
                origin: Box::new(RuleOrigin {
                    policy: policy.reference.clone(),
                    file: policy.file.clone(),
                    line,
                    text: what.to_owned(),
                }),
            })
    }

    /// What a clause grants to some of its peers.
    fn grants_of(
        &mut self,
        policy: &Policy,
        clause: &Clause,
        common: &Shared,
        group: &Group,
    ) -> Result<(), CompileError> {
        let what = text::shortened(&group.what);
        let what = format!("{}{what}", text::effect(clause.effect));
        let rules: &[PortRule] = match &clause.ports {
            Ports::Rules(rules) => rules,
            Ports::All | Ports::Icmp(_) => {
                let l4s: Vec<L4> = match &clause.ports {
                    Ports::Icmp(types) => types
                        .iter()
                        .map(|(proto, kind)| L4::port(*proto, u16::from(*kind)))
                        .collect(),
                    _ => vec![L4::Any],
                };
                self.check_origins()?;
                let text = format!("{what} {}", text::ports(&clause.ports, None));
                let rule = self.origin(policy, group.line, text);
                return self.grant(common, &l4s, Inside::ALLOWED, rule);
            }
        };
        for port_rule in rules {
            self.check_origins()?;
            let text = format!("{what} {}", text::ports(&clause.ports, Some(port_rule)));
            let rule = self.origin(policy, group.line, text);
            self.port_rule(common, port_rule, &port_rule.ports, rule)?;
            self.named_ports(common, port_rule, rule)?;
        }
        Ok(())
    }

    /// Names of ports: those of the endpoint itself for what comes in, those of each peer for
    /// what goes out.
    fn named_ports(
        &mut self,
        common: &Shared,
        port_rule: &PortRule,
        rule: RuleIndex,
    ) -> Result<(), CompileError> {
        if port_rule.named.is_empty() {
            return Ok(());
        }
        let around = self.world.around;
        if common.direction == Direction::Ingress {
            let own = &around.own_ports;
            let ranges: Vec<_> = port_rule
                .named
                .iter()
                .flat_map(|n| own.resolve(n))
                .collect();
            return self.port_rule(common, port_rule, &ranges, rule);
        }
        let peers: Vec<_> = if common.peers.contains(&Peer::Any) {
            around.ports.keys().copied().map(Peer::Identity).collect()
        } else {
            common.peers.to_vec()
        };
        for peer in peers {
            let Peer::Identity(id) = peer else {
                continue;
            };
            let Some(ports) = around.ports.get(&id) else {
                continue;
            };
            let ranges: Vec<_> = port_rule
                .named
                .iter()
                .flat_map(|n| ports.resolve(n))
                .collect();
            let one = Shared {
                peers: [peer].into(),
                ..common.clone()
            };
            self.port_rule(&one, port_rule, &ranges, rule)?;
        }
        Ok(())
    }

    /// Some ports of a port rule, for some peers.
    fn port_rule(
        &mut self,
        common: &Shared,
        port_rule: &PortRule,
        ranges: &[PortRange],
        rule: RuleIndex,
    ) -> Result<(), CompileError> {
        let origin = self.shelf.origins.get(rule).map(Arc::clone);
        let mut l4s = Vec::new();
        for range in ranges {
            for proto in range.protocols() {
                // The proxies speak what they speak: other protocols stay shut.
                if (port_rule.dns.is_some() && proto == Protocol::Sctp)
                    || (port_rule.l7.is_some() && proto != Protocol::Tcp)
                {
                    continue;
                }
                let prefixes = PortPrefix::split(range.first, range.last);
                l4s.extend(prefixes.into_iter().map(|ports| L4::new(proto, ports)));
            }
            if common.direction == Direction::Egress
                && common.effect == Effect::Allow
                // Tiers lift `rules.dns` only where they decide (`dns::Rules::steer`).
                && common.level == Level::NORMAL
                && range.is_single()
                && port_rule.l7.is_none()
            {
                let names = port_rule.dns.as_deref();
                let ask = Ask::new(&common.peers, *range, names, origin.as_ref());
                self.part.asks.extend(ask);
            }
        }
        // The same port twice says nothing more.
        l4s.sort_unstable();
        l4s.dedup();
        if let (Some(l7), Some(origin)) = (&port_rule.l7, &origin) {
            let inside = Inside {
                allowed: Action::NeedsProxy,
                reader: Some(l7.proxy().as_str()),
                bound: !l7.server_names.is_empty(),
            };
            self.grant(common, &l4s, inside, rule)?;
            for peer in &*common.peers {
                self.part.l7.extend(l4s.iter().map(|l4| L7Grant {
                    direction: common.direction,
                    peer: *peer,
                    l4: *l4,
                    l7: Arc::clone(l7),
                    rule: Arc::clone(origin),
                }));
            }
            return Ok(());
        }
        let inside = if port_rule.dns.is_some() {
            Inside {
                allowed: Action::RedirectDns,
                reader: Some("dns"),
                bound: false,
            }
        } else {
            Inside::ALLOWED
        };
        self.grant(common, &l4s, inside, rule)
    }

    /// The number of the rule's place and text.
    fn origin(&mut self, policy: &Policy, line: u32, text: String) -> RuleIndex {
        let number = self.shelf.origins.acquire(RuleOrigin {
            policy: policy.reference.clone(),
            file: Arc::clone(&policy.file),
            line,
            text,
        });
        self.part.origins.push(number);
        number
    }

    fn told(&self, rule: Option<&RuleIndex>) -> Option<Box<RuleOrigin>> {
        let origin = self.shelf.origins.get(*rule?)?;
        Some(Box::new(RuleOrigin::clone(origin)))
    }

    fn check_origins(&self) -> Result<(), CompileError> {
        if self.part.origins.len() < self.room.origins {
            return Ok(());
        }
        Err(CompileError::TooMany {
            limit: MAX_ORIGINS,
            origin: self.told(self.part.origins.last()),
        })
    }

    /// Whether so many more grants fit. Some rules multiply: every peer with every prefix of a
    /// range.
    fn check_room(&self, peers: &[Peer], l4s: &[L4], rule: RuleIndex) -> Result<(), CompileError> {
        let so_far = self.part.grants.len().saturating_add(self.part.l7.len());
        let more = peers.len().saturating_mul(l4s.len());
        if so_far.saturating_add(more) <= self.room.grants {
            return Ok(());
        }
        Err(CompileError::TooMany {
            limit: MAX_GRANTS,
            origin: self.told(Some(&rule)),
        })
    }

    fn grant(
        &mut self,
        common: &Shared,
        l4s: &[L4],
        inside: Inside,
        rule: RuleIndex,
    ) -> Result<(), CompileError> {
        self.check_room(&common.peers, l4s, rule)?;
        let say = match common.effect {
            Effect::Allow => Say::Do(inside.allowed),
            Effect::Deny => Say::Do(Action::Deny),
            Effect::Pass => Say::Pass,
        };
        for peer in &*common.peers {
            self.part.grants.extend(l4s.iter().map(|l4| Grant {
                direction: common.direction,
                peer: *peer,
                l4: *l4,
                level: common.level,
                say,
                reader: inside.reader,
                bound: inside.bound,
                group: Some(common.group),
                rule: Some(rule),
            }));
        }
        Ok(())
    }
}

/// What a port rule asks for besides its ports.
#[derive(Clone, Copy)]
struct Inside {
    /// What happens where the clause allows.
    allowed: Action,
    reader: Option<&'static str>,
    bound: bool,
}

impl Inside {
    /// Nothing: the packets pass as they are.
    const ALLOWED: Self = Self {
        allowed: Action::Allow,
        reader: None,
        bound: false,
    };
}
