//! What a packet has to pass between the workload and the outside.
//!
//! In:  the place.
//! Out: [`Subjects`], one of which at a time is in the way.
//! Not here: sending packets (`traffic`).

use anyhow::Context as _;
use fqdn_ebpf_loader::{Attach, Config};

use super::{
    engine::Engine,
    minimal::Minimal,
    place::{HOST_SIDE, Place},
};

pub(super) const NOTHING: &str = "nothing attached";
pub(super) const NFTABLES: &str = "nftables, ct and a set";
pub(super) const MINIMAL: &str = "minimal program";
pub(super) const OURS: &str = "namegate";
/// The same without a budget for events, and without a single event: what telling costs.
const EVERY_EVENT: &str = "namegate, every event";
const NO_EVENT: &str = "namegate, no event";

pub(super) const ALL: [&str; 6] = [NOTHING, NFTABLES, MINIMAL, OURS, EVERY_EVENT, NO_EVENT];

/// Established first, then a set of where new flows may go; everything else of the workload ends.
const RULES: &str = "
table inet bench {
    set allowed { type ipv4_addr; flags interval; elements = { 198.18.0.10, 198.19.0.0/16 } }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip saddr 10.201.0.2 meta l4proto { tcp, udp } ip daddr @allowed th dport 443 accept
    }
}
";

/// More than any of these machines can cause.
const UNLIMITED: u32 = 10_000_000;

/// Everything that can be put in the way, loaded once.
#[derive(Debug)]
pub(super) struct Subjects<'a> {
    place: &'a Place,
    minimal: Minimal,
    engine: Engine,
}

impl<'a> Subjects<'a> {
    pub(super) fn new(place: &'a Place, minimal: Minimal, engine: Engine) -> Self {
        Self {
            place,
            minimal,
            engine,
        }
    }

    /// Does something while `subject` is in the way.
    pub(super) fn with<T>(
        &mut self,
        subject: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let node = &self.place.node;
        match subject {
            NOTHING => work(),
            NFTABLES => {
                node.nft(RULES)?;
                let done = work();
                node.nft("delete table inet bench")?;
                done
            }
            MINIMAL => {
                let _links = node.run(|| self.minimal.attach(HOST_SIDE))??;
                work()
            }
            OURS | EVERY_EVENT | NO_EVENT => {
                let config = Config::default();
                self.engine.datapath.configure(match subject {
                    EVERY_EVENT => config.with_events(UNLIMITED, UNLIMITED),
                    NO_EVENT => config.with_events(0, 0),
                    _ => config,
                })?;
                let attached = node
                    .run(|| self.engine.datapath.attach(HOST_SIDE, Attach::Tcx))?
                    .context("attaching")?;
                let done = work();
                attached.detach();
                done
            }
            other => anyhow::bail!("nothing is called `{other}`"),
        }
    }
}
