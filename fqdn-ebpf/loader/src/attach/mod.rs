//! Attaching both programs to the host side of a veth pair, looking after them, detaching them.
//!
//! In:  an interface of the calling thread's network namespace, and the way: tcx or clsact.
//! Out: [`Attached`], which detaches when it is dropped, or stays when there are pins.
//! Not here: which interface, and when to look again (`agent`).

mod clsact;
mod filters;
mod tcx;

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    thread,
};

use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc::SchedClassifierLink};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};

use crate::{AttachError, Pins, error::chain};

/// What the workload sends.
pub(crate) const FROM_POD: &str = "tc_from_pod";
/// What the workload is sent.
pub(crate) const TO_POD: &str = "tc_to_pod";

/// The programs and where they go.
const HOOKS: [(&str, TcAttachType); 2] = [
    (FROM_POD, TcAttachType::Ingress),
    (TO_POD, TcAttachType::Egress),
];

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

/// How a program was found at its hook; whatever it says, it is first there afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// There, before all others.
    First,
    /// A predecessor's stood there; in one step ours took its place.
    Inherited,
    /// It was not there.
    Placed,
    /// Others stood before it.
    Lifted,
}

/// Both programs at one interface.
#[derive(Debug)]
#[must_use = "dropping it detaches the programs, unless they are pinned"]
pub struct Attached {
    interface: String,
    ifindex: u32,
    by: By,
    inherited: bool,
    pins: Option<Pins>,
}

#[derive(Debug)]
enum By {
    /// Links; closing one detaches, unless a file holds it.
    Tcx([Option<SchedClassifierLink>; 2]),
    /// Filters, and the namespace they are in: they are removed by netlink.
    Clsact(File),
}

impl Attached {
    /// `tcx` or `clsact`.
    pub const fn how(&self) -> &'static str {
        match self.by {
            By::Tcx(_) => "tcx",
            By::Clsact(_) => "clsact",
        }
    }

    /// Whether a predecessor's programs were there and ours took their place.
    pub const fn inherited(&self) -> bool {
        self.inherited
    }

    pub(crate) fn interface(&self) -> &str {
        &self.interface
    }

    /// Detaches, pinned or not.
    pub fn detach(mut self) {
        if let Some(pins) = self.pins.take() {
            unpin(&pins, self.ifindex);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let By::Clsact(namespace) = &self.by else {
            // A link is a descriptor: closing it detaches, wherever this thread is.
            return;
        };
        if self.pins.is_some() {
            return;
        }
        // Netlink works in the thread's namespace, and this may be another thread.
        thread::scope(|scope| {
            let detach = || {
                if setns(namespace, CloneFlags::CLONE_NEWNET).is_ok() {
                    clsact::clear(&self.interface, self.ifindex, HOOKS);
                }
            };
            // A panic there leaves a filter behind, which drops everything once the maps go.
            let _ = scope.spawn(detach).join();
        });
    }
}

/// One program and where it goes.
pub(crate) struct Hook<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a mut SchedClassifier,
    pub(crate) at: TcAttachType,
}

impl Hook<'_> {
    /// The kernel's number of the program.
    fn number(&self) -> Result<u32, Refusal> {
        let info = self.program.info().map_err(Refusal::from_program)?;
        Ok(info.id())
    }
}

/// Why a program is not at its hook.
#[derive(Debug)]
enum Refusal {
    /// The kernel does not know this way.
    Unknown(String),
    Failed(String),
}

impl Refusal {
    #[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
    fn from_program(error: ProgramError) -> Self {
        Self::Failed(chain(&error))
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
    fn from_system(error: io::Error) -> Self {
        Self::Failed(chain(&error))
    }

    fn told(self, program: &'static str, interface: &str, how: &'static str) -> AttachError {
        let (Self::Unknown(reason) | Self::Failed(reason)) = self;
        AttachError::Failed {
            program,
            interface: interface.to_owned(),
            how,
            reason,
        }
    }
}

/// Attaches. With pins the programs stay when this process ends, and take the place of those that
/// a predecessor attached, by whichever way.
pub(crate) fn attach(
    hooks: &mut [Hook<'_>; 2],
    interface: &str,
    how: Attach,
    pins: Option<&Pins>,
) -> Result<Attached, AttachError> {
    let ifindex =
        if_nametoindex(interface).map_err(|_| AttachError::NoInterface(interface.to_owned()))?;
    let mut attached = Attached {
        interface: interface.to_owned(),
        ifindex,
        by: By::Tcx([None, None]),
        inherited: false,
        pins: pins.cloned(),
    };
    let tcx = match how {
        Attach::Clsact => None,
        Attach::Tcx => Some(ensure(&mut attached, hooks)?),
        Attach::Auto => match try_ensure(&mut attached, hooks) {
            Ok(standing) => Some(standing),
            Err((_, Refusal::Unknown(_))) => None,
            Err((program, refusal)) => return Err(refusal.told(program, interface, "tcx")),
        },
    };
    let standing = match tcx {
        Some(standing) => standing,
        None => {
            let namespace =
                File::open("/proc/thread-self/ns/net").map_err(AttachError::Namespace)?;
            attached.by = By::Clsact(namespace);
            ensure(&mut attached, hooks)?
        }
    };
    attached.inherited = standing.iter().all(|s| *s == Standing::Inherited);
    if let Some(pins) = pins {
        // What a predecessor attached by the other way goes only after this one stands.
        let other = match attached.by {
            By::Tcx(_) => is_held_by_clsact(ifindex),
            By::Clsact(_) => HOOKS
                .iter()
                .all(|(name, _)| pins.link(ifindex, name).exists()),
        };
        match attached.by {
            By::Tcx(_) => clsact::clear(interface, ifindex, HOOKS),
            By::Clsact(_) => unpin(pins, ifindex),
        }
        attached.inherited |= other;
    }
    Ok(attached)
}

/// Sees to it that both programs are attached and first. Returns how each was found.
pub(crate) fn ensure(
    attached: &mut Attached,
    hooks: &mut [Hook<'_>; 2],
) -> Result<[Standing; 2], AttachError> {
    // Another interface may have got the name.
    if if_nametoindex(attached.interface.as_str()) != Ok(attached.ifindex) {
        return Err(AttachError::NoInterface(attached.interface.clone()));
    }
    try_ensure(attached, hooks)
        .map_err(|(program, refusal)| refusal.told(program, &attached.interface, attached.how()))
}

fn try_ensure(
    attached: &mut Attached,
    hooks: &mut [Hook<'_>; 2],
) -> Result<[Standing; 2], (&'static str, Refusal)> {
    let (interface, ifindex) = (&attached.interface, attached.ifindex);
    let [one, two] = hooks;
    match &mut attached.by {
        By::Tcx([first, second]) => {
            let place = |hook: &mut Hook<'_>, held: &mut Option<SchedClassifierLink>| {
                let pin = attached
                    .pins
                    .as_ref()
                    .map(|pins| pins.link(ifindex, hook.name));
                tcx::ensure(hook, interface, ifindex, pin.as_deref(), held)
                    .map_err(|refusal| (hook.name, refusal))
            };
            Ok([place(one, first)?, place(two, second)?])
        }
        By::Clsact(_) => {
            let place = |hook: &mut Hook<'_>| {
                clsact::ensure(hook, interface, ifindex).map_err(|refusal| (hook.name, refusal))
            };
            Ok([place(one)?, place(two)?])
        }
    }
}

/// Whether programs of ours are at an interface, whoever attached them.
pub(crate) fn is_held(interface: &str) -> bool {
    if_nametoindex(interface).is_ok_and(is_held_by_clsact)
        || HOOKS
            .iter()
            .all(|(name, at)| tcx::is_there(name, *at, interface))
}

fn is_held_by_clsact(ifindex: u32) -> bool {
    HOOKS
        .iter()
        .all(|(name, at)| clsact::is_there(name, *at, ifindex))
}

/// Removes filters of ours from every interface of this namespace that is not among `keep`.
///
/// # Errors
/// When the interfaces cannot be listed.
pub fn clear_filters(keep: &[u32]) -> io::Result<()> {
    clsact::clear_all(keep, HOOKS)
}

fn unpin(pins: &Pins, ifindex: u32) {
    let paths: [PathBuf; 2] = HOOKS.map(|(name, _)| pins.link(ifindex, name));
    for path in paths {
        // One that is gone already pins nothing.
        let _ = fs::remove_file(path);
    }
}
