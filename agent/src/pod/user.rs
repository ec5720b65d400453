//! Who asked for the command: the user CMD becomes.
//!
//! In:  `SUDO_UID`/`SUDO_GID`/`SUDO_USER` when real root runs us, else the real ids.
//! Out: [`InvokingUser`].
//! Not here: becoming that user (`exec`).

use nix::unistd::{Gid, Uid, User};
use serde::{Deserialize, Serialize};

/// What differs when the invoking user is root itself; the threat model repeats it.
pub const ROOT_CAVEAT: &str = "\
The command runs as root because root invoked namegate (no SUDO_UID). It keeps a container-like capability set \
(no SYS_ADMIN, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_MODULE, MKNOD), but it owns the host's files: it can write \
to what the host runs later (cron, units, authorized_keys) and to block devices. Files are not part of the boundary: \
run namegate through sudo from an ordinary user when the command is not trusted with them.";

/// The user the command runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokingUser {
    /// Numeric user id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Login name, if the id has one.
    pub name: Option<String>,
    /// Home directory, if known.
    pub home: Option<String>,
}

impl InvokingUser {
    /// Finds the user behind this process. `SUDO_*` count only when the real user is root:
    /// anybody else could have set them.
    #[must_use]
    pub fn detect() -> Self {
        let number = |key: &str| std::env::var(key).ok().and_then(|v| v.parse::<u32>().ok());
        if Uid::current().is_root()
            && let Some(uid) = number("SUDO_UID")
        {
            return Self::from_ids(uid, number("SUDO_GID"));
        }
        Self::from_ids(Uid::current().as_raw(), Some(Gid::current().as_raw()))
    }

    /// Fills in what the user database knows. Without an entry the groups are just the primary one.
    #[must_use]
    pub fn from_ids(uid: u32, gid: Option<u32>) -> Self {
        let entry = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let gid = gid
            .or_else(|| entry.as_ref().map(|user| user.gid.as_raw()))
            .unwrap_or(uid);
        let groups = entry
            .as_ref()
            .and_then(|user| std::ffi::CString::new(user.name.as_str()).ok())
            .and_then(|name| nix::unistd::getgrouplist(&name, Gid::from_raw(gid)).ok())
            .map_or_else(
                || vec![gid],
                |groups| groups.iter().map(|gid| gid.as_raw()).collect(),
            );
        Self {
            uid,
            gid,
            groups,
            name: entry.as_ref().map(|user| user.name.clone()),
            home: entry.map(|user| user.dir.to_string_lossy().into_owned()),
        }
    }

    /// Root keeps some power that others do not; see [`ROOT_CAVEAT`].
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}
