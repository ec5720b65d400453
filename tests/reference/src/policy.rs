//! Policies decided by reading every rule for one packet.
//!
//! In:  parsed policies, the endpoint's labels, what is true about one peer, one packet.
//! Out: allowed, redirected to the DNS proxy, or not allowed; and which names may be asked.
//! Not here: identities, entries, prefixes of ports: nothing is compiled.

use std::net::IpAddr;

use identity::{Label, LabelSet, source};
use policy::{
    compiled::{Direction, Protocol},
    fqdn::{Fqdn, NameSelector},
    model::{Clause, Entity, Peers, Policy, PortRange, PortRule, Ports, Rule},
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
    /// No rule allows it.
    NotAllowed,
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
}

impl Situation<'_> {
    /// What happens to a packet.
    pub fn judge(&self, packet: &Packet) -> Judgement {
        let direction = packet.direction;
        let mut allowed = !self.default_deny(direction);
        let mut redirected = false;
        for clause in self.clauses(direction) {
            if !self.peers_match(&clause.peers, &packet.peer) {
                continue;
            }
            match &clause.ports {
                Ports::All => allowed = true,
                Ports::Icmp(types) => {
                    allowed |= types.iter().any(|(proto, kind)| {
                        (*proto, u16::from(*kind)) == (packet.proto, packet.port)
                    });
                }
                Ports::Rules(rules) => {
                    for rule in rules {
                        let hit = rule.ports.iter().any(|range| matches(*range, packet));
                        match &rule.dns {
                            _ if !hit => {}
                            None => allowed = true,
                            Some(_) => redirected |= packet.proto != Protocol::Sctp,
                        }
                    }
                }
            }
        }
        if direction == Direction::Ingress && self.allow_local_host && self.has_ingress_rules() {
            allowed |= is_host(&packet.peer);
        }
        let to_dns = matches!(packet.proto, Protocol::Udp | Protocol::Tcp) && packet.port == 53;
        let steered = direction == Direction::Egress && to_dns && self.learns();
        if redirected || (allowed && steered) {
            Judgement::Redirected
        } else if allowed {
            Judgement::Allowed
        } else {
            Judgement::NotAllowed
        }
    }

    /// Whether a name may be asked at a server, for a packet that is redirected.
    pub fn may_ask(&self, packet: &Packet, name: &Fqdn) -> bool {
        if !self.default_deny(Direction::Egress) {
            return true;
        }
        let mut spoken = false;
        for clause in self.clauses(Direction::Egress) {
            let Ports::Rules(rules) = &clause.ports else {
                continue;
            };
            if !self.peers_match(&clause.peers, &packet.peer) {
                continue;
            }
            for rule in rules {
                if !about_port(rule, packet) {
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

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let subject = complete(&self.subject, self.cluster);
        self.policies
            .iter()
            .flat_map(|p| &p.rules)
            .filter(move |rule| selects(&rule.subject, &subject))
    }

    fn clauses(&self, direction: Direction) -> impl Iterator<Item = &Clause> {
        self.rules().flat_map(move |rule| rule.clauses(direction))
    }

    fn default_deny(&self, direction: Direction) -> bool {
        self.rules().any(|rule| rule.default_deny(direction))
    }

    fn has_ingress_rules(&self) -> bool {
        self.rules().any(|rule| !rule.ingress.is_empty())
    }

    fn learns(&self) -> bool {
        self.clauses(Direction::Egress)
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
            Peers::Prefixes(prefixes) => match fact {
                Fact::Managed(_) => false,
                Fact::Outside(address, _) => prefixes.iter().any(|p| {
                    p.value.prefix.contains(address)
                        && !p.value.except.iter().any(|e| e.contains(address))
                }),
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

/// Whether the rule names exactly this port.
fn about_port(rule: &PortRule, packet: &Packet) -> bool {
    rule.ports
        .iter()
        .any(|range| range.first == range.last && matches(*range, packet))
}
