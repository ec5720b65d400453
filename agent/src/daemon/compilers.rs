//! Policies that stay compiled: a change costs what it changes.
//!
//! In:  all policies, everything around, whom to compile for; each time as a whole.
//! Out: a policy per [`Subject`], the same one for what has not changed.
//! Not here: what a change comes to (`policy::compile`), numbers (`catalog`), maps (`engine`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::{
    compile::{
        Change, CompileError, EnforcementMode, Identities, LayeredCompiler, NamedPorts,
        SelectorTable, Settings, Surroundings, World, put,
    },
    compiled::PolicyRef,
    model::Policy,
};

use super::catalog::{Compiled, Subject};

/// One compiler per subject, and what all of them know.
#[derive(Debug)]
pub(super) struct Compilers {
    mode: EnforcementMode,
    known: Option<Known>,
    by_subject: BTreeMap<Subject, LayeredCompiler>,
    next_number: u32,
}

/// What every compiler was told.
#[derive(Debug)]
struct Known {
    policies: BTreeMap<u32, Arc<Policy>>,
    identities: Identities,
    /// Without the ports of anybody in particular.
    around: Surroundings,
}

impl Compilers {
    /// Nothing compiled yet.
    pub(super) fn new(mode: EnforcementMode) -> Self {
        Self {
            mode,
            known: None,
            by_subject: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Compiles the policies for each of the subjects; their prefixes must have identities. The
    /// names of the endpoint's own ports are the subjects'.
    ///
    /// # Errors
    /// The first mistake; the next call begins from scratch.
    pub(super) fn compile(
        &mut self,
        policies: &[Policy],
        identities: &Identities,
        around: &Surroundings,
        subjects: BTreeSet<&Subject>,
        selectors: &mut SelectorTable,
    ) -> Result<Compiled, CompileError> {
        let known = self.known.take();
        let compilers = std::mem::take(&mut self.by_subject);
        let policies = self.numbered(policies, known.as_ref());
        let mut around = Surroundings {
            own_ports: NamedPorts::default(),
            ..around.clone()
        };
        let all: Vec<_> = put(&policies).collect();
        let same_cluster = |known: &Known| known.identities.cluster() == identities.cluster();
        let (changes, mut compilers) = match known.filter(same_cluster) {
            Some(known) => (known.changes(&policies, identities, &around), compilers),
            None => (Vec::new(), BTreeMap::new()),
        };
        let mut compiled = Compiled::new();
        for subject in subjects {
            around.own_ports.clone_from(&subject.ports);
            let (mut compiler, changes) = match compilers.remove(subject) {
                Some(compiler) => (compiler, &changes),
                None => {
                    let cluster = identities.cluster();
                    let settings = Settings::new(&subject.labels, cluster, self.mode);
                    (LayeredCompiler::new(settings), &all)
                }
            };
            let world = World {
                identities,
                around: &around,
            };
            let layered = compiler.apply(&world, selectors, &policies, changes)?;
            compiled.insert(subject.clone(), layered);
            self.by_subject.insert(subject.clone(), compiler);
        }
        around.own_ports = NamedPorts::default();
        self.known = Some(Known {
            policies,
            identities: identities.clone(),
            around,
        });
        Ok(compiled)
    }

    /// Gives each policy a number: one that was there before, unchanged or of the same name, keeps
    /// its own.
    fn numbered(
        &mut self,
        policies: &[Policy],
        known: Option<&Known>,
    ) -> BTreeMap<u32, Arc<Policy>> {
        let mut before: BTreeMap<&PolicyRef, Vec<(u32, &Arc<Policy>)>> = BTreeMap::new();
        for (number, policy) in known.iter().flat_map(|known| &known.policies) {
            let same_name = before.entry(&policy.reference).or_default();
            same_name.push((*number, policy));
        }
        let mut numbered = BTreeMap::new();
        for policy in policies {
            let same_name = before.entry(&policy.reference).or_default();
            let same = same_name.iter().position(|(_, old)| ***old == *policy);
            let (number, policy) = match same.or(same_name.len().checked_sub(1)) {
                Some(at) => {
                    let (number, old) = same_name.swap_remove(at);
                    let unchanged = same.map(|_| Arc::clone(old));
                    (
                        number,
                        unchanged.unwrap_or_else(|| Arc::new(policy.clone())),
                    )
                }
                None => {
                    let number = self.next_number;
                    self.next_number = number.wrapping_add(1);
                    (number, Arc::new(policy.clone()))
                }
            };
            numbered.insert(number, policy);
        }
        numbered
    }
}

impl Known {
    /// What compilers that know this have to be told.
    fn changes(
        &self,
        policies: &BTreeMap<u32, Arc<Policy>>,
        identities: &Identities,
        around: &Surroundings,
    ) -> Vec<Change> {
        let gone = self.policies.keys().filter(|n| !policies.contains_key(n));
        let mut changes: Vec<_> = gone.map(|number| Change::Policy(*number, None)).collect();
        let is_new = |(number, policy): &(&u32, &Arc<Policy>)| {
            let old = self.policies.get(number);
            !old.is_some_and(|old| Arc::ptr_eq(old, policy))
        };
        let new = policies.iter().filter(is_new);
        changes.extend(new.map(|(number, new)| Change::Policy(*number, Some(Arc::clone(new)))));
        changes.extend(identities.changes_since(&self.identities));
        if *around != self.around {
            changes.push(Change::Surroundings);
        }
        changes
    }
}

#[cfg(test)]
mod tests;
