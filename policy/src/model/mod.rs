//! Policies as values: what every policy language here is parsed into.
//!
//! In:  parsed files, or the command line's shorthand.
//! Out: rules for both directions, with the lines they were written on.
//! Not here: field names of a particular language (`parse`), labels of endpoints (`select`),
//!      entries (`compile`), what is inside of a connection (`l7`).

mod groups;
mod peers;
mod ports;

use std::sync::Arc;

pub use groups::CidrGroup;
pub use peers::{Entity, Peers, Prefix, PrefixRule, ServiceSelector};
pub use ports::{NamedPort, PortRange, PortRule, Ports};

use crate::{
    compiled::{Direction, PolicyRef},
    selector::LabelSelector,
};

/// One policy object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Kind, namespace, name.
    pub reference: PolicyRef,
    /// The file it stands in, as named on the command line.
    pub file: Arc<str>,
    /// Whether it is enforced or only watched.
    pub mode: Mode,
    /// Its rules: `spec`, then `specs`.
    pub rules: Vec<Rule>,
}

/// What becomes of what a policy refuses (annotation `namegate.io/mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes, and a record says what would have been refused, and by which policy.
    Audit,
}

/// One `spec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which endpoints it applies to; the policy's namespace is already part of it.
    pub subject: LabelSelector,
    /// When its clauses are asked, compared with those of other rules.
    pub tier: Tier,
    /// What may and what may not reach them.
    pub ingress: Vec<Clause>,
    /// What they may and may not reach.
    pub egress: Vec<Clause>,
    /// Whether ingress without a matching clause is dropped.
    pub default_deny_ingress: bool,
    /// Whether egress without a matching clause is dropped.
    pub default_deny_egress: bool,
    /// `log.value`, copied to flow records.
    pub log: Option<Arc<str>>,
    /// The line it starts on.
    pub line: u32,
}

impl Rule {
    /// The clauses of one direction.
    pub fn clauses(&self, direction: Direction) -> &[Clause] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Whether the rule puts its subjects in default deny.
    pub const fn default_deny(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.default_deny_ingress,
            Direction::Egress => self.default_deny_egress,
        }
    }
}

/// When a rule is asked: first every `Admin` rule, then `Normal` ones, then `Baseline` ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// Before all others; the lower number first.
    Admin(u16),
    /// The tier that Cilium's policies and `NetworkPolicy` share: all of them at once, deny wins.
    #[default]
    Normal,
    /// Where no rule of the normal tier puts the endpoint in default deny; the lower number first.
    Baseline(u16),
}

/// What a clause does with its traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It may pass.
    #[default]
    Allow,
    /// It may not.
    Deny,
    /// This tier says no more about it; the next one decides.
    Pass,
}

/// One element of `ingress`, `ingressDeny`, `egress` or `egressDeny`: these peers on these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// What happens.
    pub effect: Effect,
    /// Its place among the clauses of a rule where the first match wins; 0 where order is without
    /// meaning.
    pub order: u16,
    /// Whom.
    pub peers: Peers,
    /// On which ports.
    pub ports: Ports,
    /// The line it starts on.
    pub line: u32,
}

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its line, from 1; 0 when there is no file.
    pub line: u32,
}
