//! Traffic that is allowed only to whom a proxy lets pass.
//!
//! In:  port rules with an L7 part.
//! Out: who, where, and what may be said there.
//! Not here: judging a message (`l7`), which grants are about a flow (`judge`).

use std::sync::Arc;

use super::{Direction, L4, Peer, RuleOrigin};
use crate::l7::L7;

/// One L7 part for one peer and L4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L7Grant {
    /// Which way.
    pub direction: Direction,
    /// Whom.
    pub peer: Peer,
    /// Which protocol and port.
    pub l4: L4,
    /// What may be said.
    pub l7: Arc<L7>,
    /// The rule.
    pub rule: Arc<RuleOrigin>,
}
