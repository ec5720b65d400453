//! What a flow says over its connection, and what the proxies make of it.
//!
//! In:  the L7 part of a flow, the rules of a compiled policy.
//! Out: why the proxy refuses, if it does.
//! Not here: whether the flow reaches a proxy at all (`judge`).

use policy::{
    compiled::{DnsVerdict, FlowVerdict, Protocol},
    fqdn::Fqdn,
    l7::{Message, Proxy, http, kafka},
};

use super::{
    Cause,
    compiled::{Layer, PeerIs},
    flow::{self, Flow},
};
use crate::facts;

/// What is said.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Nothing that is known here.
    Nothing,
    /// A DNS question.
    Dns(Fqdn),
    /// An HTTP request.
    Http(http::Request),
    /// A Kafka request.
    Kafka(kafka::Request),
    /// A TLS greeting to this server.
    Hello(String),
}

impl Said {
    /// The L7 part of a flow.
    pub(super) fn of(flow: &Flow) -> Result<Self, (&'static str, Cause)> {
        use facts::Protocol::{Tcp, Udp};
        let protocol = flow.protocol.value;
        let over = |part, allowed: &[facts::Protocol]| {
            if allowed.contains(&protocol) {
                Ok(())
            } else {
                Err((part, Cause::L7OverWrongProtocol { part, protocol }))
            }
        };
        let mut parts = Vec::new();
        if let Some(dns) = &flow.dns {
            over("dns", &[Udp, Tcp])?;
            let name = Fqdn::parse(&dns.name).map_err(|why| {
                let cause = Cause::Name {
                    name: dns.name.clone(),
                    why: why.to_string(),
                };
                ("dns.name", cause)
            })?;
            parts.push(("dns", Self::Dns(name)));
        }
        if let Some(request) = &flow.http {
            over("http", &[Tcp])?;
            parts.push(("http", Self::Http(request.into())));
        }
        if let Some(request) = &flow.kafka {
            over("kafka", &[Tcp])?;
            let request = kafka_request(request).map_err(|cause| ("kafka.apiKey", cause))?;
            parts.push(("kafka", Self::Kafka(request)));
        }
        if let Some(flow::Sni(name)) = &flow.sni {
            over("sni", &[Tcp])?;
            parts.push(("sni", Self::Hello(name.clone())));
        }
        match (parts.pop(), parts.pop()) {
            (None, _) => Ok(Self::Nothing),
            (Some((_, only)), None) => Ok(only),
            (Some((name, _)), Some(_)) => Err((name, Cause::SeveralL7)),
        }
    }

    /// Why another proxy refuses what is said.
    pub(super) fn refused_by(&self, proxy: Proxy, verdict: &FlowVerdict<'_>) -> Option<String> {
        let (message, text) = match self {
            Self::Nothing | Self::Dns(_) => return None,
            Self::Http(request) => (
                Message::Http(request),
                format!("{} {}", request.method, request.path),
            ),
            Self::Kafka(request) => (
                Message::Kafka(request),
                format!(
                    "call {} about {}",
                    request.api_key,
                    request.topics.join(", ")
                ),
            ),
            Self::Hello(name) => (Message::Hello(Some(name)), format!("the server {name}")),
        };
        (!verdict.allows(message)).then(|| format!("the {proxy} proxy refuses {text}"))
    }

    /// Why the DNS proxy refuses the question.
    pub(super) fn refused_by_dns(
        &self,
        layer: &Layer,
        server: &PeerIs,
        protocol: Protocol,
        port: u16,
    ) -> Option<String> {
        let Self::Dns(name) = self else {
            return None;
        };
        let tcp = protocol == Protocol::Tcp;
        let verdict =
            layer
                .policy
                .may_ask_learned(server.identity, &server.selectors(), tcp, port, name);
        match verdict {
            DnsVerdict::Allowed { .. } => None,
            DnsVerdict::Refused { policies, .. } => {
                let by: Vec<_> = policies.iter().map(ToString::to_string).collect();
                let by = if by.is_empty() {
                    String::new()
                } else {
                    format!(" by {}", by.join(", "))
                };
                Some(format!("the DNS proxy refuses `{name}`{by}"))
            }
        }
    }
}

impl From<&flow::Http> for http::Request {
    fn from(written: &flow::Http) -> Self {
        Self {
            method: written.method.clone(),
            path: written.path.clone(),
            host: written.host.clone(),
            headers: written.headers.clone().into_iter().collect(),
        }
    }
}

/// `apiKey` by name or number.
fn kafka_request(written: &flow::Kafka) -> Result<kafka::Request, Cause> {
    let key = &written.api_key;
    let api_key = kafka::api_key(key)
        .or_else(|| key.parse().ok())
        .ok_or_else(|| Cause::ApiKey(key.clone()))?;
    Ok(kafka::Request {
        api_key,
        api_version: written.api_version,
        client_id: written.client_id.clone(),
        topics: written.topics().into_iter().map(str::to_owned).collect(),
    })
}
