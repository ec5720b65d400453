//! Accept rules in chains managed by iptables, whichever kernel interface it uses.
//!
//! In:  what is to pass.
//! Out: rules at the head of FORWARD, INPUT and OUTPUT where they would drop it; and their removal.
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
    legacy: bool,
}

/// Whether a chain is iptables-nft's and an iptables that can read and change it is installed.
pub(crate) fn manages(family: &str, table: &str, chain: &str) -> bool {
    table == "filter"
        && matches!(chain, "FORWARD" | "INPUT" | "OUTPUT")
        && family != "inet"
        && nft_tool(family == "ip6").is_some_and(|tool| tool.reads(chain))
}

pub(crate) fn open(passage: &Passage<'_>, tag: &str) -> Result<(), PodError> {
    for tool in tools_in_use() {
        match passage {
            Passage::Pod {
                link,
                resolvers,
                ipv6,
            } => tool.open_for_pod(link, resolvers, *ipv6, tag)?,
            Passage::Steered { mark, reply, mask } => {
                tool.open_for_mark("INPUT", *mark, *mask, tag)?;
                tool.open_for_mark("OUTPUT", *reply, *mask, tag)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn close(gone: &dyn Fn(&Owner) -> bool) -> Result<(), PodError> {
    for tool in tools_in_use() {
        for chain in ["FORWARD", "INPUT", "OUTPUT"] {
            if !tool.reads(chain) {
                continue;
            }
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

fn accept(tag: &str) -> [&str; 6] {
    ["-m", "comment", "--comment", tag, "-j", "ACCEPT"]
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

/// Whether a listing has rules, or drops what no rule is about.
fn may_drop(listed: &str, chain: &str) -> bool {
    listed
        .lines()
        .any(|line| line == format!("-P {chain} DROP") || line.starts_with("-A "))
}

impl Tool {
    fn open_for_pod(
        &self,
        link: &str,
        resolvers: &[SocketAddr],
        ipv6: bool,
        tag: &str,
    ) -> Result<(), PodError> {
        if self.ipv6 && !ipv6 && resolvers.iter().all(SocketAddr::is_ipv4) {
            return Ok(());
        }
        let accept = accept(tag);
        if self.reads("FORWARD") && may_drop(&self.list("FORWARD")?, "FORWARD") {
            for direction in ["-i", "-o"] {
                self.run(&[&["-I", "FORWARD", direction, link], &accept[..]].concat())?;
            }
        }
        if !self.reads("INPUT") {
            return Ok(());
        }
        let input = self.list("INPUT")?;
        if !input.lines().any(|line| line == "-P INPUT DROP") {
            return Ok(());
        }
        for resolver in resolvers
            .iter()
            .filter(|resolver| resolver.is_ipv6() == self.ipv6)
        {
            let (address, port) = (resolver.ip().to_string(), resolver.port().to_string());
            for protocol in ["udp", "tcp"] {
                let matches = [
                    "-I", "INPUT", "-s", &address, "-p", protocol, "--sport", &port,
                ];
                let state = ["-m", "conntrack", "--ctstate", "ESTABLISHED"];
                self.run(&[&matches[..], &state[..], &accept[..]].concat())?;
            }
        }
        Ok(())
    }

    fn open_for_mark(&self, chain: &str, mark: u32, mask: u32, tag: &str) -> Result<(), PodError> {
        if !self.reads(chain) {
            return Ok(());
        }
        let listed = self.list(chain)?;
        if listed.contains(tag) || !may_drop(&listed, chain) {
            return Ok(());
        }
        let bits = format!("{mark:#x}/{mask:#x}");
        self.run(
            &[
                &["-I", chain, "-m", "mark", "--mark", &bits],
                &accept(tag)[..],
            ]
            .concat(),
        )
    }

    /// iptables-nft makes a chain when it is listed; one that is not there is no obstacle. One that holds
    /// what iptables cannot express is nft's (`foreign`).
    fn reads(&self, chain: &str) -> bool {
        if self.legacy {
            return true;
        }
        let family = if self.ipv6 { "ip6" } else { "ip" };
        let exists = tools::nft().is_ok_and(|nft| {
            tools::output(&nft, &["-t", "list", "chain", family, "filter", chain]).is_ok()
        });
        exists && self.list(chain).is_ok()
    }

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

/// Listing a chain of a legacy flavour creates its tables, so only those already in use are asked.
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
            found.push(Tool {
                program,
                ipv6,
                legacy: true,
            });
        }
        found.extend(nft_tool(ipv6));
    }
    found
}

fn nft_tool(ipv6: bool) -> Option<Tool> {
    let program = tools::find(if ipv6 {
        "ip6tables-nft"
    } else {
        "iptables-nft"
    })?;
    Some(Tool {
        program,
        ipv6,
        legacy: false,
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
