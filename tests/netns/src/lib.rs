//! What the real-packet tests share: lines of shell for inside the pod, policies, DNS messages.
//!
//! In:  names, addresses, ports.
//! Out: command lines whose status tells "reached" from "refused"; policy texts; [`wire`] and
//!      [`ask`]; [`echo`], servers and clients of every protocol; [`strange`], a resolver that answers everything but what it was asked; [`race`];
//!      [`traffic`] that runs beside a test, and the count of it on the [`far`] side.
//! Not here: the world (`support`), the promises (`tests/`).

#![forbid(unsafe_code)]

pub mod ask;
pub mod cycles;
pub mod echo;
pub mod far;
pub mod policies;
pub mod race;
pub mod strange;
pub mod traffic;
pub mod wire;

use support::{Output, slowness};

/// A request that should be answered: patient, so that a busy machine does not fail a test.
pub fn get(url: &str) -> String {
    let slow = slowness();
    // The C library's own patience with a resolver is 5 s.
    format!(
        "env RES_OPTIONS=timeout:{} curl -sS --connect-timeout {} --max-time {} {url}",
        5 * slow,
        8 * slow,
        15 * slow
    )
}

/// A request that should be refused: short, because a dropped packet is answered by silence.
pub fn knock(url: &str) -> String {
    format!("curl -ksS --connect-timeout 1.2 --max-time 3 -o /dev/null {url}")
}

/// A question over UDP through the pod's own resolver, whole answer.
pub fn dig(words: &str) -> String {
    format!("dig +time={} +tries=1 {words}", 3 * slowness())
}

/// A bare TCP connection that should be refused.
pub fn connect(address: &str, port: u16) -> String {
    format!("timeout 1.2 bash -c 'exec 3<>/dev/tcp/{address}/{port}'")
}

/// Whether a knock ended the way a drop or a reject ends: curl 7 and 28, timeout 124, bash 1.
pub fn is_refused(output: &Output) -> bool {
    matches!(output.status, 1 | 7 | 28 | 124)
}

/// An error that shows the output, unless a knock was refused.
pub fn refused(output: &Output) -> anyhow::Result<()> {
    anyhow::ensure!(
        is_refused(output),
        "this should have been refused: {output:?}"
    );
    Ok(())
}

/// An error that shows the output, unless a request was answered by this server address.
pub fn answered_by(output: &Output, address: &str) -> anyhow::Result<()> {
    let server = output.stdout.split_whitespace().nth(1).unwrap_or_default();
    anyhow::ensure!(
        output.status == 0 && server == address,
        "no answer of {address}: {output:?}"
    );
    Ok(())
}
