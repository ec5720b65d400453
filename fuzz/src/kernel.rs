//! LEARNED as a map, with writes that fail on demand.
//!
//! In:  batches of the proxy core.
//! Out: what the kernel would hold.
//! Not here: the kernel's verdict (`maps`).

use std::{collections::BTreeMap, net::IpAddr};

use dnsproxy_core::{Learned, LearnedSlot, LearnedWriter, MAX_SLOTS, WriteError};
use identity::EndpointId;

/// What was written and not removed.
#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) entries: BTreeMap<(EndpointId, IpAddr), Vec<LearnedSlot>>,
    /// The write that fails next is this many writes away.
    pub(crate) fail_in: Option<usize>,
    /// Each write of so many fails; 0 for none.
    pub(crate) fail_every: usize,
    writes: usize,
}

impl Kernel {
    /// How many addresses an endpoint has open.
    pub(crate) fn count(&self, endpoint: EndpointId) -> usize {
        self.entries
            .keys()
            .filter(|(of, _)| *of == endpoint)
            .count()
    }

    fn fails(&mut self) -> Result<(), WriteError> {
        self.writes += 1;
        let now = self.fail_in == Some(0);
        self.fail_in = self.fail_in.and_then(|writes| writes.checked_sub(1));
        if now || (self.fail_every > 0 && self.writes.is_multiple_of(self.fail_every)) {
            return Err(WriteError::Failed {
                map: "LEARNED",
                reason: "generated".into(),
            });
        }
        Ok(())
    }
}

impl LearnedWriter for Kernel {
    fn put(&mut self, learned: &Learned) -> Result<(), WriteError> {
        assert!(!learned.slots.is_empty() && learned.slots.len() <= MAX_SLOTS);
        for (nth, slot) in learned.slots.iter().enumerate() {
            assert!(!slot.set.is_empty(), "a slot that opens nothing");
            let again = learned
                .slots
                .iter()
                .skip(nth + 1)
                .any(|s| s.set == slot.set);
            assert!(!again, "two slots of one set: {learned:?}");
        }
        self.fails()?;
        let key = (learned.endpoint, learned.address);
        self.entries.insert(key, learned.slots.to_vec());
        Ok(())
    }

    fn remove(&mut self, endpoint: EndpointId, address: IpAddr) -> Result<(), WriteError> {
        self.fails()?;
        self.entries.remove(&(endpoint, address));
        Ok(())
    }
}
