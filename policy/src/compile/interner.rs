//! Values by small numbers, as long as somebody needs them.
//!
//! In:  values, and notice that one is not needed any more.
//! Out: a number each, the same for equal values; a number that is free is given again.
//! Not here: what the numbers are for (`compiler`).

use std::{collections::HashMap, hash::Hash, sync::Arc};

/// Numbered values with a count of who needs each.
#[derive(Debug)]
pub(super) struct Interner<T> {
    numbers: HashMap<Arc<T>, u32>,
    slots: Vec<Option<(Arc<T>, u32)>>,
    free: Vec<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The number of a value, which one more needs from here on.
    pub(super) fn acquire(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value).copied() {
            if let Some(Some((_, count))) = self.slots.get_mut(number as usize) {
                *count = count.saturating_add(1);
            }
            return number;
        }
        let value = Arc::new(value);
        let slot = Some((Arc::clone(&value), 1));
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Far fewer than 2^32: every value stems from a bounded file.
            (self.slots.len() - 1) as u32
        });
        if let Some(place) = self.slots.get_mut(number as usize) {
            *place = slot;
        }
        self.numbers.insert(value, number);
        number
    }

    /// One needs it no more.
    pub(super) fn release(&mut self, number: u32) {
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return;
        };
        let Some((value, count)) = slot else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.numbers.remove(&**value);
            *slot = None;
            self.free.push(number);
        }
    }

    /// The value behind a number.
    pub(super) fn get(&self, number: u32) -> Option<&Arc<T>> {
        let slot = self.slots.get(number as usize)?;
        slot.as_ref().map(|(value, _)| value)
    }

    /// What is behind every number so far; none behind those that are free.
    pub(super) fn slots(&self) -> impl Iterator<Item = Option<&Arc<T>>> + '_ {
        let slots = self.slots.iter();
        slots.map(|slot| slot.as_ref().map(|(value, _)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_as_long_as_somebody_needs_it() {
        let mut all = Interner::default();
        let (one, two) = (all.acquire("one"), all.acquire("two"));
        assert_eq!(all.acquire("one"), one);
        all.release(one);
        assert_eq!(all.get(one).map(|value| **value), Some("one"));
        all.release(one);
        assert_eq!(all.get(one), None);
        assert_eq!(all.acquire("three"), one, "given again");
        assert_eq!(all.get(two).map(|value| **value), Some("two"));
        let slots: Vec<_> = all.slots().map(|slot| slot.map(|value| **value)).collect();
        assert_eq!(slots, [Some("three"), Some("two")]);
    }
}
