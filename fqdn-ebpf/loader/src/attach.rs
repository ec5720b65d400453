//! Attaching both programs to the host side of a veth pair, and detaching them.
//!
//! In:  an interface of the calling thread's network namespace, and the way: tcx or clsact.
//! Out: [`Attached`], which detaches when it is dropped.
//! Not here: which interface (`agent`).

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};

use crate::{AttachError, Pins, error::chain};

/// How to attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Attach {
    /// tcx where the kernel has it (Linux 6.6), else clsact.
    #[default]
    Auto,
    /// tcx only.
    Tcx,
    /// clsact only.
    Clsact,
}

/// Both programs at one interface, until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it detaches the programs"]
pub struct Attached {
    links: Vec<SchedClassifierLink>,
    how: &'static str,
    /// Files that keep the programs attached when this is dropped.
    pins: Vec<PathBuf>,
    /// Where the interface is: clsact filters are removed by netlink, in their namespace.
    namespace: Option<File>,
}

impl Attached {
    /// `tcx` or `clsact`.
    pub const fn how(&self) -> &'static str {
        self.how
    }

    /// Detaches, pinned or not.
    pub fn detach(self) {
        for pin in &self.pins {
            // One that is gone already pins nothing.
            let _ = fs::remove_file(pin);
        }
    }
}

/// One program and where it goes.
pub(crate) struct Hook<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a mut SchedClassifier,
    pub(crate) at: TcAttachType,
}

pub(crate) fn attach(
    hooks: [Hook<'_>; 2],
    interface: &str,
    how: Attach,
) -> Result<Attached, AttachError> {
    if if_nametoindex(interface).is_err() {
        return Err(AttachError::NoInterface(interface.to_owned()));
    }
    let [one, two] = hooks;
    if how != Attach::Clsact {
        match tcx(
            &mut [&mut *one.program, &mut *two.program],
            [one.at, two.at],
            interface,
        ) {
            Ok(links) => {
                return Ok(Attached {
                    links,
                    how: "tcx",
                    pins: Vec::new(),
                    namespace: None,
                });
            }
            Err(error) if how == Attach::Tcx => {
                return Err(AttachError::Failed {
                    program: one.name,
                    interface: interface.to_owned(),
                    how: "tcx",
                    reason: chain(&error),
                });
            }
            // Older kernels do not know the attach type.
            Err(_) => {}
        }
    }
    clsact([one, two], interface)
}

/// Like [`attach`], but tcx links are pinned, and those a predecessor pinned are taken over: the
/// programs behind them are replaced in one step each.
pub(crate) fn attach_pinned(
    hooks: [Hook<'_>; 2],
    interface: &str,
    how: Attach,
    pins: &Pins,
) -> Result<Attached, AttachError> {
    let ifindex =
        if_nametoindex(interface).map_err(|_| AttachError::NoInterface(interface.to_owned()))?;
    let mut attached = Attached {
        links: Vec::new(),
        how: "tcx",
        pins: Vec::new(),
        namespace: None,
    };
    let mut hooks = hooks;
    let mut unknown = false;
    for hook in &mut hooks {
        let path = pins.link(ifindex, hook.name);
        match adopt_link(hook, &path).or_else(|| new_link(hook, interface, &path).transpose()) {
            Some(Ok(link)) => {
                attached.links.push(link);
                attached.pins.push(path);
            }
            Some(Err(reason)) => {
                return Err(AttachError::Failed {
                    program: hook.name,
                    interface: interface.to_owned(),
                    how: "tcx",
                    reason,
                });
            }
            // Older kernels do not know tcx.
            None => {
                unknown = true;
                break;
            }
        }
    }
    if unknown {
        attached.detach();
        return attach(hooks, interface, how);
    }
    Ok(attached)
}

/// The link a predecessor pinned, with our program in it; none when there is none that is alive.
fn adopt_link(hook: &mut Hook<'_>, path: &Path) -> Option<Result<SchedClassifierLink, String>> {
    let pinned = PinnedLink::from_pin(path).ok()?;
    let link = SchedClassifierLink::try_from(FdLink::from(pinned)).ok()?;
    // A link whose interface is gone cannot be updated.
    let id = hook.program.attach_to_link(link).ok()?;
    Some(hook.program.take_link(id).map_err(|error| chain(&error)))
}

fn new_link(
    hook: &mut Hook<'_>,
    interface: &str,
    path: &Path,
) -> Result<Option<SchedClassifierLink>, String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
        _ => {}
    }
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let Ok(id) = hook.program.attach_with_options(interface, hook.at, first) else {
        return Ok(None);
    };
    let pinned = hook
        .program
        .take_link(id)
        .map_err(|error| chain(&error))
        .and_then(|link| FdLink::try_from(link).map_err(|error| chain(&error)))
        .and_then(|link| link.pin(path).map_err(|error| chain(&error)))?;
    SchedClassifierLink::try_from(FdLink::from(pinned))
        .map(Some)
        .map_err(|error| chain(&error))
}

fn tcx(
    programs: &mut [&mut SchedClassifier; 2],
    at: [TcAttachType; 2],
    interface: &str,
) -> Result<Vec<SchedClassifierLink>, ProgramError> {
    let mut links = Vec::new();
    for (program, at) in programs.iter_mut().zip(at) {
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, at, first)?;
        links.push(program.take_link(id)?);
    }
    Ok(links)
}

fn clsact(hooks: [Hook<'_>; 2], interface: &str) -> Result<Attached, AttachError> {
    let namespace = File::open("/proc/thread-self/ns/net").map_err(AttachError::Namespace)?;
    let failed = |program, reason| AttachError::Failed {
        program,
        interface: interface.to_owned(),
        how: "clsact",
        reason,
    };
    let [first, ..] = &hooks;
    if let Err(error) = qdisc_add_clsact(interface)
        && !matches!(error, aya::programs::TcError::AlreadyAttached)
    {
        return Err(failed(first.name, chain(&error)));
    }
    let mut attached = Attached {
        links: Vec::new(),
        how: "clsact",
        pins: Vec::new(),
        namespace: Some(namespace),
    };
    for Hook { name, program, at } in hooks {
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: 1,
            ..NlOptions::default()
        });
        let link = program
            .attach_with_options(interface, at, options)
            .and_then(|id| program.take_link(id))
            .map_err(|error| failed(name, chain(&error)))?;
        attached.links.push(link);
    }
    Ok(attached)
}

impl Drop for Attached {
    fn drop(&mut self) {
        let links = std::mem::take(&mut self.links);
        match self.namespace.take() {
            // A tcx link is a descriptor: closing it detaches, wherever this thread is.
            None => drop(links),
            // Netlink works in the thread's namespace, and this may be another thread.
            Some(namespace) => {
                let detach = move || {
                    if setns(&namespace, CloneFlags::CLONE_NEWNET).is_ok() {
                        drop(links);
                    } else {
                        // In the wrong namespace the request would hit another interface.
                        std::mem::forget(links);
                    }
                };
                // A panic there leaves a filter behind, which drops everything once the maps go.
                let _ = thread::spawn(detach).join();
            }
        }
    }
}
