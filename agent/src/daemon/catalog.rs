//! The numbers of this node: label sets, prefixes, selectors, and policies compiled with them.
//!
//! In:  workloads, resolvers, what is known about the world, policies.
//! Out: identities that stay the same while the agent lives; a policy per [`Subject`].
//! Not here: writing any of it to maps (`engine`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use identity::{
    IdentityId, LabelIdentities, LabelSet, LocalIdentities, LocalIdentity, SelectorId, SelectorSet,
};
use ipnet::IpNet;
use policy::{
    compile::{EnforcementMode, NamedPorts, SelectorTable},
    compiled::Layered,
    fqdn::NameSelector,
    model::Policy,
};

use crate::{
    WorldError,
    facts::{Sourced, Universe, View, World, written::Endpoint},
};

use super::{
    compilers::Compilers,
    journal::{Entry, Journal, Past},
};

/// Whom a policy is compiled for: all workloads alike in what rules can tell about themselves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) labels: LabelSet,
    /// The names of their ports.
    pub(crate) ports: NamedPorts,
}

/// Policies by whom they are for.
pub(crate) type Compiled = BTreeMap<Subject, Layered>;

/// Numbers and what they stand for.
#[derive(Debug)]
pub(crate) struct Catalog {
    labels: LabelIdentities,
    locals: Arc<Mutex<LocalIdentities>>,
    selectors: SelectorTable,
    compilers: Compilers,
    journal: Arc<Journal>,
    /// How many label sets and selectors are written down; their numbers ascend without gaps.
    written: (usize, usize),
}

impl Catalog {
    /// Numbers that go on where the journal's past stopped. What of it makes no sense is left out:
    /// its numbers then explain nothing.
    pub(crate) fn new(mode: EnforcementMode, journal: Arc<Journal>, past: &Past) -> Self {
        let mut catalog = Self {
            labels: LabelIdentities::default(),
            locals: Arc::default(),
            selectors: SelectorTable::default(),
            compilers: Compilers::new(mode),
            journal,
            written: (0, 0),
        };
        for (number, labels) in &past.labels {
            let labels: Result<LabelSet, _> = labels.iter().map(|label| label.parse()).collect();
            let restored = labels
                .ok()
                .and_then(|labels| catalog.labels.intern(&labels).ok());
            if restored.is_none_or(|id| id.get() != *number) {
                tracing::warn!(number, "the journal's label sets have a gap");
                break;
            }
        }
        let mut known = BTreeSet::new();
        for (number, selector) in &past.selectors {
            let Ok(selector) = NameSelector::pattern(selector) else {
                break;
            };
            let id = catalog.selectors.intern(&selector);
            if id.get() != *number {
                tracing::warn!(number, "the journal's selectors have a gap");
                break;
            }
            known.insert(*number);
        }
        {
            let mut locals = catalog.locals();
            for (number, prefix) in &past.prefixes {
                if let Ok(prefix) = prefix.parse() {
                    locals.restore(IdentityId::from_raw(*number), LocalIdentity::Cidr(prefix));
                }
            }
            for (number, set) in &past.sets {
                if set.iter().all(|selector| known.contains(selector)) {
                    let set = SelectorSet::new(set.iter().copied().map(SelectorId::new));
                    locals.restore(IdentityId::from_raw(*number), LocalIdentity::Fqdn(set));
                }
            }
        }
        catalog.written = (catalog.labels.iter().count(), known.len());
        catalog
    }

    /// Writes down what has a number since the last call, before anything uses it.
    fn write_down(&mut self) {
        let (labels, selectors) = self.written;
        let mut written = (0, 0);
        for (id, set) in self.labels.iter() {
            written.0 += 1;
            if written.0 > labels {
                let set = set.iter().map(ToString::to_string).collect();
                self.journal.append(&Entry::Labels(id.get(), set));
            }
        }
        for (id, selector) in self.selectors.iter() {
            written.1 += 1;
            if written.1 > selectors {
                let text = selector.as_str().to_owned();
                self.journal.append(&Entry::Selector(id.get(), text));
            }
        }
        self.written = written;
    }

    /// Everything that has a number, for a journal that is written anew.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let labels = self.labels.iter().map(|(id, set)| {
            Entry::Labels(id.get(), set.iter().map(ToString::to_string).collect())
        });
        let selectors = self
            .selectors
            .iter()
            .map(|(id, selector)| Entry::Selector(id.get(), selector.as_str().to_owned()));
        let locals = self.locals();
        let local = locals.iter().map(|(id, what)| match what {
            LocalIdentity::Cidr(prefix) => Entry::Prefix(id.get(), prefix.to_string()),
            LocalIdentity::Fqdn(set) => {
                Entry::Set(id.get(), set.iter().map(SelectorId::get).collect())
            }
        });
        labels.chain(selectors).chain(local).collect()
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

    pub(crate) fn intern(&mut self, labels: &LabelSet) -> Result<IdentityId, WorldError> {
        Ok(self.labels.intern(labels)?)
    }

    /// The numbers of prefixes, new ones where needed.
    pub(crate) fn prefixes(
        &self,
        prefixes: &BTreeSet<IpNet>,
    ) -> Result<BTreeMap<IpNet, IdentityId>, WorldError> {
        let mut locals = self.locals();
        let last = locals.iter().last().map_or(0, |(id, _)| id.get());
        prefixes
            .iter()
            .map(|prefix| {
                let id = locals.cidr(*prefix)?;
                if id.get() > last {
                    self.journal
                        .append(&Entry::Prefix(id.get(), prefix.to_string()));
                }
                Ok((*prefix, id))
            })
            .collect()
    }

    /// Compiles the policies for each of the subjects; the view must include their prefixes.
    pub(crate) fn compile<'a>(
        &mut self,
        policies: &[Policy],
        view: &View,
        subjects: impl IntoIterator<Item = &'a Subject>,
    ) -> Result<Compiled, WorldError> {
        let subjects = subjects.into_iter().collect();
        let compiled = self.compilers.compile(
            policies,
            &view.identities,
            &view.around,
            subjects,
            &mut self.selectors,
        );
        self.write_down();
        Ok(compiled?)
    }

    /// Who is there, as `world` and these workloads say together.
    pub(crate) fn universe(
        &mut self,
        world: &Sourced<World>,
        own: &[Endpoint],
    ) -> Result<Universe, WorldError> {
        let universe = Universe::new(world, own, &mut self.labels);
        self.write_down();
        universe
    }
}
