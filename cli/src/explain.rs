//! The report of a run, for people.
//!
//! In:  [`Report`].
//! Out: a screenful on stderr: what was learned, allowed and refused, and the line of policy that
//!      decides or would have decided.
//! Not here: the JSON form (`--report` writes the value itself).

use std::{fmt::Write, net::IpAddr};

use agent::api::Report;
use flows::{PeerKey, RuleRef, TrafficDirection};

/// Rows of one kind that are printed; the rest is a number, and in `--report`.
const ROWS: usize = 20;

pub(crate) fn report(report: &Report) -> String {
    let mut out = Lines::default();
    let connections: u64 = report.allowed.iter().map(|row| row.connections).sum();
    // Rows are made of events, which are rationed; the counters are not.
    let listed: u64 = report.denied.iter().map(|row| row.packets).sum();
    let denied = listed.max(if report.audit {
        report.totals.audited_packets
    } else {
        report.totals.denied_packets
    });
    let refused: u64 = report.lookups.refused.iter().map(|row| row.count).sum();
    let (refusing, refusals) = if report.audit {
        ("would be denied", "would be refused (audit)")
    } else {
        ("denied", "refused")
    };
    out.line(&format!(
        "namegate: {}, {} allowed, {} {refusing}, {} {refusals}",
        count(report.names.len() as u64, "name", "names") + " learned",
        count(connections, "connection", "connections"),
        count(denied, "packet", "packets"),
        count(refused, "lookup", "lookups"),
    ));
    out.rows(&report.names, |out, row| {
        out.line(&format!(
            "  learned   {} = {} (TTL {} s; matches {})",
            row.fqdn,
            addresses(&row.ips),
            row.ttl,
            row.selectors.join(", "),
        ));
    });
    out.rows(&report.allowed, |out, row| {
        out.line(&format!(
            "  allowed   {}{}",
            peer(&row.peer, &row.names),
            times(row.connections)
        ));
        for rule in &row.rules {
            out.line(&format!("            by {}", rule_text(rule)));
        }
    });
    let denied_word = if report.audit { "AUDIT " } else { "DENIED" };
    out.rows(&report.denied, |out, row| {
        out.line(&format!(
            "  {denied_word}    {}{}: {}",
            peer(&row.peer, &row.names),
            times(row.packets),
            row.reason_text
        ));
        if let Some(rule) = &row.would_allow {
            out.line(&format!("            nearest rule: {}", rule_text(rule)));
        }
        if !row.hint.is_empty() {
            out.line(&format!("            {}", row.hint));
        }
    });
    let refused_word = if report.audit { "AUDIT  " } else { "REFUSED" };
    out.rows(&report.lookups.refused, |out, row| {
        out.line(&format!(
            "  {refused_word}   lookup {} {}{}: {}",
            row.name,
            row.r#type,
            times(row.count),
            row.reason
        ));
        if !row.hint.is_empty() {
            out.line(&format!("            {}", row.hint));
        }
    });
    out.rows(&report.lookups.failed, |out, row| {
        out.line(&format!(
            "  failed    lookup {} {}{}: {}",
            row.name,
            row.r#type,
            times(row.count),
            row.reason
        ));
    });
    if report.lost_events > 0 {
        out.line(&format!(
            "  note      {} are counted but not listed",
            count(report.lost_events, "more event", "more events")
        ));
    }
    out.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.0, "{text}");
    }

    fn rows<T>(&mut self, rows: &[T], each: impl Fn(&mut Self, &T)) {
        for row in rows.iter().take(ROWS) {
            each(self, row);
        }
        if rows.len() > ROWS {
            self.line(&format!("            … and {} more", rows.len() - ROWS));
        }
    }
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn times(n: u64) -> String {
    if n == 1 {
        String::new()
    } else {
        format!(" ×{n}")
    }
}

fn peer(key: &PeerKey, names: &[String]) -> String {
    let arrow = match key.direction {
        TrafficDirection::Egress => "",
        TrafficDirection::Ingress => "from ",
    };
    let target = match (key.address, key.protocol.starts_with("ICMP")) {
        (address, true) => format!("{address} type {}", key.port),
        (IpAddr::V6(address), false) => format!("[{address}]:{}", key.port),
        (address, false) => format!("{address}:{}", key.port),
    };
    let names = if names.is_empty() {
        String::new()
    } else {
        format!(" ({})", names.join(", "))
    };
    format!("{arrow}{} {target}{names}", key.protocol)
}

fn rule_text(rule: &RuleRef) -> String {
    if rule.line == 0 {
        format!("{}: {}", rule.file, rule.text)
    } else {
        format!("{}:{}: {}", rule.file, rule.line, rule.text)
    }
}

/// Few addresses in full, many as a number: a CDN name may have hundreds.
fn addresses(all: &[IpAddr]) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<_> = all.iter().take(SHOWN).map(ToString::to_string).collect();
    if all.len() > SHOWN {
        shown.push(format!("{} more", all.len() - SHOWN));
    }
    shown.join(", ")
}

/// On a terminal always; elsewhere, where somebody else may read stderr, only when something was
/// denied, or a lookup failed.
pub(crate) fn wanted(report: &Report, terminal: bool) -> bool {
    terminal || report.anything_denied() || !report.lookups.failed.is_empty()
}

#[cfg(test)]
mod tests {
    use agent::api::{EndpointInfo, Lookups, Totals};
    use flows::{DeniedPeer, RefusedLookup};

    use super::*;

    fn denied_report() -> Report {
        Report {
            command: vec!["curl".into()],
            exit_status: 7,
            audit: false,
            endpoint: EndpointInfo::default(),
            policies: vec![],
            names: vec![],
            allowed: vec![],
            denied: vec![DeniedPeer {
                peer: PeerKey {
                    direction: TrafficDirection::Egress,
                    protocol: "TCP".into(),
                    address: "2001:db8::7".parse().unwrap(),
                    port: 80,
                },
                names: vec!["github.com.".into()],
                packets: 3,
                reason: 133,
                reason_text: "Policy denied".into(),
                would_allow: Some(RuleRef {
                    policy: "CiliumNetworkPolicy/argocd/x".into(),
                    file: "p.yaml".into(),
                    line: 12,
                    text: "toFQDNs matchName \"github.com\" 443/TCP".into(),
                }),
                hint: String::new(),
            }],
            lookups: Lookups {
                answered: 0,
                refused: vec![RefusedLookup {
                    name: "evil.test.".into(),
                    r#type: "A".into(),
                    count: 1,
                    reason: "not allowed".into(),
                    hint: String::new(),
                }],
                failed: vec![],
            },
            totals: Totals::default(),
            lost_events: 0,
        }
    }

    #[test]
    fn a_refusal_names_its_reason_and_the_nearest_line_of_policy() {
        let text = report(&denied_report());
        assert!(text.contains("DENIED    TCP [2001:db8::7]:80 (github.com.) ×3: Policy denied"));
        assert!(text.contains("nearest rule: p.yaml:12: toFQDNs matchName \"github.com\" 443/TCP"));
        assert!(text.contains("REFUSED   lookup evil.test. A: not allowed"));
    }

    #[test]
    fn a_report_is_printed_without_a_terminal_only_when_something_was_denied() {
        let mut quiet = denied_report();
        assert!(wanted(&quiet, false));
        quiet.denied.clear();
        quiet.lookups.refused.clear();
        assert!(!wanted(&quiet, false));
        assert!(wanted(&quiet, true));
    }
}
