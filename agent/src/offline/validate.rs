//! Checking policy files without a world.
//!
//! In:  files and directories.
//! Out: [`Checked`]: the policies that are fine, advice about them, every mistake in the others.
//! Not here: what is a mistake (`policy::parse`), what is advised (`policy::lint`).

use std::{collections::BTreeSet, path::PathBuf};

use identity::{Label, LabelIdentities, LabelSet, LocalIdentities, source};
use policy::{
    compile::{
        CompileInput, EnforcementMode, Identities, SelectorTable, Surroundings, compile_in,
        prefixes_in,
    },
    lint::{self, Severity, Warning},
    model::{CidrGroup, Peers, Policy},
    parse::{Limits, Note},
    select,
    selector::{LabelSelector, Operator},
};

use crate::policies::{self, LoadError};

/// Endpoints that advice is sought for: it costs a compilation each.
const MAX_SUBJECTS: usize = 256;

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
    /// Every mistake.
    pub errors: Vec<LoadError>,
}

impl Checked {
    /// Whether every file is fine.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// Whether something will probably surprise.
    pub fn has_warnings(&self) -> bool {
        self.advice
            .iter()
            .any(|warning| warning.severity == Severity::Warning)
    }
}

/// Checks every file; a broken one hides none of the others.
pub fn validate(paths: &[PathBuf], limits: &Limits) -> Checked {
    let (loaded, errors) = policies::load_all(paths, limits);
    let mut advice = lint::policies(&loaded.policies);
    // What is broken may hold the rule that is missed.
    if errors.is_empty() {
        for warning in imagined(&loaded.policies, &loaded.groups, &limits.cluster) {
            if !advice.contains(&warning) {
                advice.push(warning);
            }
        }
    }
    Checked {
        policies: loaded.policies,
        groups: loaded.groups,
        notes: loaded.notes,
        advice,
        errors,
    }
}

/// Advice about endpoints as the policies imagine them: for every selector there is one it selects.
fn imagined(policies: &[Policy], groups: &[CidrGroup], cluster: &str) -> Vec<Warning> {
    let mut labels = LabelIdentities::default();
    let mut subjects = BTreeSet::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        for clause in rule.ingress.iter().chain(&rule.egress) {
            match &clause.peers {
                Peers::Endpoints(selectors) => {
                    for selector in selectors {
                        // More label sets than numbers: advice about the rest is not given.
                        let _ = labels.intern(&selected_by(&selector.value));
                    }
                }
                Peers::Names(_) => {
                    subjects.insert(selected_by(&rule.subject));
                }
                _ => {}
            }
        }
    }
    let around = Surroundings {
        groups: groups.to_vec(),
        ..Surroundings::default()
    };
    let mut locals = LocalIdentities::default();
    let cidrs = prefixes_in(policies, &around)
        .into_iter()
        .filter_map(|prefix| Some((locals.cidr(prefix).ok()?, prefix)));
    let known = labels.iter().map(|(id, labels)| (id, labels.clone()));
    let identities = Identities::new(cluster, known, cidrs.collect::<Vec<_>>());
    subjects
        .iter()
        .take(MAX_SUBJECTS)
        .flat_map(|subject| {
            let input = CompileInput {
                policies,
                subject,
                identities: &identities,
                mode: EnforcementMode::Default,
                allow_local_host: true,
                steer_dns: false,
            };
            let compiled = compile_in(&input, &around, &mut SelectorTable::default());
            let about: Vec<_> = select::selecting(policies, subject, cluster)
                .into_iter()
                .cloned()
                .collect();
            compiled.map_or_else(|_| Vec::new(), |compiled| lint::endpoint(&about, &compiled))
        })
        .collect()
}

/// Labels that satisfy what the selector asks to be there.
fn selected_by(selector: &LabelSelector) -> LabelSet {
    selector
        .requirements()
        .iter()
        .filter_map(|requirement| {
            let value = match &requirement.operator {
                Operator::In(values) => values.first()?,
                Operator::Exists => "",
                Operator::NotIn(_) | Operator::DoesNotExist => return None,
            };
            let key = &requirement.key;
            let of = match &*key.source {
                source::ANY => source::K8S,
                own => own,
            };
            Some(Label::new(of, &key.key, value))
        })
        .collect()
}
