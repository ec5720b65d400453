//! What a run allowed and refused, added up by peer.
//!
//! In:  connections, drops and lookups, one by one.
//! Out: bounded tables, each with a count of what no longer fitted.
//! Not here: exact packet totals (the datapath's counters), rendering (`cli`).
//!
//! A peer that a command asks for ten thousand times is one row; ten thousand peers are
//! [`Summary::LIMIT`] rows and a number.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::TrafficDirection;

/// A line of a policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RuleRef {
    /// `kind/namespace/name`.
    pub policy: String,
    /// The file it came from.
    pub file: String,
    /// The line in that file, from 1; 0 when it came from the command line.
    pub line: u32,
    /// The rule in short.
    pub text: String,
}

/// Which peer, on what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PeerKey {
    /// As the workload sees it.
    pub direction: TrafficDirection,
    /// `TCP`, `UDP`, `ICMPv4`, …
    pub protocol: String,
    /// The other side.
    pub address: IpAddr,
    /// Destination port; the type for ICMP.
    pub port: u16,
}

/// A peer that connections were made with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AllowedPeer {
    /// Which.
    #[serde(flatten)]
    pub peer: PeerKey,
    /// Names known for the address.
    pub names: Vec<String>,
    /// How many connections.
    pub connections: u64,
    /// Rules that allowed it.
    pub rules: Vec<RuleRef>,
}

/// A peer that was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeniedPeer {
    /// Which.
    #[serde(flatten)]
    pub peer: PeerKey,
    /// Names known for the address.
    pub names: Vec<String>,
    /// How many packets were reported; retransmissions count.
    pub packets: u64,
    /// Number of the reason.
    pub reason: u32,
    /// The reason in words.
    pub reason_text: String,
    /// The line of policy that comes nearest to allowing it.
    pub would_allow: Option<RuleRef>,
    /// What a person can do about it.
    pub hint: String,
}

/// A name that policy refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefusedLookup {
    /// The name.
    pub name: String,
    /// `A`, `AAAA`, …
    pub r#type: String,
    /// How often.
    pub count: u64,
    /// Why.
    pub reason: String,
    /// What a person can do about it.
    pub hint: String,
}

/// A name that could not be looked up, or whose answer could not be released.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LookupFailure {
    /// The name.
    pub name: String,
    /// `A`, `AAAA`, …
    pub r#type: String,
    /// How often.
    pub count: u64,
    /// Why.
    pub reason: String,
}

/// Everything added up.
#[derive(Debug, Default)]
pub struct Summary {
    allowed: BTreeMap<PeerKey, AllowedPeer>,
    denied: BTreeMap<(PeerKey, u32), DeniedPeer>,
    refused: BTreeMap<(String, String), RefusedLookup>,
    failed: BTreeMap<(String, String, String), LookupFailure>,
    answered: u64,
    overflow: u64,
}

impl Summary {
    /// Rows per table.
    pub const LIMIT: usize = 1000;

    /// A new connection was let through.
    pub fn allow(&mut self, peer: PeerKey, names: &[String], rules: impl FnOnce() -> Vec<RuleRef>) {
        if let Some(row) = self.allowed.get_mut(&peer) {
            row.connections += 1;
            merge(&mut row.names, names);
        } else if self.allowed.len() < Self::LIMIT {
            let row = AllowedPeer {
                peer: peer.clone(),
                names: names.to_vec(),
                connections: 1,
                rules: rules(),
            };
            self.allowed.insert(peer, row);
        } else {
            self.overflow += 1;
        }
    }

    /// A packet was refused; `explain` is asked once per row.
    pub fn deny(
        &mut self,
        peer: PeerKey,
        names: &[String],
        reason: u32,
        explain: impl FnOnce() -> (String, Option<RuleRef>, String),
    ) {
        let key = (peer, reason);
        if let Some(row) = self.denied.get_mut(&key) {
            row.packets += 1;
            merge(&mut row.names, names);
        } else if self.denied.len() < Self::LIMIT {
            let (reason_text, would_allow, hint) = explain();
            let row = DeniedPeer {
                peer: key.0.clone(),
                names: names.to_vec(),
                packets: 1,
                reason,
                reason_text,
                would_allow,
                hint,
            };
            self.denied.insert(key, row);
        } else {
            self.overflow += 1;
        }
    }

    /// A lookup got its answer.
    pub fn answered(&mut self) {
        self.answered += 1;
    }

    /// A lookup was refused by policy.
    pub fn refuse_lookup(&mut self, name: &str, qtype: &str, reason: &str, hint: &str) {
        let key = (name.to_owned(), qtype.to_owned());
        if let Some(row) = self.refused.get_mut(&key) {
            row.count += 1;
        } else if self.refused.len() < Self::LIMIT {
            let row = RefusedLookup {
                name: name.to_owned(),
                r#type: qtype.to_owned(),
                count: 1,
                reason: reason.to_owned(),
                hint: hint.to_owned(),
            };
            self.refused.insert(key, row);
        } else {
            self.overflow += 1;
        }
    }

    /// A lookup failed.
    pub fn fail_lookup(&mut self, name: &str, qtype: &str, reason: &str) {
        let key = (name.to_owned(), qtype.to_owned(), reason.to_owned());
        if let Some(row) = self.failed.get_mut(&key) {
            row.count += 1;
        } else if self.failed.len() < Self::LIMIT {
            let row = LookupFailure {
                name: name.to_owned(),
                r#type: qtype.to_owned(),
                count: 1,
                reason: reason.to_owned(),
            };
            self.failed.insert(key, row);
        } else {
            self.overflow += 1;
        }
    }

    /// Peers that connections were made with.
    pub fn allowed_peers(&self) -> Vec<AllowedPeer> {
        self.allowed.values().cloned().collect()
    }

    /// Peers that were refused.
    pub fn denied_peers(&self) -> Vec<DeniedPeer> {
        self.denied.values().cloned().collect()
    }

    /// Lookups that policy refused.
    pub fn refused_lookups(&self) -> Vec<RefusedLookup> {
        self.refused.values().cloned().collect()
    }

    /// Lookups that failed.
    pub fn failed_lookups(&self) -> Vec<LookupFailure> {
        self.failed.values().cloned().collect()
    }

    /// Lookups that were answered.
    pub fn answered_lookups(&self) -> u64 {
        self.answered
    }

    /// Events that found their table full.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Whether anything was refused.
    pub fn anything_denied(&self) -> bool {
        !self.denied.is_empty() || !self.refused.is_empty()
    }
}

fn merge(into: &mut Vec<String>, names: &[String]) {
    const NAMES: usize = 8;
    let known: BTreeSet<_> = into.iter().cloned().collect();
    for name in names {
        if into.len() < NAMES && !known.contains(name) {
            into.push(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> PeerKey {
        PeerKey {
            direction: TrafficDirection::Egress,
            protocol: "TCP".into(),
            address: IpAddr::from([203, 0, 113, last]),
            port: 443,
        }
    }

    #[test]
    fn the_same_peer_is_one_row() {
        let mut summary = Summary::default();
        for _ in 0..3 {
            summary.allow(peer(1), &["a.test.".to_owned()], Vec::new);
        }
        assert_eq!(summary.allowed_peers().len(), 1);
        assert_eq!(summary.allowed_peers()[0].connections, 3);
        assert_eq!(summary.allowed_peers()[0].names, ["a.test."]);
        assert!(!summary.anything_denied());
    }

    #[test]
    fn tables_stop_growing_and_say_so() {
        let mut summary = Summary::default();
        for i in 0..Summary::LIMIT + 5 {
            summary.refuse_lookup(&format!("n{i}.test."), "A", "not allowed", "");
        }
        assert_eq!(summary.refused_lookups().len(), Summary::LIMIT);
        assert_eq!(summary.overflow(), 5);
        assert!(summary.anything_denied());
    }
}
