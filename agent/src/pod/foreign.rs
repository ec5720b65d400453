//! Accept rules in other people's nftables chains.
//!
//! In:  nft's listing; what is to pass.
//! Out: rules at the head of chains that would drop it, tagged with their owner; and their removal.
//! Not here: chains managed by iptables, where iptables exists (`xtables`).
//!
//! An accept in a table of ours cannot overrule a drop in another table: every base chain of a hook has its say.

use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{PodError, owner::Owner, slots::LINK_PREFIX, tools, xtables};

/// What to let through.
#[derive(Debug, Clone)]
pub(crate) enum Passage<'a> {
    /// A pod's packets through the host, and answers of its resolvers.
    Pod {
        link: &'a str,
        resolvers: &'a [SocketAddr],
        ipv6: bool,
    },
    /// DNS that is steered to a proxy of this host, and what the proxy sends back.
    Steered { mark: u32, reply: u32, mask: u32 },
}

/// A foreign base chain that may drop what we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Hook,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Forward,
    Input,
    Output,
}

/// Opens every obstacle for `owner`; those it opened before stay as they are.
pub(crate) fn open(passage: &Passage<'_>, owner: &Owner) -> Result<(), PodError> {
    let ruleset = Ruleset::read()?;
    for chain in ruleset.obstacles(passage) {
        if xtables::manages(&chain.family, &chain.table, &chain.name)
            || ruleset.is_open(&chain, owner)
        {
            continue;
        }
        let rules = chain.rules(passage, &owner.tag());
        if rules.is_empty() {
            continue;
        }
        if let Err(error) = tools::nft_json(&rules) {
            if error.to_string().contains("Operation not permitted") {
                // The kernel lets nobody but that process change the table; whether it drops us is its business.
                tracing::warn!(
                    "table {} {} belongs to another process and cannot be changed: {error}",
                    chain.family,
                    chain.table
                );
                continue;
            }
            return Err(error);
        }
    }
    xtables::open(passage, &owner.tag())
}

/// Removes the rules of every owner for whom `gone` holds.
pub(crate) fn close(gone: &dyn Fn(&Owner) -> bool) -> Result<(), PodError> {
    let mut failure = None;
    for rule in Ruleset::read()?.tagged(gone) {
        let delete = json!({"delete": {"rule": {
            "family": rule.family, "table": rule.table, "chain": rule.chain, "handle": rule.handle,
        }}});
        if let Err(error) = tools::nft_json(&[delete]) {
            failure = Some(error);
        }
    }
    if let Some(error) = failure {
        // A janitor and the next run may be deleting the same rule: what counts is that it is gone.
        if !Ruleset::read()?.tagged(gone).is_empty() {
            return Err(error);
        }
    }
    xtables::close(gone)
}

impl Chain {
    /// The rules as nft's JSON: names of other people's tables may be words of its other language.
    fn rules(&self, passage: &Passage<'_>, tag: &str) -> Vec<Value> {
        let equals = |left: Value, right: Value| json!({"match": {"op": "==", "left": left, "right": right}});
        let field = |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let insert = |mut matches: Vec<Value>| {
            matches.push(json!({"accept": null}));
            json!({"insert": {"rule": {
                "family": self.family, "table": self.table, "chain": self.name, "expr": matches, "comment": tag,
            }}})
        };
        let marked = |mark: &u32, mask: &u32| {
            let bits = json!({"&": [{"meta": {"key": "mark"}}, mask]});
            vec![insert(vec![equals(bits, json!(mark))])]
        };
        match (self.hook, passage) {
            (Hook::Input, Passage::Steered { mark, mask, .. }) => marked(mark, mask),
            (Hook::Output, Passage::Steered { reply, mask, .. }) => marked(reply, mask),
            (Hook::Forward, Passage::Steered { .. }) | (Hook::Output, Passage::Pod { .. }) => {
                Vec::new()
            }
            (Hook::Forward, Passage::Pod { ipv6, .. }) if self.family == "ip6" && !ipv6 => {
                Vec::new()
            }
            (Hook::Forward, Passage::Pod { link, .. }) => ["iifname", "oifname"]
                .map(|key| insert(vec![equals(json!({"meta": {"key": key}}), json!(link))]))
                .into(),
            (Hook::Input, Passage::Pod { resolvers, .. }) => resolvers
                .iter()
                .map(|resolver| (resolver, if resolver.is_ipv4() { "ip" } else { "ip6" }))
                .filter(|(_, family)| self.family == "inet" || self.family == *family)
                .flat_map(|(resolver, family)| {
                    ["udp", "tcp"].map(|protocol| {
                        insert(vec![
                            equals(field(family, "saddr"), json!(resolver.ip())),
                            equals(field(protocol, "sport"), json!(resolver.port())),
                            json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}),
                        ])
                    })
                })
                .collect(),
        }
    }
}

/// The base chains of others on the hooks that concern us, with their rules.
#[derive(Debug, Default)]
struct Ruleset {
    chains: Vec<ChainObject>,
    rules: Vec<RuleObject>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    nftables: Vec<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    #[serde(default)]
    chain: Option<ChainObject>,
    #[serde(default)]
    rule: Option<RuleObject>,
}

#[derive(Debug, Deserialize)]
struct ChainObject {
    family: String,
    table: String,
    name: String,
    /// `filter`, `nat`, `route`; none for a chain of no hook.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    hook: Option<String>,
    #[serde(default)]
    policy: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RuleObject {
    family: String,
    table: String,
    chain: String,
    handle: u64,
    #[serde(default)]
    comment: Option<String>,
}

impl Ruleset {
    /// Chain by chain: nft up to 1.0.6 writes broken JSON for tables with flags, and `list ruleset` stops there.
    fn read() -> Result<Self, PodError> {
        let nft = tools::nft()?;
        let mut ruleset = Self::default();
        ruleset.add(&tools::output(&nft, &["-j", "-t", "list", "chains"])?)?;
        ruleset.chains.retain(ChainObject::concerns_us);
        let mut rules = Self::default();
        for chain in &ruleset.chains {
            // Terse: the elements of a large set are nobody's concern here.
            let words = [
                "-j",
                "-a",
                "-t",
                "list",
                "chain",
                &chain.family,
                &chain.table,
                &chain.name,
            ];
            match tools::output(&nft, &words) {
                Ok(text) => rules.add(&text)?,
                // Gone between the two calls, or named by a word of nft's language.
                Err(error) => tracing::debug!("{error}"),
            }
        }
        ruleset.rules = rules.rules;
        Ok(ruleset)
    }

    fn add(&mut self, text: &str) -> Result<(), PodError> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let answer: Answer = serde_json::from_str(text).map_err(|error| PodError::Firewall {
            command: "nft -j list".to_owned(),
            reason: format!("unreadable answer: {error}"),
        })?;
        for object in answer.nftables {
            self.chains.extend(object.chain);
            self.rules.extend(object.rule);
        }
        Ok(())
    }

    /// For a pod: forward chains that drop by default or have rules, and input chains that drop by default. For
    /// steered DNS: input and output chains that drop by default or have rules.
    fn obstacles(&self, passage: &Passage<'_>) -> Vec<Chain> {
        let steered = matches!(passage, Passage::Steered { .. });
        self.chains
            .iter()
            .filter_map(|chain| {
                let drops = chain.policy.as_deref() == Some("drop");
                let hook = match chain.hook.as_deref()? {
                    "forward" if !steered && (drops || self.has_rules(chain)) => Hook::Forward,
                    "input" if drops || (steered && self.has_rules(chain)) => Hook::Input,
                    "output" if steered && (drops || self.has_rules(chain)) => Hook::Output,
                    _ => return None,
                };
                Some(Chain {
                    family: chain.family.clone(),
                    table: chain.table.clone(),
                    name: chain.name.clone(),
                    hook,
                })
            })
            .collect()
    }

    fn has_rules(&self, chain: &ChainObject) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| {
            rule.family == chain.family && rule.table == chain.table && rule.chain == chain.name
        })
    }

    fn is_open(&self, chain: &Chain, owner: &Owner) -> bool {
        self.tagged(&|tagged| tagged == owner).iter().any(|rule| {
            rule.family == chain.family && rule.table == chain.table && rule.chain == chain.name
        })
    }

    fn tagged(&self, wanted: &dyn Fn(&Owner) -> bool) -> Vec<&RuleObject> {
        self.rules
            .iter()
            .filter(|rule| {
                let owner = rule.comment.as_deref().and_then(Owner::from_tag);
                owner.is_some_and(|owner| wanted(&owner))
            })
            .collect()
    }
}

impl ChainObject {
    fn concerns_us(&self) -> bool {
        matches!(self.family.as_str(), "ip" | "ip6" | "inet")
            && self.kind.as_deref() == Some("filter")
            && matches!(self.hook.as_deref(), Some("forward" | "input" | "output"))
            && !self.is_ours()
    }

    /// Tables of runs are named like their links, the agent's has no number.
    fn is_ours(&self) -> bool {
        let slot = self.table.strip_prefix(LINK_PREFIX);
        self.family == "inet" && slot.is_some_and(|slot| slot.bytes().all(|b| b.is_ascii_digit()))
    }
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;
