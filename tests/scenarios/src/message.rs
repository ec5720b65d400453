//! DNS messages of the scripts: made and read by hickory, which the core only borrows for names.
//!
//! In:  words of a script.
//! Out: bytes; and bytes as one line of text.
//! Not here: who sends them to whom (`conversation`).

use std::{net::IpAddr, str::FromStr};

use anyhow::{Context as _, Result, bail};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, NULL, SVCB,
            opt::EdnsOption,
            svcb::{IpHint, SvcParamKey, SvcParamValue},
        },
    },
};

/// What a query asks for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) qtype: String,
    pub(crate) class: DNSClass,
    /// Its options, by code, if it has an OPT record.
    pub(crate) edns: Option<Vec<(u16, Vec<u8>)>>,
}

fn query_of(name: &str, qtype: &str, class: DNSClass) -> Result<Query> {
    let mut query = Query::query(wire_name(name)?, record_type(qtype)?);
    query.set_query_class(class);
    Ok(query)
}

/// By name, or by number as RFC 3597 writes it.
fn record_type(text: &str) -> Result<RecordType> {
    Ok(match text.strip_prefix("TYPE") {
        Some(number) => number.parse::<u16>()?.into(),
        None => RecordType::from_str(text)?,
    })
}

/// Bytes written as hexadecimal digits.
pub(crate) fn hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<_> = text.chars().collect();
    digits
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(&pair.iter().collect::<String>(), 16)?))
        .collect()
}

fn opt(options: &[(u16, Vec<u8>)]) -> Edns {
    let mut edns = Edns::new();
    for (code, data) in options {
        let option = EdnsOption::Unknown(*code, data.clone());
        edns.options_mut().insert(option);
    }
    edns
}

fn wire_name(text: &str) -> Result<Name> {
    let mut name = Name::from_ascii(text).with_context(|| format!("name `{text}`"))?;
    name.set_fqdn(true);
    Ok(name)
}

/// The bytes of a query.
pub(crate) fn query(asked: &Asked) -> Result<Vec<u8>> {
    let mut message = Message::new(asked.id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query_of(&asked.name, &asked.qtype, asked.class)?);
    if let Some(options) = &asked.edns {
        message.set_edns(opt(options));
    }
    Ok(message.to_vec()?)
}

/// The bytes of a reply.
#[derive(Clone, Debug)]
pub(crate) struct Replied {
    pub(crate) id: u16,
    pub(crate) question: Option<(String, String, DNSClass)>,
    pub(crate) rcode: String,
    pub(crate) truncated: bool,
    /// As in a query.
    pub(crate) edns: Option<Vec<(u16, Vec<u8>)>>,
    /// Section, name, TTL, type, data.
    pub(crate) records: Vec<Vec<String>>,
}

impl Replied {
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.recursion_available = true;
        message.metadata.truncation = self.truncated;
        message.metadata.response_code = match self.rcode.as_str() {
            "NOERROR" => ResponseCode::NoError,
            "NXDOMAIN" => ResponseCode::NXDomain,
            "SERVFAIL" => ResponseCode::ServFail,
            "REFUSED" => ResponseCode::Refused,
            other => bail!("response code `{other}`"),
        };
        if let Some((name, qtype, class)) = &self.question {
            message.add_query(query_of(name, qtype, *class)?);
        }
        if let Some(options) = &self.edns {
            message.set_edns(opt(options));
        }
        for words in &self.records {
            let [section, name, ttl, rtype, data @ ..] = &words[..] else {
                bail!("record `{}`", words.join(" "));
            };
            let record = Record::from_rdata(wire_name(name)?, ttl.parse()?, rdata(rtype, data)?);
            match section.as_str() {
                "answer" => message.add_answer(record),
                "authority" => message.add_authority(record),
                "additional" => message.add_additional(record),
                other => bail!("section `{other}`"),
            };
        }
        Ok(message.to_vec()?)
    }
}

fn rdata(rtype: &str, data: &[String]) -> Result<RData> {
    let first = data.first().context("a record without data")?;
    Ok(match rtype {
        "A" => RData::A(A(first.parse()?)),
        "AAAA" => RData::AAAA(AAAA(first.parse()?)),
        "CNAME" => RData::CNAME(CNAME(wire_name(first)?)),
        // HTTPS priority target [address…]
        "HTTPS" => {
            let [priority, target, hints @ ..] = data else {
                bail!("HTTPS needs a target")
            };
            let hints: Vec<IpAddr> = hints.iter().map(|h| h.parse()).collect::<Result<_, _>>()?;
            let v4: Vec<_> = hints
                .iter()
                .filter_map(|h| {
                    if let IpAddr::V4(a) = h {
                        Some(A(*a))
                    } else {
                        None
                    }
                })
                .collect();
            let v6: Vec<_> = hints
                .iter()
                .filter_map(|h| {
                    if let IpAddr::V6(a) = h {
                        Some(AAAA(*a))
                    } else {
                        None
                    }
                })
                .collect();
            let mut params = Vec::new();
            if !v4.is_empty() {
                params.push((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))));
            }
            if !v6.is_empty() {
                params.push((SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))));
            }
            RData::HTTPS(HTTPS(SVCB::new(
                priority.parse()?,
                wire_name(target)?,
                params,
            )))
        }
        // What the core has no word for, and this crate neither: bytes.
        other => RData::Unknown {
            code: record_type(other)?,
            rdata: NULL::with(hex(first)?),
        },
    })
}

/// A message to a client as one line: response code, `tc`, question as written, records, extended
/// error.
pub(crate) fn show(bytes: &[u8]) -> String {
    let message = match Message::from_vec(bytes) {
        Ok(message) => message,
        Err(_) => return format!("unreadable {} bytes", bytes.len()),
    };
    let mut line = match message.metadata.response_code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("{other:?}"),
    };
    if message.metadata.truncation {
        line += " tc";
    }
    for query in &message.queries {
        line += &format!(" {} {}", query.name().to_ascii(), query.query_type());
    }
    let sections = message.answers.iter().chain(&message.authorities);
    for record in sections.chain(&message.additionals) {
        line += &format!(
            " | {} {} {} {}",
            record.name.to_ascii(),
            record.ttl,
            record.record_type(),
            record.data
        );
    }
    for (code, option) in message.edns.iter().flat_map(|edns| edns.options().as_ref()) {
        let code = u16::from(*code);
        if let Ok(data) = Vec::<u8>::try_from(option)
            && code != 15
        {
            let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            line += &format!(" option {code} {digits}");
        }
    }
    let extended = message
        .edns
        .as_ref()
        .and_then(|edns| edns.option(15.into()));
    if let Some(option) = extended
        && let Ok(bytes) = Vec::<u8>::try_from(option)
        && let [high, low, text @ ..] = &bytes[..]
    {
        let code = u16::from_be_bytes([*high, *low]);
        line += &format!(" ede {code} `{}`", String::from_utf8_lossy(text));
    }
    line
}
