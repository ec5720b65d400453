//! DNS messages, as little as the tests need and independent of the product's own decoder.
//!
//! In:  names, or bytes of a message.
//! Out: query bytes, the addresses of an answer, forged replies.
//! Not here: sockets.

use std::net::IpAddr;

/// A question type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// A query with recursion desired.
pub fn query(id: u16, name: &str, kind: Kind) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(id.to_be_bytes());
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(question(name, kind));
    message
}

/// A question: name, type, class IN.
pub fn question(name: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.number().to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// A positive reply of one address to a question given as bytes.
pub fn reply(id: u16, question: &[u8], address: IpAddr, ttl: u32) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(id.to_be_bytes());
    message.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend(question);
    message.extend([0xc0, 12]);
    let (kind, data) = match address {
        IpAddr::V4(address) => (Kind::A, address.octets().to_vec()),
        IpAddr::V6(address) => (Kind::Aaaa, address.octets().to_vec()),
    };
    message.extend(kind.number().to_be_bytes());
    message.extend([0, 1]);
    message.extend(ttl.to_be_bytes());
    message.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    message.extend(data);
    message
}

/// The id of a message.
pub fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(..2)?.try_into().ok()?))
}

/// The response code of a message.
pub fn rcode(message: &[u8]) -> Option<u8> {
    message.get(3).map(|byte| byte & 0x0f)
}

/// The bytes of the first question of a message.
pub fn question_of(message: &[u8]) -> Option<&[u8]> {
    let end = skip_name(message, 12)? + 4;
    message.get(12..end)
}

/// The addresses in the answer section.
pub fn addresses(message: &[u8]) -> Option<Vec<IpAddr>> {
    let count = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(
            message.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let mut at = 12;
    for _ in 0..count(4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..count(6)? {
        at = skip_name(message, at)?;
        let kind = count(at)?;
        let length = usize::from(count(at + 8)?);
        let data = message.get(at + 10..at + 10 + length)?;
        match kind {
            1 => found.push(<[u8; 4]>::try_from(data).ok()?.into()),
            28 => found.push(<[u8; 16]>::try_from(data).ok()?.into()),
            _ => {}
        }
        at += 10 + length;
    }
    Some(found)
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_back_as_it_was_written() {
        for (kind, address) in [(Kind::A, "203.0.113.7"), (Kind::Aaaa, "2001:db8::7")] {
            let asked = query(7, "a.Example.test", kind);
            let address: IpAddr = address.parse().unwrap();
            let answer = reply(7, question_of(&asked).unwrap(), address, 60);
            assert_eq!(id(&answer), Some(7));
            assert_eq!(rcode(&answer), Some(0));
            assert_eq!(question_of(&answer), question_of(&asked));
            assert_eq!(addresses(&answer), Some(vec![address]));
            for end in 0..answer.len() {
                // A message cut short is no message.
                assert_eq!(addresses(&answer[..end]), None);
            }
        }
    }
}
