//! Streams: which of a run's events its caller wants to see while it runs.
//!
//! Part of a run's terms, so that whichever worker takes the run knows them. What the events are,
//! and when they are sent, is the workers' business; none of them is kept.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A kind of live events (LangGraph's `stream_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StreamMode {
    /// The whole state, after each superstep that wrote to it.
    Values,
    /// What each task wrote, when it ends.
    Updates,
    /// What nodes emit.
    Custom,
    /// What nodes emit of messages, piece by piece.
    Messages,
    /// Each task, when it begins and when it ends.
    Tasks,
    /// Each checkpoint.
    Checkpoints,
    /// Tasks and checkpoints in one, each with its step and kind.
    Debug,
}

impl StreamMode {
    /// Every mode.
    pub const ALL: [Self; 7] = [
        Self::Values,
        Self::Updates,
        Self::Custom,
        Self::Messages,
        Self::Tasks,
        Self::Checkpoints,
        Self::Debug,
    ];

    /// The mode as its one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Values => "values",
            Self::Updates => "updates",
            Self::Custom => "custom",
            Self::Messages => "messages",
            Self::Tasks => "tasks",
            Self::Checkpoints => "checkpoints",
            Self::Debug => "debug",
        }
    }

    /// The mode of this word, if there is one.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

/// What a run sends while it runs. A run that asks for nothing sends what its nodes emit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The modes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub modes: BTreeSet<StreamMode>,
    /// Whether subgraphs send their events too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub subgraphs: bool,
}

impl Streams {
    /// These modes, of the graph itself.
    pub fn of(modes: impl IntoIterator<Item = StreamMode>) -> Self {
        Self {
            modes: modes.into_iter().collect(),
            subgraphs: false,
        }
    }

    /// The subgraphs' events too.
    #[must_use]
    pub fn with_subgraphs(mut self) -> Self {
        self.subgraphs = true;
        self
    }

    /// Whether events of `mode` are sent; `inside` those of a subgraph.
    pub fn wants(&self, mode: StreamMode, inside: bool) -> bool {
        if self.modes.is_empty() {
            return matches!(mode, StreamMode::Custom | StreamMode::Messages);
        }
        self.modes.contains(&mode) && (self.subgraphs || !inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_its_word() {
        for mode in StreamMode::ALL {
            assert_eq!(StreamMode::of(mode.as_str()), Some(mode));
            assert_eq!(serde_json::json!(mode), mode.as_str());
        }
        assert_eq!(StreamMode::of("nothing"), None);
    }

    #[test]
    fn only_what_is_asked_for_is_sent() {
        use StreamMode::{Custom, Tasks, Values};
        let nothing = Streams::default();
        assert!(nothing.wants(Custom, true) && !nothing.wants(Values, false));
        let values = Streams::of([Values]);
        assert!(values.wants(Values, false) && !values.wants(Values, true));
        assert!(!values.wants(Custom, false));
        let inside = Streams::of([Tasks]).with_subgraphs();
        assert!(inside.wants(Tasks, true) && !inside.wants(Values, true));
    }
}
