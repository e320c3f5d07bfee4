//! Traces: where the trace of a run begins, and since when workers have been at the run.
//!
//! Facts that the fold takes from records, so that whoever holds a thread names the same spans. What
//! a span is, and whether any is told, is left to the shell. The rule it keeps: nothing here decides
//! anything; a thread without these facts goes on as one with them.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Dispatch, Head, RunId, UnixMillis},
    record::is_default,
    state::{Asked, Run, ThreadState},
};

/// Where a trace begins: at a run that began with input. What a resume or a retry begins belongs to
/// the trace of the run before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The run that began with input.
    pub run: RunId,
    /// The `traceparent` that its command came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The `tracestate` that its command came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// A part of a run without a wait in it: from the record that gave workers something to do to the
/// one after which they have nothing to do for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The record that it began with.
    pub began: Head,
    /// When that was appended.
    pub at: UnixMillis,
    /// Whether its trace begins with it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub first: bool,
}

impl Run {
    /// Where its trace begins.
    pub fn origin(&self) -> Origin {
        match &self.origin {
            Some(origin) => (**origin).clone(),
            None => Origin {
                run: self.id.clone(),
                trace: self.command.trace.clone(),
                tracestate: self.command.tracestate.clone(),
            },
        }
    }
}

impl ThreadState {
    /// The dispatches on which workers are at the thread's run: its rounds, its input, its end.
    pub fn run_dispatches(&self) -> impl Iterator<Item = Dispatch> {
        let decision = self.decision.as_ref();
        let asked = decision.filter(|d| matches!(d.asked, Asked::Input { .. } | Asked::Close));
        let rounds = self.rounds.keys().copied();
        rounds.chain(asked.map(|decision| decision.dispatch))
    }

    /// When the record of a dispatch was appended, if that is still known.
    pub fn dispatched_at(&self, dispatch: Dispatch) -> Option<UnixMillis> {
        let segment = self.segment.as_ref().map(|s| (s.began, s.at));
        [Some((self.head, self.time)), self.saved, segment]
            .into_iter()
            .flatten()
            .find(|(head, _)| *head == dispatch)
            .map(|(_, time)| time)
    }
}

/// What a record finds: the run that workers are at, if they are.
pub(crate) struct Found {
    run: Option<RunId>,
    worked: bool,
}

impl Found {
    pub(crate) fn in_state(state: &ThreadState) -> Self {
        Self {
            run: state.run.as_ref().map(|run| run.id.clone()),
            worked: state.run_dispatches().next().is_some(),
        }
    }

    /// Takes note of the segment that the record begins, if it begins one.
    pub(crate) fn note_segment(self, state: &mut ThreadState) {
        let Some(run) = &state.run else { return };
        let is_new = self.run.as_ref() != Some(&run.id);
        if state.run_dispatches().next().is_some() && (is_new || !self.worked) {
            state.segment = Some(Segment {
                began: state.head,
                at: state.time,
                first: is_new && run.origin.is_none(),
            });
        }
    }
}
