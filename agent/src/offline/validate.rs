//! Checking policy files without a world.
//!
//! In:  files and directories.
//! Out: [`Checked`]: the policies that are fine, advice about them, every mistake in the others.
//! Not here: what is a mistake (`policy::parse`), what is advised (`policy::lint`).

use std::{fmt, path::PathBuf, sync::Arc};

use policy::{
    compiled::PolicyRef,
    l7::Proxy,
    lint::{self, Severity, Warning},
    model::{CidrGroup, Policy, Ports},
    parse::{Limits, Note},
};

use crate::policies::{self, LoadError};

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The policies that are fine.
    pub policies: Vec<Policy>,
    /// The groups of prefixes that are fine.
    pub groups: Vec<CidrGroup>,
    /// Documents that are not policies.
    pub notes: Vec<Note>,
    /// Advice about the policies.
    pub advice: Vec<Warning>,
    /// Rules that need a proxy the datapath does not have.
    pub needs_proxy: Vec<NeedsProxy>,
    /// Every mistake.
    pub errors: Vec<LoadError>,
}

/// A rule that only a proxy can judge. What nothing else allows is refused without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsProxy {
    /// The policy.
    pub policy: PolicyRef,
    /// Its file.
    pub file: Arc<str>,
    /// The line of the port rule.
    pub line: u32,
    /// Which proxy.
    pub proxy: Proxy,
}

impl fmt::Display for NeedsProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: warning: only the {} proxy can judge this rule; where it is not running, what \
             nothing else allows is refused",
            self.file, self.line, self.proxy
        )
    }
}

impl Checked {
    /// Whether every file is fine.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// Whether something will probably surprise.
    pub fn has_warnings(&self) -> bool {
        let severe = |warning: &Warning| warning.severity == Severity::Warning;
        self.advice.iter().any(severe) || !self.needs_proxy.is_empty()
    }
}

/// Checks every file; a broken one hides none of the others.
pub fn validate(paths: &[PathBuf], limits: &Limits) -> Checked {
    let (loaded, errors) = policies::load_all(paths, limits);
    let advice = lint::policies(&loaded.policies);
    let needs_proxy = loaded.policies.iter().flat_map(needs_proxy).collect();
    Checked {
        policies: loaded.policies,
        groups: loaded.groups,
        notes: loaded.notes,
        advice,
        needs_proxy,
        errors,
    }
}

fn needs_proxy(policy: &Policy) -> Vec<NeedsProxy> {
    let rules = policy.rules.iter();
    let clauses = rules.flat_map(|rule| rule.ingress.iter().chain(&rule.egress));
    clauses
        .filter_map(|clause| match &clause.ports {
            Ports::Rules(rules) => Some(rules),
            Ports::All | Ports::Icmp(_) => None,
        })
        .flatten()
        .filter_map(|rule| {
            Some(NeedsProxy {
                policy: policy.reference.clone(),
                file: Arc::clone(&policy.file),
                line: rule.line,
                proxy: rule.l7.as_ref()?.proxy(),
            })
        })
        .collect()
}
