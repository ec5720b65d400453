//! Flows as they are written: who opens which connection to whom, and what is said over it.
//!
//! In:  YAML or JSON.
//! Out: [`Flow`]; with `expect` in scenarios.
//! Not here: whom names and addresses mean (`universe`), judging (`judge`).

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, value},
};
use serde_saphyr::Spanned;

use super::Expectation;
use crate::facts::Protocol;

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Who opens it: NAMESPACE/NAME, node/NAME, or an address.
    pub from: Spanned<String>,
    /// To whom, in the same forms.
    pub to: Spanned<String>,
    /// Over which protocol.
    pub protocol: Spanned<Protocol>,
    /// To which port; none for ICMP.
    #[serde(default)]
    pub port: Option<u16>,
    /// The ICMP message; an echo request when absent.
    #[serde(default)]
    pub icmp: Option<Icmp>,
    /// A DNS question.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// An HTTP request.
    #[serde(default)]
    pub http: Option<Http>,
    /// A Kafka request.
    #[serde(default)]
    pub kafka: Option<Kafka>,
    /// The server name of a TLS greeting.
    #[serde(default)]
    pub sni: Option<Sni>,
    /// What should come out; scenarios only.
    #[serde(default)]
    pub expect: Option<Expectation>,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {} {}",
            self.from.value,
            self.to.value,
            self.what()
        )
    }
}

impl Flow {
    /// Protocol and port, and what is said: `443/TCP`, `53/UDP dns api.github.com`.
    pub fn what(&self) -> String {
        let protocol = self.protocol.value;
        let l4 = match (self.port, protocol.is_icmp()) {
            (Some(port), false) => format!("{port}/{protocol}"),
            _ => format!("{protocol} type {}", self.icmp_type()),
        };
        let dns = self.dns.as_ref().map(|dns| format!("dns {}", dns.name));
        let http = self
            .http
            .as_ref()
            .map(|http| format!("{} {}{}", http.method, http.host, http.path));
        let kafka = self
            .kafka
            .as_ref()
            .map(|kafka| format!("{} {}", kafka.api_key, kafka.topics().join(",")));
        let sni = self.sni.as_ref().map(|sni| format!("sni {}", sni.0));
        let parts = [Some(l4), dns, http, kafka, sni];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// The ICMP type: an echo request unless another is written.
    pub fn icmp_type(&self) -> u8 {
        let echo = match self.protocol.value {
            Protocol::Icmpv6 => 128,
            _ => 8,
        };
        self.icmp.as_ref().map_or(echo, |icmp| icmp.kind)
    }
}

/// An ICMP message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Icmp {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: u8,
}

/// A DNS question.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// The name that is asked for.
    pub name: String,
}

/// An HTTP request; a gRPC call is a POST to `/package.Service/Method`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// The path with its query string.
    #[serde(default = "root")]
    pub path: String,
    /// The host, `:authority` in HTTP/2.
    #[serde(default)]
    pub host: String,
    /// Other headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// A Kafka request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kafka {
    /// What is asked for: `produce`, `fetch`, …
    pub api_key: String,
    /// The version of it.
    #[serde(default)]
    pub api_version: i16,
    /// Who asks.
    #[serde(default, rename = "clientID")]
    pub client_id: String,
    /// About which topic.
    #[serde(default)]
    pub topic: Option<String>,
    /// About which topics, where there are several.
    #[serde(default)]
    pub topics: Vec<String>,
}

impl Kafka {
    /// Every topic of the request.
    pub fn topics(&self) -> Vec<&str> {
        let one = self.topic.iter();
        one.chain(&self.topics).map(String::as_str).collect()
    }
}

/// The server name of a TLS greeting: `sni: NAME` or `sni: {name: NAME}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sni(pub String);

impl<'de> Deserialize<'de> for Sni {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Sni;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a server name or `{name: …}`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Sni, E> {
                Ok(Sni(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Sni, A::Error> {
                let dns = Dns::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(Sni(dns.name))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A file of flows: a list, or a list under `flows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows(pub Vec<Spanned<Flow>>);

impl<'de> Deserialize<'de> for Flows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Named {
            flows: Vec<Spanned<Flow>>,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Flows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of flows")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Flows, A::Error> {
                Vec::deserialize(value::SeqAccessDeserializer::new(seq)).map(Flows)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Flows, A::Error> {
                let named = Named::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(Flows(named.flows))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn get() -> String {
    "GET".into()
}

fn root() -> String {
    "/".into()
}
