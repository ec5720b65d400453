//! `CiliumCIDRGroup`: prefixes under a name.
//!
//! In:  the object.
//! Out: [`CidrGroup`], which rules refer to by name or by label.
//! Not here: who refers to it (`peers`).

use std::sync::Arc;

use identity::LabelSet;
use ipnet::IpNet;

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrGroup {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: LabelSet,
    /// Its prefixes, host bits cleared.
    pub prefixes: Vec<IpNet>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line it starts on.
    pub line: u32,
}
