//! Filters of the clsact queueing discipline: attachment by netlink, on kernels without tcx and
//! where it is asked for.
//!
//! In:  a program, an interface of the calling thread's network namespace.
//! Out: exactly one filter of ours at the hook, with this program, before all others.
//! Not here: whether it should be there (`attach`).
//!
//! A filter belongs to the interface and to no process. A successor finds it by its handle and
//! puts its own program there in one step: there is never a moment without, nor one with two.

use aya::programs::{
    Link as _, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use nix::{errno::Errno, net::if_::if_nameindex};

use super::{
    Hook, Refusal, Standing,
    filters::{self, Filter, PRIORITY},
    tcx,
};
use crate::error::chain;

/// Handles of ours: the major part is "ng". Two of them, so that a filter can be put in front of
/// its predecessor before that goes.
const HANDLES: [TcHandle; 2] = [TcHandle::new(0x6e67, 1), TcHandle::new(0x6e67, 2)];

/// Sees to it that the program runs first at the hook.
pub(super) fn ensure(
    hook: &mut Hook<'_>,
    interface: &str,
    ifindex: u32,
) -> Result<Standing, Refusal> {
    let standing = ensure_behind(hook, interface, ifindex)?;
    if tcx::is_foreign(hook.name, hook.at, interface) {
        return Err(Refusal::Failed(
            "a tcx program of somebody else runs before clsact and may let packets pass it by; \
             attach by tcx"
                .to_owned(),
        ));
    }
    Ok(standing)
}

/// The same among filters: behind whatever tcx runs.
pub(super) fn ensure_behind(
    hook: &mut Hook<'_>,
    interface: &str,
    ifindex: u32,
) -> Result<Standing, Refusal> {
    let program = hook.number()?;
    let all = filters::list(ifindex, hook.at).map_err(Refusal::from_system)?;
    let first = all.first().map(|filter| filter.handle);
    let ours: Vec<_> = all
        .iter()
        .filter(|filter| is_ours(filter, hook.name))
        .collect();
    let current = ours.iter().find(|filter| filter.program == program);
    let (mut standing, handle) = match (current, ours.first()) {
        (Some(current), _) => (Standing::First, current.handle),
        (None, Some(old)) => {
            replace(hook, interface, old.handle)?;
            (Standing::Inherited, old.handle)
        }
        (None, None) => {
            let [handle, _] = HANDLES;
            create(hook, interface, handle)?;
            (Standing::Placed, handle)
        }
    };
    let mut kept = handle;
    if first.is_some_and(|first| first != handle) && standing != Standing::Placed {
        // The newest of one priority runs first.
        kept = free(&ours)?;
        create(hook, interface, kept)?;
        if standing == Standing::First {
            standing = Standing::Lifted;
        }
    }
    for old in ours {
        if old.handle != kept {
            remove(interface, hook.at, old.handle);
        }
    }
    Ok(standing)
}

/// Whether a filter of ours is at the hook, whoever attached it.
pub(super) fn is_there(name: &str, at: TcAttachType, ifindex: u32) -> bool {
    filters::list(ifindex, at).is_ok_and(|all| all.iter().any(|filter| is_ours(filter, name)))
}

/// Removes our filters from the hooks of one interface.
pub(super) fn clear(interface: &str, ifindex: u32, hooks: [(&str, TcAttachType); 2]) {
    for (name, at) in hooks {
        clear_hook(interface, ifindex, name, at);
    }
}

/// Removes our filters from one hook.
pub(super) fn clear_hook(interface: &str, ifindex: u32, name: &str, at: TcAttachType) {
    for filter in filters::list(ifindex, at).unwrap_or_default() {
        if is_ours(&filter, name) {
            remove(interface, at, filter.handle);
        }
    }
}

/// Removes our filters from every interface of this namespace that is not among `keep`.
pub(super) fn clear_all(
    keep: &[u32],
    hooks: [(&str, TcAttachType); 2],
) -> Result<(), std::io::Error> {
    for interface in &if_nameindex()? {
        if !keep.contains(&interface.index()) {
            clear(
                &interface.name().to_string_lossy(),
                interface.index(),
                hooks,
            );
        }
    }
    Ok(())
}

fn is_ours(filter: &Filter, name: &str) -> bool {
    HANDLES.contains(&filter.handle) && filter.name == name
}

fn free(taken: &[&Filter]) -> Result<TcHandle, Refusal> {
    HANDLES
        .into_iter()
        .find(|handle| taken.iter().all(|filter| filter.handle != *handle))
        .ok_or_else(|| Refusal::Failed("two filters of ours stand behind another one".to_owned()))
}

fn create(hook: &mut Hook<'_>, interface: &str, handle: TcHandle) -> Result<(), Refusal> {
    match qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
        }
        other => other.map_err(|error| Refusal::Failed(chain(&error)))?,
    }
    let options = NlOptions {
        priority: PRIORITY,
        handle,
        ..NlOptions::default()
    };
    let attached =
        hook.program
            .attach_with_options(interface, hook.at, TcAttachOptions::Netlink(options));
    keep(hook.program, attached)
}

fn replace(hook: &mut Hook<'_>, interface: &str, handle: TcHandle) -> Result<(), Refusal> {
    let link = SchedClassifierLink::attached(interface, hook.at, PRIORITY, handle, None)
        .map_err(Refusal::from_system)?;
    let attached = hook.program.attach_to_link(link);
    keep(hook.program, attached)
}

/// The filter stays whatever becomes of this process.
fn keep(
    program: &mut SchedClassifier,
    attached: Result<aya::programs::tc::SchedClassifierLinkId, ProgramError>,
) -> Result<(), Refusal> {
    let link = attached
        .and_then(|id| program.take_link(id))
        .map_err(|error| Refusal::Failed(chain(&error)))?;
    // Dropping it would detach; it holds nothing but numbers.
    std::mem::forget(link);
    Ok(())
}

fn remove(interface: &str, at: TcAttachType, handle: TcHandle) {
    // One that is gone already, with its interface or without, is what was wanted.
    if let Ok(link) = SchedClassifierLink::attached(interface, at, PRIORITY, handle, None) {
        let _ = link.detach();
    }
}
