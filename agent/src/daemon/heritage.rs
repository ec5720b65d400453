//! Going on where a predecessor stopped.
//!
//! In:  what it left in pinned maps, what it wrote down.
//! Out: endpoints that keep their numbers, ledgers that know what the kernel knows; the rest goes.
//! Not here: reading maps (`fqdn-ebpf/loader`) and the journal (`journal`).

use std::{collections::BTreeSet, net::IpAddr, sync::PoisonError};

use dnsproxy::Control;
use dnsproxy_core::{Learned, LearnedSlot, MAX_SLOTS, Moment, Restored, RestoredName};
use fqdn_ebpf_loader::{Adopted, Pins, clear_filters};
use identity::{EndpointId, LocalIdentity};
use policy::fqdn::Fqdn;

use super::{
    engine::Engine,
    error::DaemonError,
    journal::{Entry, Past},
    workload::Workload,
};

/// What a predecessor left.
#[derive(Debug)]
pub(super) struct Heritage {
    pub(super) adopted: Adopted,
    pub(super) past: Past,
}

impl Engine {
    /// The predecessor's endpoint behind the same interface, with the same addresses.
    pub(super) fn inherit(
        &mut self,
        workload: &Workload,
        ifindex: u32,
    ) -> Result<Option<EndpointId>, DaemonError> {
        let Some(heritage) = &self.heritage else {
            return Ok(None);
        };
        // Where no predecessor's program was, it enforced nothing: this is another interface, with
        // a number that was free again.
        if !workload
            .attached
            .as_ref()
            .is_some_and(|(_, attached)| attached.inherited())
        {
            return Ok(None);
        }
        let own: BTreeSet<_> = workload
            .config
            .addresses
            .iter()
            .map(IpAddr::to_canonical)
            .collect();
        let heir = heritage
            .adopted
            .endpoints
            .iter()
            .find(|(_, at, addresses)| {
                *at == ifindex && addresses.iter().copied().collect::<BTreeSet<_>>() == own
            });
        let Some((id, ..)) = heir else {
            return Ok(None);
        };
        let id = *id;
        let locals = self.catalog.shared_locals();
        self.datapath.adopt(id, |identity| {
            let locals = locals.lock().unwrap_or_else(PoisonError::into_inner);
            match locals.get(identity) {
                Some(LocalIdentity::Fqdn(set)) => Some(set.clone()),
                _ => None,
            }
        })?;
        tracing::info!(
            endpoint = id.get(),
            interface = workload.config.interface,
            "goes on with what it learned before"
        );
        Ok(Some(id))
    }

    /// Once everything that can go on does: what each shard goes on with. What nobody goes on with
    /// is removed, and so the shards must not have heard of any endpoint yet: what they learned
    /// meanwhile would be taken for the predecessor's.
    pub(crate) fn come_into_heritage(
        &mut self,
        now: Moment,
    ) -> Result<Vec<(Control, Restored)>, DaemonError> {
        if !self.has_policies() {
            return Ok(Vec::new());
        }
        let Some(heritage) = self.heritage.take() else {
            return Ok(Vec::new());
        };
        let entered = self.enter_upon(&heritage, now);
        if entered.is_err() {
            self.heritage = Some(heritage);
        }
        entered
    }

    fn enter_upon(
        &mut self,
        Heritage { adopted, past }: &Heritage,
        now: Moment,
    ) -> Result<Vec<(Control, Restored)>, DaemonError> {
        let live: BTreeSet<_> = self
            .workloads
            .values()
            .filter_map(|workload| Some(workload.enforced.as_ref()?.id))
            .collect();
        let mut learned = Vec::new();
        {
            let locals = self.catalog.locals();
            for row in adopted
                .learned
                .iter()
                .filter(|row| live.contains(&row.endpoint))
            {
                let slots: Option<smallvec::SmallVec<[LearnedSlot; MAX_SLOTS]>> = row
                    .slots
                    .iter()
                    .filter(|(_, expires)| *expires > now)
                    .map(|(identity, expires)| match locals.get(*identity) {
                        Some(LocalIdentity::Fqdn(set)) => Some(LearnedSlot {
                            set: set.clone(),
                            expires: *expires,
                        }),
                        _ => None,
                    })
                    .collect();
                let slots = slots.unwrap_or_default();
                if !slots.is_empty() {
                    learned.push(Learned {
                        endpoint: row.endpoint,
                        address: row.address,
                        slots,
                    });
                }
            }
        }
        let kept: BTreeSet<_> = learned.iter().map(|l| (l.endpoint, l.address)).collect();
        self.datapath
            .prune_learned(|endpoint, address| kept.contains(&(endpoint, address)))?;
        self.datapath.reconcile()?;
        let names: Vec<_> = past
            .names
            .iter()
            .cloned()
            .filter_map(restored_name)
            .filter(|name| live.contains(&name.endpoint))
            .collect();
        let count = u32::try_from(self.shards.len()).unwrap_or(1).max(1);
        let of = |id: EndpointId, shard: u32| id.get() % count == shard;
        Ok((0..count)
            .zip(&self.shards)
            .map(|(shard, thread)| {
                let restored = Restored {
                    learned: learned
                        .iter()
                        .filter(|learned| of(learned.endpoint, shard))
                        .cloned()
                        .collect(),
                    names: names
                        .iter()
                        .filter(|name| of(name.endpoint, shard))
                        .cloned()
                        .collect(),
                };
                (thread.control.clone(), restored)
            })
            .collect())
    }

    /// Lets go of links, filters and maps that nothing of ours uses.
    pub(crate) fn let_go_of_leftovers(&self) {
        let attached = |workload: &Workload| Some(workload.attached.as_ref()?.0);
        let enforced = |workload: &Workload| Some(workload.enforced.as_ref()?.ifindex);
        let interfaces: Vec<_> = self
            .workloads
            .values()
            .filter_map(|workload| attached(workload).or_else(|| enforced(workload)))
            .collect();
        let sizes = self.config.map_sizes();
        let retained =
            Pins::open(&self.config.state.pins, &sizes).and_then(|pins| pins.retain(&interfaces));
        let retained = retained.and_then(|()| clear_filters(&interfaces));
        if let Err(error) = retained {
            tracing::warn!(%error, "what a predecessor attached stays");
        }
    }

    /// Everything with a number, for a journal that is written anew.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = self.catalog.entries();
        entries.push(Entry::Endpoint(self.next_endpoint.saturating_sub(1)));
        entries
    }
}

/// A name of the journal.
fn restored_name(entry: Entry) -> Option<RestoredName> {
    let Entry::Name {
        of,
        name,
        ttl,
        at,
        ips,
        until,
    } = entry
    else {
        return None;
    };
    let until = Moment::from_nanos(until);
    Some(RestoredName {
        endpoint: EndpointId::new(of),
        name: Fqdn::parse(&name).ok()?,
        ttl,
        looked_up: Moment::from_nanos(at),
        addresses: ips.into_iter().map(|ip| (ip, until)).collect(),
    })
}
