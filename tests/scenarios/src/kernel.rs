//! The kernel's LEARNED map, played.
//!
//! In:  writes, with failures on demand.
//! Out: what a new connection would meet.
//! Not here: the real map (`fqdn-ebpf/loader`).

use std::{collections::BTreeMap, net::IpAddr};

use dnsproxy_core::{Learned, LearnedSlot, LearnedWriter, Moment, WriteError};
use identity::EndpointId;

/// LEARNED with a capacity and writes that fail.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) capacity: usize,
    pub(crate) failures: usize,
    entries: BTreeMap<(EndpointId, IpAddr), Vec<LearnedSlot>>,
    /// What was written since the last look, as text.
    pub(crate) log: Vec<String>,
    pub(crate) selector_names: Vec<String>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            capacity: usize::MAX,
            failures: 0,
            entries: BTreeMap::new(),
            log: Vec::new(),
            selector_names: Vec::new(),
        }
    }
}

impl Kernel {
    /// The slots that would let a new connection pass.
    pub(crate) fn open(&self, now: Moment, endpoint: EndpointId, address: IpAddr) -> Vec<String> {
        let slots = self.entries.get(&(endpoint, address));
        let live = slots.into_iter().flatten().filter(|s| s.expires > now);
        live.map(|slot| self.show(slot, now)).collect()
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn show(&self, slot: &LearnedSlot, now: Moment) -> String {
        let names: Vec<_> = slot
            .set
            .iter()
            .map(|id| self.selector_names[id.get() as usize].as_str())
            .collect();
        let left = slot.expires.since(now).as_secs_f64();
        format!("{{{}}} {left}s", names.join(" "))
    }

    fn fails(&mut self) -> Result<(), WriteError> {
        if self.failures == 0 {
            return Ok(());
        }
        self.failures -= 1;
        Err(WriteError::Failed {
            map: "LEARNED",
            reason: "scripted".into(),
        })
    }

    pub(crate) fn at(&mut self, now: Moment) -> Writer<'_> {
        Writer { kernel: self, now }
    }
}

/// The map at one moment, for showing how long slots last.
pub(crate) struct Writer<'a> {
    kernel: &'a mut Kernel,
    now: Moment,
}

impl LearnedWriter for Writer<'_> {
    fn put(&mut self, learned: &Learned) -> Result<(), WriteError> {
        self.kernel.fails()?;
        let key = (learned.endpoint, learned.address);
        let full = self.kernel.entries.len() >= self.kernel.capacity;
        if full && !self.kernel.entries.contains_key(&key) {
            return Err(WriteError::Full {
                map: "LEARNED",
                capacity: u32::try_from(self.kernel.capacity).unwrap_or(u32::MAX),
            });
        }
        assert!(!learned.slots.is_empty() && learned.slots.len() <= dnsproxy_core::MAX_SLOTS);
        let slots: Vec<_> = learned
            .slots
            .iter()
            .map(|s| self.kernel.show(s, self.now))
            .collect();
        let line = format!(
            "put {} {} {}",
            learned.endpoint,
            learned.address,
            slots.join(" ")
        );
        self.kernel.log.push(line);
        self.kernel.entries.insert(key, learned.slots.to_vec());
        Ok(())
    }

    fn remove(&mut self, endpoint: EndpointId, address: IpAddr) -> Result<(), WriteError> {
        self.kernel.fails()?;
        self.kernel.log.push(format!("remove {endpoint} {address}"));
        self.kernel.entries.remove(&(endpoint, address));
        Ok(())
    }
}
