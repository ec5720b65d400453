//! Policies decided by reading every rule for one packet.
//!
//! In:  parsed policies, the endpoint's labels, what is true about one peer, one packet.
//! Out: allowed, redirected to a proxy, denied or not allowed; and which names may be asked.
//! Not here: identities, entries, prefixes of ports: nothing is compiled.

use std::net::IpAddr;

use identity::{Label, LabelSet, source};
use policy::{
    compiled::{Direction, Protocol},
    fqdn::{Fqdn, NameSelector},
    model::{
        Clause, Effect, Entity, NamedPort, Peers, Policy, PortRange, PortRule, Ports, PrefixRule,
        Rule, Tier,
    },
    selector::{CLUSTER, LabelSelector, complete},
};

/// What is true about the other side.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A workload, or an entity of the cluster, with these labels.
    Managed(LabelSet),
    /// An address outside, and the names the endpoint resolved to it.
    Outside(IpAddr, Vec<Fqdn>),
}

/// The first packet of a flow.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Seen from the endpoint.
    pub direction: Direction,
    /// The other side.
    pub peer: Fact,
    /// The protocol.
    pub proto: Protocol,
    /// The destination port, or the ICMP type.
    pub port: u16,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It passes.
    Allowed,
    /// It goes to the DNS proxy.
    Redirected,
    /// It goes to another proxy, and some rule about what is inside may allow it.
    NeedsProxy,
    /// No rule allows it.
    NotAllowed,
    /// A rule denies it.
    Denied,
}

/// The endpoint and everything that selects it.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// Every policy.
    pub policies: &'a [Policy],
    /// The endpoint's labels.
    pub subject: LabelSet,
    /// The name of the cluster.
    pub cluster: &'a str,
    /// The local node may come in unless denied.
    pub allow_local_host: bool,
    /// The ports that the endpoint's own containers have names for.
    pub own_ports: Vec<(&'static str, Protocol, u16)>,
    /// The same of workloads with these labels.
    pub ports: Vec<(LabelSet, &'static str, Protocol, u16)>,
}

impl Situation<'_> {
    /// What happens to a packet.
    pub fn judge(&self, packet: &Packet) -> Judgement {
        let decided = self.decide(packet);
        let to_dns = matches!(packet.proto, Protocol::Udp | Protocol::Tcp) && packet.port == 53;
        let steered = packet.direction == Direction::Egress && to_dns && self.learns();
        if decided == Judgement::Allowed && steered {
            return Judgement::Redirected;
        }
        decided
    }

    /// One tier after the other, without steering.
    fn decide(&self, packet: &Packet) -> Judgement {
        for admin in [true, false] {
            if !admin {
                let normal = self.normal(packet);
                if normal != Judgement::NotAllowed || self.default_deny(packet.direction) {
                    return normal;
                }
            }
            if let Some(effect) = self.first_in_order(packet, admin) {
                match effect {
                    Effect::Allow => return Judgement::Allowed,
                    Effect::Deny => return Judgement::Denied,
                    Effect::Pass => {}
                }
            }
        }
        Judgement::Allowed
    }

    /// The first clause of a tier with an order that matches; at one place deny comes before
    /// allow, and allow before pass.
    fn first_in_order(&self, packet: &Packet, admin: bool) -> Option<Effect> {
        let mut found: Vec<(u16, u16, u8, Effect)> = Vec::new();
        for rule in self.rules() {
            let priority = match rule.tier {
                Tier::Admin(priority) if admin => priority,
                Tier::Baseline(priority) if !admin => priority,
                _ => continue,
            };
            for clause in rule.clauses(packet.direction) {
                if self.clause_matches(clause, packet) {
                    let rank = match clause.effect {
                        Effect::Deny => 0,
                        Effect::Allow => 1,
                        Effect::Pass => 2,
                    };
                    found.push((priority, clause.order, rank, clause.effect));
                }
            }
        }
        found.sort_by_key(|(priority, order, rank, _)| (*priority, *order, *rank));
        found.first().map(|(.., effect)| *effect)
    }

    /// The tier where all rules speak at once and deny wins. `NotAllowed` when none speaks.
    fn normal(&self, packet: &Packet) -> Judgement {
        let direction = packet.direction;
        let (mut allowed, mut denied, mut redirected, mut proxied) = (false, false, false, false);
        for clause in self.clauses(direction) {
            if !self.peers_match(&clause.peers, &packet.peer) {
                continue;
            }
            let mut hit = |denies: bool| {
                denied |= denies;
                allowed |= !denies;
            };
            let denies = clause.effect == Effect::Deny;
            match &clause.ports {
                Ports::All => hit(denies),
                Ports::Icmp(types) => {
                    let is_type = |(proto, kind): &(Protocol, u8)| {
                        (*proto, u16::from(*kind)) == (packet.proto, packet.port)
                    };
                    if types.iter().any(is_type) {
                        hit(denies);
                    }
                }
                Ports::Rules(rules) => {
                    for rule in rules {
                        if !self.port_matches(rule, packet) {
                            continue;
                        }
                        match (&rule.dns, &rule.l7) {
                            (None, None) => hit(denies),
                            (Some(_), _) => redirected |= packet.proto != Protocol::Sctp,
                            (None, Some(_)) => proxied |= packet.proto == Protocol::Tcp,
                        }
                    }
                }
            }
        }
        if direction == Direction::Ingress
            && self.allow_local_host
            && self.has_ingress_rules()
            && self.default_deny(direction)
        {
            allowed |= is_host(&packet.peer);
        }
        if denied {
            Judgement::Denied
        } else if redirected {
            Judgement::Redirected
        } else if allowed {
            Judgement::Allowed
        } else if proxied && self.default_deny(direction) {
            Judgement::NeedsProxy
        } else {
            Judgement::NotAllowed
        }
    }

    fn clause_matches(&self, clause: &Clause, packet: &Packet) -> bool {
        self.peers_match(&clause.peers, &packet.peer)
            && match &clause.ports {
                Ports::All => true,
                Ports::Icmp(_) => false,
                Ports::Rules(rules) => rules.iter().any(|rule| self.port_matches(rule, packet)),
            }
    }

    fn port_matches(&self, rule: &PortRule, packet: &Packet) -> bool {
        rule.ports.iter().any(|range| matches(*range, packet))
            || rule.named.iter().any(|named| self.has_name(named, packet))
    }

    /// Whether the receiving side calls the port so. A name with two numbers is no name.
    fn has_name(&self, named: &NamedPort, packet: &Packet) -> bool {
        let receiver: Vec<_> = match (packet.direction, &packet.peer) {
            (Direction::Ingress, _) => self.own_ports.clone(),
            (Direction::Egress, Fact::Managed(labels)) => self
                .ports
                .iter()
                .filter(|(own, ..)| own == labels)
                .map(|(_, name, proto, port)| (*name, *proto, *port))
                .collect(),
            (Direction::Egress, Fact::Outside(..)) => Vec::new(),
        };
        let numbers: Vec<_> = receiver
            .iter()
            .filter(|(name, proto, _)| *name == &*named.name && *proto == packet.proto)
            .map(|(.., port)| *port)
            .collect();
        named.proto.is_none_or(|own| own == packet.proto)
            && !numbers.is_empty()
            && numbers.iter().all(|port| *port == packet.port)
    }

    /// Whether a name may be asked at a server, for a packet that is redirected.
    pub fn may_ask(&self, packet: &Packet, name: &Fqdn) -> bool {
        if !self.default_deny(Direction::Egress) {
            return true;
        }
        // Whom the first tier accepts, the tier with `rules.dns` is never asked about.
        if self.first_in_order(packet, true) == Some(Effect::Allow) {
            return true;
        }
        let mut spoken = false;
        for clause in self.clauses(Direction::Egress) {
            let Ports::Rules(rules) = &clause.ports else {
                continue;
            };
            if clause.effect != Effect::Allow || !self.peers_match(&clause.peers, &packet.peer) {
                continue;
            }
            for rule in rules {
                if rule.l7.is_some() || !self.about_port(rule, packet) {
                    continue;
                }
                spoken = true;
                let fits = |names: &Vec<NameSelector>| {
                    names.iter().any(|n| n.is_every_name() || n.matches(name))
                };
                if rule.dns.as_ref().is_none_or(fits) {
                    return true;
                }
            }
        }
        !spoken
    }

    /// Whether the rule is about exactly this port.
    fn about_port(&self, rule: &PortRule, packet: &Packet) -> bool {
        let single = |range: &PortRange| range.first == range.last && matches(*range, packet);
        rule.ports.iter().any(single) || rule.named.iter().any(|named| self.has_name(named, packet))
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let subject = complete(&self.subject, self.cluster);
        self.policies
            .iter()
            .flat_map(|p| &p.rules)
            .filter(move |rule| selects(&rule.subject, &subject))
    }

    /// The clauses of the tier that all policies without one share.
    fn clauses(&self, direction: Direction) -> impl Iterator<Item = &Clause> {
        self.rules()
            .filter(|rule| rule.tier == Tier::Normal)
            .flat_map(move |rule| rule.clauses(direction))
    }

    fn default_deny(&self, direction: Direction) -> bool {
        self.rules().any(|rule| rule.default_deny(direction))
    }

    fn has_ingress_rules(&self) -> bool {
        self.clauses(Direction::Ingress).next().is_some()
    }

    fn learns(&self) -> bool {
        let shut = self.default_deny(Direction::Egress);
        self.rules()
            .filter(|rule| !(shut && matches!(rule.tier, Tier::Baseline(_))))
            .flat_map(|rule| &rule.egress)
            .any(|clause| matches!(&clause.peers, Peers::Names(names) if !names.is_empty()))
    }

    fn peers_match(&self, peers: &Peers, fact: &Fact) -> bool {
        match peers {
            Peers::Any => true,
            Peers::Nobody => false,
            Peers::Endpoints(selectors) => {
                let labels = self.labels(fact);
                selectors.iter().any(|s| selects(&s.value, &labels))
            }
            Peers::Entities(entities) => {
                let labels = self.labels(fact);
                entities.iter().any(|e| self.is_entity(e.value, &labels))
            }
            Peers::Nodes(selectors) => {
                let labels = self.labels(fact);
                selectors.iter().any(|s| selects(&s.value, &labels))
            }
            // Groups and services are known to nobody here.
            Peers::Services(_) => false,
            Peers::Prefixes(rules) => match fact {
                Fact::Managed(_) => false,
                Fact::Outside(address, _) => rules.iter().any(|rule| match &rule.value {
                    PrefixRule::Cidr(p) => {
                        p.prefix.contains(address) && !p.except.iter().any(|e| e.contains(address))
                    }
                    PrefixRule::Group { .. } | PrefixRule::Groups { .. } => false,
                }),
            },
            // Addresses of workloads are known to nobody here.
            Peers::Networks(networks) => match fact {
                Fact::Managed(_) => false,
                Fact::Outside(address, _) => networks.iter().any(|n| n.value.contains(address)),
            },
            Peers::Names(selectors) => match fact {
                Fact::Managed(_) => false,
                Fact::Outside(_, names) => selectors
                    .iter()
                    .any(|s| names.iter().any(|name| s.value.matches(name))),
            },
        }
    }

    fn labels(&self, fact: &Fact) -> LabelSet {
        match fact {
            Fact::Managed(labels) => complete(labels, self.cluster),
            Fact::Outside(address, _) => {
                let family = if address.is_ipv4() {
                    "world-ipv4"
                } else {
                    "world-ipv6"
                };
                ["world", family].into_iter().map(Label::reserved).collect()
            }
        }
    }

    fn is_entity(&self, entity: Entity, labels: &LabelSet) -> bool {
        let reserved = |name: &str| {
            labels
                .iter()
                .any(|l| l.source() == source::RESERVED && l.key() == name)
        };
        let cluster = |own: bool| {
            labels
                .iter()
                .any(|l| l.key() == CLUSTER && (!own || l.value() == self.cluster))
        };
        let infrastructure = [
            "host",
            "remote-node",
            "init",
            "ingress",
            "health",
            "unmanaged",
            "kube-apiserver",
        ];
        match entity {
            Entity::All => true,
            Entity::None => false,
            Entity::Cluster => infrastructure.into_iter().any(reserved) || cluster(true),
            Entity::ClusterMesh => infrastructure.into_iter().any(reserved) || cluster(false),
            other => reserved(other.as_str()),
        }
    }
}

fn selects(selector: &LabelSelector, labels: &LabelSet) -> bool {
    selector.requirements().iter().all(|r| r.matches(labels))
}

fn is_host(fact: &Fact) -> bool {
    matches!(fact, Fact::Managed(labels) if labels.iter().any(|l| *l == Label::reserved("host")))
}

fn matches(range: PortRange, packet: &Packet) -> bool {
    let has_ports = matches!(packet.proto, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
    has_ports
        && range.proto.is_none_or(|own| own == packet.proto)
        && range.first <= packet.port
        && packet.port <= range.last
}
