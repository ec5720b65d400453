//! Counting on the far side: what reached the world although nobody may send it there.
//!
//! In:  a namespace, the interface packets come in by, what may come.
//! Out: [`Far`], an exact count kept by nftables, which nothing of namegate can influence.
//! Not here: captures of what came (`support::capture`).

use anyhow::{Context, Result};
use support::Netns;

const TABLE: &str = "far";

/// A counter in a namespace.
#[derive(Debug)]
pub struct Far<'a> {
    netns: &'a Netns,
}

impl<'a> Far<'a> {
    /// Counts everything that comes in by an interface, except what these nftables matches allow,
    /// neighbour discovery and ICMP errors.
    ///
    /// # Errors
    /// When nftables refuses the rules.
    pub fn count(netns: &'a Netns, interface: &str, allowed: &[&str]) -> Result<Self> {
        Self::at(netns, "prerouting", interface, allowed)
    }

    /// Counts everything that is forwarded from an interface, except what these matches allow.
    ///
    /// # Errors
    /// When nftables refuses the rules.
    pub fn count_forwarded(netns: &'a Netns, interface: &str, allowed: &[&str]) -> Result<Self> {
        Self::at(netns, "forward", interface, allowed)
    }

    fn at(netns: &'a Netns, hook: &str, interface: &str, allowed: &[&str]) -> Result<Self> {
        let allowed: String = allowed
            .iter()
            .map(|matches| format!("{matches} accept\n"))
            .collect();
        netns.nft(&format!(
            "table inet {TABLE} {{\ncounter forbidden {{}}\n\
             chain seen {{ type filter hook {hook} priority -310; policy accept;\n\
             iifname != \"{interface}\" accept\n\
             icmp type != echo-request accept\nicmpv6 type != echo-request accept\n\
             {allowed}counter name forbidden\n}}\n}}\n"
        ))?;
        Ok(Self { netns })
    }

    /// How many packets came that should not have.
    ///
    /// # Errors
    /// When the counter is gone.
    pub fn forbidden(&self) -> Result<u64> {
        let text = self
            .netns
            .output("nft", &["list", "counter", "inet", TABLE, "forbidden"])?
            .ok("nft list counter")?;
        text.split_whitespace()
            .skip_while(|word| *word != "packets")
            .nth(1)
            .and_then(|count| count.parse().ok())
            .with_context(|| format!("no count in {text}"))
    }
}
