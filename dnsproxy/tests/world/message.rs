//! DNS messages as a client without a library would write and read them.
//!
//! In:  an id, a name, a type.
//! Out: bytes; the few header fields that the tests look at.
//! Not here: sockets.

use std::io::{Read, Write};

/// A query with recursion desired.
pub fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(qtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The same behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

pub fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

pub fn rcode(message: &[u8]) -> u8 {
    message[3] & 15
}

pub fn answers(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[6], message[7]])
}

/// One message off a stream; none at its end.
pub fn read(stream: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if let Err(error) = stream.read_exact(&mut length) {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        };
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// An empty answer to a query: its id and question with QR set.
pub fn empty_answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer
}

pub fn send(stream: &mut impl Write, message: &[u8]) {
    stream.write_all(&framed(message)).unwrap();
}
