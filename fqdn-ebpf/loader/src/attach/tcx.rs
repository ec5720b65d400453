//! tcx links: attachment by descriptors, which a file in a bpf file system can hold.
//!
//! In:  a program, an interface of the calling thread's network namespace, perhaps a path to pin.
//! Out: a link with this program, before all others at the hook.
//! Not here: whether it should be there (`attach`).

use std::{fs, io, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use nix::errno::Errno;

use super::{Hook, Refusal, Standing, clsact};
use crate::error::{chain, os_error};

/// Sees to it that the program runs first at the hook. A link that a predecessor pinned is taken
/// over: the program behind it is replaced in one step.
pub(super) fn ensure(
    hook: &mut Hook<'_>,
    interface: &str,
    ifindex: u32,
    pin: Option<&Path>,
    held: &mut Option<SchedClassifierLink>,
) -> Result<Standing, Refusal> {
    let mut standing = Standing::First;
    if held.is_none()
        && let Some(link) = pin.and_then(|pin| inherited(hook, pin))
    {
        *held = Some(link?);
        standing = Standing::Inherited;
    }
    let program = hook.number()?;
    let all = programs(interface, hook.at)?;
    let place = all.iter().position(|id| *id == program);
    if place == Some(0) && held.is_some() {
        return Ok(standing);
    }
    if place.is_none() {
        *held = Some(fresh(hook, interface, pin)?);
        return Ok(match standing {
            Standing::Inherited => Standing::Inherited,
            _ => Standing::Placed,
        });
    }
    // A program can be at a tcx hook once only, and a link cannot move. In between a filter of
    // clsact, which runs after all of tcx, does the same.
    clsact::ensure_behind(hook, interface, ifindex)?;
    if let Some(pin) = pin {
        fs::remove_file(pin).map_err(Refusal::from_system)?;
    }
    *held = None;
    let moved = fresh(hook, interface, pin);
    if moved.is_ok() {
        clsact::clear_hook(interface, ifindex, hook.name, hook.at);
    }
    *held = Some(moved?);
    Ok(match standing {
        Standing::Inherited => Standing::Inherited,
        _ => Standing::Lifted,
    })
}

/// Whether a program of ours is at the hook, whoever attached it.
pub(super) fn is_there(name: &str, at: TcAttachType, interface: &str) -> bool {
    SchedClassifier::query_tcx(interface, at)
        .is_ok_and(|(_, all)| all.iter().any(|info| info.name_as_str() == Some(name)))
}

/// Whether programs of others are at the hook: they run before every filter of clsact, and what they
/// let pass never comes to one.
pub(super) fn is_foreign(name: &str, at: TcAttachType, interface: &str) -> bool {
    SchedClassifier::query_tcx(interface, at)
        .is_ok_and(|(_, all)| all.iter().any(|info| info.name_as_str() != Some(name)))
}

/// Programs at the hook, in the order in which they run. Asking shows whether the kernel knows tcx.
fn programs(interface: &str, at: TcAttachType) -> Result<Vec<u32>, Refusal> {
    match SchedClassifier::query_tcx(interface, at) {
        Ok((_, all)) => Ok(all.iter().map(aya::programs::ProgramInfo::id).collect()),
        Err(error) => match errno(&error) {
            Some(Errno::EINVAL) => Err(Refusal::Unknown(chain(&error))),
            // Nothing was ever attached there.
            Some(Errno::ENOENT) => Ok(Vec::new()),
            _ => Err(Refusal::Failed(chain(&error))),
        },
    }
}

fn errno(error: &ProgramError) -> Option<Errno> {
    os_error(error)
        .and_then(io::Error::raw_os_error)
        .map(Errno::from_raw)
}

/// The link a predecessor pinned, with our program in it; none when there is none that is alive.
fn inherited(hook: &mut Hook<'_>, pin: &Path) -> Option<Result<SchedClassifierLink, Refusal>> {
    let pinned = PinnedLink::from_pin(pin).ok()?;
    let link = SchedClassifierLink::try_from(FdLink::from(pinned)).ok()?;
    // A link whose interface is gone cannot be updated.
    let id = hook.program.attach_to_link(link).ok()?;
    Some(hook.program.take_link(id).map_err(Refusal::from_program))
}

fn fresh(
    hook: &mut Hook<'_>,
    interface: &str,
    pin: Option<&Path>,
) -> Result<SchedClassifierLink, Refusal> {
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = hook
        .program
        .attach_with_options(interface, hook.at, first)
        .and_then(|id| hook.program.take_link(id))
        .map_err(Refusal::from_program)?;
    let Some(pin) = pin else { return Ok(link) };
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Refusal::from_system(error));
        }
        _ => {}
    }
    let pinned = FdLink::try_from(link)
        .map_err(|error| Refusal::Failed(chain(&error)))?
        .pin(pin)
        .map_err(|error| Refusal::Failed(chain(&error)))?;
    SchedClassifierLink::try_from(FdLink::from(pinned))
        .map_err(|error| Refusal::Failed(chain(&error)))
}
