//! What can go wrong in the shells, by what the caller should do.

use superstep_protocol::{FoldError, Refusal, ThreadId};

/// The caller's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A server did not answer or is full; try again later.
    Retry,
    /// The command, the input or the settings are wrong; mend them.
    Invalid,
    /// What is stored is not what this code wrote; a person must look.
    Corrupt,
}

impl ErrorKind {
    /// The kind in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Invalid => "invalid",
            Self::Corrupt => "corrupt",
        }
    }
}

/// A failed operation on threads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error("the store failed for thread `{thread}`")]
    Log {
        /// The thread.
        thread: ThreadId,
        /// How.
        #[source]
        source: superstep_checkpoint::Error,
    },
    /// The store failed outside any thread.
    #[error("the store failed")]
    Store(#[source] superstep_checkpoint::Error),
    /// The queue failed.
    #[error("the queue failed")]
    Queue(#[from] superstep_queue::Error),
    /// A message from the workers cannot be read.
    #[error("a message from the workers cannot be read")]
    Reply(#[source] superstep_wire::decode::Error),
    /// A worker of another version answered with a word that this one does not know.
    #[error(
        "the outcome `{outcome}` of a command for thread `{thread}` is not known to this version; \
         update it"
    )]
    UnknownOutcome {
        /// The thread.
        thread: ThreadId,
        /// The word.
        outcome: String,
    },
    /// A record cannot be read.
    #[error("record {version} of thread `{thread}` cannot be read")]
    Record {
        /// The thread.
        thread: ThreadId,
        /// The record's version.
        version: u64,
        /// Why.
        #[source]
        source: superstep_wire::record::Error,
    },
    /// The log is not one that this protocol makes.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The log of a thread does not begin with a snapshot.
    #[error("the log of thread `{thread}` has no snapshot to begin with at version {version}")]
    NoSnapshot {
        /// The thread.
        thread: ThreadId,
        /// Where it should be.
        version: u64,
    },
    /// The command was refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The thread moved on more often than it may while a command was decided.
    #[error(
        "thread `{thread}` is changed by others faster than this command can be decided; send it again"
    )]
    Contended {
        /// The thread.
        thread: ThreadId,
    },
    /// No graph of this process has the name and version.
    #[error("graph `{graph}` of thread `{thread}` is not held by this process; it holds {held}")]
    NoSuchGraph {
        /// The thread.
        thread: ThreadId,
        /// The graph.
        graph: String,
        /// What there is.
        held: String,
    },
    /// A graph is registered by others with another topology.
    #[error(
        "graph `{graph}` has topology {mine} here, and a live worker registered it with {theirs}; \
         give the graph another version, or stop the workers of the old topology first"
    )]
    OtherTopology {
        /// The graph.
        graph: String,
        /// The topology that a live worker registered.
        theirs: String,
        /// The one of this process.
        mine: String,
    },
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Log { source, .. } | Self::Store(source) => match source.kind() {
                superstep_checkpoint::ErrorKind::Unavailable
                | superstep_checkpoint::ErrorKind::Full => ErrorKind::Retry,
                superstep_checkpoint::ErrorKind::Denied
                | superstep_checkpoint::ErrorKind::Invalid => ErrorKind::Invalid,
                superstep_checkpoint::ErrorKind::Corrupt => ErrorKind::Corrupt,
            },
            Self::Queue(source) => match source.kind() {
                superstep_queue::ErrorKind::Unavailable | superstep_queue::ErrorKind::Full => {
                    ErrorKind::Retry
                }
                superstep_queue::ErrorKind::TooLarge
                | superstep_queue::ErrorKind::Denied
                | superstep_queue::ErrorKind::Incompatible
                | superstep_queue::ErrorKind::Invalid => ErrorKind::Invalid,
            },
            Self::Record { .. }
            | Self::Fold(_)
            | Self::NoSnapshot { .. }
            | Self::Reply(_)
            | Self::UnknownOutcome { .. } => ErrorKind::Corrupt,
            Self::Contended { .. } => ErrorKind::Retry,
            Self::Refused(_) | Self::NoSuchGraph { .. } | Self::OtherTopology { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}

/// An error with its causes, for logs: `what: why: why`. What the text says already is not said
/// again.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let mut text = error.to_string();
    for cause in &causes {
        let root = causes.last().unwrap_or(cause);
        if text.contains(root.as_str()) {
            break;
        }
        text.push_str(": ");
        text.push_str(cause);
    }
    text
}

/// How much of what the graph's code says of an error is kept: it stays with the thread and
/// goes into events, where people read it.
pub(crate) const ERROR_CHARS_MAX: usize = 16 << 10;

/// A text of at most `chars_max` characters; what is left out shows.
pub(crate) fn shortened(mut text: String, chars_max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
        text.push('…');
    }
    text
}
