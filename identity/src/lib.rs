//! Who is talking: numbers for label sets, CIDR prefixes and sets of FQDN selectors.
//!
//! In:  labels of workloads, prefixes named by policies, sets of opaque [`SelectorId`]s.
//! Out: [`IdentityId`]s, the only thing the kernel and the policy map know about a peer.
//! Not here: what a selector means (`policy`), which address has which name (`dnsproxy/core`).
//!
//! Nothing is shared between nodes: a number means what it means on this node only, and a
//! number that was handed out is never handed out for anything else.

#![forbid(unsafe_code)]

mod address_book;
mod cidr;
mod endpoint;
mod id;
mod label;
mod local;
mod selector;

pub use address_book::AddressBook;
pub use cidr::covering_prefixes;
pub use endpoint::EndpointId;
pub use id::{IdentityId, reserved};
pub use label::{Label, LabelError, LabelSet, source};
pub use local::{
    IdentitiesExhausted, LabelIdentities, LocalIdentities, LocalIdentity, MAX_FQDN_SETS_PER_NODE,
};
pub use selector::{SelectorId, SelectorSet};
