//! Messages on a stream, cut anywhere: `tcp_framing`.
//!
//! In:  a stream and where it is cut.
//! Out: a panic when the messages depend on the cuts, or more is held than a message.
//! Not here: what the messages say.

use dnsproxy_core::{Framer, MAX_MESSAGE};

use crate::input::Input;

/// Any split of a stream yields the same messages, and what is held is what is not complete.
pub fn tcp_framing(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = [(); 4].map(|()| usize::from(input.byte()) + 1);
    let short = input.flag();
    let stream = input.rest();
    // Lengths of one byte make many messages of a short input.
    let stream: Vec<u8> = if short {
        let lengths = stream.chunk_by(|_, b| *b != 0).map(|chunk| {
            let len = u16::try_from(chunk.len()).unwrap_or(0);
            [&len.to_be_bytes(), chunk].concat()
        });
        lengths.flatten().collect()
    } else {
        stream.to_vec()
    };
    let (expected, left) = naive(&stream);
    let mut framer = Framer::new();
    let mut messages = Vec::new();
    let mut rest = &stream[..];
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = cuts.next().map_or(1, |cut| *cut).min(rest.len());
        let (head, tail) = rest.split_at(cut);
        framer.push(head);
        messages.extend(framer.by_ref());
        assert!(framer.buffered() < MAX_MESSAGE + 2);
        rest = tail;
    }
    assert_eq!(messages, expected);
    assert_eq!(framer.buffered(), left);
    let again: Vec<u8> = messages
        .iter()
        .filter_map(|message| Framer::frame(message))
        .flatten()
        .collect();
    assert_eq!(again, stream[..stream.len() - left]);
}

/// The messages of a whole stream, and how many bytes are left.
fn naive(stream: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut messages = Vec::new();
    let mut at = 0;
    while at + 2 <= stream.len() {
        let len = usize::from(u16::from_be_bytes([stream[at], stream[at + 1]]));
        if at + 2 + len > stream.len() {
            break;
        }
        messages.push(stream[at + 2..at + 2 + len].to_vec());
        at += 2 + len;
    }
    (messages, stream.len() - at)
}
