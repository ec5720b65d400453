//! A command running in the pod, seen from namegate.
//!
//! In:  init's process, its event pipe and control pipe.
//! Out: the exit code a shell would report; stopping together with the command.
//! Not here: starting it (`Pod::spawn`).

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    process::{Child, ExitStatus},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::JoinHandle,
    time::Duration,
};

use super::{PodError, init::Event, signals, signals::SignalForwarder, stage::FAILED};

/// How long a stopped command may take to be continued by the same Ctrl-Z/`fg` that stopped us too.
const STOPPED_TOGETHER: Duration = Duration::from_millis(100);

/// The running command.
#[derive(Debug)]
pub struct Running {
    child: Child,
    control: File,
    events: Option<JoinHandle<Option<String>>>,
}

impl Running {
    pub(crate) fn new(child: Child, control: File, events: File) -> Result<Self, PodError> {
        let events = std::thread::Builder::new()
            .name("pod-events".to_owned())
            .spawn(move || watch(events))
            .map_err(|source| PodError::Start {
                what: "the event thread",
                source,
            })?;
        Ok(Self {
            child,
            control,
            events: Some(events),
        })
    }

    /// Starts passing signals on to the command until the returned value is dropped.
    pub fn forward_signals(&self) -> Result<SignalForwarder, PodError> {
        let control = self.control.try_clone().map_err(|source| PodError::Start {
            what: "signal handling",
            source,
        })?;
        signals::forward(control)
    }

    /// Waits for the command: its exit code, 128+n after signal n, 126 or 127 when it could not be executed.
    ///
    /// # Errors
    /// [`PodError::Init`] when the pod could not be prepared and the command never ran: 125.
    pub fn wait(&mut self) -> Result<i32, PodError> {
        let status = self.child.wait().map_err(|source| PodError::Start {
            what: "waiting for the command",
            source,
        })?;
        let failure = match self.events.take() {
            Some(thread) => thread.join().map_err(|_| PodError::Thread("pod-events"))?,
            None => None,
        };
        match failure {
            Some(reason) => Err(PodError::Init(reason)),
            None => Ok(code(status)),
        }
    }

    /// Ends the command and everything else in the pod at once.
    pub fn kill(&mut self) {
        // Fails when it has ended already, which is what was wanted.
        let _ = self.child.kill();
    }

    /// The pod's init, in the host's process numbering.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Init's own status is the command's; a killed init (somebody outside used kill -9) counts as signalled.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(FAILED)
}

/// Follows init's events to the end; returns the reason if the command never started.
fn watch(events: File) -> Option<String> {
    let (sender, receiver) = channel();
    let stopper = std::thread::Builder::new()
        .name("pod-stops".to_owned())
        .spawn(move || follow_stops(&receiver));
    let mut failure = None;
    for line in BufReader::new(events).lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Event::Failed(reason)) => failure = Some(reason),
            Ok(event @ (Event::Stopped | Event::Continued)) => {
                let _ = sender.send(event);
            }
            Ok(Event::Started) | Err(_) => {}
        }
    }
    drop(sender);
    if let Ok(stopper) = stopper {
        let _ = stopper.join();
    }
    failure
}

/// A command that stops itself (an editor's suspend key) cannot stop namegate, which runs as root: so namegate
/// follows, and the shell gets its prompt. After a Ctrl-Z that stopped both, the news arrives when both go on.
fn follow_stops(events: &Receiver<Event>) {
    let mut next = events.recv().ok();
    while let Some(event) = next {
        if event == Event::Stopped {
            match events.recv_timeout(STOPPED_TOGETHER) {
                Ok(newer) => {
                    next = Some(newer);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => signals::stop_self(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        next = events.recv().ok();
    }
}
