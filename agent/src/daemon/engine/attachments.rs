//! Programs stay where they were attached, whatever others do to the interface.
//!
//! In:  a call from time to time, and whenever filters changed.
//! Out: every program attached and first in its chain; a log line and a count where it was not.
//! Not here: attaching for the first time (`endpoints`).

use fqdn_ebpf_loader::Standing;

use super::{super::workload::Workload, Engine, endpoints::problem};

impl Engine {
    /// Looks whether every program is still first at its hook, and puts right what is not. Where
    /// that cannot be, the endpoint's problem says so until it can.
    pub(crate) fn look_after(&mut self) {
        let names: Vec<_> = self.workloads.keys().cloned().collect();
        for name in names {
            let Some(mut workload) = self.workloads.remove(&name) else {
                continue;
            };
            self.look_after_one(&mut workload);
            self.workloads.insert(name, workload);
        }
    }

    fn look_after_one(&mut self, workload: &mut Workload) {
        let Some((_, attached)) = workload.attached.as_mut() else {
            return;
        };
        match self.datapath.look_after(attached) {
            Ok(found) => {
                for (standing, hook) in found.into_iter().zip(["ingress", "egress"]) {
                    let was = match standing {
                        Standing::First => continue,
                        Standing::Placed => "gone",
                        Standing::Lifted => "behind others",
                        Standing::Inherited => "another one",
                    };
                    self.put_right += 1;
                    tracing::warn!(
                        interface = workload.config.interface,
                        hook,
                        was,
                        "the program was put back in its place"
                    );
                }
                if std::mem::take(&mut workload.loose) {
                    workload.problem = None;
                }
            }
            // An interface that is gone is found by the next look at interfaces.
            Err(fqdn_ebpf_loader::AttachError::NoInterface(_)) => {}
            Err(error) => {
                workload.loose = true;
                problem(workload, error.to_string());
            }
        }
    }

    /// How often a program was not where it belongs.
    pub(crate) const fn put_right(&self) -> u64 {
        self.put_right
    }
}
