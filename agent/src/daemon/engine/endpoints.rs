//! Endpoints into the kernel and out of it, as their interfaces come and go.
//!
//! In:  what each interface is like at this moment.
//! Out: programs attached, records in the kernel; a reason where that cannot be.
//! Not here: looking at interfaces (`workload`, `links`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::EndpointId;

use crate::recorder::{Recorder, Subject};

use super::{
    super::{
        error::DaemonError,
        journal::Entry,
        workload::{Enforced, Place, Wiring, Workload},
    },
    Engine,
};

impl Engine {
    /// Makes endpoints agree with their interfaces; those that are `gone` are not the ones by the
    /// same number that may be there again. Returns whether the proxy must be told.
    pub(crate) fn reconcile(
        &mut self,
        places: &BTreeMap<String, Place>,
        gone: &BTreeSet<u32>,
    ) -> bool {
        let mut changed = false;
        let names: Vec<_> = self.workloads.keys().cloned().collect();
        for name in names {
            let place = places.get(&name).unwrap_or(&Place::Absent);
            let Some(mut workload) = self.workloads.remove(&name) else {
                continue;
            };
            changed |= self.reconcile_one(&mut workload, place, gone);
            self.workloads.insert(name, workload);
        }
        changed
    }

    fn reconcile_one(
        &mut self,
        workload: &mut Workload,
        place: &Place,
        gone: &BTreeSet<u32>,
    ) -> bool {
        let mut changed = false;
        let ifindex = place.ifindex();
        // Another interface by the same name is another workload: it inherits nothing.
        let other = |at: u32| Some(at) != ifindex || gone.contains(&at);
        if workload.enforced.as_ref().is_some_and(|e| other(e.ifindex)) {
            changed |= self.vacate(workload);
        }
        if workload.attached.as_ref().is_some_and(|(at, _)| other(*at)) {
            // Its pins would keep the place of an interface that is gone.
            if let Some((_, attached)) = workload.attached.take() {
                attached.detach();
            }
        }
        let Some(ifindex) = ifindex else {
            workload.problem = None;
            return changed;
        };
        // Where a predecessor's programs enforce by maps that are not ours, they do so until ours
        // hold everything.
        let waits = self.heritage.is_some()
            && workload.attached.is_none()
            && self.datapath.is_held_by_others(&workload.config.interface);
        if workload.attached.is_none() && !waits {
            let how = self.config.attach.into();
            match self.datapath.attach(&workload.config.interface, how) {
                Ok(attached) => {
                    tracing::info!(
                        interface = workload.config.interface,
                        how = attached.how(),
                        "attached"
                    );
                    workload.attached = Some((ifindex, attached));
                }
                Err(error) => {
                    problem(workload, error.to_string());
                    return self.vacate(workload) || changed;
                }
            }
        }
        let wiring = match place {
            Place::Absent => return changed,
            Place::Unfit { reason, .. } => {
                problem(workload, reason.clone());
                return self.vacate(workload) || changed;
            }
            Place::Ready { wiring, .. } => *wiring,
        };
        let same = workload
            .enforced
            .as_ref()
            .is_some_and(|enforced| enforced.wiring == wiring);
        if same {
            return changed;
        }
        match self.settle(workload, ifindex, wiring) {
            Ok(settled) => {
                if settled {
                    workload.problem = None;
                }
                changed || settled
            }
            Err(error) => {
                problem(workload, error.to_string());
                changed
            }
        }
    }

    /// Puts an endpoint into the kernel. False while there are no policies yet.
    fn settle(
        &mut self,
        workload: &mut Workload,
        ifindex: u32,
        wiring: Wiring,
    ) -> Result<bool, DaemonError> {
        let installed = self
            .installed
            .as_ref()
            .and_then(|installed| installed.get(&workload.subject))
            .cloned();
        let Some(installed) = installed else {
            problem(
                workload,
                "no policies could be read yet: everything is refused".to_owned(),
            );
            return Ok(false);
        };
        let id = match &workload.enforced {
            Some(enforced) => enforced.id,
            None => match self.inherit(workload, ifindex)? {
                Some(id) => id,
                None => self.new_endpoint(),
            },
        };
        self.datapath
            .set_endpoint(ifindex, &workload.spec(id, wiring, installed.ids))?;
        workload.enforced = Some(Enforced {
            id,
            ifindex,
            wiring,
            policy: installed.ids,
        });
        let (tail, clock) = (Arc::clone(&self.tail), self.clock.clone());
        let subject = Subject {
            endpoint: workload.told(id),
            policy: installed.policies,
            book: Arc::clone(&self.book),
        };
        self.recorders
            .entry(id)
            .or_insert_with(|| Recorder::with_tail(subject, clock, tail));
        tracing::info!(
            endpoint = id.get(),
            interface = workload.config.interface,
            "enforced"
        );
        Ok(true)
    }

    pub(in crate::daemon) fn new_endpoint(&mut self) -> EndpointId {
        let id = EndpointId::new(self.next_endpoint);
        self.next_endpoint = self.next_endpoint.saturating_add(1);
        self.journal.append(&Entry::Endpoint(id.get()));
        id
    }

    /// Takes an endpoint out of the kernel, with everything it learned.
    pub(super) fn vacate(&mut self, workload: &mut Workload) -> bool {
        let Some(enforced) = workload.enforced.take() else {
            return false;
        };
        if let Err(error) = self.datapath.remove_endpoint(enforced.id) {
            tracing::error!(%error, endpoint = %enforced.id, "endpoint not removed");
        }
        if let Some(recorder) = self.recorders.remove(&enforced.id) {
            let counts = recorder.lookups();
            self.gone.answered += counts.answered;
            self.gone.refused += counts.refused;
            self.gone.failed += counts.failed;
        }
        tracing::info!(
            endpoint = enforced.id.get(),
            interface = workload.config.interface,
            "no longer enforced"
        );
        true
    }
}

/// Notes why a workload is not enforced; says it once.
pub(super) fn problem(workload: &mut Workload, reason: String) {
    if workload.problem.as_ref() != Some(&reason) {
        tracing::warn!(
            interface = workload.config.interface,
            reason,
            "not enforced"
        );
        workload.problem = Some(reason);
    }
}
