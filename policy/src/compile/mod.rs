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
mod identities;
mod table;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use identity::{LabelSet, SelectorId, reserved, source};
use ipnet::IpNet;

pub use identities::Identities;
pub use table::SelectorTable;

use crate::{
    compiled::{
        Action, Direction, EndpointPolicy, Entry, L4, Layer, Peer, Precedence, RuleOrigin, RuleSet,
        RuleSetId, Selectors, resolve,
    },
    fqdn::NameSelector,
    model::{Clause, Peers, Policy},
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
}

/// The prefixes that need an identity: those rules name, and their exceptions. Whole families
/// are the world, which has one.
pub fn prefixes(policies: &[Policy]) -> BTreeSet<IpNet> {
    policies
        .iter()
        .flat_map(|policy| &policy.rules)
        .flat_map(|rule| rule.ingress.iter().chain(&rule.egress))
        .filter_map(|clause| match &clause.peers {
            Peers::Prefixes(prefixes) => Some(prefixes),
            _ => None,
        })
        .flatten()
        .flat_map(|prefix| std::iter::once(prefix.value.prefix).chain(prefix.value.except.clone()))
        .filter(|prefix| prefix.prefix_len() > 0)
        .collect()
}

/// Compiles the policies that select the endpoint.
///
/// # Errors
/// When a prefix of a policy has no identity: nothing is compiled then, and the policy in force
/// stays.
pub fn compile(
    input: &CompileInput<'_>,
    selectors: &mut SelectorTable,
) -> Result<EndpointPolicy, CompileError> {
    if input.mode == EnforcementMode::Never {
        return Ok(EndpointPolicy::default());
    }
    let subject = complete(input.subject, input.identities.cluster());
    let always = input.mode == EnforcementMode::Always
        || subject
            .iter()
            .any(|l| l.source() == source::RESERVED && l.key() == "init");
    let mut build = Build {
        identities: input.identities,
        table: selectors,
        grants: Vec::new(),
        origins: Vec::new(),
        selectors: BTreeMap::new(),
        dns: dns::Rules::default(),
        steer_dns: input.steer_dns,
    };
    let mut deny = [always, always];
    let mut ingress_rule = false;
    for policy in input.policies {
        for rule in &policy.rules {
            if !rule.subject.matches(&subject) {
                continue;
            }
            for (at, direction) in [(0, Direction::Ingress), (1, Direction::Egress)] {
                if let Some(deny) = deny.get_mut(at) {
                    *deny |= rule.default_deny(direction);
                }
                for clause in rule.clauses(direction) {
                    build.clause(policy, direction, clause)?;
                }
            }
            ingress_rule |= !rule.ingress.is_empty();
        }
    }
    let [default_deny_ingress, default_deny_egress] = deny;
    // Mode `always` shuts out even the local node until a first ingress rule speaks.
    if default_deny_ingress && ingress_rule && input.allow_local_host {
        build.grants.push(Grant {
            direction: Direction::Ingress,
            peer: Peer::Identity(reserved::HOST),
            l4: L4::Any,
            action: Action::Allow,
            rule: None,
        });
    }
    Ok(build.finish(default_deny_ingress, default_deny_egress))
}

/// Index into the origins.
type RuleIndex = u32;

/// One rule about one peer and one L4, not merged with others yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    direction: Direction,
    peer: Peer,
    l4: L4,
    action: Action,
    rule: Option<RuleIndex>,
}

struct Build<'a> {
    identities: &'a Identities,
    table: &'a mut SelectorTable,
    grants: Vec<Grant>,
    origins: Vec<Arc<RuleOrigin>>,
    selectors: BTreeMap<SelectorId, NameSelector>,
    dns: dns::Rules,
    steer_dns: bool,
}

impl Build<'_> {
    /// The entries of everything gathered.
    fn finish(mut self, default_deny_ingress: bool, default_deny_egress: bool) -> EndpointPolicy {
        let learns = self.steer_dns || !self.selectors.is_empty();
        let steered = self.dns.steered_ports(learns);
        if !default_deny_egress {
            for l4 in self.dns.unrestricted(&steered, learns) {
                self.grants.push(Grant {
                    direction: Direction::Egress,
                    peer: Peer::Any,
                    l4,
                    action: Action::RedirectDns,
                    rule: None,
                });
            }
        }
        self.grants.sort_unstable();
        self.grants.dedup();
        let mut policy = EndpointPolicy {
            default_deny_ingress,
            default_deny_egress,
            ..EndpointPolicy::default()
        };
        let mut sets = RuleSets::default();
        let peers = self
            .grants
            .chunk_by(|a, b| (a.direction, a.peer) == (b.direction, b.peer));
        for grants in peers {
            let Some(Grant {
                direction, peer, ..
            }) = grants.first().copied()
            else {
                continue;
            };
            let mut layers = resolve(grants.iter().map(Grant::layer).collect());
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
        policy.sorted()
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

    fn clause(
        &mut self,
        policy: &Policy,
        direction: Direction,
        clause: &Clause,
    ) -> Result<(), CompileError> {
        for (peers, line, what) in self.peers(policy, direction, clause)? {
            self.grants_of(policy, direction, clause, &peers, line, &what);
        }
        Ok(())
    }
}

impl Grant {
    fn layer(&self) -> Layer<RuleIndex> {
        Layer {
            l4: self.l4,
            action: self.action,
            precedence: Precedence::of(self.action),
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
