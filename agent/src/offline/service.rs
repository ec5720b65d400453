//! Flows to the frontend of a service.
//!
//! In:  a frontend address and port, the service's ready backends.
//! Out: one decision about the frontend.
//! Not here: one backend (`judge`).
//!
//! On the pod's own interface a packet still carries the frontend's address, so the frontend is
//! usable exactly when every ready backend is, on its own port.

use std::net::IpAddr;

use fqdn_ebpf_common::reason::DropReason;
use policy::compiled::{Direction, Protocol};

use super::{
    Decision, L7, Verdict,
    judge::{Case, Judge},
};
use crate::facts::{self, Behind, Party, service_name, written::ServicePort};

/// The port whose traffic teaches names.
const DNS_PORT: u16 = 53;

pub(super) fn decide(
    judge: &Judge<'_>,
    pod: usize,
    at: usize,
    frontend: IpAddr,
    case: &Case,
) -> Decision {
    let service = judge.universe.services.get(at);
    let mut backends = Vec::new();
    if let Some(service) = service
        && let Some(port) = service.ports.iter().find(|p| speaks_for(p, case))
    {
        for behind in facts::backends(&judge.universe, service, port, frontend) {
            let Behind {
                party,
                address,
                port,
            } = behind;
            let decision = judge.decide(pod, Direction::Egress, party, address, case, port);
            backends.push((judge.universe.name(party), decision));
        }
    }
    // Nobody behind it: no rule about backends can mean it, but one about everybody does.
    if backends.is_empty() {
        let party = Party::Service(at, frontend);
        return judge.decide(pod, Direction::Egress, party, frontend, case, case.port);
    }
    let name = service.map(service_name).unwrap_or_default();
    let mut decision = combine(&name, backends);
    let dns = case.port == DNS_PORT && matches!(case.protocol, Protocol::Tcp | Protocol::Udp);
    if decision.verdict == Verdict::Forwarded && dns && judge.learns(pod) {
        decision.verdict = Verdict::Redirected;
        decision.l7 = Some(L7::Dns);
    }
    decision
}

fn speaks_for(port: &ServicePort, case: &Case) -> bool {
    port.port == case.port && Protocol::from(port.protocol) == case.protocol
}

/// The worst of what the backends get; among denials the one by a rule.
fn combine(service: &str, backends: Vec<(String, Decision)>) -> Decision {
    let rank = |decision: &Decision| (decision.verdict, decision.reason);
    let worst = backends.iter().map(|(_, d)| rank(d)).max();
    let total = backends.len();
    let alike: Vec<_> = backends
        .into_iter()
        .filter(|(_, d)| {
            // What passes passes together; a denial names those who are denied.
            Some(rank(d)) == worst || worst.is_some_and(|(v, _)| v < Verdict::Audit)
        })
        .collect();
    let names: Vec<_> = alike.iter().map(|(name, _)| name.clone()).collect();
    let mut rules: Vec<_> = alike.iter().flat_map(|(_, d)| d.rules.clone()).collect();
    rules.sort_unstable();
    rules.dedup();
    let first = alike
        .into_iter()
        .map(|(_, decision)| decision)
        .max_by_key(|d| d.verdict);
    let Some(mut decision) = first else {
        return Decision {
            verdict: Verdict::Dropped,
            reason: DropReason::PolicyDenied.number(),
            match_type: "none",
            l7: None,
            rules,
            reason_text: DropReason::PolicyDenied.text().to_owned(),
        };
    };
    decision.rules = rules;
    if decision.verdict >= Verdict::Audit && names.len() < total {
        decision.reason_text = format!(
            "{}: {} behind the service {service} is out of bounds, and the frontend may lead there",
            decision.reason_text,
            names.join(", "),
        );
    }
    decision
}
