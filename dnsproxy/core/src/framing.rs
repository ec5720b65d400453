//! Messages on a TCP stream: two bytes of length, then the message (RFC 1035 §4.2.2).
//!
//! In:  bytes as they arrive, cut anywhere.
//! Out: whole messages, in order.
//! Not here: the connection, its limits and time-outs (`dnsproxy`).

/// Longest message the two bytes of length can announce.
pub const MAX_MESSAGE: usize = u16::MAX as usize;

/// Cuts a stream into messages. Holds what is not a whole message yet: less than one message
/// and its length, as long as the caller takes every message before it pushes more.
#[derive(Default, Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Where the next message starts in `buffer`.
    start: usize,
}

impl Framer {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes wait to be taken or completed.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// A message with its length in front; none when it is longer than a length can say.
    pub fn frame(message: &[u8]) -> Option<Vec<u8>> {
        let len = u16::try_from(message.len()).ok()?;
        let mut framed = Vec::with_capacity(message.len() + 2);
        framed.extend_from_slice(&len.to_be_bytes());
        framed.extend_from_slice(message);
        Some(framed)
    }
}

impl Iterator for Framer {
    type Item = Vec<u8>;

    /// The next whole message, without its length.
    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.get(self.start..)?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        let message = rest.get(..len)?.to_vec();
        self.start += 2 + len;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            // One big message must not pin its size for the life of the connection.
            self.buffer.shrink_to(4096);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_message_is_a_message() {
        let mut framer = Framer::new();
        framer.push(&[0, 0, 0]);
        assert_eq!(framer.next(), Some(vec![]));
        assert_eq!(framer.next(), None);
        assert_eq!(framer.buffered(), 1);
    }

    #[test]
    fn a_message_longer_than_its_length_field_cannot_be_framed() {
        assert!(Framer::frame(&vec![0; MAX_MESSAGE]).is_some());
        assert_eq!(Framer::frame(&vec![0; MAX_MESSAGE + 1]), None);
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..8),
            cuts in proptest::collection::vec(1usize..600, 1..40))
        {
            let stream: Vec<u8> = messages.iter().flat_map(|m| Framer::frame(m).unwrap()).collect();
            let mut framer = Framer::new();
            let mut taken = Vec::new();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                framer.push(head);
                taken.extend(framer.by_ref());
                prop_assert!(framer.buffered() < MAX_MESSAGE + 2);
                rest = tail;
            }
            prop_assert_eq!(taken, messages);
            prop_assert_eq!(framer.buffered(), 0);
        }
    }
}
