//! What the rules mean: text of policies in, entries for one endpoint out.
//!
//! In:  policy files, labels of the endpoint, identities that are known.
//! Out: [`compiled::EndpointPolicy`], a value the datapath and the DNS proxy are programmed from.
//! Not here: numbers of identities (`identity`), maps (`fqdn-ebpf`), clocks, sockets.

#![forbid(unsafe_code)]

pub mod compile;
pub mod compiled;
pub mod fqdn;
pub mod l7;
pub mod lint;
pub mod model;
pub mod parse;
pub mod select;
pub mod selector;
pub mod shorthand;
