//! DNS messages put together byte by byte, well-formed or not.
//!
//! In:  choices.
//! Out: bytes.
//! Not here: reading them (hickory, and the core under test).

use crate::input::Input;

/// Names as on the wire.
pub(crate) const NAMES: [&[u8]; 8] = [
    b"\x01a\x01x\x00",
    b"\x03wWw\x07example\x03com\x00",
    b"\x01b\x01a\x01x\x00",
    b"\x00",
    b"\x01x\x00",
    b"\x04_dns\x08resolver\x04arpa\x00",
    b"\x03cdn\x07example\x03net\x00",
    b"\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x03com\x00",
];

/// Addresses that mean something special, and some that do not.
const V4: [[u8; 4]; 12] = [
    [203, 0, 113, 1],
    [203, 0, 113, 2],
    [10, 0, 0, 1],
    [127, 0, 0, 1],
    [169, 254, 169, 254],
    [100, 100, 100, 200],
    [168, 63, 129, 16],
    [0, 0, 0, 0],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
    [100, 64, 0, 1],
    [192, 168, 1, 1],
];
const V6: [&str; 14] = [
    "2001:db8::1",
    "2001:db8::2",
    "::",
    "::1",
    "fe80::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:203.0.113.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001::80ff:fffe",
    "::169.254.169.254",
];

/// A message with these counts and this question.
pub(crate) fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let [a, b, c, d] = counts;
    [id, flags, a, b, c, d]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect()
}

/// A question as on the wire, class IN.
pub(crate) fn question(name: &[u8], qtype: u16) -> Vec<u8> {
    [name, &qtype.to_be_bytes(), &[0, 1]].concat()
}

/// A query with its header.
pub(crate) fn query(id: u16, question: &[u8]) -> Vec<u8> {
    let mut message = header(id, 0x0100, [1, 0, 0, 0]);
    message.extend(question);
    message
}

/// Appends one record: owner, kind, TTL, then what the kind needs.
pub(crate) fn push_record(message: &mut Vec<u8>, input: &mut Input<'_>) {
    match input.below(8) {
        0..=3 => message.extend([0xc0, 12]),
        4 | 5 => message.extend(*input.pick(&NAMES)),
        6 => {
            // A name somewhere before, where compression usually points.
            let at = input.short() % u16::try_from(message.len()).unwrap_or(1).clamp(1, 0x3fff);
            message.extend((0xc000 | at).to_be_bytes());
        }
        _ => message.extend(input.array::<2>()),
    }
    let (rtype, data) = content(message.len() + 10, input);
    let class: u16 = match input.byte() {
        255 => input.short(),
        _ => 1,
    };
    let ttl: u32 = match input.below(4) {
        0 => u32::from(input.byte()),
        1 => u32::from(input.short()),
        2 => 0x8000_0000 | input.word(),
        _ => input.word(),
    };
    message.extend(rtype.to_be_bytes());
    message.extend(class.to_be_bytes());
    message.extend(ttl.to_be_bytes());
    message.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(data);
}

/// Type and data of a record whose data starts at `at`.
fn content(at: usize, input: &mut Input<'_>) -> (u16, Vec<u8>) {
    match input.below(10) {
        0 | 1 => (1, input.pick(&V4).to_vec()),
        2 => (1, input.array::<4>().to_vec()),
        3 => (28, v6(input)),
        4 => (28, input.array::<16>().to_vec()),
        5 | 6 => (5, input.pick(&NAMES).to_vec()),
        7 => {
            // A label, then a pointer back.
            let back = 12 + u16::from(input.byte()) % u16::try_from(at).unwrap_or(12).max(13);
            let mut data = input.pick(&[&b""[..], b"\x03www", b"\x01a"]).to_vec();
            data.extend((0xc000 | back & 0x3fff).to_be_bytes());
            (5, data)
        }
        8 => (*input.pick(&[64, 65]), service(input)),
        _ => {
            let rtype = input.short();
            let len = usize::from(input.byte());
            (rtype, input.bytes(len).to_vec())
        }
    }
}

/// A service record: priority, target, parameters.
fn service(input: &mut Input<'_>) -> Vec<u8> {
    let mut data = vec![0, input.below(3)];
    data.extend(*input.pick(&NAMES));
    for _ in 0..input.below(4) {
        let key = u16::from(input.below(8));
        let value: Vec<u8> = match key {
            4 => (0..input.below(3)).flat_map(|_| *input.pick(&V4)).collect(),
            6 => (0..input.below(3)).flat_map(|_| v6(input)).collect(),
            _ => {
                let len = usize::from(input.below(12));
                input.bytes(len).to_vec()
            }
        };
        data.extend(key.to_be_bytes());
        data.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        data.extend(value);
    }
    data
}

fn v6(input: &mut Input<'_>) -> Vec<u8> {
    let text = *input.pick(&V6);
    let address: std::net::Ipv6Addr = text.parse().unwrap();
    address.octets().to_vec()
}
