//! The only user of aya: loads the kernel programs, attaches them, reads and writes their maps.
//!
//! In:  endpoints, compiled policies, address books, learned addresses.
//! Out: a [`Datapath`] in the kernel; a [`Writer`] for what DNS teaches; [`Events`], counts, dumps.
//! Not here: what a packet's verdict is (`fqdn-ebpf/common`), netns and veth pairs (`agent`).
//!
//! No unsafe code: records cross the border as byte arrays that zerocopy checks.

#![forbid(unsafe_code)]

mod adopt;
mod attach;
mod carry;
mod clock;
mod datapath;
mod dump;
mod endpoint;
mod error;
mod events;
mod hits;
mod ipcache;
mod metrics;
mod needs;
mod pins;
mod policies;
mod shape;
mod sizes;
mod slots;
mod table;
mod testrun;
mod writer;

pub use adopt::Adopted;
pub use attach::{Attach, Attached, Standing, clear_filters};
pub use carry::Origin;
pub use datapath::Datapath;
pub use dump::{FlowRow, LearnedRow, PolicyRow};
pub use endpoint::{BridgePort, EndpointSpec};
pub use error::{AttachError, LoadError, MapError};
pub use events::Events;
pub use fqdn_ebpf_common::{
    ABI_VERSION, Direction,
    config::{Config, Marks},
    endpoint::PolicyId,
    event::{Event, Kind as EventKind},
    metric::{Count, Passed},
    policy::{Action, MatchType},
    reason::DropReason,
};
pub use metrics::{Counters, Metrics};
pub use pins::Pins;
pub use sizes::Sizes;
pub use testrun::{Program, Ran, Run};
pub use writer::Writer;
