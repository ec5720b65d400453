//! The transparent DNS proxy: sockets around [`dnsproxy_core`], one shard per thread.
//!
//! In:  datagrams and connections that the kernel program steers here, replies of resolvers,
//!      policy snapshots over a channel.
//! Out: queries to resolvers, replies to clients with the source address of the server they
//!      asked, map writes through a caller's [`LearnedWriter`](dnsproxy_core::LearnedWriter).
//! Not here: any decision (`dnsproxy-core`), the maps (`fqdn-ebpf/loader`), steering
//!      (`fqdn-ebpf`, `agent`).

#![forbid(unsafe_code)]

mod clock;
mod connections;
mod control;
mod datagram;
mod entropy;
mod listeners;
mod opener;
mod poller;
mod reply;
mod shard;
mod stream;
mod thread;
mod upstreams;

pub use clock::now;
pub use connections::TcpLimits;
pub use control::{Control, ControlMsg, Ended, ShardCounters};
pub use entropy::entropy;
pub use listeners::{ListenerSpec, Listeners};
pub use opener::{Family, Opener, host_opener, local_opener};
use shard::Shard;
pub use thread::{ShardThread, spawn};
pub use upstreams::Upstreams;
