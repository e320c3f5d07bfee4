//! What can go wrong with the file, in one shape for the log and the queue.
//!
//! A failure names its kind and what to do, and can be told to several callers at once: a
//! commit that fails fails for everyone whose changes were in it.

use std::{path::Path, sync::Arc};

use rusqlite::ErrorCode;
use superstep_checkpoint::{Error, ErrorKind};
use superstep_queue::{Error as QueueError, ErrorKind as QueueErrorKind};

/// A failed step on the file.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    message: String,
    source: Option<Arc<rusqlite::Error>>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// What is stored is not what this code wrote.
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// The failure as the thread log's error.
    pub(crate) fn into_log_error(self, path: &Path) -> Error {
        let error = Error::new(self.kind, self.message_for(path));
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }

    /// The failure as the queue's error.
    pub(crate) fn into_queue_error(self, path: &Path) -> QueueError {
        let kind = match self.kind {
            ErrorKind::Unavailable => QueueErrorKind::Unavailable,
            ErrorKind::Full => QueueErrorKind::Full,
            ErrorKind::Denied => QueueErrorKind::Denied,
            ErrorKind::Corrupt => QueueErrorKind::Incompatible,
            ErrorKind::Invalid => QueueErrorKind::Invalid,
        };
        let error = QueueError::new(kind, self.message_for(path));
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }

    /// SQLite's own code, if it was SQLite that failed.
    pub(crate) fn sqlite_code(&self) -> Option<ErrorCode> {
        self.source.as_ref()?.sqlite_error_code()
    }

    fn message_for(&self, path: &Path) -> String {
        format!("store {}: {}", path.display(), self.message)
    }
}

/// A port's own refusal, made while the file was in hand, such as a cursor that is none.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let (kind, message) = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::TooBig) => (
                ErrorKind::Full,
                "the disk is full, or the value is too large; free some space, or send less",
            ),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
                ErrorKind::Unavailable,
                "another process holds the file's write lock for too long; try again",
            ),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
                ErrorKind::Corrupt,
                "the file is damaged, or no SQLite file; restore it from a backup",
            ),
            Some(
                ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::AuthorizationForStatementDenied,
            ) => (
                ErrorKind::Denied,
                "the file cannot be opened or written; check that its folder is there, and its permissions",
            ),
            Some(
                ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::SchemaChanged,
            ) => (
                ErrorKind::Unavailable,
                "reading or writing the file failed; look at the disk, then try again",
            ),
            _ => (
                ErrorKind::Corrupt,
                "the file does not hold what this program wrote",
            ),
        };
        Self {
            kind,
            message: message.to_owned(),
            source: Some(Arc::new(error)),
        }
    }
}
