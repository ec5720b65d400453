//! The numbers of this node: label sets, prefixes, selectors, and policies compiled with them.
//!
//! In:  label sets of endpoints and resolvers, policies.
//! Out: identities that stay the same while the agent lives; an [`EndpointPolicy`] per label set.
//! Not here: writing any of it to maps (`engine`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use identity::{IdentityId, LabelIdentities, LabelSet, LocalIdentities};
use ipnet::IpNet;
use policy::{
    compile::{CompileInput, EnforcementMode, Identities, SelectorTable, compile},
    compiled::EndpointPolicy,
    model::Policy,
};

use crate::world::{CLUSTER, WorldError};

/// Policies by whom they are for.
pub(crate) type Compiled = BTreeMap<LabelSet, Arc<EndpointPolicy>>;

/// Numbers and what they stand for.
#[derive(Debug)]
pub(crate) struct Catalog {
    labels: LabelIdentities,
    locals: Arc<Mutex<LocalIdentities>>,
    selectors: SelectorTable,
    mode: EnforcementMode,
}

impl Catalog {
    pub(crate) fn new(mode: EnforcementMode) -> Self {
        Self {
            labels: LabelIdentities::default(),
            locals: Arc::default(),
            selectors: SelectorTable::default(),
            mode,
        }
    }

    /// What the datapath takes numbers for selector sets from.
    pub(crate) fn shared_locals(&self) -> Arc<Mutex<LocalIdentities>> {
        Arc::clone(&self.locals)
    }

    /// A panic elsewhere leaves the table whole: a number is entered in one step.
    pub(crate) fn locals(&self) -> MutexGuard<'_, LocalIdentities> {
        self.locals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn labels(&self) -> &LabelIdentities {
        &self.labels
    }

    pub(crate) fn selectors(&self) -> &SelectorTable {
        &self.selectors
    }

    pub(crate) fn selectors_mut(&mut self) -> &mut SelectorTable {
        &mut self.selectors
    }

    pub(crate) fn intern(&mut self, labels: &LabelSet) -> Result<IdentityId, WorldError> {
        Ok(self.labels.intern(labels)?)
    }

    /// The numbers of prefixes, new ones where needed.
    pub(crate) fn prefixes(
        &self,
        prefixes: &BTreeSet<IpNet>,
    ) -> Result<BTreeMap<IpNet, IdentityId>, WorldError> {
        let mut locals = self.locals();
        prefixes
            .iter()
            .map(|prefix| Ok((*prefix, locals.cidr(*prefix)?)))
            .collect()
    }

    /// Compiles the policies for each of the label sets; the prefixes must include theirs.
    pub(crate) fn compile<'a>(
        &mut self,
        policies: &[Policy],
        prefixes: &BTreeMap<IpNet, IdentityId>,
        subjects: impl IntoIterator<Item = &'a LabelSet>,
    ) -> Result<Compiled, WorldError> {
        let identities = Identities::new(
            CLUSTER,
            self.labels.iter().map(|(id, labels)| (id, labels.clone())),
            prefixes.iter().map(|(prefix, id)| (*id, *prefix)),
        );
        let subjects: BTreeSet<_> = subjects.into_iter().collect();
        subjects
            .into_iter()
            .map(|subject| {
                let policy = compile(
                    &CompileInput {
                        policies,
                        subject,
                        identities: &identities,
                        mode: self.mode,
                        allow_local_host: true,
                        steer_dns: false,
                    },
                    &mut self.selectors,
                )?;
                Ok((subject.clone(), Arc::new(policy)))
            })
            .collect()
    }
}
