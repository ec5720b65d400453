//! The kernel programs: one for each direction, at the host side of every workload's veth pair.
//!
//! In:  packets (`__sk_buff`) and the maps of `maps`.
//! Out: let through, dropped, or handed to the DNS proxy; counters and events about it.
//! Not here: what decides (`fqdn-ebpf-common`, the same code as on the host); loading (`loader`).
//!
//! Unsafe code: BPF helpers take raw pointers. Each module that calls them says why it may.

#![no_std]
#![no_main]

mod env;
mod inner;
mod maps;
mod record;
mod steer;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_coarse_ns,
    macros::classifier,
    programs::TcContext,
};
use fqdn_ebpf_common::{
    Direction,
    config::Config,
    endpoint::Endpoint,
    env::Meta,
    metric::Passed,
    path::{self, Scratch, Verdict},
    reason::DropReason,
};

use crate::{env::Skb, steer::Steered};

/// Hand on to the next program: others may be in the chain behind this one.
const NEXT: i32 = TC_ACT_UNSPEC;
const DROP: i32 = TC_ACT_SHOT;

/// What the workload sends (tc ingress of the host side).
#[classifier]
pub fn tc_from_pod(ctx: TcContext) -> i32 {
    run(&Skb::new(&ctx), Direction::Egress)
}

/// What the workload is sent (tc egress of the host side).
#[classifier]
pub fn tc_to_pod(ctx: TcContext) -> i32 {
    run(&Skb::new(&ctx), Direction::Ingress)
}

#[inline(always)]
fn run(skb: &Skb, direction: Direction) -> i32 {
    let meta = Meta {
        direction,
        mark: skb.mark(),
        ingress_ifindex: skb.ingress_ifindex(),
        vlan: skb.vlan_present(),
        // SAFETY: the helper takes no arguments.
        now: unsafe { bpf_ktime_get_coarse_ns() },
    };
    let Some(scratch) = maps::scratch(direction) else {
        // Cannot be: the index is in the array. The verifier wants it said.
        return DROP;
    };
    let config = maps::CONFIG.get(0);
    let endpoint = maps::endpoint(skb.ifindex());
    let verdict = path::decide(skb, &meta, config, endpoint, scratch);
    settle(skb, &meta, config, endpoint, scratch, verdict)
}

/// Carries a verdict out. The one place where verdicts become return codes.
#[inline(always)]
fn settle(
    skb: &Skb,
    meta: &Meta,
    config: Option<&Config>,
    endpoint: Option<&Endpoint>,
    scratch: &mut Scratch,
    verdict: Verdict,
) -> i32 {
    match verdict {
        Verdict::Pass(passed) => {
            record::passed(passed, meta.direction, skb);
            record::event(skb, meta, config, endpoint, scratch);
            NEXT
        }
        Verdict::Drop(reason) => {
            record::dropped(reason, meta.direction, skb);
            record::event(skb, meta, config, endpoint, scratch);
            DROP
        }
        Verdict::Steer => {
            let outcome = match (config, endpoint) {
                (Some(config), Some(endpoint)) => {
                    steer::to_proxy(skb, config, endpoint, &scratch.packet)
                }
                // Without them nothing is ever steered.
                (None, _) | (_, None) => Err(DropReason::NoConfig),
            };
            match outcome {
                Ok(Steered::Marked) => {
                    record::passed(Passed::Steered, meta.direction, skb);
                    NEXT
                }
                Ok(Steered::Redirected(code)) => {
                    record::passed(Passed::Steered, meta.direction, skb);
                    code
                }
                Err(reason) => {
                    if endpoint.is_some_and(Endpoint::is_audited) {
                        record::passed(Passed::Unsteered, meta.direction, skb);
                        return NEXT;
                    }
                    scratch.report.dropped(reason);
                    record::dropped(reason, meta.direction, skb);
                    record::event(skb, meta, config, endpoint, scratch);
                    DROP
                }
            }
        }
    }
}

/// Nothing panics: the shared code has no checked arithmetic, no indexing, no unwrapping. The
/// linker removes this, and the verifier would refuse the endless loop if it did not.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel gives GPL-only helpers to programs that say so.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";
