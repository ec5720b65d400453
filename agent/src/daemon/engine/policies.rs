//! Policies into the kernel, all or none of them.
//!
//! In:  policies as they were read.
//! Out: new policy numbers with their entries; then one write an endpoint that makes it use them.
//! Not here: reading files (`files`), compiling (`catalog`).

use std::collections::{BTreeMap, BTreeSet};

use fqdn_ebpf_loader::PolicyId;
use identity::{IdentityId, LabelSet};
use ipnet::IpNet;
use policy::{
    compiled::{EndpointPolicy, Layered},
    model::Policy,
};

use super::{
    super::{
        catalog::Compiled,
        error::DaemonError,
        workload::{Enforced, PolicyIds, Workload},
    },
    Engine, Installed,
};

/// Policies that are in the kernel and not in force.
#[derive(Debug)]
pub(super) struct Coming {
    policies: Vec<Policy>,
    next: BTreeMap<LabelSet, Installed>,
    /// The numbers among them that are new.
    added: Vec<PolicyId>,
}

impl Coming {
    /// What comes next for a workload.
    pub(super) fn policies_of(&self, workload: &Workload) -> Option<Layered> {
        let installed = self.next.get(&workload.labels)?;
        Some(installed.policies.clone())
    }
}

impl Engine {
    /// Puts policies into the kernel, all or none of them, without any endpoint using them yet. From
    /// here on names are to be matched against them too (`snapshots`), so that nothing learned is
    /// missing at the moment they are put in force. What was in force stays so.
    pub(crate) fn prepare(&mut self, policies: Vec<Policy>) -> Result<(), DaemonError> {
        let wanted = policy::compile::prefixes(&policies);
        let mut all: BTreeSet<IpNet> = self.prefixes.keys().copied().collect();
        let before = all.clone();
        all.extend(&wanted);
        let numbered = self.catalog.prefixes(&all)?;
        if all != before {
            // Addresses are about to get other numbers: the policies in force must know them
            // first, or what they allow would be refused for a moment. Their selectors are the
            // same, so names mean what they meant.
            if self.installed.is_some() {
                let current = self.policies.clone();
                let coming = self.write(current, &numbered)?;
                self.put_in_force(coming)?;
            }
            self.prefixes = numbered.clone();
            self.write_book()?;
        }
        let coming = self.write(policies, &numbered)?;
        self.coming = Some(coming);
        Ok(())
    }

    /// Puts what was prepared in force, in one write an endpoint; what was in force before stays on
    /// failure.
    pub(crate) fn commit(&mut self) -> Result<(), DaemonError> {
        let Some(coming) = self.coming.take() else {
            return Ok(());
        };
        let first = self.installed.is_none();
        let wanted = policy::compile::prefixes(&coming.policies);
        self.put_in_force(coming)?;
        let unused: Vec<IpNet> = self
            .prefixes
            .keys()
            .filter(|prefix| !wanted.contains(prefix))
            .copied()
            .collect();
        for prefix in &unused {
            if let Some(number) = self.prefixes.remove(prefix) {
                self.catalog.locals().forget(number);
            }
        }
        if first || !unused.is_empty() {
            self.write_book()?;
        }
        self.retell();
        Ok(())
    }

    /// Compiles policies and writes new policy numbers; every identity that names were given, or are
    /// given from here on, has entries in them.
    fn write(
        &mut self,
        policies: Vec<Policy>,
        prefixes: &BTreeMap<IpNet, IdentityId>,
    ) -> Result<Coming, DaemonError> {
        let subjects: BTreeSet<LabelSet> =
            self.workloads.values().map(|w| w.labels.clone()).collect();
        let compiled = self.catalog.compile(&policies, prefixes, &subjects)?;
        let before = self.installed.clone().unwrap_or_default();
        let mut next = BTreeMap::new();
        let mut added = Vec::new();
        let written = self
            .write_policies(compiled, &before, &mut next, &mut added)
            .and_then(|()| self.announce(&next));
        if let Err(error) = written {
            self.withdraw(&added);
            return Err(error);
        }
        Ok(Coming {
            policies,
            next,
            added,
        })
    }

    /// Swaps every endpoint over and takes the old numbers out.
    fn put_in_force(&mut self, coming: Coming) -> Result<(), DaemonError> {
        let Coming {
            policies,
            next,
            added,
        } = coming;
        let before = self.installed.clone().unwrap_or_default();
        if let Err(error) = self.swap(&next) {
            // Those that were swapped already go back; their old entries are still there.
            if let Err(error) = self.swap(&before) {
                tracing::error!(%error, "an endpoint could not go back to its old policy");
            }
            self.withdraw(&added);
            return Err(error);
        }
        let ids = |all: &BTreeMap<LabelSet, Installed>| -> BTreeSet<PolicyId> {
            all.values()
                .flat_map(|installed| installed.ids.all())
                .collect()
        };
        let old: Vec<_> = ids(&before).difference(&ids(&next)).copied().collect();
        self.installed = Some(next);
        self.policies = policies;
        self.withdraw(&old);
        Ok(())
    }

    /// Says which policy comes next for each endpoint that gets another one.
    fn announce(&mut self, policies: &BTreeMap<LabelSet, Installed>) -> Result<(), DaemonError> {
        for workload in self.workloads.values() {
            let (Some(installed), Some(enforced)) =
                (policies.get(&workload.labels), &workload.enforced)
            else {
                continue;
            };
            if enforced.policy != installed.ids {
                let next = [Some(installed.ids.whole), installed.ids.enforced];
                self.datapath.announce(enforced.id, next)?;
            }
        }
        Ok(())
    }

    fn write_policies(
        &mut self,
        compiled: Compiled,
        before: &BTreeMap<LabelSet, Installed>,
        next: &mut BTreeMap<LabelSet, Installed>,
        added: &mut Vec<PolicyId>,
    ) -> Result<(), DaemonError> {
        for (labels, policies) in compiled {
            let same = before
                .get(&labels)
                .filter(|installed| installed.policies == policies);
            let installed = match same {
                Some(installed) => installed.clone(),
                None => Installed {
                    ids: PolicyIds {
                        whole: self.write_policy(&policies.whole, added)?,
                        enforced: match &policies.enforced {
                            Some(enforced) => Some(self.write_policy(enforced, added)?),
                            None => None,
                        },
                    },
                    policies,
                },
            };
            next.insert(labels, installed);
        }
        Ok(())
    }

    fn write_policy(
        &mut self,
        policy: &EndpointPolicy,
        added: &mut Vec<PolicyId>,
    ) -> Result<PolicyId, DaemonError> {
        let id = self.new_policy();
        self.datapath.set_policy(id, policy)?;
        added.push(id);
        Ok(id)
    }

    /// Makes every endpoint in the kernel use these policies.
    fn swap(&mut self, policies: &BTreeMap<LabelSet, Installed>) -> Result<(), DaemonError> {
        for workload in self.workloads.values_mut() {
            let Some(installed) = policies.get(&workload.labels) else {
                continue;
            };
            let Some(enforced) = workload.enforced.clone() else {
                continue;
            };
            if enforced.policy == installed.ids {
                continue;
            }
            let spec = workload.spec(enforced.id, enforced.wiring, installed.ids);
            self.datapath.set_endpoint(enforced.ifindex, &spec)?;
            workload.enforced = Some(Enforced {
                policy: installed.ids,
                ..enforced
            });
        }
        Ok(())
    }

    fn withdraw(&mut self, ids: &[PolicyId]) {
        for id in ids {
            if let Err(error) = self.datapath.remove_policy(*id) {
                tracing::error!(%error, policy = id.get(), "entries of a policy stay");
            }
        }
    }
}
