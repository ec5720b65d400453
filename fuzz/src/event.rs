//! Any bytes on the ring buffer: `event_decode`.
//!
//! In:  what the kernel, or a program of another version, may have written.
//! Out: a panic when something that no program of this version writes is taken for an event.
//! Not here: events of real packets (`packet`).

use fqdn_ebpf_common::{
    ABI_VERSION,
    event::{Event, Kind},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Any bytes: an event that is sound in every field, or none.
pub fn event_decode(data: &[u8]) {
    let Some(event) = Event::decode(data) else {
        // Nothing sound is thrown away.
        if let Ok(event) = Event::read_from_bytes(data) {
            assert!(!sound(&event, data), "{event:?}");
        }
        return;
    };
    assert_eq!(event.as_bytes(), data);
    assert!(sound(&event, data), "{event:?}");
    assert_eq!(Event::decode(event.as_bytes()), Some(event));
    let (source, destination) = (event.source().ip(), event.destination().ip());
    assert!(!format!("{source} {destination}").is_empty());
}

/// Field by field, from the layout: after two addresses come ports and single bytes.
fn sound(event: &Event, data: &[u8]) -> bool {
    let [kind, reason, direction, match_type, shadow, shadow_match] =
        [87, 88, 89, 90, 91, 92].map(|at| data[at]);
    let version = u32::from_ne_bytes([data[8], data[9], data[10], data[11]]);
    let reason_fits = match event.kind() {
        Some(Kind::Drop) => event.reason().is_some(),
        Some(Kind::Flow | Kind::Audit) => reason == 0,
        None => false,
    };
    version == ABI_VERSION
        && (1..=3).contains(&kind)
        && reason_fits
        && (direction == 1 || direction == 2)
        && match_type <= 6
        && shadow <= 6
        && shadow_match <= 6
}
