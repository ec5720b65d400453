//! From policies to one endpoint's [`EndpointPolicy`].
//!
//! In:  policies, the endpoint's labels, the identities that are known, the mode.
//! Out: entries that keep the invariant of `compiled`, selectors, DNS rules.
//! Not here: parsing; numbers of identities; writing maps.
//!
//! Meaning: `pkg/policy/{rule,l4,mapstate}.go` of Cilium 1.20, with the differences written down
//! in docs/differences.md.

mod chunk;
mod compiler;
mod dns;
mod expand;
mod frontends;
mod identities;
mod interner;
mod layers;
mod part;
mod surroundings;
mod table;
mod text;
mod tiers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::LabelSet;
use ipnet::IpNet;

pub use compiler::{Change, Compiler, Diff, Settings, World};
pub use identities::Identities;
pub use layers::{LayeredCompiler, put};
pub use surroundings::{Backend, Frontend, FrontendPort, NamedPorts, Service, Surroundings};
pub use table::SelectorTable;

use crate::{
    compiled::{EndpointPolicy, Layered, RuleOrigin},
    model::{Peers, Policy, PrefixRule},
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
    let world = World {
        identities: input.identities,
        around,
    };
    let mut compiler = Compiler::new(Settings::of(input));
    let changes: Vec<_> = put(&numbered(input.policies)).collect();
    compiler.apply(&world, selectors, &changes)?;
    Ok(compiler.policy(around))
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
    let policies = numbered(input.policies);
    let world = World {
        identities: input.identities,
        around,
    };
    let changes: Vec<_> = put(&policies).collect();
    LayeredCompiler::new(Settings::of(input)).apply(&world, selectors, &policies, &changes)
}

fn numbered(policies: &[Policy]) -> BTreeMap<u32, Arc<Policy>> {
    (0..).zip(policies.iter().cloned().map(Arc::new)).collect()
}
