//! DNS scripts with virtual time: a whole conversation as text, run against `dnsproxy_core::Core`.
//!
//! In:  a script (`scripts/*.txt`), one command per line, each followed by what it must cause.
//! Out: nothing, or the first line whose effects are not the ones written below it.
//! Not here: sockets, the kernel; its LEARNED map is played by `kernel::Kernel`.
//!
//! A line that starts with `>` is an expected effect; everything a command causes must be listed,
//! in order. `#` starts a comment. Commands:
//!
//! ```text
//! limit in-flight|names|addresses|addresses-per-name|unmatched|names-per-address N
//! setting refuse-with nxdomain | withhold-private | allow PREFIX      (before anything else)
//! trust IP[:PORT]… ; redirect IP to IP… ; identity IP N ; node IP
//! endpoint N IP [audit]           a workload whose every name may be asked
//! fqdn N NAME|PATTERN…            its toFQDNs selectors (replaces)
//! coming N NAME|PATTERN…          what they will be after the change under way (`fqdn` ends it)
//! dns N NAME|PATTERN…             its rules.dns names (replaces)
//! gone N                          the workload is deleted
//! apply                           a snapshot of all that
//! wait SECONDS                    time passes, deadlines are met
//! ask Q N udp|tcp TYPE NAME at SERVER [edns] [port=P] [id=I] [class=CH] [conn=C]
//! again Q                         the client sends the same bytes again
//! forge N udp|tcp short|response|notify|no-question|two-questions|pointer|junk|transfer at SERVER
//! flood COUNT N TYPE NAME at SERVER      `%` in NAME counts; effects are summed up
//! reply Q [RCODE] [tc] [from=SERVER] [slot] [id] [question=NAME] [type=TYPE] [empty] [cut]
//!     answer|additional NAME TTL TYPE DATA   indented, each a record
//! unreachable Q REASON… ; close C
//! map capacity N | fail N | hold | go    fail the next N writes; hold batches back
//! connect N IP                    what the kernel would say to a new connection
//! clean N|all [PATTERN]           an operator has names forgotten
//! cache N ; count COUNTER ; usage N
//! ```

#![forbid(unsafe_code)]
#![expect(
    clippy::indexing_slicing,
    reason = "a script that is wrong may end its test"
)]

mod conversation;
mod kernel;
mod message;
mod script;
mod world;

pub use script::{rewrite, run};
