//! Counters and events.
//!
//! In:  what became of a packet.
//! Out: METRICS, exactly; EVENTS, as far as the endpoint's token bucket allows.
//! Not here: what an event says (`fqdn-ebpf-common::event`).

use fqdn_ebpf_common::{
    Direction,
    config::Config,
    endpoint::Endpoint,
    env::Meta,
    event::{Event, Scene},
    metric::{self, Passed},
    packet::Bytes as _,
    path::Scratch,
    reason::DropReason,
};

use crate::{
    env::{Skb, boot_now},
    maps,
};

/// Counts a packet that goes on.
#[inline(always)]
pub(crate) fn passed(passed: Passed, direction: Direction, skb: &Skb) {
    count(metric::passed(passed, direction), skb);
}

/// Counts a packet that ends here.
#[inline(always)]
pub(crate) fn dropped(reason: DropReason, direction: Direction, skb: &Skb) {
    count(metric::dropped(reason, direction), skb);
}

#[inline(always)]
fn count(index: u32, skb: &Skb) {
    if let Some(count) = maps::METRICS.get_ptr_mut(index) {
        // SAFETY: the element is this processor's own.
        unsafe { (*count).add(skb.len()) }
    }
}

/// Tells user space, if there is something to tell and the endpoint has not told too much.
#[inline(always)]
pub(crate) fn event(
    skb: &Skb,
    meta: &Meta,
    config: Option<&Config>,
    endpoint: Option<&Endpoint>,
    scratch: &Scratch,
) {
    if !scratch.report.is_some() {
        return;
    }
    let Some(config) = config else {
        return;
    };
    let bucket = match endpoint {
        Some(endpoint) => endpoint.slot().wrapping_add(1),
        None => 0,
    };
    let Some(bucket) = maps::TOKENS.get_ptr_mut(bucket) else {
        return;
    };
    // SAFETY: the element stays valid for the run; see `bucket` for races between processors.
    let allowed =
        unsafe { (*bucket).take(meta.now, config.events_per_second(), config.event_burst()) };
    if !allowed {
        return passed(Passed::EventSuppressed, meta.direction, skb);
    }
    let Some(mut room) = maps::EVENTS.reserve(0) else {
        return passed(Passed::EventLost, meta.direction, skb);
    };
    let scene = Scene {
        time: boot_now(),
        direction: meta.direction,
        ifindex: skb.ifindex(),
        length: skb.len(),
    };
    room.write(Event::new(
        &scene,
        endpoint,
        &scratch.packet,
        &scratch.report,
    ));
    room.submit(0);
}
