//! Messages the proxy makes itself: refusals and failures, never answers.
//!
//! In:  the header and question of a query, a response code, a reason.
//! Out: a reply without records, with an extended error (RFC 8914) for clients that speak EDNS.
//! Not here: when to refuse (`query`, `reply`).

use crate::wire::{Edns, Header, number};

/// Info codes of extended errors (RFC 8914 §4, IANA).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Info {
    /// Something that has no code of its own.
    Other,
    /// A policy of whoever runs this network.
    Blocked,
    /// A request that is not supported.
    NotSupported,
    /// The resolver could not be reached.
    NetworkError,
}

impl Info {
    const fn code(self) -> u16 {
        match self {
            Self::Other => 0,
            Self::Blocked => 15,
            Self::NotSupported => 21,
            Self::NetworkError => 23,
        }
    }
}

/// EXTRA-TEXT is for people; more than a line is nobody's help, and the reply must fit 512 bytes.
const MAX_TEXT: usize = 160;

/// The size of datagrams we say we take (DNS flag day 2020).
const UDP_SIZE: u16 = 1232;

/// Opcode, RD and CD are the query's.
const KEPT_FLAGS: u16 = 0x7910;
/// QR and RA are set.
const OWN_FLAGS: u16 = 0x8080;

/// A reply to the query with this header. `question` is as the client wrote it, none when it
/// could not be read.
pub(crate) fn reply(
    query: Header,
    question: Option<&[u8]>,
    edns: Option<Edns>,
    rcode: u16,
    info: Info,
    text: &str,
) -> Vec<u8> {
    let mut message = Vec::with_capacity(512);
    let mut put = |field: u16| message.extend_from_slice(&field.to_be_bytes());
    put(query.id);
    put(query.flags & KEPT_FLAGS | OWN_FLAGS | rcode & 0xf);
    put(u16::from(question.is_some()));
    put(0);
    put(0);
    put(u16::from(edns.is_some()));
    message.extend_from_slice(question.unwrap_or_default());
    if let Some(edns) = edns {
        extend_with_opt(&mut message, edns, info, text);
    }
    message
}

fn extend_with_opt(message: &mut Vec<u8>, edns: Edns, info: Info, text: &str) {
    let text = text
        .get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or_default();
    // Bounded by `MAX_TEXT`.
    let text_len = u16::try_from(text.len()).unwrap_or(0);
    message.push(0);
    let mut put = |field: u16| message.extend_from_slice(&field.to_be_bytes());
    put(number::OPT);
    put(UDP_SIZE);
    put(0);
    put(if edns.dnssec_ok { 0x8000 } else { 0 });
    put(text_len + 6);
    // OPTION-CODE of an extended error.
    put(15);
    put(text_len + 2);
    put(info.code());
    message.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, ResponseCode};

    use super::*;
    use crate::wire::rcode;

    const HEADER: Header = Header {
        id: 0xbeef,
        // RD, CD and a zero bit that must not come back.
        flags: 0x0150,
        counts: [1, 0, 0, 1],
    };
    const QUESTION: &[u8] = b"\x03WwW\x07eXample\x00\x00\x01\x00\x01";

    #[test]
    fn another_implementation_reads_what_we_write() {
        let bytes = reply(
            HEADER,
            Some(QUESTION),
            Some(Edns { dnssec_ok: true }),
            rcode::REFUSED,
            Info::Blocked,
            "not allowed by CiliumNetworkPolicy/default/web",
        );
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.id, 0xbeef);
        assert_eq!(message.metadata.response_code, ResponseCode::Refused);
        assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
        assert!(message.metadata.checking_disabled && !message.metadata.authentic_data);
        assert_eq!(message.queries[0].name().to_ascii(), "WwW.eXample.");
        let edns = message.edns.unwrap();
        assert!(edns.flags().dnssec_ok);
        let option = edns.option(15.into()).unwrap();
        let bytes: Vec<u8> = option.try_into().unwrap();
        assert_eq!(bytes[..2], [0, 15]);
        assert!(bytes.ends_with(b"default/web"));
    }

    #[test]
    fn a_client_without_edns_gets_none_and_any_reply_fits_a_datagram() {
        let bytes = reply(
            HEADER,
            Some(QUESTION),
            None,
            rcode::SERVFAIL,
            Info::Other,
            "why",
        );
        assert_eq!(Message::from_vec(&bytes).unwrap().edns, None);
        let longest = [
            &[63; 64],
            &[63; 64],
            &[63; 64],
            &[61; 62][..],
            &[0, 0, 1, 0, 1],
        ]
        .concat();
        let long_text = "ü".repeat(4000);
        let edns = Some(Edns { dnssec_ok: false });
        let bytes = reply(
            HEADER,
            Some(&longest),
            edns,
            rcode::REFUSED,
            Info::Blocked,
            &long_text,
        );
        assert!(bytes.len() <= 512, "{}", bytes.len());
        assert!(Message::from_vec(&bytes).is_ok());
        assert!(reply(HEADER, None, None, rcode::NOTIMP, Info::NotSupported, "").len() == 12);
    }
}
