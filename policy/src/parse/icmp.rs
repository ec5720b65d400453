//! `icmps`: ICMP types by number or name.
//!
//! In:  the list of ICMP rules of one rule.
//! Out: [`Ports::Icmp`].
//! Not here: ICMP codes, which the language does not have.
//!
//! Names: `pkg/policy/api/icmp.go` of Cilium 1.20. Type 0 is EchoReply and nothing more.

use super::{
    Problem,
    fields::{Cursor, Reader},
    ports::is_number,
};
use crate::{compiled::Protocol, model::Ports};

const MAX_FIELDS: usize = 40;

const TYPES_V4: &[(&str, u8)] = &[
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

const TYPES_V6: &[(&str, u8)] = &[
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

pub(super) fn read(reader: &mut Reader, at: &Cursor<'_>) -> Option<Ports> {
    let items = reader.list(at)?;
    if items.is_empty() {
        return Some(Ports::All);
    }
    let errors = reader.errors.len();
    let mut types = Vec::new();
    for item in items {
        let Some(fields) = reader.fields(&item, &["fields"], &[]) else {
            continue;
        };
        let Some(list) = fields.get("fields") else {
            continue;
        };
        for field in reader.short_list(list, MAX_FIELDS).unwrap_or_default() {
            types.extend(icmp_type(reader, &field));
        }
    }
    (reader.errors.len() == errors).then_some(Ports::Icmp(types))
}

fn icmp_type(reader: &mut Reader, at: &Cursor<'_>) -> Option<(Protocol, u8)> {
    let fields = reader.fields(at, &["family", "type"], &[])?;
    let (protocol, names) = match fields.get("family") {
        None => (Protocol::Icmp, TYPES_V4),
        Some(family) => match reader.string(family)? {
            "IPv4" => (Protocol::Icmp, TYPES_V4),
            "IPv6" => (Protocol::Icmpv6, TYPES_V6),
            other => {
                let problem = Problem::NotOneOf {
                    found: other.into(),
                    allowed: "IPv4, IPv6".into(),
                };
                reader.problem(family, problem);
                return None;
            }
        },
    };
    let Some(kind) = fields.get("type") else {
        reader.problem(at, Problem::Missing("type"));
        return None;
    };
    if is_number(kind) {
        let number = reader.number(kind, u32::from(u8::MAX))?;
        return Some((protocol, u8::try_from(number).ok()?));
    }
    let text = reader.string(kind)?;
    let by_name = names
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, n)| *n);
    // A quoted number is what `kubectl` writes back.
    let Some(number) = by_name.or_else(|| text.parse().ok()) else {
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        let problem = Problem::NotOneOf {
            found: text.into(),
            allowed: known.join(", "),
        };
        reader.problem(kind, problem);
        return None;
    };
    Some((protocol, number))
}
