//! Policies into the kernel, all or none of them.
//!
//! In:  policies as they were read.
//! Out: new policy numbers with their entries; one write an endpoint that makes it use them.
//! Not here: reading files (`files`), compiling (`catalog`).

use std::collections::{BTreeMap, BTreeSet};

use fqdn_ebpf_loader::PolicyId;
use identity::{IdentityId, LabelSet};
use ipnet::IpNet;
use policy::model::Policy;

use super::{
    super::{catalog::Compiled, error::DaemonError, workload::Enforced},
    Engine, Installed,
};

impl Engine {
    /// Puts policies in force, all or none of them. What was in force before stays on failure.
    pub(crate) fn apply(&mut self, policies: Vec<Policy>) -> Result<(), DaemonError> {
        let wanted = policy::compile::prefixes(&policies);
        let mut all: BTreeSet<IpNet> = self.prefixes.keys().copied().collect();
        let before = all.clone();
        all.extend(&wanted);
        let numbered = self.catalog.prefixes(&all)?;
        if all != before {
            // Addresses are about to get other numbers: the policies in force must know them
            // first, or what they allow would be refused for a moment.
            if self.installed.is_some() {
                let current = self.policies.clone();
                self.install(&current, &numbered)?;
            }
            self.prefixes = numbered.clone();
            self.write_book()?;
        }
        let first = self.installed.is_none();
        self.install(&policies, &numbered)?;
        self.policies = policies;
        if first {
            self.write_book()?;
        }
        if wanted != all {
            for (prefix, number) in &numbered {
                if !wanted.contains(prefix) {
                    self.prefixes.remove(prefix);
                    self.catalog.locals().forget(*number);
                }
            }
            self.write_book()?;
        }
        self.retell();
        Ok(())
    }

    /// Compiles, writes new policy numbers, swaps every endpoint over in one write each, and
    /// takes the old numbers out.
    fn install(
        &mut self,
        policies: &[Policy],
        prefixes: &BTreeMap<IpNet, IdentityId>,
    ) -> Result<(), DaemonError> {
        let subjects: BTreeSet<LabelSet> =
            self.workloads.values().map(|w| w.labels.clone()).collect();
        let compiled = self.catalog.compile(policies, prefixes, &subjects)?;
        let before = self.installed.clone().unwrap_or_default();
        let mut next = BTreeMap::new();
        let mut added = Vec::new();
        if let Err(error) = self.write_policies(compiled, &before, &mut next, &mut added) {
            self.withdraw(&added);
            return Err(error);
        }
        if let Err(error) = self.swap(&next) {
            // Those that were swapped already go back; their old entries are still there.
            if let Err(error) = self.swap(&before) {
                tracing::error!(%error, "an endpoint could not go back to its old policy");
            }
            self.withdraw(&added);
            return Err(error);
        }
        let kept: BTreeSet<_> = next.values().map(|installed| installed.id).collect();
        let old: Vec<_> = before
            .values()
            .map(|installed| installed.id)
            .filter(|id| !kept.contains(id))
            .collect();
        self.installed = Some(next);
        self.withdraw(&old);
        Ok(())
    }

    fn write_policies(
        &mut self,
        compiled: Compiled,
        before: &BTreeMap<LabelSet, Installed>,
        next: &mut BTreeMap<LabelSet, Installed>,
        added: &mut Vec<PolicyId>,
    ) -> Result<(), DaemonError> {
        for (labels, policy) in compiled {
            let same = before
                .get(&labels)
                .filter(|installed| installed.policy == policy);
            let installed = match same {
                Some(installed) => installed.clone(),
                None => {
                    let id = PolicyId::new(self.next_policy);
                    self.next_policy = self.next_policy.wrapping_add(1).max(1);
                    self.datapath.set_policy(id, &policy)?;
                    added.push(id);
                    Installed { id, policy }
                }
            };
            next.insert(labels, installed);
        }
        Ok(())
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
            if enforced.policy == installed.id {
                continue;
            }
            let spec = workload.spec(enforced.id, enforced.wiring, installed.id);
            self.datapath.set_endpoint(enforced.ifindex, &spec)?;
            workload.enforced = Some(Enforced {
                policy: installed.id,
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
