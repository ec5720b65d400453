//! Where the keys and certificates of ended and begun TLS are kept.
//!
//! In:  `terminatingTLS`, `originatingTLS`.
//! Out: [`TlsContext`]: names only.
//! Not here: the secrets themselves.

use std::sync::Arc;

/// A secret of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    /// Its namespace; empty is that of the policy.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// One end of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsContext {
    /// The secret.
    pub secret: SecretRef,
    /// The key inside it for the certificates that are trusted.
    pub trusted_ca: Option<Arc<str>>,
    /// The key inside it for the own certificate.
    pub certificate: Option<Arc<str>>,
    /// The key inside it for the own private key.
    pub private_key: Option<Arc<str>>,
}
