//! The process that cleans up when namegate cannot.
//!
//! In:  notes on a pipe: what has been changed on the host, and by whom.
//! Out: when the pipe ends, everything noted is undone; complaints on standard output.
//! Not here: how each thing is undone (`foreign`, `forwarding`, `netlink`).
//!
//! It lives in a session of its own and outlives every signal a terminal or a job runner sends to namegate's group,
//! so that `kill -9` of namegate leaves nothing behind.

use std::{
    io::{BufRead as _, Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::Signal,
};
use serde::{Deserialize, Serialize};

use crate::control;

use super::{
    PodError, foreign, forwarding, netlink::with_netlink, netns::NetNs, owner::Owner, stage,
};

/// Something to undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// A link on the host, by its index: the name may be the next run's by then. The rest of the pod's network goes
    /// with it.
    Link(u32),
    /// Rules in foreign chains, tagged with the owner.
    Rules(Owner),
    /// This owner's share in the forwarding sysctls.
    Forwarding(Owner),
    /// A control socket's file, absolute.
    Socket(PathBuf),
}

/// The running janitor, seen from namegate.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
}

impl Janitor {
    pub(crate) fn start() -> Result<Self, PodError> {
        let child = Command::new("/proc/self/exe")
            .arg(stage::JANITOR)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| PodError::Start {
                what: "the janitor",
                source,
            })?;
        // Every other child of namegate keeps the pipe open too: an nft that is still inserting when namegate is
        // killed has then finished before the janitor looks.
        if let Some(pipe) = &child.stdin {
            let failed = |errno: nix::Error| PodError::Start {
                what: "the janitor",
                source: errno.into(),
            };
            fcntl(pipe, FcntlArg::F_SETFD(FdFlag::empty())).map_err(failed)?;
        }
        Ok(Self { child })
    }

    /// Notes a change. It has to be on its way before the change is made.
    pub(crate) fn note(&mut self, note: &Note) -> Result<(), PodError> {
        let failed = |source| PodError::Start {
            what: "clean-up notes",
            source,
        };
        let mut line = serde_json::to_vec(note).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        match self.child.stdin.as_mut() {
            Some(stdin) => stdin.write_all(&line).map_err(failed),
            None => Err(PodError::Thread("janitor")),
        }
    }

    /// Lets it work and waits for the end.
    pub(crate) fn finish(&mut self) -> Result<(), PodError> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            let _ = stdout.take(64 * 1024).read_to_string(&mut said);
        }
        let _ = self.child.wait();
        if said.trim().is_empty() {
            Ok(())
        } else {
            Err(PodError::Leftover(said.trim().to_owned()))
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// The janitor's main function.
pub(crate) fn main() -> i32 {
    // namegate is a group leader at most in its own group, so this cannot fail for a fresh child.
    let _ = nix::unistd::setsid();
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
    ] {
        // A handler that sets a flag nobody reads: the signal is survived.
        let _ = signal_hook::flag::register(signal as i32, Arc::clone(&ignored));
    }
    let mut notes = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Ok(note) = serde_json::from_str::<Note>(&line) {
            notes.push(note);
        }
    }
    let mut clean = true;
    for note in notes.iter().rev() {
        if let Err(error) = insist(note) {
            clean = false;
            let _ = writeln!(std::io::stdout(), "{error}");
        }
    }
    i32::from(!clean)
}

/// Another program may hold the firewall's lock or change the ruleset under a listing: a few attempts.
fn insist(note: &Note) -> Result<(), PodError> {
    let mut result = undo(note);
    for attempt in 1..5 {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100 * attempt));
        result = undo(note);
    }
    result
}

fn undo(note: &Note) -> Result<(), PodError> {
    match note {
        Note::Link(index) => with_netlink(&NetNs::current()?, async |netlink| {
            netlink.delete(*index).await
        }),
        Note::Rules(owner) => foreign::close(&|tagged| tagged == owner),
        Note::Forwarding(owner) => forwarding::release(*owner),
        Note::Socket(path) => control::remove_abandoned(path)
            .map_err(|error| PodError::Leftover(format!("`{}`: {error}", path.display()))),
    }
}
