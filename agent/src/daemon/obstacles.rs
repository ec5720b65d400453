//! What on this host would keep steered DNS from the proxy, and is somebody else's.
//!
//! In:  firewalls of others, the way services are translated.
//! Out: accept rules for our marks at the head of chains that may drop, undone at the end; IPVS named.
//! Not here: our own table and rules (`network`), whether it works in the end (`trial`).

use std::fs;

use crate::pod::{self, Owner, Passage, PodError};

use super::{config::SteeringConfig, error::DaemonError, links::Links};

/// Where the kernel lists virtual services of a network namespace.
const SERVICES: &str = "/proc/net/ip_vs";
/// The interface by which kube-proxy makes service addresses local in its IPVS mode.
const KUBE_IPVS: &str = "kube-ipvs0";

/// Lets marked packets pass every chain that may drop them. Rules of agents and runs that are gone
/// go, those of this one stay: calling it again mends what a reload of a firewall took away.
pub(crate) async fn open(config: SteeringConfig) -> Result<(), DaemonError> {
    let passage = Passage::Steered {
        mark: config.mark,
        reply: config.reply_mark,
        mask: config.mask,
    };
    blocking(move || {
        pod::open_firewalls(&passage, &Owner::current())?;
        pod::close_firewalls(&|owner| !owner.may_live())
    })
    .await
}

/// Takes our rules back.
pub(crate) async fn close() {
    let own = Owner::current();
    let closed =
        blocking(move || pod::close_firewalls(&|owner| *owner == own || !owner.may_live()));
    if let Err(error) = closed.await {
        tracing::warn!(%error, "rules in firewalls of others stay");
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), PodError> + Send + 'static,
) -> Result<(), DaemonError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| DaemonError::system("the firewalls of others")(error.into()))??)
}

/// Virtual services are local to the node and translated on the way in: queries to them never get to
/// where they could be steered.
///
/// # Errors
/// When there are any.
pub(crate) fn refuse_ipvs(links: &Links) -> Result<(), DaemonError> {
    let listed = fs::read_to_string(SERVICES).unwrap_or_default();
    if links.by_name(KUBE_IPVS).is_some() {
        Err(DaemonError::Ipvs {
            seen: format!("there is an interface `{KUBE_IPVS}`"),
        })
    } else if has_services(&listed) {
        Err(DaemonError::Ipvs {
            seen: format!("{SERVICES} lists virtual services"),
        })
    } else {
        Ok(())
    }
}

/// Whether a listing names a service: by address (`TCP`, `UDP`, `SCTP`) or by mark (`FWM`).
fn has_services(listed: &str) -> bool {
    listed.lines().any(|line| {
        ["TCP ", "UDP ", "SCTP ", "FWM "]
            .iter()
            .any(|kind| line.starts_with(kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_services_is_no_obstacle() {
        let head = "IP Virtual Server version 1.2.1 (size=4096)\n\
                    Prot LocalAddress:Port Scheduler Flags\n  \
                    -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
        assert!(!has_services(head));
        assert!(!has_services(""));
        assert!(has_services(&format!("{head}TCP  0A600001:01BB rr\n")));
        assert!(has_services(&format!("{head}FWM  00000001 rr\n")));
    }
}
