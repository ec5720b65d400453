//! DNS messages as bytes: what has to be read out of them, and the few bytes that are changed.
//!
//! In:  untrusted messages from clients and resolvers, at most 64 KiB each.
//! Out: [`Question`], [`Records`]; messages with another id or shorter TTLs.
//! Not here: what any of it means (`answer`, `query`, `reply`).
//!
//! The only file that knows hickory. Messages are relayed as they came: EDNS options, DNSSEC
//! records, casing and compression of either side are none of our business, so nothing is ever
//! decoded and encoded again.

use std::net::IpAddr;

use hickory_proto::{
    rr::{
        Name, RData, Record,
        rdata::{
            SVCB,
            svcb::{IpHint, SvcParamValue},
        },
    },
    serialize::binary::{BinDecodable, BinDecoder, DecodeError, Restrict},
};
use policy::fqdn::Fqdn;
use smallvec::SmallVec;

/// Length of the fixed header (RFC 1035 §4.1.1).
pub(crate) const HEADER: usize = 12;

/// Record types and classes by number (IANA DNS parameters).
pub(crate) mod number {
    pub(crate) const A: u16 = 1;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const IN: u16 = 1;
}

/// Response codes by number (IANA DNS parameters).
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
}

/// A name that is the question's: a pointer to the first byte behind the header (RFC 1035 §4.1.4).
const POINTER: [u8; 2] = [0xc0, HEADER as u8];

const QR: u16 = 0x8000;
const TC: u16 = 0x0200;

/// The parts of the header that decide something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// How many entries each of the four sections announces.
    pub(crate) counts: [u16; 4],
}

impl Header {
    /// The header of a message; none when the message is shorter than a header.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let bytes = message.first_chunk::<HEADER>()?;
        let [i0, i1, f0, f1, a0, a1, b0, b1, c0, c1, d0, d1] = *bytes;
        let number = |high, low| u16::from_be_bytes([high, low]);
        Some(Self {
            id: number(i0, i1),
            flags: number(f0, f1),
            counts: [
                number(a0, a1),
                number(b0, b1),
                number(c0, c1),
                number(d0, d1),
            ],
        })
    }

    pub(crate) const fn is_response(self) -> bool {
        self.flags & QR != 0
    }

    pub(crate) const fn is_truncated(self) -> bool {
        self.flags & TC != 0
    }

    pub(crate) const fn opcode(self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// The four bits of the header; the upper ones of EDNS do not occur with the codes that matter.
    pub(crate) const fn rcode(self) -> u16 {
        self.flags & 0xf
    }
}

/// The question exactly as the client wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    /// Name, type and class as on the wire, in the client's casing.
    pub(crate) bytes: SmallVec<[u8; 64]>,
    pub(crate) name: Fqdn,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
}

/// Whether a client speaks EDNS, and its DO bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Edns {
    pub(crate) dnssec_ok: bool,
}

/// Why a question cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum QuestionError {
    #[error("the message does not hold exactly one question")]
    Count,
    #[error("the question's name cannot be read")]
    Name,
    #[error("the message ends inside its question")]
    Short,
}

impl Question {
    /// The only question of a message.
    ///
    /// Its name must be written out: the first name of a message has nothing before it to point
    /// at but the header, and two readers could disagree on what such a pointer means.
    pub(crate) fn read(message: &[u8], header: Header) -> Result<Self, QuestionError> {
        let [1, ..] = header.counts else {
            return Err(QuestionError::Count);
        };
        let body = message.get(HEADER..).ok_or(QuestionError::Short)?;
        let mut labels = SmallVec::<[&[u8]; 8]>::new();
        let mut rest = body;
        loop {
            let (len, after) = rest.split_first().ok_or(QuestionError::Short)?;
            if *len == 0 {
                rest = after;
                break;
            }
            if *len > 63 {
                return Err(QuestionError::Name);
            }
            let (label, after) = after
                .split_at_checked(usize::from(*len))
                .ok_or(QuestionError::Short)?;
            labels.push(label);
            rest = after;
            if body.len() - rest.len() > 254 {
                return Err(QuestionError::Name);
            }
        }
        let (tail, _) = rest.split_first_chunk::<4>().ok_or(QuestionError::Short)?;
        let [t0, t1, c0, c1] = *tail;
        let len = body.len() - rest.len() + tail.len();
        Ok(Self {
            bytes: body.get(..len).ok_or(QuestionError::Short)?.into(),
            name: Fqdn::from_labels(&labels).map_err(|_| QuestionError::Name)?,
            qtype: u16::from_be_bytes([t0, t1]),
            qclass: u16::from_be_bytes([c0, c1]),
        })
    }

    /// Whether a reply repeats this question: same type and class, same name in any casing.
    pub(crate) fn is_echoed_in(&self, reply: &[u8], header: Header) -> bool {
        let [1, ..] = header.counts else { return false };
        let echo = reply.get(HEADER..HEADER + self.bytes.len());
        let (Some(echo), Some(split)) = (echo, self.bytes.len().checked_sub(4)) else {
            return false;
        };
        match (
            echo.split_at_checked(split),
            self.bytes.split_at_checked(split),
        ) {
            // Lengths of labels are below 64, so folding the case of letters cannot touch them.
            (Some((name, rest)), Some((own_name, own_rest))) => {
                name.eq_ignore_ascii_case(own_name) && rest == own_rest
            }
            _ => false,
        }
    }
}

/// Whether the message carries EDNS (RFC 6891).
///
/// # Errors
/// When the records behind the question cannot be read.
pub(crate) fn edns(
    message: &[u8],
    header: Header,
    question: &Question,
) -> Result<Option<Edns>, Malformed> {
    let [_, answers, authorities, additionals] = header.counts;
    let records = u32::from(answers) + u32::from(authorities) + u32::from(additionals);
    let mut walk = Walk::behind(message, question)?;
    let mut found = None;
    for _ in 0..records {
        let record = walk.next_record()?;
        if record.rtype == number::OPT {
            found = Some(Edns {
                dnssec_ok: record.ttl & 0x8000 != 0,
            });
        }
    }
    Ok(found)
}

/// A message whose records cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the message's records cannot be read")]
pub(crate) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// A TTL of a message, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TtlField {
    pub(crate) at: usize,
    pub(crate) raw: u32,
}

impl TtlField {
    /// The TTL it means: one with the top bit set is zero (RFC 2181 §8).
    pub(crate) const fn seconds(self) -> u32 {
        if self.raw > i32::MAX as u32 {
            0
        } else {
            self.raw
        }
    }
}

/// A name in a message, compared without regard to case.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WireName(Name);

impl WireName {
    /// The name as policies know it.
    pub(crate) fn fqdn(&self) -> Option<Fqdn> {
        Fqdn::from_labels(self.0.iter()).ok()
    }
}

/// A record of the answer section that can matter.
#[derive(Clone, Debug)]
pub(crate) struct AnswerRecord {
    pub(crate) owner: WireName,
    pub(crate) ttl: TtlField,
    pub(crate) content: Content,
}

/// What such a record says.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Alias(WireName),
    /// Of A and AAAA one, of HTTPS and SVCB all hints.
    Addresses(SmallVec<[IpAddr; 1]>),
}

/// The answer section, without what cannot teach.
#[derive(Debug)]
pub(crate) struct Records {
    /// The queried name as the section's owners are compared with it.
    pub(crate) asked: WireName,
    pub(crate) records: Vec<AnswerRecord>,
    /// The section could be read to its announced end.
    pub(crate) complete: bool,
}

impl Records {
    /// Reads the answer section. Authority and additional sections are relayed, never believed.
    ///
    /// # Errors
    /// When not even the question can be read.
    pub(crate) fn read(
        message: &[u8],
        header: Header,
        question: &Question,
    ) -> Result<Self, Malformed> {
        let asked = WireName(Name::read(&mut BinDecoder::new(&question.bytes))?);
        let mut walk = Walk::behind(message, question)?;
        let [_, answers, ..] = header.counts;
        let mut records = Vec::new();
        for _ in 0..answers {
            match walk.next_record_about(&asked) {
                Ok(record) => records.extend(record.believed(message)),
                Err(Malformed) => {
                    return Ok(Self {
                        asked,
                        records,
                        complete: false,
                    });
                }
            }
        }
        Ok(Self {
            asked,
            records,
            complete: true,
        })
    }
}

/// Steps over records, never beyond the end of the message.
struct Walk<'a> {
    message: &'a [u8],
    decoder: BinDecoder<'a>,
}

struct RawRecord<'a> {
    owner: Name,
    rtype: u16,
    class: u16,
    ttl: u32,
    ttl_at: usize,
    starts_at: usize,
    data_at: usize,
    data: &'a [u8],
}

impl<'a> Walk<'a> {
    fn behind(message: &'a [u8], question: &Question) -> Result<Self, Malformed> {
        let mut decoder = BinDecoder::new(message);
        decoder.read_slice(HEADER + question.bytes.len())?;
        Ok(Self { message, decoder })
    }

    /// The next record of a message that repeats the question `asked`: most records are about it
    /// and say so by pointing at it, so that their owner need not be read again.
    fn next_record_about(&mut self, asked: &WireName) -> Result<RawRecord<'a>, Malformed> {
        let starts_at = self.decoder.index();
        let owner = if self
            .message
            .get(starts_at..)
            .is_some_and(|rest| rest.starts_with(&POINTER))
        {
            self.decoder.read_slice(POINTER.len())?;
            asked.0.clone()
        } else {
            Name::read(&mut self.decoder)?
        };
        self.rest_of_record(starts_at, owner)
    }

    fn next_record(&mut self) -> Result<RawRecord<'a>, Malformed> {
        let starts_at = self.decoder.index();
        let owner = Name::read(&mut self.decoder)?;
        self.rest_of_record(starts_at, owner)
    }

    fn rest_of_record(
        &mut self,
        starts_at: usize,
        owner: Name,
    ) -> Result<RawRecord<'a>, Malformed> {
        let rtype = self.decoder.read_u16()?.unverified();
        let class = self.decoder.read_u16()?.unverified();
        let ttl_at = self.decoder.index();
        let ttl = self.decoder.read_u32()?.unverified();
        let len = self.decoder.read_u16()?.map(usize::from).unverified();
        let data_at = self.decoder.index();
        // Bounded by the message: a longer length is an error of the decoder.
        let data = self.decoder.read_slice(len).map(Restrict::unverified)?;
        Ok(RawRecord {
            owner,
            rtype,
            class,
            ttl,
            ttl_at,
            starts_at,
            data_at,
            data,
        })
    }
}

impl RawRecord<'_> {
    /// What the record says if it is of a kind that can teach. A record whose data is not what
    /// its type demands says nothing; a client cannot make an address of it either.
    fn believed(self, message: &[u8]) -> Option<AnswerRecord> {
        if self.class != number::IN {
            return None;
        }
        let content = match self.rtype {
            number::A => Content::Addresses(
                [IpAddr::from(<[u8; 4]>::try_from(self.data).ok()?)]
                    .into_iter()
                    .collect(),
            ),
            number::AAAA => {
                let address = IpAddr::from(<[u8; 16]>::try_from(self.data).ok()?);
                // Linux sends packets to an IPv4-mapped address as IPv4.
                Content::Addresses([address.to_canonical()].into_iter().collect())
            }
            number::CNAME => Content::Alias(WireName(self.name_in_data(message)?)),
            number::SVCB | number::HTTPS => Content::Addresses(self.hints(message)?),
            _ => return None,
        };
        Some(AnswerRecord {
            owner: WireName(self.owner),
            ttl: TtlField {
                at: self.ttl_at,
                raw: self.ttl,
            },
            content,
        })
    }

    fn name_in_data(&self, message: &[u8]) -> Option<Name> {
        let mut decoder = decoder_at(message, self.data_at)?;
        let name = Name::read(&mut decoder).ok()?;
        (decoder.index() == self.data_at + self.data.len()).then_some(name)
    }

    /// Address hints of a record in service mode (RFC 9460 §7.3). In alias mode (priority 0)
    /// parameters must be ignored (§2.4.2). The hints belong to the name that was asked, whatever
    /// the target: a resolver that could name another target could have named it by CNAME.
    fn hints(&self, message: &[u8]) -> Option<SmallVec<[IpAddr; 1]>> {
        let mut decoder = decoder_at(message, self.starts_at)?;
        let record = Record::<RData>::read(&mut decoder).ok()?;
        let service: &SVCB = match &record.data {
            RData::SVCB(service) => service,
            RData::HTTPS(service) => service,
            _ => return None,
        };
        if service.svc_priority == 0 {
            return None;
        }
        let mut hints = SmallVec::new();
        for (_, value) in &service.svc_params {
            match value {
                SvcParamValue::Ipv4Hint(IpHint(all)) => {
                    hints.extend(all.iter().map(|a| IpAddr::V4(a.0)));
                }
                SvcParamValue::Ipv6Hint(IpHint(all)) => {
                    hints.extend(all.iter().map(|a| IpAddr::V6(a.0).to_canonical()));
                }
                _ => {}
            }
        }
        (!hints.is_empty()).then_some(hints)
    }
}

fn decoder_at(message: &[u8], at: usize) -> Option<BinDecoder<'_>> {
    let mut decoder = BinDecoder::new(message);
    decoder.read_slice(at).ok()?;
    Some(decoder)
}

/// Gives the message another id.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut::<2>() {
        *field = id.to_be_bytes();
    }
}

/// Writes a TTL where one stood.
pub(crate) fn set_ttl(message: &mut [u8], field: TtlField, seconds: u32) {
    if let Some(bytes) = message
        .get_mut(field.at..)
        .and_then(|rest| rest.first_chunk_mut::<4>())
    {
        *bytes = seconds.to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
