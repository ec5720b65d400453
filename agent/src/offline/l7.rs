//! What a flow says over its connection, and what the proxies make of it.
//!
//! In:  the L7 part of a flow, the rules of a compiled policy.
//! Out: why the proxy refuses, if it does.
//! Not here: whether the flow reaches a proxy at all (`judge`).

use policy::{
    compiled::{DnsVerdict, Protocol},
    fqdn::Fqdn,
};

use super::{
    Cause,
    compiled::{Layer, PeerIs},
    flow::{self, Flow},
};

/// What is said.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Nothing that is known here.
    Nothing,
    /// A DNS question.
    Dns(Fqdn),
    /// Something no rule of a policy speaks about: HTTP, Kafka, TLS.
    Other,
}

impl Said {
    /// The L7 part of a flow.
    pub(super) fn of(flow: &Flow) -> Result<Self, (&'static str, Cause)> {
        use flow::Protocol::{Tcp, Udp};
        let protocol = flow.protocol.value;
        let over = |part, allowed: &[flow::Protocol]| {
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
        let others = [
            ("http", flow.http.is_some()),
            ("kafka", flow.kafka.is_some()),
            ("sni", flow.sni.is_some()),
        ];
        for (part, _) in others.into_iter().filter(|(_, is_there)| *is_there) {
            over(part, &[Tcp])?;
            parts.push((part, Self::Other));
        }
        match (parts.pop(), parts.pop()) {
            (None, _) => Ok(Self::Nothing),
            (Some((_, only)), None) => Ok(only),
            (Some((name, _)), Some(_)) => Err((name, Cause::SeveralL7)),
        }
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
