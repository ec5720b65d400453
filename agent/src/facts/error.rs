//! What is wrong with a file of facts or flows, where, and what to do.
//!
//! In:  a mistake found while reading or cross-checking.
//! Out: [`InputError`]: `file:line:column: field: cause`.
//! Not here: mistakes in policies (`policy::parse`).

use std::{fmt, io, sync::Arc};

use super::Protocol;

/// One mistake in one file.
#[derive(Debug)]
pub struct InputError {
    /// The file, as named on the command line.
    pub file: Arc<str>,
    /// From 1; 0 when it is about the whole file.
    pub line: u64,
    /// From 1; 0 when it is about the whole file.
    pub column: u64,
    /// The field, like `flows[2].to`; empty when it is about the whole file.
    pub field: String,
    /// What is wrong.
    pub cause: Cause,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl std::error::Error for InputError {}

/// What can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file is too large.
    #[error("the file has more than {limit} bytes; split it")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("the file is not UTF-8 text (byte {at})")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// Not what belongs here.
    #[error("{0}")]
    Syntax(String),
    /// A name nobody has.
    #[error("the world has no {kind} `{name}`{}", known_as(.suggestion.as_deref()))]
    Unknown {
        /// `endpoint`, `node`.
        kind: &'static str,
        /// The name.
        name: String,
        /// One spelled alike.
        suggestion: Option<String>,
    },
    /// Neither `NAMESPACE/NAME`, `node/NAME` nor an address.
    #[error("`{0}` is not NAMESPACE/NAME of an endpoint, node/NAME or an address")]
    NotAPeer(String),
    /// The same thing twice.
    #[error("{kind} `{name}` is there twice")]
    Twice {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An address of two things.
    #[error("the address {address} already belongs to {owner}")]
    AddressTaken {
        /// The address.
        address: std::net::IpAddr,
        /// Whose it is.
        owner: String,
    },
    /// Two local nodes.
    #[error("`{0}` is local too: flows are judged from one node")]
    SecondLocalNode(String),
    /// An endpoint with `local: true` on another node.
    #[error("the node `{0}` contradicts `local`")]
    HomeContradicts(String),
    /// A service opens flows.
    #[error("the address belongs to the service `{0}`, which opens no flows")]
    FromService(String),
    /// No common family.
    #[error("`{from}` and `{to}` have no addresses of a common family{}", for_protocol(*.protocol))]
    NoCommonFamily {
        /// Who opens the flow.
        from: String,
        /// To whom.
        to: String,
        /// The protocol that allows one family only.
        protocol: Option<Protocol>,
    },
    /// `port` missing.
    #[error("{0} needs a `port`")]
    PortMissing(Protocol),
    /// `port` with ICMP.
    #[error("{0} has no ports; write `icmp: {{type: …}}`")]
    PortWithIcmp(Protocol),
    /// `icmp` without ICMP.
    #[error("only ICMP and ICMPv6 have types, not {0}")]
    IcmpWithout(Protocol),
    /// An L7 part on a protocol that cannot carry it.
    #[error("`{part}` does not run over {protocol}")]
    L7OverWrongProtocol {
        /// The field.
        part: &'static str,
        /// The protocol.
        protocol: Protocol,
    },
    /// Not a call of Kafka.
    #[error("`{0}` is neither the name nor the number of a call of Kafka")]
    ApiKey(String),
    /// Two L7 parts.
    #[error("a flow has one of `dns`, `http`, `kafka` and `sni`")]
    SeveralL7,
    /// Not a DNS name.
    #[error("`{name}` is not a DNS name: {why}")]
    Name {
        /// The text.
        name: String,
        /// Why not.
        why: String,
    },
    /// Not a label key.
    #[error("`{0}` is not a label key")]
    Label(String),
    /// `expect` missing.
    #[error("every flow of a scenario needs `expect`")]
    ExpectMissing,
    /// The scenario leaves something out.
    #[error("the scenario has no `{field}`; write it, or give {option}")]
    Absent {
        /// The field.
        field: &'static str,
        /// The option of the command line.
        option: &'static str,
    },
    /// No flows.
    #[error("there are no flows to judge: write `flows` or give --flows")]
    NoFlows,
}

fn known_as(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |s| format!("; did you mean `{s}`?"))
}

fn for_protocol(protocol: Option<Protocol>) -> String {
    protocol.map_or_else(String::new, |p| format!(" that {p} runs over"))
}
