//! What can go wrong with a thread log, by what the caller should do.

use std::error::Error as StdError;

/// The caller's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The store did not answer or cannot now; whether the call happened is unknown. Retry.
    Unavailable,
    /// The store is full (`noeviction` and out of memory, disk full). Nothing was changed.
    Full,
    /// The store refused the caller: password, user, permission, TLS. Fix the settings.
    Denied,
    /// What the store holds is not what this code wrote, or a part of it is missing.
    Corrupt,
    /// The call itself breaks the contract, such as a version gap. A bug in the caller.
    Invalid,
}

/// A failed call to a thread log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that says what failed, why, and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same error with the vendor's error as its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
