//! Policies into the kernel, all or none of them.
//!
//! In:  policies and facts about the world as they were read.
//! Out: new policy numbers with their entries; then one write an endpoint that makes it use them.
//! Not here: reading files (`files`), compiling (`catalog`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fqdn_ebpf_loader::PolicyId;
use identity::IdentityId;
use ipnet::IpNet;
use policy::{
    compile::{Surroundings, prefixes_in},
    compiled::{EndpointPolicy, Layered},
    model::CidrGroup,
};

use crate::{
    WorldError,
    facts::{self, Universe, View},
    lists::Counted,
};

use super::{
    super::{
        catalog::{Compiled, Subject},
        error::DaemonError,
        files::Content,
        workload::{Enforced, PolicyIds, Workload},
    },
    Engine, Installed,
};

/// Whom each workload's policy is compiled for, by interface.
type Subjects = BTreeMap<String, Subject>;

/// What files say, and who is there then.
#[derive(Debug)]
struct Situation {
    content: Arc<Content>,
    universe: Universe,
    groups: Vec<CidrGroup>,
    /// The prefixes that need a number.
    prefixes: BTreeSet<IpNet>,
}

/// Policies that are in the kernel and not in force.
#[derive(Debug)]
pub(super) struct Coming {
    situation: Situation,
    subjects: Subjects,
    next: BTreeMap<Subject, Installed>,
    /// The numbers among them that are new.
    added: Vec<PolicyId>,
}

impl Coming {
    /// What comes next for a workload.
    pub(super) fn policies_of(&self, workload: &Workload) -> Option<Layered> {
        let subject = self.subjects.get(&workload.config.interface)?;
        let installed = self.next.get(subject)?;
        Some(installed.policies.clone())
    }
}

impl Engine {
    /// Puts policies into the kernel, all or none of them, without any endpoint using them yet. From
    /// here on names are to be matched against them too (`snapshots`), so that nothing learned is
    /// missing at the moment they are put in force. What was in force stays so.
    pub(crate) fn prepare(&mut self, content: Content) -> Result<(), DaemonError> {
        let situation = self.situation(Arc::new(content))?;
        let mut all: BTreeSet<IpNet> = self.prefixes.keys().copied().collect();
        let before = all.clone();
        all.extend(&situation.prefixes);
        let numbered = self.catalog.prefixes(&all)?;
        if all != before {
            // Addresses are about to get other numbers: the policies in force must know them
            // first, or what they allow would be refused for a moment. Their selectors are the
            // same, so names mean what they meant.
            if self.installed.is_some() {
                let current = self.situation(Arc::clone(&self.content))?;
                let coming = self.write(current, &numbered)?;
                let current = self.put_in_force(coming)?;
                self.view = Some(self.look_around(&current, &numbered));
                self.write_book()?;
            }
            self.prefixes.clone_from(&numbered);
        }
        self.coming = Some(self.write(situation, &numbered)?);
        Ok(())
    }

    /// Puts what was prepared in force, in one write an endpoint; what was in force before stays on
    /// failure.
    pub(crate) fn commit(&mut self) -> Result<(), DaemonError> {
        let Some(coming) = self.coming.take() else {
            return Ok(());
        };
        let situation = self.put_in_force(coming)?;
        let unused: Vec<IpNet> = self
            .prefixes
            .keys()
            .filter(|prefix| !situation.prefixes.contains(prefix))
            .copied()
            .collect();
        for prefix in &unused {
            if let Some(number) = self.prefixes.remove(prefix) {
                self.catalog.locals().forget(number);
            }
        }
        self.view = Some(self.look_around(&situation, &self.prefixes));
        self.write_book()?;
        self.retell();
        Ok(())
    }

    /// Who is there, our own workloads included, and what needs numbers.
    fn situation(&mut self, content: Arc<Content>) -> Result<Situation, DaemonError> {
        let universe = self.universe(&content)?;
        let groups = groups(&content)?;
        let around = Surroundings {
            groups: groups.clone(),
            ..Surroundings::default()
        };
        let mut prefixes = prefixes_in(&content.policies, &around);
        prefixes.extend(universe.prefixes());
        Ok(Situation {
            content,
            universe,
            groups,
            prefixes,
        })
    }

    /// Who is there, our own workloads included.
    pub(super) fn universe(&mut self, content: &Content) -> Result<Universe, DaemonError> {
        let own: Vec<_> = self
            .workloads
            .values()
            .map(|workload| workload.config.facts())
            .collect();
        Ok(self.catalog.universe(&content.world, &own)?)
    }

    fn look_around(&self, situation: &Situation, prefixes: &BTreeMap<IpNet, IdentityId>) -> View {
        let Situation {
            universe, groups, ..
        } = situation;
        let ids = self.catalog.labels();
        View::new(universe, universe.local, ids, prefixes, groups)
    }

    /// Whom each workload's policy is compiled for.
    pub(super) fn subjects(&self, universe: &Universe) -> Subjects {
        let workloads = self.workloads.iter();
        workloads
            .filter_map(|(interface, workload)| {
                let pod = universe.pod(&workload.config.namespace, workload.config.name())?;
                let mut subject = Subject {
                    labels: pod.labels.clone(),
                    ..Subject::default()
                };
                pod.name_ports(&mut subject.ports);
                Some((interface.clone(), subject))
            })
            .collect()
    }

    /// Calls every workload what the universe calls it.
    pub(super) fn call(&mut self, universe: &Universe, mut subjects: Subjects) {
        for (interface, workload) in &mut self.workloads {
            let pod = universe.pod(&workload.config.namespace, workload.config.name());
            if let (Some(pod), Some(subject)) = (pod, subjects.remove(interface)) {
                workload.identity = pod.identity;
                workload.subject = subject;
            }
        }
    }

    /// Compiles policies and writes new policy numbers; every identity that names were given, or are
    /// given from here on, has entries in them.
    fn write(
        &mut self,
        situation: Situation,
        prefixes: &BTreeMap<IpNet, IdentityId>,
    ) -> Result<Coming, DaemonError> {
        let subjects = self.subjects(&situation.universe);
        let view = self.look_around(&situation, prefixes);
        let policies = &situation.content.policies;
        let compiled = self.catalog.compile(policies, &view, subjects.values())?;
        let before = self.installed.clone().unwrap_or_default();
        let mut next = BTreeMap::new();
        let mut added = Vec::new();
        let written = self
            .write_policies(compiled, &before, &mut next, &mut added)
            .and_then(|()| self.announce(&next, &subjects));
        if let Err(error) = written {
            self.withdraw(&added);
            return Err(error);
        }
        Ok(Coming {
            situation,
            subjects,
            next,
            added,
        })
    }

    /// Swaps every endpoint over and takes the old numbers out.
    fn put_in_force(&mut self, coming: Coming) -> Result<Situation, DaemonError> {
        let Coming {
            situation,
            subjects,
            mut next,
            added,
        } = coming;
        let before = self.installed.clone().unwrap_or_default();
        if let Err(error) = self.swap(&next, &subjects) {
            // Those that were swapped already go back; their old entries are still there.
            let subjects = self.workloads.iter();
            let subjects = subjects
                .map(|(interface, workload)| (interface.clone(), workload.subject.clone()))
                .collect();
            if let Err(error) = self.swap(&before, &subjects) {
                tracing::error!(%error, "an endpoint could not go back to its old policy");
            }
            self.withdraw(&added);
            return Err(error);
        }
        let ids = |all: &BTreeMap<Subject, Installed>| -> BTreeSet<PolicyId> {
            all.values()
                .flat_map(|installed| installed.ids.all())
                .collect()
        };
        let old: Vec<_> = ids(&before).difference(&ids(&next)).copied().collect();
        self.go_on_counting(&before, &mut next);
        self.installed = Some(next);
        self.content = Arc::clone(&situation.content);
        self.call(&situation.universe, subjects);
        self.withdraw(&old);
        Ok(situation)
    }

    /// Rules that stay in force under another number go on from what they had counted.
    fn go_on_counting(
        &self,
        before: &BTreeMap<Subject, Installed>,
        next: &mut BTreeMap<Subject, Installed>,
    ) {
        for (subject, installed) in next {
            let Some(old) = before.get(subject) else {
                continue;
            };
            if old.ids == installed.ids {
                continue;
            }
            let hits = self.datapath.hits(old.ids.whole).unwrap_or_else(|error| {
                tracing::warn!(%error, "what rules decided so far is not known");
                Vec::new()
            });
            let mut counted = BTreeMap::new();
            for (set, hits) in old.policies.whole.rule_sets.iter().zip(hits) {
                let before = old.counted.get(set).copied().unwrap_or_default();
                counted.insert(set.clone(), before.plus(hits));
            }
            let sets = &installed.policies.whole.rule_sets;
            let stay: BTreeSet<_> = sets.iter().collect();
            counted.retain(|set, _| stay.contains(set));
            installed.counted = Arc::new(counted);
        }
    }

    /// Says which policy comes next for each endpoint that gets another one.
    fn announce(
        &mut self,
        policies: &BTreeMap<Subject, Installed>,
        subjects: &Subjects,
    ) -> Result<(), DaemonError> {
        for (interface, workload) in &self.workloads {
            let subject = subjects.get(interface);
            let installed = subject.and_then(|subject| policies.get(subject));
            let (Some(installed), Some(enforced)) = (installed, &workload.enforced) else {
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
        before: &BTreeMap<Subject, Installed>,
        next: &mut BTreeMap<Subject, Installed>,
        added: &mut Vec<PolicyId>,
    ) -> Result<(), DaemonError> {
        for (subject, policies) in compiled {
            let same = before
                .get(&subject)
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
                    counted: Counted::default(),
                },
            };
            next.insert(subject, installed);
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
    fn swap(
        &mut self,
        policies: &BTreeMap<Subject, Installed>,
        subjects: &Subjects,
    ) -> Result<(), DaemonError> {
        for (interface, workload) in &mut self.workloads {
            let subject = subjects.get(interface);
            let Some(installed) = subject.and_then(|subject| policies.get(subject)) else {
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

/// The groups of prefixes of policy files and world.
fn groups(content: &Content) -> Result<Vec<CidrGroup>, WorldError> {
    let of_world = facts::groups(&content.world)?;
    Ok(of_world
        .into_iter()
        .chain(content.groups.iter().cloned())
        .collect())
}
