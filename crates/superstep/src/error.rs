//! What can go wrong with embedded threads.

use superstep_checkpoint_sqlite::DataDirError;
use superstep_protocol::{Refusal, ThreadId};
use superstep_worker::ErrorKind;

use crate::state::StateError;

/// A failed operation on embedded threads. A run that fails is none: its output says why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The thread could not be read or changed, or what was asked of it is refused.
    #[error(transparent)]
    Thread(#[from] superstep_worker::Error),
    /// The input is no JSON, or several values for one channel.
    #[error(transparent)]
    Input(#[from] StateError),
    /// The data folder could not be opened.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The answer is no JSON.
    #[error("the answer is no JSON: {0}")]
    Answer(String),
    /// A new thread could be of several graphs, or of none.
    #[error(
        "thread `{thread}` is new and its graph is not clear; the graphs are: {known}; name one with `.graph(..)`"
    )]
    WhichGraph {
        /// The thread.
        thread: ThreadId,
        /// The graphs there are.
        known: String,
    },
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Thread(error) => error.kind(),
            Self::Input(_) | Self::DataDir(_) | Self::Answer(_) | Self::WhichGraph { .. } => {
                ErrorKind::Invalid
            }
        }
    }

    /// Why a thread refused what was asked, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Thread(superstep_worker::Error::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Thread(superstep_worker::Error::Refused(refusal))
    }
}
