//! The ledger against the obvious one, through whatever happens to it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use identity::{EndpointId, SelectorId, SelectorSet};
use policy::{
    compiled::{EndpointPolicy, Selectors},
    fqdn::{Fqdn, NameSelector, Pattern},
};
use proptest::prelude::*;

use super::{Ledger, Lesson};
use crate::{
    Batch, BatchId, GrantChange, Learned, LearnedSlot, LearnedWriter, Limits, MAX_SLOTS, Moment,
    RestoredName, WriteError, knowledge::Workload,
};

const SECOND: u64 = 1_000_000_000;
const QUOTA: usize = 4;
const NAMES: [&str; 6] = ["a.x", "b.x", "ab.x", "ba.x", "a.y", "b.y"];
/// They overlap, so that one address can be open under many sets.
const SELECTORS: [&str; 4] = ["a*.x", "*b.x", "*.x", "a.*"];

/// LEARNED, with writes that fail.
#[derive(Default)]
struct Kernel {
    entries: BTreeMap<(EndpointId, IpAddr), Vec<LearnedSlot>>,
    fail_in: Option<usize>,
}

impl Kernel {
    fn fails(&mut self) -> Result<(), WriteError> {
        match self.fail_in {
            Some(0) => {
                self.fail_in = None;
                Err(WriteError::Failed {
                    map: "LEARNED",
                    reason: "generated".into(),
                })
            }
            Some(n) => {
                self.fail_in = Some(n - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl LearnedWriter for Kernel {
    fn put(&mut self, learned: &Learned) -> Result<(), WriteError> {
        self.fails()?;
        assert!(!learned.slots.is_empty() && learned.slots.len() <= MAX_SLOTS);
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

#[derive(Clone, Debug)]
enum Step {
    Answer {
        endpoint: u32,
        name: usize,
        addresses: Vec<u8>,
        ttl: u64,
        fail_in: Option<usize>,
    },
    Policy {
        endpoint: u32,
        selectors: [bool; 4],
        announced: bool,
    },
    Clean {
        endpoint: u32,
        pattern: Option<usize>,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (
            0..2u32,
            0..NAMES.len(),
            proptest::collection::btree_set(0..6u8, 1..4),
            1..400u64,
            proptest::option::weighted(0.15, 0..3usize),
        )
            .prop_map(|(endpoint, name, addresses, ttl, fail_in)| Step::Answer {
                endpoint,
                name,
                addresses: addresses.into_iter().collect(),
                ttl,
                fail_in,
            }),
        1 => (0..2u32, any::<[bool; 4]>(), any::<bool>())
            .prop_map(|(endpoint, selectors, announced)| Step::Policy {
                endpoint,
                selectors,
                announced,
            }),
        1 => (0..2u32, proptest::option::weighted(0.8, 0..SELECTORS.len()))
            .prop_map(|(endpoint, pattern)| Step::Clean { endpoint, pattern }),
        3 => (1..150u64).prop_map(Step::Wait),
    ]
}

/// Both ledgers, the kernel, and the policies in force.
struct Both {
    real: Ledger,
    obvious: reference::ledger::Ledger,
    kernel: Kernel,
    policies: [EndpointPolicy; 2],
    now: u64,
    next_batch: u64,
}

impl Both {
    fn new() -> Self {
        let limits = Limits {
            addresses_per_endpoint: QUOTA,
            ..Limits::default()
        };
        let policy = policy([true; 4]);
        Self {
            real: Ledger::new(limits),
            obvious: reference::ledger::Ledger::new(QUOTA),
            kernel: Kernel::default(),
            policies: [policy.clone(), policy],
            now: SECOND,
            next_batch: 0,
        }
    }

    fn now(&self) -> Moment {
        Moment::from_nanos(self.now)
    }

    /// Installs as the core does; whether it worked.
    fn install(&mut self, changes: Vec<GrantChange>) -> (BatchId, bool) {
        let id = BatchId::new(self.next_batch);
        self.next_batch += 1;
        (
            id,
            Batch::new(id, changes).install(&mut self.kernel).is_ok(),
        )
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Answer {
                endpoint,
                name,
                addresses,
                ttl,
                fail_in,
            } => {
                self.answer(endpoint, name, &addresses, ttl, fail_in);
            }
            Step::Policy {
                endpoint,
                selectors,
                announced,
            } => {
                let id = EndpointId::new(endpoint);
                let policy = policy(selectors);
                let mut workload = workload(&self.policies[endpoint as usize]);
                if announced {
                    workload.next = Some(Arc::new(policy.clone()));
                    self.rematch(id, &workload);
                    self.agree();
                }
                workload.policy = Arc::new(policy.clone());
                workload.next = None;
                self.rematch(id, &workload);
                self.policies[endpoint as usize] = policy;
            }
            Step::Clean { endpoint, pattern } => {
                let id = EndpointId::new(endpoint);
                let pattern = pattern.map(|nth| Pattern::parse(SELECTORS[nth]).unwrap());
                let (changes, _) = self.real.clean(self.now(), Some(id), pattern.as_ref());
                assert!(self.install(changes).1);
                self.obvious.clean(id, |name| {
                    let name = Fqdn::parse(name).unwrap();
                    pattern
                        .as_ref()
                        .is_none_or(|pattern| pattern.matches(&name))
                });
            }
            Step::Wait(seconds) => self.wait(self.now + seconds * SECOND),
        }
    }

    fn rematch(&mut self, endpoint: EndpointId, workload: &Workload) {
        let changes = self.real.rematch(self.now(), endpoint, workload);
        assert!(self.install(changes).1);
        self.obvious.rematch(endpoint, |name| {
            workload.selectors_matching(&Fqdn::parse(name).unwrap())
        });
    }

    fn answer(
        &mut self,
        endpoint: u32,
        name: usize,
        addresses: &[u8],
        ttl: u64,
        fail_in: Option<usize>,
    ) {
        let now = self.now();
        let name = Fqdn::parse(NAMES[name]).unwrap();
        let set = self.policies[endpoint as usize].selectors_matching(&name);
        let lesson = Lesson {
            endpoint: EndpointId::new(endpoint),
            name,
            set,
            addresses: addresses.iter().map(|a| address(*a)).collect(),
            ttl: u32::try_from(ttl).unwrap(),
            looked_up: now,
            expires: now.after(Duration::from_secs(ttl)),
        };
        let mut written = true;
        if lesson.set.is_empty() {
            self.real.note_unmatched(now, &lesson);
        } else {
            let (changes, undo) = self.real.teach(now, &lesson).unwrap();
            self.kernel.fail_in = fail_in;
            let (batch, ok) = self.install(changes);
            self.kernel.fail_in = None;
            if ok {
                self.real.written(batch, &lesson, &undo);
                assert!(
                    self.real.confirm(now, &lesson),
                    "nothing was taken away meanwhile"
                );
            } else {
                let changes = self.real.undo(now, batch, &lesson, &undo);
                let places: Vec<_> = changes.iter().map(place).collect();
                let (batch, ok) = self.install(changes);
                assert!(ok);
                for (endpoint, address) in places {
                    self.real.settled(batch, endpoint, address);
                }
                written = false;
            }
        }
        let Lesson {
            endpoint,
            name,
            set,
            addresses,
            expires,
            ..
        } = lesson;
        let name = name.to_string();
        self.obvious
            .teach(endpoint, &name, &set, &addresses, expires.nanos(), written);
    }

    fn wait(&mut self, until: u64) {
        while let Some(deadline) = self.real.deadline().filter(|d| d.nanos() <= until) {
            assert!(
                deadline.nanos() + SECOND > self.now,
                "deadlines are met in time"
            );
            self.now = self.now.max(deadline.nanos());
            let changes = self.real.sweep(self.now());
            assert!(self.install(changes).1);
            self.obvious.expire(self.now);
            self.agree();
        }
        self.now = until;
        self.obvious.expire(until);
    }

    /// What is open is what the obvious ledger says, to within the second that saves writes and
    /// the two that a shared slot is written early.
    fn agree(&self) {
        for endpoint in [0, 1].map(EndpointId::new) {
            for address in (0..6).map(address) {
                self.agree_on(endpoint, address);
            }
            let entries = self.kernel.entries.keys().filter(|(of, _)| *of == endpoint);
            assert!(entries.count() <= QUOTA);
        }
    }

    fn agree_on(&self, endpoint: EndpointId, address: IpAddr) {
        let expected = self.obvious.open(endpoint, address);
        let slots: Vec<&LearnedSlot> = self
            .kernel
            .entries
            .get(&(endpoint, address))
            .into_iter()
            .flatten()
            .filter(|slot| slot.expires > self.now())
            .collect();
        let context = || {
            format!(
                "{endpoint} {address} at {}: {expected:?} but {slots:?}",
                self.now / SECOND
            )
        };
        for (set, expires) in &expected {
            // Everything that is allowed is open: under its set, or a shared slot that holds it.
            if *expires > self.now + 3 * SECOND {
                let open = slots
                    .iter()
                    .any(|slot| set.iter().all(|s| slot.set.contains(s)));
                assert!(open, "{}", context());
            }
            // Under few sets, each has its own slot for its own time.
            if expected.len() <= MAX_SLOTS && *expires > self.now + SECOND {
                let own = slots.iter().find(|slot| slot.set == *set);
                let own = own.unwrap_or_else(|| panic!("{}", context()));
                assert!(own.expires.nanos() + SECOND >= *expires, "{}", context());
            }
        }
        for slot in &slots {
            // Nothing is open that is not allowed, nor for longer.
            for selector in slot.set.iter() {
                let allowed = expected.iter().any(|(set, expires)| {
                    set.contains(selector) && slot.expires.nanos() <= *expires
                });
                assert!(allowed, "{}", context());
            }
        }
    }
}

fn workload(policy: &EndpointPolicy) -> Workload {
    Workload {
        policy: Arc::new(policy.clone()),
        next: None,
        enforced: None,
        audit: false,
    }
}

fn place(change: &GrantChange) -> (EndpointId, IpAddr) {
    match change {
        GrantChange::Put(learned) => (learned.endpoint, learned.address),
        GrantChange::Remove { endpoint, address } => (*endpoint, *address),
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, last])
}

fn policy(which: [bool; 4]) -> EndpointPolicy {
    let selectors: Selectors = (0u32..)
        .zip(SELECTORS)
        .zip(which)
        .filter(|(_, used)| *used)
        .map(|((id, text), _)| (SelectorId::new(id), NameSelector::pattern(text).unwrap()))
        .collect();
    EndpointPolicy {
        selectors,
        ..EndpointPolicy::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_kernel_holds_what_the_obvious_ledger_says(steps in proptest::collection::vec(step(), 1..60)) {
        let mut both = Both::new();
        for step in steps {
            both.take(step);
            both.agree();
        }
        // In the end nothing is left, in no table.
        both.wait(both.now + 1000 * SECOND);
        prop_assert!(both.kernel.entries.is_empty());
        prop_assert_eq!(both.real.deadline(), None);
        for endpoint in [0, 1].map(EndpointId::new) {
            prop_assert_eq!(both.real.usage(endpoint), (0, 0));
        }
    }
}

fn lesson(name: &str, set: u32, address: IpAddr, expires: Moment) -> Lesson {
    Lesson {
        endpoint: EndpointId::new(0),
        name: Fqdn::parse(name).unwrap(),
        set: SelectorSet::new([SelectorId::new(set)]),
        addresses: [address].into_iter().collect(),
        ttl: 60,
        looked_up: Moment::BOOT,
        expires,
    }
}

#[test]
fn more_sets_than_an_address_can_have_end_early_and_never_late() {
    let mut ledger = Ledger::new(Limits::default());
    let mut kernel = Kernel::default();
    let now = Moment::from_nanos(SECOND);
    for set in 0..100 {
        let expires = now.after(Duration::from_secs(1000 + u64::from(set)));
        let lesson = lesson("a.x", set, address(1), expires);
        let (changes, _) = ledger.teach(now, &lesson).unwrap();
        let batch = Batch::new(BatchId::new(u64::from(set)), changes);
        assert!(batch.install(&mut kernel).is_ok());
        assert!(ledger.confirm(now, &lesson));
    }
    let slots = &kernel.entries[&(EndpointId::new(0), address(1))];
    assert_eq!(slots.len(), MAX_SLOTS);
    for slot in slots {
        for selector in slot.set.iter() {
            let contract = now.after(Duration::from_secs(1000 + u64::from(selector.get())));
            assert!(slot.expires <= contract);
        }
    }
}

#[test]
fn many_names_of_one_address_cost_one_entry_and_few_names() {
    let mut ledger = Ledger::new(Limits {
        names_per_endpoint: 1000,
        ..Limits::default()
    });
    let now = Moment::from_nanos(SECOND);
    let mut writes = 0;
    for i in 0..160_000 {
        let lesson = lesson(
            &format!("n{i}.x"),
            1,
            address(1),
            now.after(Duration::from_secs(70)),
        );
        writes += ledger.teach(now, &lesson).unwrap().0.len();
        assert!(ledger.confirm(now, &lesson));
    }
    assert_eq!(writes, 1);
    assert_eq!(ledger.usage(EndpointId::new(0)), (1000, 1));
    assert_eq!(ledger.names_of(EndpointId::new(0), address(1)).len(), 8);
    assert_eq!(ledger.due.len(), 1001);
}

#[test]
fn a_name_that_matched_nothing_is_handed_on_and_opens_when_a_rule_comes() {
    let now = Moment::from_nanos(SECOND);
    let none = workload(&policy([false; 4]));
    let mut ledger = Ledger::new(Limits::default());
    let ends = now.after(Duration::from_secs(70));
    let unmatched = Lesson {
        set: SelectorSet::default(),
        ..lesson("a.x", 0, address(1), ends)
    };
    ledger.note_unmatched(now, &unmatched);
    let handed_on = ledger.remembered(now);
    assert_eq!(handed_on.len(), 1);
    assert!(ledger.rows(now, None).is_empty(), "it opens nothing");

    let restore = |ledger: &mut Ledger, at: Moment| {
        for row in &handed_on {
            let name = RestoredName {
                endpoint: row.endpoint,
                name: row.name.clone(),
                ttl: row.ttl,
                looked_up: row.looked_up,
                addresses: row.addresses.iter().map(|ip| (*ip, row.expires)).collect(),
            };
            ledger.restore_name(at, &none, name);
        }
    };
    let mut successor = Ledger::new(Limits::default());
    restore(&mut successor, now);
    let changes = successor.rematch(now, EndpointId::new(0), &workload(&policy([true; 4])));
    let [GrantChange::Put(learned)] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(learned.address, address(1));
    assert!(learned.slots.iter().all(|slot| slot.expires == ends));
    // What was over by the time of the restart stays so.
    let mut late = Ledger::new(Limits::default());
    restore(&mut late, ends);
    assert!(late.remembered(ends).is_empty());
    assert!(
        late.rematch(ends, EndpointId::new(0), &workload(&policy([true; 4])))
            .is_empty()
    );
}
