//! What may be inside of connections: `rules.http`, `rules.kafka`, `serverNames`, TLS.
//!
//! In:  one element of `toPorts`.
//! Out: [`L7`], or none when it says nothing of the kind.
//! Not here: `rules.dns` (`ports`), judging requests (`l7`).
//!
//! Rules of what goes with what: `pkg/policy/api/rule_validation.go` of Cilium 1.20; Kafka as in 1.19.

use std::sync::Arc;

use super::{
    Problem,
    fields::{Cursor, Fields, MAX_REGEXES, Reader},
};
use crate::{
    compiled::Protocol,
    l7::{
        L7, Requests, SecretRef, ServerName, TlsContext, WholeMatch,
        http::{self, HeaderMatch, Mismatch},
        kafka::{self, Calls},
    },
    model::PortRule,
};

/// How many server names one port rule may hold.
const MAX_SERVER_NAMES: usize = 1000;

/// `http` or `kafka` of `rules`; an empty list is none.
pub(super) fn requests(reader: &mut Reader, kinds: &Fields<'_>) -> Option<Option<Requests>> {
    let http = match kinds.get("http") {
        None => Vec::new(),
        Some(list) => every(reader, list, http_rule)?,
    };
    let kafka = match kinds.get("kafka") {
        None => Vec::new(),
        Some(list) => every(reader, list, kafka_rule)?,
    };
    match (http.is_empty(), kafka.is_empty()) {
        (true, true) => Some(None),
        (false, true) => Some(Some(Requests::Http(http))),
        (true, false) => Some(Some(Requests::Kafka(kafka))),
        (false, false) => {
            let at = kinds.get("kafka")?;
            reader.problem(at, Problem::ExactlyOne("`dns`, `http` and `kafka`"));
            None
        }
    }
}

/// Everything of a port rule together. `requests` come with the place they are written at.
pub(super) fn read(
    reader: &mut Reader,
    at: &Cursor<'_>,
    fields: &Fields<'_>,
    requests: Option<(Requests, Cursor<'_>)>,
    rule: &PortRule,
) -> Option<Option<Arc<L7>>> {
    let mut l7 = L7::default();
    if let Some(listener) = fields.get("listener") {
        let problem = Problem::Refused {
            what: "listener".into(),
            why: "hands connections to an Envoy that somebody else configures, which is not there; write `http` rules instead",
        };
        reader.problem(listener, problem);
        return None;
    }
    if let Some(tls) = fields.get("terminatingTLS") {
        l7.terminating_tls = Some(tls_context(reader, tls)?);
    }
    if let Some(tls) = fields.get("originatingTLS") {
        l7.originating_tls = Some(tls_context(reader, tls)?);
    }
    if let Some(list) = fields.get("serverNames") {
        let items = reader.short_list(list, MAX_SERVER_NAMES)?;
        if items.is_empty() {
            let problem = Problem::Refused {
                what: "serverNames".into(),
                why: "needs at least one name; leave it out to allow every name",
            };
            reader.problem(list, problem);
        }
        for item in items {
            let text = reader.string(&item)?;
            match ServerName::parse(text) {
                Some(name) => l7.server_names.push(name),
                None => {
                    let problem = Problem::Form {
                        found: text.into(),
                        expected: "a server name or pattern of at most 255 characters",
                    };
                    reader.problem(&item, problem);
                }
            }
        }
    }
    if let Some((requests, at)) = requests {
        check_ports(reader, &at, rule);
        if !l7.server_names.is_empty() && l7.terminating_tls.is_none() {
            let problem = Problem::Refused {
                what: "serverNames".into(),
                why: "cannot stand beside L7 rules without `terminatingTLS`: inside of TLS nothing can be read",
            };
            reader.problem(&at, problem);
        }
        l7.rules = requests;
    }
    if l7 == L7::default() {
        return Some(None);
    }
    if rule.dns.is_some() {
        let problem = Problem::Refused {
            what: "rules.dns".into(),
            why: "cannot stand beside `serverNames` or TLS",
        };
        reader.problem(at, problem);
        return None;
    }
    Some(Some(Arc::new(l7)))
}

fn check_ports(reader: &mut Reader, at: &Cursor<'_>, rule: &PortRule) {
    let protos = rule.ports.iter().map(|p| p.proto);
    let mut protos = protos.chain(rule.named.iter().map(|p| p.proto));
    if protos.any(|proto| proto != Some(Protocol::Tcp)) {
        let problem = Problem::Refused {
            what: "rules".into(),
            why: "can look inside of TCP only; write `protocol: TCP` at each port",
        };
        reader.problem(at, problem);
    }
    if rule.ports.iter().any(|p| p.first == 0) {
        let problem = Problem::Refused {
            what: "rules".into(),
            why: "cannot look inside of every port; name the port",
        };
        reader.problem(at, problem);
    }
}

fn http_rule(reader: &mut Reader, at: &Cursor<'_>) -> Option<http::Rule> {
    const FIELDS: &[&str] = &["path", "method", "host", "headers", "headerMatches"];
    let errors = reader.errors.len();
    let fields = reader.fields(at, FIELDS, &[])?;
    let mut rule = http::Rule {
        path: regex(reader, fields.get("path")),
        method: regex(reader, fields.get("method")),
        host: regex(reader, fields.get("host")),
        headers: Vec::new(),
    };
    if let Some(list) = fields.get("headers") {
        for item in reader.list(list)? {
            let text = reader.string(&item)?;
            let header = HeaderMatch::from_line(text);
            if !is_header_name(&header.name) {
                header_name(reader, &item, text);
            }
            rule.headers.push(header);
        }
    }
    if let Some(list) = fields.get("headerMatches") {
        rule.headers.extend(every(reader, list, header_match)?);
    }
    (reader.errors.len() == errors).then_some(rule)
}

fn header_match(reader: &mut Reader, at: &Cursor<'_>) -> Option<HeaderMatch> {
    let fields = reader.fields(at, &["name", "value", "secret", "mismatch"], &[])?;
    let Some(name_at) = fields.get("name") else {
        reader.problem(at, Problem::Missing("name"));
        return None;
    };
    let name = reader.string(name_at)?;
    if !is_header_name(name) {
        header_name(reader, name_at, name);
        return None;
    }
    let mismatch = match fields.get("mismatch") {
        None => Mismatch::Fail,
        Some(at) => match reader.string(at)? {
            "" => Mismatch::Fail,
            "LOG" => Mismatch::Log,
            "ADD" => Mismatch::Add,
            "DELETE" => Mismatch::Delete,
            "REPLACE" => Mismatch::Replace,
            other => {
                let problem = Problem::NotOneOf {
                    found: other.into(),
                    allowed: "LOG, ADD, DELETE, REPLACE".into(),
                };
                reader.problem(at, problem);
                return None;
            }
        },
    };
    Some(HeaderMatch {
        name: name.to_ascii_lowercase().into(),
        value: reader.text(fields.get("value")),
        secret: match fields.get("secret") {
            None => None,
            Some(at) => Some(secret(reader, at)?),
        },
        mismatch,
    })
}

fn header_name(reader: &mut Reader, at: &Cursor<'_>, found: &str) {
    let problem = Problem::Form {
        found: found.into(),
        expected: "the name of an HTTP header, with a value behind it if one is wanted",
    };
    reader.problem(at, problem);
}

/// A token of RFC 9110.
fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn regex(reader: &mut Reader, at: Option<&Cursor<'_>>) -> Option<WholeMatch> {
    let at = at?;
    let text = reader.string(at)?;
    if text.is_empty() {
        return None;
    }
    reader.regexes += 1;
    if reader.regexes > MAX_REGEXES {
        // Reported once: every further one would only repeat it.
        if reader.regexes == MAX_REGEXES + 1 {
            let problem = Problem::TooMany {
                found: reader.regexes,
                limit: MAX_REGEXES,
            };
            reader.problem(at, problem);
        }
        return None;
    }
    match WholeMatch::parse(text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            reader.problem(at, error);
            None
        }
    }
}

fn kafka_rule(reader: &mut Reader, at: &Cursor<'_>) -> Option<kafka::Rule> {
    const FIELDS: &[&str] = &["role", "apiKey", "apiVersion", "clientID", "topic"];
    let fields = reader.fields(at, FIELDS, &[])?;
    let calls = match (fields.get("role"), fields.get("apiKey")) {
        (None, None) => Calls::Any,
        (Some(role), None) => match reader.string(role)?.to_ascii_lowercase().as_str() {
            "produce" => Calls::Produce,
            "consume" => Calls::Consume,
            other => {
                let problem = Problem::NotOneOf {
                    found: other.into(),
                    allowed: "produce, consume".into(),
                };
                reader.problem(role, problem);
                return None;
            }
        },
        (None, Some(key)) => {
            let text = reader.string(key)?;
            let Some(number) = kafka::api_key(text) else {
                let problem = Problem::NotOneOf {
                    found: text.into(),
                    allowed: kafka::API_KEYS.join(", "),
                };
                reader.problem(key, problem);
                return None;
            };
            Calls::One(number)
        }
        (Some(_), Some(_)) => {
            reader.problem(at, Problem::ExactlyOne("`role` and `apiKey`"));
            return None;
        }
    };
    let mut form = |name: &str, expected, fits: fn(&str) -> bool| -> Option<Option<Arc<str>>> {
        let Some(at) = fields.get(name) else {
            return Some(None);
        };
        let text = reader.string(at)?;
        if !fits(text) {
            let found = text.into();
            reader.problem(at, Problem::Form { found, expected });
            return None;
        }
        Some((!text.is_empty()).then(|| text.into()))
    };
    let version = form("apiVersion", "a version from 0 to 32767", |text| {
        text.is_empty() || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i16>().is_ok())
    })?;
    let client_id = form("clientID", "a client of at most 255 characters", |text| {
        text.len() <= kafka::MAX_TOPIC
    })?;
    let topic = form(
        "topic",
        "a topic: at most 255 letters, digits, `.`, `_` and `-`",
        kafka::is_topic,
    )?;
    Some(kafka::Rule {
        calls,
        api_version: version.and_then(|text| text.parse().ok()),
        client_id,
        topic,
    })
}

fn tls_context(reader: &mut Reader, at: &Cursor<'_>) -> Option<TlsContext> {
    const FIELDS: &[&str] = &["secret", "trustedCA", "certificate", "privateKey"];
    let fields = reader.fields(at, FIELDS, &[])?;
    let Some(secret_at) = fields.get("secret") else {
        reader.problem(at, Problem::Missing("secret"));
        return None;
    };
    Some(TlsContext {
        secret: secret(reader, secret_at)?,
        trusted_ca: reader.text(fields.get("trustedCA")),
        certificate: reader.text(fields.get("certificate")),
        private_key: reader.text(fields.get("privateKey")),
    })
}

fn secret(reader: &mut Reader, at: &Cursor<'_>) -> Option<SecretRef> {
    let fields = reader.fields(at, &["namespace", "name"], &[])?;
    let name = reader.text(fields.get("name"));
    if name.as_ref().is_none_or(|name| name.is_empty()) {
        reader.problem(at, Problem::Missing("name"));
        return None;
    }
    Some(SecretRef {
        namespace: reader
            .text(fields.get("namespace"))
            .unwrap_or_else(|| "".into()),
        name: name?,
    })
}

/// Every element, or none when one has a mistake.
fn every<T>(
    reader: &mut Reader,
    at: &Cursor<'_>,
    read: fn(&mut Reader, &Cursor<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = reader.list(at)?;
    let count = items.len();
    let values: Vec<_> = items.iter().filter_map(|item| read(reader, item)).collect();
    (values.len() == count).then_some(values)
}
