//! What is enforced, and what would be were no policy in audit.
//!
//! In:  the policies of an endpoint, compiled with and without those in audit.
//! Out: [`Layered`]; which policies in audit are behind a difference.
//! Not here: comparing the two for a packet (`fqdn-ebpf/common`), for a question (`dnsproxy/core`).

use std::sync::Arc;

use super::{Direction, EndpointPolicy, PolicyRef};

/// One endpoint's policies in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layered {
    /// All of them: what names teach, what is watched.
    pub whole: Arc<EndpointPolicy>,
    /// The part that is enforced; none where that is all of them.
    pub enforced: Option<Arc<EndpointPolicy>>,
}

impl Layered {
    /// What is enforced.
    pub fn in_force(&self) -> &Arc<EndpointPolicy> {
        self.enforced.as_ref().unwrap_or(&self.whole)
    }

    /// The policies in audit that would put a direction in default deny.
    pub fn would_shut(&self, direction: Direction) -> Vec<PolicyRef> {
        let enforced = self.enforced.as_deref();
        let is_enforced = |policy: &&PolicyRef| {
            enforced.is_some_and(|enforced| enforced.shut_by(direction).any(|own| own == *policy))
        };
        let all = self.whole.shut_by(direction);
        all.filter(|policy| !is_enforced(policy)).cloned().collect()
    }
}
