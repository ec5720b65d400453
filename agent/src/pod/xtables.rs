//! Accept rules in chains managed by iptables, whichever kernel interface it uses.
//!
//! In:  the pod's link, the resolvers.
//! Out: rules at the head of FORWARD, and of INPUT where it drops; and their removal.
//! Not here: native nftables chains (`foreign`).
//!
//! iptables-nft refuses a whole table as soon as one rule has an expression it cannot read, which would break Docker
//! and ufw for as long as the rule is there: its chains are changed through iptables itself wherever that exists.

use std::{fs, net::SocketAddr, path::PathBuf};

use super::{PodError, foreign::Passage, owner::Owner, tools};

/// One flavour of iptables with something to say on this host.
#[derive(Debug, Clone)]
struct Tool {
    program: PathBuf,
    ipv6: bool,
}

/// Whether a chain is iptables-nft's and an iptables that can change it is installed.
pub(crate) fn manages(family: &str, table: &str, chain: &str) -> bool {
    table == "filter"
        && matches!(chain, "FORWARD" | "INPUT")
        && nft_variant(family == "ip6").is_some_and(|_| family != "inet")
}

pub(crate) fn open(passage: &Passage<'_>, tag: &str) -> Result<(), PodError> {
    for tool in tools_in_use() {
        if tool.ipv6 && !passage.ipv6 && passage.resolvers.iter().all(SocketAddr::is_ipv4) {
            continue;
        }
        let mark = ["-m", "comment", "--comment", tag, "-j", "ACCEPT"];
        let forward = tool.list("FORWARD")?;
        if forward
            .lines()
            .any(|line| line == "-P FORWARD DROP" || line.starts_with("-A "))
        {
            for direction in ["-i", "-o"] {
                tool.run(&[&["-I", "FORWARD", direction, passage.link], &mark[..]].concat())?;
            }
        }
        if tool
            .list("INPUT")?
            .lines()
            .any(|line| line == "-P INPUT DROP")
        {
            for resolver in passage
                .resolvers
                .iter()
                .filter(|resolver| resolver.is_ipv6() == tool.ipv6)
            {
                let (address, port) = (resolver.ip().to_string(), resolver.port().to_string());
                for protocol in ["udp", "tcp"] {
                    let matches = [
                        "-I", "INPUT", "-s", &address, "-p", protocol, "--sport", &port,
                    ];
                    let state = ["-m", "conntrack", "--ctstate", "ESTABLISHED"];
                    tool.run(&[&matches[..], &state[..], &mark[..]].concat())?;
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn close(gone: &dyn Fn(&Owner) -> bool) -> Result<(), PodError> {
    for tool in tools_in_use() {
        for chain in ["FORWARD", "INPUT"] {
            let mut failure = None;
            for delete in tool.deletions(chain, gone)? {
                let arguments: Vec<_> = delete.iter().map(String::as_str).collect();
                failure = tool.run(&arguments).err().or(failure);
            }
            if let Some(error) = failure
                && !tool.deletions(chain, gone)?.is_empty()
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Turns a listed rule into the arguments that delete it, when its tag is one of `gone`.
fn deletion(line: &str, gone: &dyn Fn(&Owner) -> bool) -> Option<Vec<String>> {
    let words: Vec<String> = line
        .split_whitespace()
        .map(|word| word.trim_matches('"').to_owned())
        .collect();
    let owner = words.iter().find_map(|word| Owner::from_tag(word))?;
    let (first, rest) = words.split_first()?;
    (first == "-A" && gone(&owner)).then(|| {
        let mut delete = vec!["-D".to_owned()];
        delete.extend_from_slice(rest);
        delete
    })
}

impl Tool {
    fn list(&self, chain: &str) -> Result<String, PodError> {
        tools::output(&self.program, &["-w", "5", "-S", chain])
    }

    fn deletions(
        &self,
        chain: &str,
        gone: &dyn Fn(&Owner) -> bool,
    ) -> Result<Vec<Vec<String>>, PodError> {
        let listed = self.list(chain)?;
        Ok(listed
            .lines()
            .filter_map(|line| deletion(line, gone))
            .collect())
    }

    fn run(&self, arguments: &[&str]) -> Result<(), PodError> {
        let mut all = vec!["-w", "5"];
        all.extend_from_slice(arguments);
        tools::output(&self.program, &all).map(drop)
    }
}

/// Listing a chain creates the tables of that flavour, so only flavours already in use are asked.
fn tools_in_use() -> Vec<Tool> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        let names = if ipv6 {
            "/proc/net/ip6_tables_names"
        } else {
            "/proc/net/ip_tables_names"
        };
        let legacy =
            fs::read_to_string(names).is_ok_and(|text| text.lines().any(|line| line == "filter"));
        let binary = if ipv6 {
            "ip6tables-legacy"
        } else {
            "iptables-legacy"
        };
        if legacy && let Some(program) = tools::find(binary) {
            found.push(Tool { program, ipv6 });
        }
        let family = if ipv6 { "ip6" } else { "ip" };
        // iptables-nft makes each of its chains when it is first touched: either may be the only one.
        let in_use = tools::nft().is_ok_and(|nft| {
            let exists = |chain| {
                tools::output(&nft, &["-t", "list", "chain", family, "filter", chain]).is_ok()
            };
            exists("FORWARD") || exists("INPUT")
        });
        if in_use && let Some(program) = nft_variant(ipv6) {
            found.push(Tool { program, ipv6 });
        }
    }
    found
}

fn nft_variant(ipv6: bool) -> Option<PathBuf> {
    tools::find(if ipv6 {
        "ip6tables-nft"
    } else {
        "iptables-nft"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_rule_becomes_its_deletion() {
        let line = "-A FORWARD -i namegate0 -m comment --comment \"namegate:1:2:3\" -j ACCEPT";
        let delete = deletion(line, &|owner| owner.pid == 1).unwrap();
        assert_eq!(
            delete.join(" "),
            "-D FORWARD -i namegate0 -m comment --comment namegate:1:2:3 -j ACCEPT"
        );
        assert_eq!(deletion(line, &|owner| owner.pid == 9), None);
    }

    #[test]
    fn policies_and_foreign_rules_stay() {
        for line in [
            "-P FORWARD DROP",
            "-A FORWARD -i docker0 -j ACCEPT",
            "-N DOCKER",
        ] {
            assert_eq!(deletion(line, &|_| true), None, "{line}");
        }
    }
}
