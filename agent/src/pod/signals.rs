//! Which signals go on to the command.
//!
//! In:  signals sent to namegate.
//! Out: one byte each on the pod's control pipe.
//! Not here: delivering them (`init`).
//!
//! The terminal sends Ctrl-C, Ctrl-\ and Ctrl-Z to the whole foreground group: the command has them already, and a
//! second one would often mean "now really". Only those that a process sent are passed on.

use std::{fs, fs::File, io::Write as _, thread::JoinHandle};

use nix::libc::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::{
    iterator::{Handle, SignalsInfo, exfiltrator::WithOrigin},
    low_level::siginfo::{Cause, Origin, Sent},
};

use super::PodError;

/// Passed on when a process sent them.
const FORWARDED: [i32; 10] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGTSTP, SIGWINCH,
];

/// The forwarding thread; dropping it restores nothing (a process about to end has no use for that) but ends it.
#[derive(Debug)]
pub struct SignalForwarder {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Starts forwarding to the pod behind `control`.
pub(crate) fn forward(mut control: File) -> Result<SignalForwarder, PodError> {
    // What the invoker ignores (nohup) the command inherits as ignored; a handler here would undo that for us only,
    // and make a difference the command does not see.
    let ignored = ignored_signals();
    let wanted = FORWARDED
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = SignalsInfo::<WithOrigin>::new(wanted).map_err(|source| PodError::Start {
        what: "signal handling",
        source,
    })?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for origin in &mut signals {
                pass_on(&origin, &mut control);
            }
        })
        .map_err(|source| PodError::Start {
            what: "the signal thread",
            source,
        })?;
    Ok(SignalForwarder {
        handle,
        thread: Some(thread),
    })
}

fn pass_on(origin: &Origin, control: &mut File) {
    let by_process = matches!(
        origin.cause,
        Cause::Sent(Sent::User | Sent::Queue | Sent::TKill)
    );
    if !by_process {
        if origin.signal == SIGTSTP {
            stop_self();
        }
        return;
    }
    if let Ok(number) = u8::try_from(origin.signal) {
        // A closed pipe is a command that has just ended.
        let _ = control.write_all(&[number]);
    }
}

/// Stops this process as an unhandled SIGTSTP would: the shell waits for exactly that.
pub(crate) fn stop_self() {
    // SIGSTOP to the process, not the thread: every thread stops.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGSTOP);
}

/// Signals ignored by this process, as the kernel lists them.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

impl Drop for SignalForwarder {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
