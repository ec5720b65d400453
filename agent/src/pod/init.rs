//! PID 1 of the pod: prepares the mounts, starts the command, reaps, forwards signals, ends with namegate.
//!
//! In:  an [`InitSpec`], signals as bytes on the control pipe.
//! Out: [`Event`]s on the event pipe; the exit status of the command as its own.
//! Not here: the mounts themselves (`mounts`), dropping privileges (`exec`).
//!
//! It installs no signal handlers: the kernel does not deliver unhandled signals to a namespace's init, so a Ctrl-C
//! or Ctrl-Z at the terminal reaches the command and leaves init alone.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
};

use nix::sys::{prctl, signal::Signal};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use super::{
    mounts,
    stage::{self, FAILED, InitSpec},
};

/// What init reports to namegate, one JSON value a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The command could not be prepared.
    Failed(String),
    /// The command was started.
    Started,
    /// The command was stopped (Ctrl-Z, SIGSTOP).
    Stopped,
    /// It goes on.
    Continued,
}

pub(crate) fn main(spec: InitSpec, argv: Vec<OsString>) -> i32 {
    let pipe = |fd: i32| PathBuf::from(format!("/proc/self/fd/{fd}"));
    let opened = prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(std::io::Error::from)
        .and_then(|()| {
            let control = File::open(pipe(spec.control))?;
            let events = File::options().write(true).open(pipe(spec.events))?;
            Ok((control, events))
        });
    let (control, mut events) = match opened {
        Ok(pipes) => pipes,
        // Without pipes there is nobody to report to; namegate died first or something is very wrong.
        Err(error) => {
            eprintln!("namegate: the pod's init lost its pipes: {error}");
            return FAILED;
        }
    };
    // The numbered originals would keep the event pipe open in the command's siblings.
    for fd in [spec.control, spec.events] {
        let _ = nix::unistd::close(fd);
    }
    match start(&spec, argv) {
        Ok(pid) => {
            tell(&mut events, &Event::Started);
            std::thread::spawn(move || obey(control, pid));
            reap(pid, &mut events)
        }
        Err(reason) => {
            tell(&mut events, &Event::Failed(reason));
            FAILED
        }
    }
}

fn start(spec: &InitSpec, argv: Vec<OsString>) -> Result<Pid, String> {
    mounts::prepare(spec)?;
    let json = serde_json::to_string(&spec.exec).map_err(|error| error.to_string())?;
    let child = Command::new("/proc/self/exe")
        .arg0("namegate")
        .arg(stage::EXEC)
        .arg(json)
        .args(argv)
        .spawn()
        .map_err(|error| format!("cannot start the command's stage: {error}"))?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| "the command has no process id".to_owned())
}

/// Passes on each signal number that arrives; the end of the pipe is the end of namegate, and so of the pod.
fn obey(mut control: File, pid: Pid) {
    let mut byte = [0_u8];
    while let Ok(1) = control.read(&mut byte) {
        let [number] = byte;
        if let Some(signal) = rustix::process::Signal::from_named_raw(i32::from(number)) {
            // The command may have just ended; reap() is about to say so.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    std::process::exit(128 + 9);
}

/// Collects every child of the namespace until the command is done; returning ends all the others.
fn reap(command: Pid, events: &mut File) -> i32 {
    loop {
        match rustix::process::wait(WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
            Ok(Some((pid, status))) if pid == command => {
                if let Some(code) = exit_code(status) {
                    return code;
                }
                let event = if status.stopped() {
                    Event::Stopped
                } else {
                    Event::Continued
                };
                tell(events, &event);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return FAILED,
        }
    }
}

fn exit_code(status: WaitStatus) -> Option<i32> {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}

fn tell(events: &mut File, event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        // A namegate that no longer listens is about to close the control pipe.
        let _ = events.write_all(&line);
    }
}
