//! What an operator sees of the ledger.
//!
//! In:  the ledger's names.
//! Out: rows for `fqdn cache list`, and what `fqdn cache clean` did.
//! Not here: the table (`cli`).

use std::net::IpAddr;

use identity::EndpointId;
use policy::fqdn::Fqdn;

use crate::Moment;

/// Why a row exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// An answer whose time is not over.
    Lookup,
    /// A connection that outlives its answer.
    Connection,
}

/// A name an endpoint resolved and may reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheRow {
    /// Which workload.
    pub endpoint: EndpointId,
    /// Why it is here.
    pub source: Source,
    /// The name that was asked.
    pub name: Fqdn,
    /// Lowest TTL of the answer, in seconds, as the resolver gave it.
    pub ttl: u32,
    /// When the last answer came.
    pub looked_up: Moment,
    /// When new connections stop being allowed.
    pub expires: Moment,
    /// Where the name led.
    pub addresses: Vec<IpAddr>,
}

/// How much was forgotten on an operator's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cleaned {
    /// Names, those that matched no rule included.
    pub names: usize,
    /// Addresses that are closed to new connections.
    pub addresses: usize,
}

impl std::ops::AddAssign for Cleaned {
    fn add_assign(&mut self, other: Self) {
        self.names += other.names;
        self.addresses += other.addresses;
    }
}
