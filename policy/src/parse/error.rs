//! What is wrong with a policy file, where, and what to do.
//!
//! In:  a mistake found while reading.
//! Out: [`PolicyError`]: `file:line:column: document 2: field: what is wrong; what to do`.
//! Not here: mistakes that depend on the endpoint or on other policies (`compile`, `lint`).

use std::{fmt, sync::Arc};

use crate::{fqdn::NameError, l7::RegexError};

/// One mistake in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file, as named by the caller.
    pub file: Arc<str>,
    /// Which document of the file, from 1; none when it is the only one, or about all of them.
    pub document: Option<u32>,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// The field, like `spec.egress[0].toFQDNs[1].matchName`; empty when it is about the file.
    pub field: String,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if let Some(document) = self.document {
            write!(f, "document {document}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.problem)?;
        if let Some(remedy) = self.problem.remedy() {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is not UTF-8.
    #[error("the file is not UTF-8 text (byte {at})")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// The file is too large.
    #[error("the file has {len} bytes; at most {limit} are read")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Nested too deeply.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Too many values, aliases expanded.
    #[error("more than {limit} values, counting every use of an alias")]
    TooManyNodes {
        /// The limit.
        limit: usize,
    },
    /// Not YAML.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// An alias inside the value it stands for.
    #[error("the alias refers to a value it is part of, or to none")]
    AliasOfItself,
    /// A YAML tag.
    #[error("the YAML tag `{0}` is not supported")]
    Tag(String),
    /// `<<`.
    #[error("the merge key `<<` is not supported")]
    MergeKey,
    /// A list or mapping as key.
    #[error("a key has to be text")]
    KeyNotText,
    /// A key twice.
    #[error("the key `{0}` appears twice")]
    DuplicateKey(String),
    /// A value of the wrong type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What belongs here.
        expected: &'static str,
        /// What is here.
        found: &'static str,
    },
    /// A null where absence and emptiness mean different things.
    #[error("the value is missing (null)")]
    Null,
    /// A required field is absent.
    #[error("the field `{0}` is required")]
    Missing(&'static str),
    /// A field nobody knows.
    #[error("unknown field `{name}`")]
    UnknownField {
        /// The field.
        name: String,
        /// A known field spelled alike.
        suggestion: Option<&'static str>,
    },
    /// Part of the language, but not of this version.
    #[error("`{0}` is not supported yet")]
    Unsupported(String),
    /// A document of an unknown kind in a known API group.
    #[error("unknown kind `{kind}` of `{api_version}`")]
    UnknownKind {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
    },
    /// A policy kind with another `apiVersion`.
    #[error("`{kind}` of `{found}` is not understood")]
    ApiVersion {
        /// `kind`.
        kind: String,
        /// `apiVersion`.
        found: String,
        /// The one that is understood.
        expected: &'static str,
    },
    /// A document that is not a Kubernetes object.
    #[error("this is not a Kubernetes object: it has no `kind`")]
    NotAnObject,
    /// Neither `spec` nor `specs`.
    #[error("the policy has neither `spec` nor `specs`")]
    NoSpec,
    /// A rule without any section.
    #[error("the rule has no `ingress`, `ingressDeny`, `egress` or `egressDeny` element")]
    NoSection,
    /// A cluster-wide policy with a namespace.
    #[error("a cluster-wide policy has no namespace")]
    NamespaceOnClusterwide,
    /// An object name that Kubernetes refuses.
    #[error("`{0}` is not a valid name of a Kubernetes object")]
    ObjectName(String),
    /// Two L3 members in one rule.
    #[error("`{0}` and `{1}` cannot be combined in one rule")]
    Combined(&'static str, &'static str),
    /// `icmps` beside `toPorts`.
    #[error("`icmps` cannot stand beside `toPorts`")]
    IcmpWithPorts,
    /// Not one of a closed list of words.
    #[error("`{found}` is not one of {allowed}")]
    NotOneOf {
        /// What is there.
        found: String,
        /// What could be.
        allowed: String,
    },
    /// A bad name or pattern.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Neither, or both, of `matchName` and `matchPattern`.
    #[error("exactly one of `matchName` and `matchPattern` is needed")]
    NameXorPattern,
    /// A DNS rule without name.
    #[error("`matchName` or `matchPattern` is needed")]
    NameOrPattern,
    /// A bad prefix.
    #[error("`{0}` is not a CIDR prefix")]
    Prefix(String),
    /// An IPv4-mapped IPv6 prefix.
    #[error("`{0}` is an IPv4 prefix in IPv6 clothing, which no packet ever matches")]
    MappedPrefix(String),
    /// An exception outside of its prefix.
    #[error("the exception `{except}` is not inside `{prefix}`")]
    ExceptOutside {
        /// The exception.
        except: String,
        /// The prefix.
        prefix: String,
    },
    /// A bad port.
    #[error("`{0}` is not a port number from 0 to 65535")]
    Port(String),
    /// A port out of range.
    #[error("{0} is out of range; expected 0 to {1}")]
    OutOfRange(String, u32),
    /// Too many elements.
    #[error("{found} elements; at most {limit} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// `rules.dns` on ingress.
    #[error("DNS rules are not allowed on ingress")]
    DnsOnIngress,
    /// `rules.dns` without ports.
    #[error("DNS rules need at least one port")]
    DnsWithoutPort,
    /// `rules.dns` on a range.
    #[error("DNS rules do not support port ranges")]
    DnsOnRange,
    /// `rules.dns` on port 0.
    #[error("DNS rules cannot be used with port 0")]
    DnsOnEveryPort,
    /// `rules.dns` on SCTP.
    #[error("DNS rules need the protocol UDP, TCP or ANY")]
    DnsOnSctp,
    /// A bad label key or value.
    #[error("`{0}` is not a valid label {1}")]
    Label(String, &'static str),
    /// Values missing, or present where none belong.
    #[error("the operator `{operator}` {needs}")]
    OperatorValues {
        /// The operator.
        operator: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// None, or several, of fields that exclude each other.
    #[error("exactly one of {0} is needed")]
    ExactlyOne(&'static str),
    /// Part of the language that cannot be enforced, or not in this place.
    #[error("`{what}` {why}")]
    Refused {
        /// What is written.
        what: String,
        /// Why it cannot be.
        why: &'static str,
    },
    /// A bad regular expression.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// A value that is not of the form its field has.
    #[error("`{found}` is not {expected}")]
    Form {
        /// What is there.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A `log.value` flow records cannot carry.
    #[error("a log value has at most 32 printable characters")]
    LogValue,
}

impl Problem {
    /// What to do about it, when there is more to say than the message does.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::TooLarge { .. } | Self::TooManyNodes { .. } => "split the file".into(),
            Self::Tag(_) => "quote the value to make it a string".into(),
            Self::MergeKey => "write the fields out".into(),
            Self::DuplicateKey(_) => "keep one of them".into(),
            Self::WrongType { expected, found }
                if *expected == "a string" && matches!(*found, "a number" | "a boolean") =>
            {
                "put it in quotes".into()
            }
            Self::Null => "write a value, `[]` or `{}`, or leave the field out".into(),
            Self::UnknownField {
                suggestion: Some(known),
                ..
            } => format!("did you mean `{known}`?"),
            Self::ExactlyOne(_) => "keep one, and write a separate element for another".into(),
            Self::Unsupported(_) => "remove it, or use a release that supports it".into(),
            Self::ApiVersion { expected, .. } => format!("write `apiVersion: {expected}`"),
            Self::NotAnObject => "a policy starts with `apiVersion`, `kind` and `metadata`".into(),
            Self::NoSpec => "add a `spec`".into(),
            Self::NoSection => {
                "add one; `egress: [{}]` denies all egress, `ingress: [{}]` all ingress".into()
            }
            Self::NamespaceOnClusterwide => "remove it, or use kind CiliumNetworkPolicy".into(),
            Self::Combined(..) => "write one rule for each".into(),
            Self::IcmpWithPorts => "write a separate rule with `toPorts`".into(),
            Self::Prefix(text) if text.parse::<std::net::IpAddr>().is_ok() => {
                let bits = if text.contains(':') { 128 } else { 32 };
                format!("write `{text}/{bits}`")
            }
            Self::MappedPrefix(_) => "write the IPv4 prefix".into(),
            Self::DnsOnRange | Self::DnsOnEveryPort | Self::DnsWithoutPort => {
                "name the port, usually \"53\"".into()
            }
            _ => return None,
        })
    }
}
