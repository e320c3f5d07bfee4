//! What can go wrong with a queue, by what the caller should do.

use std::error::Error as StdError;

/// The caller's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The servers did not answer or cannot now; whether the call happened is unknown. Retry.
    Unavailable,
    /// The stream is at its bound and refuses more. Nothing was stored.
    Full,
    /// The message is over the largest size. Nothing was stored.
    TooLarge,
    /// The servers refused the caller: credentials, permission, TLS. Fix the settings.
    Denied,
    /// A stream or consumer exists with settings that break a guarantee. It was not altered.
    Incompatible,
    /// The call itself is wrong, such as an id that no subject can carry.
    Invalid,
}

/// A failed call to a queue.
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
