//! Bytes read as choices.
//!
//! In:  the bytes of one input.
//! Out: numbers, choices, slices; zero once the bytes are used up.
//! Not here: what is chosen.
//!
//! Every choice is made by bytes at the front and of fixed width, so that seeds can be written by
//! hand and a changed byte changes one choice.

use arbitrary::Unstructured;

/// What is left of an input.
pub(crate) struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(Unstructured::new(data))
    }

    /// Nothing is left to choose by.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Two bytes, the low one first.
    pub(crate) fn short(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Four bytes, the low one first.
    pub(crate) fn word(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// One byte, of which the lowest bit counts.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// One byte: a number below `end`.
    pub(crate) fn below(&mut self, end: u8) -> u8 {
        self.byte() % end.max(1)
    }

    /// One byte: one of these.
    pub(crate) fn pick<'b, T>(&mut self, all: &'b [T]) -> &'b T {
        &all[usize::from(self.byte()) % all.len()]
    }

    /// As many bytes, or what is left.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let count = count.min(self.0.len());
        self.0.bytes(count).unwrap_or_default()
    }

    /// So many bytes, zero where nothing is left.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// Overwrites bytes of a message: a count, then (two bytes of position, value) each.
    pub(crate) fn spoil(&mut self, message: &mut [u8]) {
        for _ in 0..self.below(4) {
            let (at, value) = (usize::from(self.short()), self.byte());
            if !message.is_empty() {
                let at = at % message.len();
                message[at] = value;
            }
        }
    }
}
