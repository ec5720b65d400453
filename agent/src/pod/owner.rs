//! Who a rule, a sysctl or a state file entry belongs to, and whether that run is still alive.
//!
//! In:  process ids.
//! Out: [`Owner`], comparable across restarts and pid reuse, and its tag for rule comments.
//! Not here: cleaning up after a dead owner (`foreign`, `forwarding`).

use std::{fs, os::unix::fs::MetadataExt};

use serde::{Deserialize, Serialize};

const TAG: &str = "namegate";

/// One run of namegate. The start time tells two processes with one pid apart; the pid namespace says whether this
/// process can judge at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) start: u64,
    pub(crate) pidns: u64,
}

impl Owner {
    pub(crate) fn current() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            start: start_time(pid).unwrap_or(0),
            pidns: own_pidns(),
        }
    }

    /// False only when the process is known to be gone.
    pub(crate) fn may_live(&self) -> bool {
        self.pidns != own_pidns() || start_time(self.pid) == Some(self.start)
    }

    /// The comment that marks a rule as this run's.
    pub(crate) fn tag(&self) -> String {
        format!("{TAG}:{}:{}:{}", self.pid, self.start, self.pidns)
    }

    pub(crate) fn from_tag(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(TAG)?.strip_prefix(':')?.split(':');
        let owner = Self {
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
            pidns: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }
}

fn own_pidns() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may contain anything, so counting starts after its last `)`.
/// A zombie has ended as far as anybody is concerned.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_tag_reads_back() {
        let owner = Owner::current();
        assert!(owner.may_live());
        assert_eq!(Owner::from_tag(&owner.tag()), Some(owner));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let mut owner = Owner::current();
        owner.start += 1;
        assert!(!owner.may_live());
    }

    #[test]
    fn an_owner_in_a_pid_namespace_we_cannot_see_is_left_alone() {
        let owner = Owner {
            pid: u32::MAX,
            start: 1,
            pidns: 1,
        };
        assert!(owner.may_live());
    }

    #[test]
    fn strange_comments_are_nobodys() {
        for text in [
            "",
            "namegate",
            "namegate:",
            "namegate:1:2",
            "namegate:1:2:3:4",
            "othergate:1:2:3",
            "namegate:-1:2:3",
        ] {
            assert_eq!(Owner::from_tag(text), None, "{text}");
        }
    }
}
