//! One direction of a flow: one policy about one peer on one port.
//!
//! In:  a compiled policy, who the peer is, the case.
//! Out: a [`Decision`] with its reason and its policies.
//! Not here: audit, services, who the peer is (`judge`).

use fqdn_ebpf_common::{
    policy::{Action, MatchType},
    reason::DropReason,
};
use policy::compiled::{self, Direction, L7Grant, Peer};

use super::{
    Decision, L7, Options, Verdict,
    compiled::{Layer, PeerIs},
    entries,
    judge::Case,
    outcome::match_name,
};

/// One policy about one peer. The kernel's function decides; what is known only here explains it,
/// and says what a proxy that is not part of the datapath would make of it.
pub(super) fn judged(
    layer: &Layer,
    direction: Direction,
    peer: &PeerIs,
    case: &Case,
    port: u16,
    options: Options,
) -> Decision {
    let judgement = layer.judge(direction, peer, case.protocol, port);
    let explained = layer.explain(direction, peer, case.protocol, port);
    if let (compiled::Outcome::Redirected(proxy), false) =
        (explained.outcome, options.datapath_only)
    {
        let decision = Decision {
            match_type: match_name(strongest(&explained.grants)),
            rules: layer.policies(&explained.rule_sets, &explained.grants),
            ..forwarded()
        };
        let refused = case.said.refused_by(proxy, &explained);
        return redirected(decision, proxy.into(), refused);
    }
    let by_rule = matches!(
        explained.datapath,
        compiled::Outcome::Allowed
            | compiled::Outcome::Denied
            | compiled::Outcome::RedirectedDns
            | compiled::Outcome::Redirected(_)
    );
    let decision = if by_rule {
        Decision {
            match_type: match_name(judgement.match_type),
            rules: layer.policies(&explained.rule_sets, &[]),
            ..forwarded()
        }
    } else {
        forwarded()
    };
    match judgement.action {
        Action::Allow => decision,
        Action::Deny | Action::NeedsProxy | Action::Refuse | Action::Mixed => {
            let reason = match judgement.action {
                Action::NeedsProxy => DropReason::NeedsProxy,
                Action::Mixed => DropReason::MixedBackends,
                _ if by_rule => DropReason::PolicyDeny,
                _ => DropReason::PolicyDenied,
            };
            Decision {
                match_type: decision.match_type,
                rules: decision.rules,
                ..dropped(reason.number(), reason.text())
            }
        }
        Action::RedirectDns => {
            let refused = case.said.refused_by_dns(layer, peer, case.protocol, port);
            redirected(decision, L7::Dns, refused)
        }
    }
}

/// How the most specific of the L7 parts matched.
fn strongest(grants: &[&L7Grant]) -> MatchType {
    let of = |grant: &&L7Grant| (grant.peer != Peer::Any, entries::bits_of(grant.l4));
    grants
        .iter()
        .map(of)
        .max()
        .map_or(MatchType::None, |(specific, bits)| {
            MatchType::of(u32::from(specific), bits)
        })
}

/// What the proxy makes of it. A refusal of its own is no drop of the datapath.
fn redirected(decision: Decision, l7: L7, refused: Option<String>) -> Decision {
    let (verdict, reason_text) = match refused {
        Some(why) => (Verdict::Dropped, why),
        None => (Verdict::Redirected, String::new()),
    };
    Decision {
        verdict,
        l7: Some(l7),
        reason_text,
        ..decision
    }
}

const fn forwarded() -> Decision {
    Decision {
        verdict: Verdict::Forwarded,
        reason: 0,
        match_type: "none",
        l7: None,
        rules: Vec::new(),
        reason_text: String::new(),
    }
}

pub(super) fn dropped(reason: u8, text: &str) -> Decision {
    Decision {
        verdict: Verdict::Dropped,
        reason,
        reason_text: text.to_owned(),
        ..forwarded()
    }
}
