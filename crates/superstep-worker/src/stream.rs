//! Streams: what a run tells while it runs, and the moments at which it does.
//!
//! One sink takes every event; a run's terms say which modes are sent, and nothing is computed
//! for the others. Whoever knows of a moment calls for its events here: nodes what they emit,
//! rounds the beginnings and ends of tasks, the engine what an append made of the thread.
//!
//! The rule it keeps: events are told, never kept. Whatever is done again is told again, and a
//! sink that is slow or gone changes nothing.

mod moments;

use std::sync::Arc;

use serde_json::{Value, json};
use superstep_graph::NodeName;
use superstep_protocol::{RunId, StreamMode, Streams, ThreadId, ThreadState};

pub(crate) use moments::{
    TaskEnd, appended, is_of_run, nodes_of, nothing_left, round_begins, task_ended,
};

/// One event of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamEvent {
    /// The nodes whose subgraph it comes from, from the outside in; empty for the graph itself.
    pub path: Arc<[NodeName]>,
    /// The superstep that was being worked on, of the graph that it comes from.
    pub step: i64,
    /// What kind of event it is.
    pub mode: StreamMode,
    /// The event itself:
    ///
    /// - `values`: the channels that have a value; with the questions under `__interrupt__` when
    ///   some were raised
    /// - `updates`: what a task wrote under its node's name, null for nothing; questions under
    ///   `__interrupt__`, none of them at a breakpoint; `{"cached": true}` under `__metadata__`
    ///   beside what was not made in this run
    /// - `custom`: what the node emitted
    /// - `messages`: the piece, and an object with the node and step it came from
    /// - `tasks`: `type` `task` with `id`, `name`, `input` and `triggers`, then `type` `result`
    ///   with `id`, `name` and `result`, and `error` or `interrupts` if there are any
    /// - `checkpoints`: `checkpoint_id`, `values`, `next`, `source`, `step` and `tasks`
    /// - `debug`: `step`, `type` and, under `payload`, an event of a task or checkpoint
    pub data: Value,
}

/// Where a run's events go.
pub trait OutputSink: Send + Sync {
    /// Takes one event; never waits.
    fn emit(&self, thread: &ThreadId, run: &RunId, event: StreamEvent);

    /// A run that asked for events is over: none follow. Never waits.
    fn end(&self, thread: &ThreadId, run: &RunId) {
        let _ = (thread, run);
    }
}

/// Several sinks as one.
pub(crate) struct Tee(pub(crate) Vec<Arc<dyn OutputSink>>);

impl OutputSink for Tee {
    fn emit(&self, thread: &ThreadId, run: &RunId, event: StreamEvent) {
        for sink in &self.0 {
            sink.emit(thread, run, event.clone());
        }
    }

    fn end(&self, thread: &ThreadId, run: &RunId) {
        for sink in &self.0 {
            sink.end(thread, run);
        }
    }
}

/// The events of one run, as far as someone wants them.
#[derive(Clone, Default)]
pub(crate) struct Stream {
    to: Option<Arc<To>>,
    path: Arc<[NodeName]>,
    /// Whether it is of a subgraph whose checkpoints are not saved, and not told of.
    unsaved: bool,
}

struct To {
    sink: Arc<dyn OutputSink>,
    thread: ThreadId,
    run: RunId,
    asked: Streams,
}

impl Stream {
    /// The stream of the run that `state` is in.
    pub(crate) fn of(sink: Option<&Arc<dyn OutputSink>>, state: &ThreadState) -> Self {
        let to = sink.zip(state.run.as_ref()).map(|(sink, run)| {
            Arc::new(To {
                sink: Arc::clone(sink),
                thread: state.thread.clone(),
                run: run.id.clone(),
                asked: run.terms.streams.clone(),
            })
        });
        Self {
            to,
            path: Arc::from([]),
            unsaved: false,
        }
    }

    /// The same run's, of the subgraph of `node`; `saves` if that one has checkpoints.
    #[must_use]
    pub(crate) fn within(&self, node: &NodeName, saves: bool) -> Self {
        Self {
            to: self.to.clone(),
            path: self.path.iter().chain([node]).cloned().collect(),
            unsaved: self.unsaved || !saves,
        }
    }

    /// The nodes whose subgraph it belongs to.
    pub(crate) fn path(&self) -> &Arc<[NodeName]> {
        &self.path
    }

    /// Whether it is a subgraph's.
    pub(crate) fn is_inside(&self) -> bool {
        !self.path.is_empty()
    }

    /// Whether someone wants events of this mode.
    pub(crate) fn wants(&self, mode: StreamMode) -> bool {
        let inside = self.is_inside();
        self.to
            .as_ref()
            .is_some_and(|to| to.asked.wants(mode, inside))
    }

    /// Sends an event, if someone wants it.
    pub(crate) fn send(&self, mode: StreamMode, step: i64, data: impl FnOnce() -> Value) {
        if let Some(to) = self.to.as_ref().filter(|_| self.wants(mode)) {
            let event = StreamEvent {
                path: Arc::clone(&self.path),
                step,
                mode,
                data: data(),
            };
            to.sink.emit(&to.thread, &to.run, event);
        }
    }

    /// Tells whoever follows the run that it is over.
    pub(crate) fn end(&self) {
        if let Some(to) = self.to.as_ref().filter(|to| !to.asked.modes.is_empty()) {
            to.sink.end(&to.thread, &to.run);
        }
    }

    /// Sends an event of a task or checkpoint, and the same for whoever debugs: those of a
    /// checkpoint name the step that it ends.
    fn send_debugged(&self, mode: StreamMode, step: i64, kind: &str, data: impl FnOnce() -> Value) {
        let debugs = self.wants(StreamMode::Debug);
        let is_hidden = self.unsaved && mode == StreamMode::Checkpoints;
        if is_hidden || (!debugs && !self.wants(mode)) {
            return;
        }
        let data = data();
        if debugs {
            self.send(mode, step, || data.clone());
            let about = if mode == StreamMode::Checkpoints {
                step - 1
            } else {
                step
            };
            let data = json!({"step": about, "type": kind, "payload": data});
            self.send(StreamMode::Debug, step, || data);
        } else {
            self.send(mode, step, || data);
        }
    }
}

#[cfg(test)]
mod tests;
