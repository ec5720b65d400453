//! From policies to one endpoint's [`EndpointPolicy`].
//!
//! In:  policies, the endpoint's labels, the identities that are known, the mode.
//! Out: entries that keep the invariant of `compiled`, selectors, DNS rules.
//! Not here: parsing; numbers of identities; writing maps.
//!
//! Meaning: `pkg/policy/{rule,l4,mapstate}.go` of Cilium 1.20, with the differences written down
//! in docs/differences.md.

mod dns;
mod expand;
mod frontends;
mod identities;
mod l7;
mod surroundings;
mod table;
mod text;
mod tiers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use identity::{LabelSet, SelectorId, reserved, source};
use ipnet::IpNet;

pub use identities::Identities;
pub use surroundings::{Backend, Frontend, FrontendPort, NamedPorts, Service, Surroundings};
pub use table::SelectorTable;
use tiers::{Said, Say};

use crate::{
    compiled::{
        Action, Direction, EndpointPolicy, Entry, L4, Layer, Layered, Level, Peer, RuleOrigin,
        RuleSet, RuleSetId, Selectors, resolve,
    },
    fqdn::NameSelector,
    model::{Mode, Peers, Policy, PrefixRule, Rule, Tier},
    selector::complete,
};

/// When endpoints are restricted (`enable-policy` of Cilium).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnforcementMode {
    /// Once a policy selects them.
    #[default]
    Default,
    /// Always: without a policy nothing passes.
    Always,
    /// Never.
    Never,
}

/// What one endpoint's policy is made from.
#[derive(Clone, Debug)]
pub struct CompileInput<'a> {
    /// Every policy; those that do not select the endpoint are passed over.
    pub policies: &'a [Policy],
    /// The endpoint's labels, its namespace among them.
    pub subject: &'a LabelSet,
    /// The identities peers can have.
    pub identities: &'a Identities,
    /// When endpoints are restricted.
    pub mode: EnforcementMode,
    /// Whether the local node may reach the endpoint unless a rule denies it (kubelet probes).
    pub allow_local_host: bool,
    /// Whether all allowed DNS goes through the proxy even where no rule asks for it: in a pod whose
    /// only resolver is the proxy, nobody else would answer.
    pub steer_dns: bool,
}

/// Why a policy cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The caller forgot to give a prefix of a policy an identity.
    #[error("the prefix `{prefix}` of {origin} has no identity")]
    PrefixWithoutIdentity {
        /// The prefix.
        prefix: IpNet,
        /// The rule that names it.
        origin: Box<RuleOrigin>,
    },
    /// One port of one peer, read by two proxies.
    #[error(
        "{first} and {second} are about the same peers and port, and one connection cannot be read as both {}",
        .kinds.join(" and ")
    )]
    Conflict {
        /// One rule.
        first: Box<RuleOrigin>,
        /// The other.
        second: Box<RuleOrigin>,
        /// What they take the connections for.
        kinds: [&'static str; 2],
    },
    /// More than memory should be spent on.
    #[error(
        "the policies of one endpoint come to more than {limit} pairs of a peer and a port{}; write fewer ranges, or select fewer peers",
        .origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default()
    )]
    TooMany {
        /// How many are allowed.
        limit: usize,
        /// The rule at which it became too many.
        origin: Option<Box<RuleOrigin>>,
    },
}

/// The prefixes that need an identity: those rules name, and their exceptions. Whole families
/// are the world, which has one.
pub fn prefixes(policies: &[Policy]) -> BTreeSet<IpNet> {
    prefixes_in(policies, &Surroundings::default())
}

/// The same, with the prefixes of the groups that rules refer to.
pub fn prefixes_in(policies: &[Policy], around: &Surroundings) -> BTreeSet<IpNet> {
    let mut found = BTreeSet::new();
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    for clause in rules.flat_map(|rule| rule.ingress.iter().chain(&rule.egress)) {
        match &clause.peers {
            Peers::Prefixes(rules) => {
                for prefix in rules.iter().flat_map(|rule| around.prefixes(&rule.value)) {
                    found.insert(prefix.prefix);
                    found.extend(prefix.except);
                }
                // Exceptions count even while the group is not there: it may come.
                for rule in rules {
                    if let PrefixRule::Group { except, .. } | PrefixRule::Groups { except, .. } =
                        &rule.value
                    {
                        found.extend(except);
                    }
                }
            }
            Peers::Networks(networks) => found.extend(networks.iter().map(|net| net.value)),
            _ => {}
        }
    }
    found.retain(|prefix| prefix.prefix_len() > 0);
    found
}

/// Compiles the policies that select the endpoint.
///
/// # Errors
/// When a prefix of a policy has no identity, or rules contradict each other: nothing is compiled
/// then, and the policy in force stays.
pub fn compile(
    input: &CompileInput<'_>,
    selectors: &mut SelectorTable,
) -> Result<EndpointPolicy, CompileError> {
    compile_in(input, &Surroundings::default(), selectors)
}

/// The same, with what rules may refer to besides identities.
///
/// # Errors
/// As [`compile`].
pub fn compile_in(
    input: &CompileInput<'_>,
    around: &Surroundings,
    selectors: &mut SelectorTable,
) -> Result<EndpointPolicy, CompileError> {
    compile_those(input, around, selectors, |_| true)
}

/// The same, with and without the policies in audit.
///
/// # Errors
/// As [`compile`].
pub fn compile_layered(
    input: &CompileInput<'_>,
    around: &Surroundings,
    selectors: &mut SelectorTable,
) -> Result<Layered, CompileError> {
    let whole = Arc::new(compile_in(input, around, selectors)?);
    let is_enforced = |policy: &Policy| policy.mode == Mode::Enforce;
    let enforced = if input.policies.iter().all(is_enforced) {
        None
    } else {
        let enforced = compile_those(input, around, selectors, is_enforced)?;
        // Policies in audit that do not select the endpoint change nothing.
        (enforced != *whole).then(|| Arc::new(enforced))
    };
    Ok(Layered { whole, enforced })
}

fn compile_those(
    input: &CompileInput<'_>,
    around: &Surroundings,
    selectors: &mut SelectorTable,
    counts: impl Fn(&Policy) -> bool,
) -> Result<EndpointPolicy, CompileError> {
    if input.mode == EnforcementMode::Never {
        return Ok(EndpointPolicy::default());
    }
    let subject = complete(input.subject, input.identities.cluster());
    let always = input.mode == EnforcementMode::Always
        || subject
            .iter()
            .any(|l| l.source() == source::RESERVED && l.key() == "init");
    let rules: Vec<(&Policy, &Rule)> = input
        .policies
        .iter()
        .filter(|policy| counts(policy))
        .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
        .filter(|(_, rule)| rule.subject.matches(&subject))
        .collect();
    let shut = |direction| rules.iter().any(|(_, rule)| rule.default_deny(direction));
    let default_deny_ingress = always || shut(Direction::Ingress);
    let default_deny_egress = always || shut(Direction::Egress);
    let ingress_rule = rules
        .iter()
        .any(|(_, rule)| rule.tier == Tier::Normal && !rule.ingress.is_empty());
    let mut build = Build {
        identities: input.identities,
        around,
        table: selectors,
        grants: Vec::new(),
        origins: Vec::new(),
        selectors: BTreeMap::new(),
        dns: dns::Rules::default(),
        l7: l7::Rules::default(),
        default_deny: DefaultDeny {
            ingress: default_deny_ingress,
            egress: default_deny_egress,
        },
        steer_dns: input.steer_dns,
        accepted_names: BTreeSet::new(),
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        let shut = shut(direction);
        for (policy, rule) in &rules {
            // Where rules of the normal tier end in a deny, the tier after it is never asked.
            if shut && matches!(rule.tier, Tier::Baseline(_)) {
                continue;
            }
            for clause in rule.clauses(direction) {
                build.clause(policy, rule, direction, clause)?;
            }
        }
    }
    // Mode `always` shuts out even the local node until a first ingress rule speaks.
    if default_deny_ingress && ingress_rule && input.allow_local_host {
        build.grants.push(Grant {
            direction: Direction::Ingress,
            peer: Peer::Identity(reserved::HOST),
            l4: L4::Any,
            level: Level::NORMAL,
            say: Say::Do(Action::Allow),
            group: None,
            rule: None,
        });
    }
    let mut policy = build.finish()?;
    for direction in [Direction::Ingress, Direction::Egress] {
        let shutting = rules
            .iter()
            .filter(|(_, rule)| rule.default_deny(direction));
        let shutting = shutting.map(|(policy, _)| (direction, policy.reference.clone()));
        policy.shut_by.extend(shutting);
    }
    policy.shut_by.sort_unstable();
    policy.shut_by.dedup();
    frontends::decide(&mut policy, &around.frontends);
    Ok(policy)
}

/// Index into the origins.
type RuleIndex = u32;

/// One rule about one peer and one L4, not merged with others yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    direction: Direction,
    peer: Peer,
    l4: L4,
    level: Level,
    say: Say,
    /// The selector the peer was found by, where a rule about server names may be bound to it.
    group: Option<l7::GroupIndex>,
    rule: Option<RuleIndex>,
}

/// In which directions nothing passes without a rule.
#[derive(Clone, Copy)]
struct DefaultDeny {
    ingress: bool,
    egress: bool,
}

impl DefaultDeny {
    const fn of(self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

struct Build<'a> {
    identities: &'a Identities,
    around: &'a Surroundings,
    table: &'a mut SelectorTable,
    grants: Vec<Grant>,
    origins: Vec<Arc<RuleOrigin>>,
    selectors: BTreeMap<SelectorId, NameSelector>,
    dns: dns::Rules,
    l7: l7::Rules,
    default_deny: DefaultDeny,
    steer_dns: bool,
    /// The levels of the first tier at which names are accepted.
    accepted_names: BTreeSet<Level>,
}

impl Build<'_> {
    /// The entries of everything gathered.
    fn finish(mut self) -> Result<EndpointPolicy, CompileError> {
        let learns = self.steer_dns || !self.selectors.is_empty();
        let steered = self.dns.steered_ports(learns);
        if !self.default_deny.egress {
            for l4 in self.dns.unrestricted(&steered, learns) {
                self.grants.push(Grant {
                    direction: Direction::Egress,
                    peer: Peer::Any,
                    l4,
                    level: Level::DEFAULT,
                    say: Say::Do(Action::RedirectDns),
                    group: None,
                    rule: None,
                });
            }
        }
        let l7 = &self.l7;
        self.grants.retain(|grant| !l7.is_bound(grant));
        self.grants.sort_unstable();
        self.grants.dedup();
        self.accepted_names = self
            .grants
            .iter()
            .filter(|grant| matches!(grant.peer, Peer::Fqdn(_)) && grant.level > Level::NORMAL)
            .map(|grant| grant.level)
            .collect();
        let mut policy = EndpointPolicy {
            default_deny_ingress: self.default_deny.ingress,
            default_deny_egress: self.default_deny.egress,
            ..EndpointPolicy::default()
        };
        let mut sets = RuleSets::default();
        let chunks = self
            .grants
            .chunk_by(|a, b| (a.direction, a.peer) == (b.direction, b.peer));
        for grants in chunks {
            let Some(Grant {
                direction, peer, ..
            }) = grants.first().copied()
            else {
                continue;
            };
            let otherwise = if policy.default_deny(direction) {
                Action::Refuse
            } else {
                Action::Allow
            };
            let mut layers = self.layers(grants, direction, peer, otherwise);
            if learns && direction == Direction::Egress {
                self.dns.steer(peer, &mut layers, &self.origins);
            }
            for layer in layers {
                policy.entries.push(Entry {
                    direction,
                    peer,
                    l4: layer.l4,
                    action: layer.action,
                    precedence: layer.precedence,
                    rule_set: sets.intern(layer.rules),
                });
            }
        }
        policy.rule_sets = sets.finish(&self.origins);
        policy.selectors = self.selectors.into_iter().collect::<Selectors>();
        policy.dns_rules = self.dns.finish(&steered);
        policy.needs_proxy = self.l7.finish();
        Ok(policy.sorted())
    }

    /// What all grants of one direction and peer come to.
    fn layers(
        &self,
        grants: &[Grant],
        direction: Direction,
        peer: Peer,
        otherwise: Action,
    ) -> Vec<Layer<RuleIndex>> {
        let highest_pass = grants
            .iter()
            .filter(|grant| grant.say == Say::Pass)
            .map(|grant| grant.level)
            .max();
        let Some(highest_pass) = highest_pass else {
            return resolve(grants.iter().filter_map(|g| g.said().layer()).collect());
        };
        let everybody = || {
            let key = (direction, Peer::Any);
            let first = self.grants.partition_point(|g| (g.direction, g.peer) < key);
            let last = self
                .grants
                .partition_point(|g| (g.direction, g.peer) <= key);
            self.grants.get(first..last).unwrap_or_default()
        };
        let below = self
            .accepted_names
            .range(..highest_pass)
            .next_back()
            .copied()
            .filter(|_| direction == Direction::Egress);
        let mut said: Vec<_> = grants.iter().map(Grant::said).collect();
        if below.is_some() && peer != Peer::Any {
            // The decision has to stand by itself: it is stronger than those about everybody.
            said.extend(everybody().iter().map(Grant::said));
        }
        tiers::without_passes(said, otherwise, below)
    }

    fn origin(&mut self, policy: &Policy, line: u32, text: String) -> RuleIndex {
        self.origins.push(Arc::new(RuleOrigin {
            policy: policy.reference.clone(),
            file: Arc::clone(&policy.file),
            line,
            text,
        }));
        // Far fewer than 2^32: every origin was a value of a bounded file.
        (self.origins.len() - 1) as RuleIndex
    }
}

impl Grant {
    fn said(&self) -> Said {
        Said {
            l4: self.l4,
            level: self.level,
            say: self.say,
            rules: self.rule.into_iter().collect(),
        }
    }
}

/// Distinct sets of rules, numbered.
#[derive(Default)]
struct RuleSets {
    ids: HashMap<Vec<RuleIndex>, RuleSetId>,
    sets: Vec<Vec<RuleIndex>>,
}

impl RuleSets {
    fn intern(&mut self, rules: Vec<RuleIndex>) -> RuleSetId {
        let next = RuleSetId::from_raw(self.sets.len() as u32);
        *self.ids.entry(rules).or_insert_with_key(|rules| {
            self.sets.push(rules.clone());
            next
        })
    }

    fn finish(self, origins: &[Arc<RuleOrigin>]) -> Vec<RuleSet> {
        self.sets
            .into_iter()
            .map(|set| {
                set.into_iter()
                    .filter_map(|at| origins.get(at as usize).cloned())
                    .collect()
            })
            .collect()
    }
}
