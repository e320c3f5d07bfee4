//! What a sender is told of its command.
//!
//! Written by `cargo xtask fix` from `proto/superstep/v1/replies.proto`, never by hand. The
//! rules that all messages share stand in `common.proto`.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the thread's log.
    Accepted,
    /// It changed nothing; the refusal says why.
    Refused,
    /// An outcome that this reader does not know; never written.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    /// Every word that is written, in the order of the contract.
    pub const ALL: [Self; 2] = [Self::Accepted, Self::Refused];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The outcome of one command, sent to the subject in its `Superstep-Reply` header.
///
/// It is not stored on a stream: a sender that missed it sends the same command again, with the
/// same `Nats-Msg-Id`, and gets the same outcome; or it reads the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was accepted.
    pub outcome: Outcome,
    /// The command: its `Nats-Msg-Id`, else its stream, sequence and time.
    pub command_id: String,
    /// The thread that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// The run that it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The record that it became in the thread's log, `<version>-<16 hex digits>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The checkpoint that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
    /// Why it was refused; there if it was.
    #[serde(
        default,
        deserialize_with = "crate::field::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub refusal: Option<Refusal>,
}

impl Reply {
    /// A message of what is always there; everything else is absent.
    pub fn new(outcome: Outcome, command_id: impl Into<String>) -> Self {
        Self {
            outcome,
            command_id: command_id.into(),
            thread_id: None,
            run_id: None,
            record: None,
            checkpoint_id: None,
            refusal: None,
        }
    }
}
