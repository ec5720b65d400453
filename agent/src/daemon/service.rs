//! What a service manager is told (sd_notify(3)).
//!
//! In:  the agent's state.
//! Out: READY, RELOADING, STATUS, STOPPING, and WATCHDOG while everything answers.
//! Not here: the unit file (`deploy/systemd`).

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the service manager, if there is one.
pub(crate) fn tell(states: &[NotifyState<'_>]) {
    // The variable stays: more messages follow.
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// How often the service manager wants to hear from us; none when it does not.
pub(crate) fn watchdog() -> Option<Duration> {
    let mut micros = 0;
    sd_notify::watchdog_enabled(false, &mut micros).then(|| Duration::from_micros(micros))
}
