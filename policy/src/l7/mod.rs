//! What may be said inside of a connection: HTTP, Kafka, TLS server names.
//!
//! In:  the L7 part of a port rule, and one request.
//! Out: whether the request is allowed.
//! Not here: which connections the part is about (`compiled::L7Grant`), a proxy that reads
//!      requests off the wire.

pub mod http;
pub mod kafka;
mod sni;
mod tls;
mod whole_match;

pub use sni::ServerName;
pub use tls::{SecretRef, TlsContext};
pub use whole_match::{MAX_REGEX_LEN, RegexError, WholeMatch};

/// The L7 part of one port rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L7 {
    /// What requests may be.
    pub rules: Requests,
    /// The names a client may ask for in its TLS hello; none is no restriction.
    pub server_names: Vec<ServerName>,
    /// How the client's TLS is ended, if it is.
    pub terminating_tls: Option<TlsContext>,
    /// How TLS to the server is begun, if it is.
    pub originating_tls: Option<TlsContext>,
}

/// What requests may be. A request needs one rule that matches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Requests {
    /// No restriction was written.
    #[default]
    Any,
    /// `rules.http`.
    Http(Vec<http::Rule>),
    /// `rules.kafka`.
    Kafka(Vec<kafka::Rule>),
}

/// Which proxy a rule needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proxy {
    /// Server names of TLS, or TLS that is ended and begun anew.
    Tls,
    /// HTTP, gRPC included.
    Http,
    /// Kafka.
    Kafka,
}

impl Proxy {
    /// The word reports use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "sni",
            Self::Http => "http",
            Self::Kafka => "kafka",
        }
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing said inside of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// An HTTP request.
    Http(&'a http::Request),
    /// A Kafka request.
    Kafka(&'a kafka::Request),
    /// The server name of a TLS hello; none when it has none.
    Hello(Option<&'a str>),
}

impl L7 {
    /// The proxy that can tell.
    pub const fn proxy(&self) -> Proxy {
        match self.rules {
            Requests::Http(_) => Proxy::Http,
            Requests::Kafka(_) => Proxy::Kafka,
            Requests::Any => Proxy::Tls,
        }
    }

    /// Whether the rule allows it. A message of another protocol than the rule speaks about is
    /// not allowed.
    pub fn allows(&self, message: Message<'_>) -> bool {
        match (message, &self.rules) {
            (Message::Http(request), Requests::Http(rules)) => http::allows(rules, request),
            (Message::Kafka(request), Requests::Kafka(rules)) => kafka::allows(rules, request),
            (Message::Hello(name), _) => self.allows_hello(name),
            // Inside of TLS that nobody ends there is nothing to see.
            (_, Requests::Any) => self.server_names.is_empty(),
            _ => false,
        }
    }

    fn allows_hello(&self, name: Option<&str>) -> bool {
        self.server_names.is_empty()
            || name.is_some_and(|name| self.server_names.iter().any(|own| own.matches(name)))
    }
}
