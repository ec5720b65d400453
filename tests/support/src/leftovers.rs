//! What a run may leave behind, before and after.
//!
//! In:  the namespace that stands for the machine, and the process id of a running `namegate`.
//! Out: [`Machine`] (links, rules, routes, sysctls, nft, bpffs, mounts, /run/namegate), compared as
//!      text; [`Held`] (processes, namespaces, programs, maps, links) of one run, which must all be
//!      gone afterwards.
//! Not here: making a run end (`tests/netns`).
//!
//! Other tests run at the same time. So what lies inside a namespace of ours is compared whole,
//! and what the kernel keeps in one list for the machine is compared by what this run held.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::Netns;
use crate::process::{all, command_line, family, is_alive, net_namespaces, output_of, start_time};
use crate::wait::until_true;

/// How long the kernel and the janitor may take to put everything away.
const PATIENCE: Duration = Duration::from_secs(30);

/// The state of a machine that a run must not change for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    parts: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Machine {
    /// Looks at a namespace and at what all namespaces share.
    pub fn look(host: &Netns) -> Result<Self> {
        let lines = |program: &str, args: &[&str]| -> Result<BTreeSet<String>> {
            let text = host.output(program, args)?.ok(program)?;
            Ok(text.lines().map(without_lifetimes).collect())
        };
        let parts = BTreeMap::from([
            ("links", lines("ip", &["-o", "link", "show"])?),
            ("addresses", lines("ip", &["-o", "address", "show"])?),
            ("rules", lines("ip", &["rule", "show"])?),
            ("IPv6 rules", lines("ip", &["-6", "rule", "show"])?),
            ("routes", lines("ip", &["route", "show", "table", "all"])?),
            (
                "IPv6 routes",
                lines("ip", &["-6", "route", "show", "table", "all"])?,
            ),
            ("qdiscs", lines("tc", &["qdisc", "show"])?),
            ("nft", lines("nft", &["-s", "list", "ruleset"])?),
            ("sysctls", sysctls(host)?),
            ("bpffs", files(Path::new("/sys/fs/bpf"))),
            ("mounts", mounts()?),
            ("named namespaces", named_namespaces()),
        ]);
        Ok(Self { parts })
    }

    /// Every difference as a line.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (part, before) in &self.parts {
            let empty = BTreeSet::new();
            let after = later.parts.get(part).unwrap_or(&empty);
            found.extend(
                after
                    .difference(before)
                    .map(|line| format!("{part}: left behind: {line}")),
            );
            found.extend(
                before
                    .difference(after)
                    .map(|line| format!("{part}: gone: {line}")),
            );
        }
        found
    }

    /// Waits until the machine is as it was; the differences otherwise.
    pub fn restored(&self, host: &Netns) -> Result<()> {
        let mut differences = Vec::new();
        let restored = until_true(PATIENCE, "the machine to be as it was", || {
            differences = Self::look(host).map_or_else(
                |error| vec![error.to_string()],
                |later| self.differences(&later),
            );
            differences.is_empty()
        });
        if restored.is_err() {
            bail!("the machine is not as it was:\n{}", differences.join("\n"));
        }
        Ok(())
    }
}

/// What a running `namegate` holds.
#[derive(Debug, Clone, Default)]
pub struct Held {
    processes: BTreeMap<i32, (u64, String)>,
    namespaces: BTreeSet<u64>,
    bpf: BTreeSet<(&'static str, u32)>,
    /// Files under /run/namegate that carry its process id.
    runtime: String,
}

impl Held {
    /// Looks at a process, everything below it, and everything in its namespaces.
    pub fn by(pid: i32, host: &Netns) -> Result<Self> {
        let outside = BTreeSet::from([
            host.inode()?,
            Path::new("/proc/self/ns/net").metadata()?.ino(),
        ]);
        let mut members = family(pid);
        let namespaces: BTreeSet<u64> = members
            .iter()
            .flat_map(|pid| {
                net_namespaces(*pid)
                    .into_iter()
                    .chain(open_namespaces(*pid))
            })
            .filter(|inode| !outside.contains(inode))
            .collect();
        members.extend(
            all()
                .into_iter()
                .filter(|pid| !net_namespaces(*pid).is_disjoint(&namespaces)),
        );
        let processes = members
            .iter()
            .filter_map(|pid| Some((*pid, (start_time(*pid)?, command_line(*pid)))))
            .collect();
        let bpf: BTreeSet<(&'static str, u32)> =
            members.iter().flat_map(|pid| bpf_objects(*pid)).collect();
        // A bpftool that cannot see what is there would later say that it is gone.
        if let Some((kind, id)) = bpf.first()
            && !is_loaded(kind, *id)
            && is_alive(pid)
        {
            bail!("bpftool does not show {kind} {id}, which process {pid} holds");
        }
        Ok(Self {
            processes,
            namespaces,
            bpf,
            runtime: pid.to_string(),
        })
    }

    /// How many processes, namespaces and kernel objects: a test asserts that there was something to lose.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.processes.len(), self.namespaces.len(), self.bpf.len())
    }

    /// Waits until nothing of it exists; what still does otherwise.
    pub fn gone(&self) -> Result<()> {
        let mut left = Vec::new();
        let gone = until_true(PATIENCE, "everything to be gone", || {
            left = self.left();
            left.is_empty()
        });
        if gone.is_err() {
            bail!("left behind:\n{}", left.join("\n"));
        }
        Ok(())
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (pid, (start, command)) in &self.processes {
            if is_alive(*pid) && start_time(*pid) == Some(*start) {
                left.push(format!("process {pid}: {command}"));
            }
        }
        for pid in all() {
            let inside: Vec<u64> = net_namespaces(pid)
                .intersection(&self.namespaces)
                .copied()
                .collect();
            let open: Vec<u64> = open_namespaces(pid)
                .intersection(&self.namespaces)
                .copied()
                .collect();
            if !inside.is_empty() || !open.is_empty() {
                left.push(format!(
                    "namespaces {inside:?} {open:?} kept by {pid}: {}",
                    command_line(pid)
                ));
            }
        }
        for (kind, id) in &self.bpf {
            if is_loaded(kind, *id) {
                left.push(format!("bpf {kind} {id}"));
            }
        }
        for file in files(Path::new("/run/namegate")) {
            if file
                .split(|c: char| !c.is_ascii_digit())
                .any(|number| number == self.runtime)
            {
                left.push(format!("file {file}"));
            }
        }
        left
    }
}

/// Whether the kernel has a program, map or link of this number.
fn is_loaded(kind: &str, id: u32) -> bool {
    output_of(Command::new("bpftool").args([kind, "show", "id", &id.to_string()]))
        .is_ok_and(|output| output.status == 0)
}

/// Programs, maps and links behind the descriptors of a process.
fn bpf_objects(pid: i32) -> BTreeSet<(&'static str, u32)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    for entry in entries.flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path()) else {
            continue;
        };
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let kind = match key {
                "prog_id" => "prog",
                "map_id" => "map",
                "link_id" => "link",
                _ => continue,
            };
            if let Ok(id) = value.trim().parse::<u32>()
                && id != 0
            {
                found.insert((kind, id));
            }
        }
    }
    found
}

/// Network namespaces behind the descriptors of a process.
fn open_namespaces(pid: i32) -> BTreeSet<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|target| {
            target
                .to_str()?
                .strip_prefix("net:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
        .collect()
}

/// Settings of the namespace; counters and caches that move by themselves are no settings.
fn sysctls(host: &Netns) -> Result<BTreeSet<String>> {
    let pattern = r"^net\.(ipv4\.(conf\.|ip_|tcp_|ping_|fwmark|icmp_)|ipv6\.(conf\.|bindv6only|ip_)|bridge\.|netfilter\.nf_conntrack_max)";
    let text = host.output("sysctl", &["-a", "-r", pattern])?.stdout;
    if !text.contains("net.ipv4.ip_forward") {
        bail!("sysctl told nothing about forwarding");
    }
    Ok(text
        .lines()
        .filter(|line| !line.contains("stable_secret"))
        .map(str::to_owned)
        .collect())
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string("/proc/self/mounts")?;
    // Namespaces of tests that run beside this one come and go.
    Ok(text
        .lines()
        .filter(|line| !line.contains("/netns"))
        .map(str::to_owned)
        .collect())
}

/// Names under /run/netns that are not a test's.
fn named_namespaces() -> BTreeSet<String> {
    files(Path::new("/run/netns"))
        .into_iter()
        .filter(|name| !name.contains("/ngt"))
        .collect()
}

fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.insert(entry.path().to_string_lossy().into_owned());
        }
    }
    found
}

/// Drops what counts down by itself from a line of `ip`.
fn without_lifetimes(line: &str) -> String {
    let mut words = Vec::new();
    let mut skip = false;
    for word in line.split_whitespace() {
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = matches!(
            word,
            "expires" | "valid_lft" | "preferred_lft" | "used" | "age"
        );
        if !skip {
            words.push(word);
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_and_its_undoing_too() {
        crate::tools::require_all().unwrap();
        let host = Netns::new("left").unwrap();
        let before = Machine::look(&host).unwrap();
        host.ip(&[
            "link", "add", "extra0", "type", "veth", "peer", "name", "extra1",
        ])
        .unwrap();
        host.sysctl("net.ipv4.ip_forward", "1").unwrap();
        host.nft("add table inet extra").unwrap();
        host.ip(&["rule", "add", "pref", "77", "lookup", "77"])
            .unwrap();
        host.ip(&["route", "add", "blackhole", "192.0.2.0/24"])
            .unwrap();
        let told = before
            .differences(&Machine::look(&host).unwrap())
            .join("\n");
        for expected in [
            "extra0",
            "net.ipv4.ip_forward = 1",
            "table inet extra",
            "lookup 77",
            "blackhole",
        ] {
            assert!(
                told.contains(expected),
                "`{expected}` is missing in:\n{told}"
            );
        }
        host.ip(&["link", "del", "extra0"]).unwrap();
        host.sysctl("net.ipv4.ip_forward", "0").unwrap();
        host.nft("delete table inet extra").unwrap();
        host.ip(&["rule", "del", "pref", "77"]).unwrap();
        host.ip(&["route", "del", "blackhole", "192.0.2.0/24"])
            .unwrap();
        before.restored(&host).unwrap();
    }

    #[test]
    fn a_living_process_is_told_and_a_dead_one_is_not() {
        let host = Netns::new("held").unwrap();
        let inner = Netns::new("inner").unwrap();
        let sleeper = crate::Process::spawn("sleep", inner.command("sleep").arg("60")).unwrap();
        std::thread::sleep(crate::patience(Duration::from_millis(200)));
        let held = Held::by(sleeper.pid(), &host).unwrap();
        assert_eq!(held.counts().1, 1, "one namespace of its own: {held:?}");
        assert!(!held.left().is_empty());
        drop(sleeper);
        drop(inner);
        held.gone().unwrap();
    }
}
