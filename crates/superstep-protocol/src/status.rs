//! Statuses of runs and threads, as LangGraph's clients know them.
//!
//! A status is derived from facts in the log and never decides anything by itself.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a run stands. A run that stops at an interrupt ends `success`; `interrupted` means
/// cancelled or displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted, no superstep committed yet.
    Pending,
    /// Supersteps are being worked on.
    Running,
    /// Reached the graph's end or stopped at a question.
    Success,
    /// A task failed for good.
    Error,
    /// A deadline ended it.
    Timeout,
    /// Cancelled or displaced by another run.
    Interrupted,
}

/// How a thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadStatus {
    /// Nothing is left to do.
    Idle,
    /// A run is pending or running.
    Busy,
    /// Work is left and it waits for someone.
    Interrupted,
    /// The last run ended in an error; work is left that can be retried.
    Error,
}

impl ThreadStatus {
    /// Every status, in a fixed order: the status index has one set for each.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Busy, Self::Interrupted, Self::Error];

    /// The status as its one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for ThreadStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no thread status.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a thread status; use idle, busy, interrupted or error")]
pub struct ParseThreadStatusError(pub String);

impl FromStr for ThreadStatus {
    type Err = ParseThreadStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| ParseThreadStatusError(text.to_owned()))
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
        })
    }
}
