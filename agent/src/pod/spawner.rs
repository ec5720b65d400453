//! The thread that is the pod's parent.
//!
//! In:  the pod's network namespace, then one command.
//! Out: init, as PID 1 of a new pid namespace, in new mount and ipc namespaces; pipes to it.
//! Not here: what init does (`init`).
//!
//! The kernel counts `PR_SET_PDEATHSIG` from the parent *thread*, and a new pid namespace only concerns the children
//! of the thread that asked for it: so one thread asks, spawns, and lives as long as the pod.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sched::{CloneFlags, unshare},
    unistd::pipe2,
};

use super::{
    CommandSpec, PodError,
    netns::NetNs,
    running::Running,
    stage::{self, InitSpec},
};

#[derive(Debug)]
pub(crate) struct Spawner {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Holding the write end keeps the pod alive.
    control: Option<File>,
    spawned: bool,
}

struct Job {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

impl Spawner {
    pub(crate) fn start(pod: NetNs) -> Result<Self, PodError> {
        let (jobs, inbox) = channel();
        let (ready, entered) = channel();
        let thread = std::thread::Builder::new()
            .name("pod-parent".to_owned())
            .spawn(move || live(pod, &ready, &inbox))
            .map_err(|source| PodError::Start {
                what: "the pod's parent thread",
                source,
            })?;
        entered
            .recv()
            .map_err(|_| PodError::Thread("pod-parent"))??;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            control: None,
            spawned: false,
        })
    }

    pub(crate) fn spawn(
        &mut self,
        mut spec: InitSpec,
        command: CommandSpec,
    ) -> Result<Running, PodError> {
        if std::mem::replace(&mut self.spawned, true) {
            return Err(PodError::AlreadySpawned);
        }
        let started = |source| PodError::Start {
            what: "the pod's init",
            source,
        };
        let (control_end, control) =
            pipe2(OFlag::O_CLOEXEC).map_err(|errno| started(errno.into()))?;
        let (events, events_end) =
            pipe2(OFlag::O_CLOEXEC).map_err(|errno| started(errno.into()))?;
        spec.control = control_end.as_raw_fd();
        spec.events = events_end.as_raw_fd();
        let json = serde_json::to_string(&spec).map_err(|error| started(error.into()))?;
        let mut init = Command::new("/proc/self/exe");
        init.arg0("namegate")
            .arg(stage::INIT)
            .arg(json)
            .args(command.argv);
        if let Some(env) = command.env {
            init.env_clear().envs(env);
        }
        // Inherited just for this child. Another child started in this instant would only keep a pipe open for longer.
        inheritable(&control_end).map_err(started)?;
        inheritable(&events_end).map_err(started)?;
        let child = self.run(init)?.map_err(started)?;
        drop((control_end, events_end));
        let control = File::from(control);
        let kept = control.try_clone().map_err(started)?;
        self.control = Some(kept);
        Running::new(child, control, File::from(events))
    }

    fn run(&self, command: Command) -> Result<io::Result<Child>, PodError> {
        let gone = PodError::Thread("pod-parent");
        let (answer, result) = channel();
        match &self.jobs {
            Some(jobs) if jobs.send(Job { command, answer }).is_ok() => {
                result.recv().map_err(|_| gone)
            }
            _ => Err(gone),
        }
    }
}

impl Drop for Spawner {
    /// Ends the parent thread, and with it, if it still runs, the pod.
    fn drop(&mut self) {
        drop(self.control.take());
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn live(pod: NetNs, ready: &Sender<Result<(), PodError>>, inbox: &Receiver<Job>) {
    let entered = enter(&pod);
    // The thread is in the namespace by itself now; a descriptor would keep it alive for nobody.
    drop(pod);
    let failed = entered.is_err();
    if ready.send(entered).is_err() || failed {
        return;
    }
    while let Ok(mut job) = inbox.recv() {
        if job.answer.send(job.command.spawn()).is_err() {
            return;
        }
    }
}

fn enter(pod: &NetNs) -> Result<(), PodError> {
    let refused = |kind, config| {
        move |source| PodError::Namespace {
            kind,
            config,
            source,
        }
    };
    pod.enter().map_err(refused("network", "NET_NS"))?;
    for (flag, kind, config) in [
        (CloneFlags::CLONE_NEWNS, "mount", "NAMESPACES"),
        (CloneFlags::CLONE_NEWIPC, "ipc", "IPC_NS"),
        (CloneFlags::CLONE_NEWPID, "pid", "PID_NS"),
    ] {
        unshare(flag).map_err(|errno| refused(kind, config)(errno.into()))?;
    }
    Ok(())
}

fn inheritable(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))
        .map(drop)
        .map_err(io::Error::from)
}
