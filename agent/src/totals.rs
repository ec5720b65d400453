//! Exact totals out of the kernel's counters.
//!
//! In:  METRICS, counts of lookups.
//! Out: [`Totals`].
//! Not here: reading METRICS (`fqdn-ebpf/loader`).

use fqdn_ebpf_loader::{Direction, DropReason, Metrics, Passed};

use crate::{api::Totals, recorder::LookupCounts};

/// Packets that went on as policy allows.
const FORWARDED: &[Passed] = &[
    Passed::Established,
    Passed::New,
    Passed::Control,
    Passed::Steered,
    Passed::FromProxy,
    Passed::Related,
    Passed::Renewed,
];
/// Packets that went on only because of audit.
const AUDITED: &[Passed] = &[Passed::Audited, Passed::Unsteered, Passed::Spared];
/// Events that never reached user space.
const LOST: &[Passed] = &[Passed::EventSuppressed, Passed::EventLost];

/// Adds up.
pub(crate) fn of(metrics: &Metrics, lookups: LookupCounts, lost_records: u64) -> Totals {
    let passed = |whats: &[Passed]| sum(metrics, whats);
    Totals {
        forwarded_packets: passed(FORWARDED),
        dropped_packets: metrics.drops().map(|(.., count)| count.packets()).sum(),
        denied_packets: metrics
            .drops()
            .filter(|(reason, direction, _)| is_denial(*reason, *direction))
            .map(|(.., count)| count.packets())
            .sum(),
        audited_packets: passed(AUDITED),
        lookups_answered: lookups.answered,
        lookups_refused: lookups.refused,
        lookups_failed: lookups.failed,
        lost_events: passed(LOST).saturating_add(lost_records),
    }
}

/// Whether a drop refused something that the workload tried. An ICMP error about no known flow is the
/// workload's kernel answering a late reply, and what comes in unasked was somebody else's try.
pub(crate) fn is_denial(reason: DropReason, direction: Direction) -> bool {
    direction == Direction::Egress && reason != DropReason::IcmpErrorUnrelated
}

fn sum(metrics: &Metrics, whats: &[Passed]) -> u64 {
    whats
        .iter()
        .flat_map(|what| {
            [Direction::Ingress, Direction::Egress]
                .map(|direction| metrics.passed(*what, direction).packets())
        })
        .sum()
}
