//! One endpoint's policies with and without those in audit, compiled and kept up to date.
//!
//! In:  the changes a [`Compiler`] takes, and the policies there are after them.
//! Out: [`Layered`].
//! Not here: compiling (`compiler`), comparing the two for a packet (`fqdn-ebpf/common`).

use std::{collections::BTreeMap, sync::Arc};

use super::{Change, CompileError, Compiler, SelectorTable, Settings, World};
use crate::{
    compiled::Layered,
    model::{Mode, Policy},
};

/// The policies of one endpoint, in both layers.
#[derive(Debug)]
pub struct LayeredCompiler {
    settings: Settings,
    whole: Compiler,
    /// Without the policies in audit, while one of them selects the endpoint.
    enforced: Option<Compiler>,
}

impl LayeredCompiler {
    /// An endpoint without policies.
    pub fn new(settings: Settings) -> Self {
        Self {
            whole: Compiler::new(settings.clone()),
            enforced: None,
            settings,
        }
    }

    /// Takes changes in; `policies` are those there are after them, by the caller's numbers.
    ///
    /// # Errors
    /// As [`Compiler::apply`]; one layer may be ahead of the other then: begin with a new one.
    pub fn apply(
        &mut self,
        world: &World<'_>,
        selectors: &mut SelectorTable,
        policies: &BTreeMap<u32, Arc<Policy>>,
        changes: &[Change],
    ) -> Result<Layered, CompileError> {
        self.whole.apply(world, selectors, changes)?;
        let whole = Arc::new(self.whole.policy(world.around));
        // Policies in audit that do not select the endpoint change nothing.
        if !policies.values().any(|policy| self.is_watched_by(policy)) {
            self.enforced = None;
            return Ok(Layered {
                whole,
                enforced: None,
            });
        }
        let enforced = match &mut self.enforced {
            Some(compiler) => {
                let changes: Vec<_> = changes.iter().map(enforced).collect();
                compiler.apply(world, selectors, &changes)?;
                compiler
            }
            none => {
                let compiler = none.insert(Compiler::new(self.settings.clone()));
                let all: Vec<_> = put(policies).map(|change| enforced(&change)).collect();
                compiler.apply(world, selectors, &all)?;
                compiler
            }
        };
        let enforced = Arc::new(enforced.policy(world.around));
        Ok(Layered {
            enforced: (enforced != whole).then_some(enforced),
            whole,
        })
    }

    fn is_watched_by(&self, policy: &Policy) -> bool {
        let mut rules = policy.rules.iter();
        policy.mode == Mode::Audit && rules.any(|r| r.subject.matches(&self.settings.subject))
    }
}

/// The changes that put all of these where nothing was.
pub fn put(policies: &BTreeMap<u32, Arc<Policy>>) -> impl Iterator<Item = Change> + '_ {
    policies
        .iter()
        .map(|(number, policy)| Change::Policy(*number, Some(Arc::clone(policy))))
}

/// The same change where policies in audit do not exist.
fn enforced(change: &Change) -> Change {
    match change {
        Change::Policy(number, Some(policy)) if policy.mode == Mode::Audit => {
            Change::Policy(*number, None)
        }
        other => other.clone(),
    }
}
