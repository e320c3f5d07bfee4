//! Exit codes that scripts can rely on, and failures that carry one.
//!
//! The codes are public: adding one is fine, changing one is not. A failure says what failed,
//! why and what to do, in text for people or as one JSON object for machines. How an operation
//! can fail is left to the crates that do it; this file only sorts their errors.

use std::process::ExitCode;

use serde_json::{Value, json};
use superstep_worker::ErrorKind;

/// How a command ended, as the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done. Also a run that stopped at a question: that is no error.
    Done,
    /// 1: the operation failed; also a run that ended in an error, a finding of `doctor`.
    Failed,
    /// 2: the arguments or settings are wrong; also credentials that a server refuses.
    Usage,
    /// 3: the command was refused and changed nothing; the refusal's kind says why.
    Refused,
    /// 4: a server could not be reached, or could not do it now; trying again may help.
    Unreachable,
    /// 5: what was waited for did not come in time; it may still come.
    TimedOut,
    /// 6: a worker ended before its deliveries were finished and handed them back.
    HandedBack,
    /// 130: interrupted from the keyboard.
    Stopped,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::TimedOut => 5,
            Self::HandedBack => 6,
            Self::Stopped => 130,
        }
    }

    /// The code in one word, for machines.
    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::HandedBack => "handed_back",
            Self::Stopped => "stopped",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What failed and why; empty if there is nothing to tell.
    pub(crate) message: String,
    /// What to do, if the message does not say it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    /// Wrong arguments or settings.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An operation that went wrong.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Ends with that code and says nothing more: all was said.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!({"kind": self.exit.word(), "message": self.message});
        if let Some(hint) = &self.hint {
            error["hint"] = json!(hint);
        }
        json!({"error": error})
    }
}

impl From<superstep_worker::Error> for Failure {
    fn from(error: superstep_worker::Error) -> Self {
        let exit = match (&error, error.kind()) {
            (superstep_worker::Error::Refused(_), _) => Exit::Refused,
            (_, ErrorKind::Retry) => Exit::Unreachable,
            (_, ErrorKind::Invalid) => Exit::Usage,
            (_, ErrorKind::Corrupt) => Exit::Failed,
        };
        Self::new(exit, superstep_worker::chain(&error))
    }
}

impl From<superstep_checkpoint::Error> for Failure {
    fn from(error: superstep_checkpoint::Error) -> Self {
        superstep_worker::Error::Store(error).into()
    }
}

impl From<superstep_queue::Error> for Failure {
    fn from(error: superstep_queue::Error) -> Self {
        superstep_worker::Error::Queue(error).into()
    }
}
