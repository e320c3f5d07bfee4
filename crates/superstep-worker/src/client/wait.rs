//! Waiting for a run to end or to stop at a question, or for an update to be applied.
//!
//! Events say when to look, the thread's state says what is so: a lost event costs a second,
//! never an answer. Whoever waits subscribes before the command is sent. Only if the thread has
//! moved on to another run is an event taken for the truth, as nothing else remembers.

use std::time::Duration;

use serde::{Serialize as _, Serializer};
use serde_json::{Map, Value};
use superstep_graph::Graph;
use superstep_protocol::{
    Head, RecordBody, Refusal, RunError, RunId, RunStatus, ThreadId, ThreadState,
};
use superstep_queue::EventFilter;
use superstep_wire::{Event, EventKind, outward};
use tokio::time::{Instant, timeout_at};

use super::{
    Client, LOOK_EVERY,
    read::{EventFeed, OpenInterrupt},
};
use crate::{
    error::Error,
    shown::{output, shows},
    threads::Fate,
};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Ended {
    /// It reached the graph's end.
    Completed {
        /// The thread's values; absent if the thread went on and they were too large for an
        /// event.
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<Map<String, Value>>,
    },
    /// It stopped before the graph's end: at questions or at a breakpoint.
    Interrupted {
        /// Those that are open; none at a breakpoint.
        interrupts: Vec<OpenInterrupt>,
        /// The thread's values.
        values: Map<String, Value>,
    },
    /// It failed and can be retried.
    Failed {
        /// Why.
        error: RunError,
    },
    /// It was cancelled or displaced.
    Cancelled,
    /// It never began: its command was accepted, but the graph cannot take it. Nothing changed.
    Declined {
        /// Why.
        #[serde(serialize_with = "as_told")]
        refusal: Refusal,
    },
}

/// A refusal as events tell it.
fn as_told<S: Serializer>(refusal: &Refusal, serializer: S) -> Result<S::Ok, S::Error> {
    outward::refusal(refusal).serialize(serializer)
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RunEnd {
    /// The thread.
    pub thread_id: ThreadId,
    /// The run.
    pub run_id: RunId,
    /// Whether the run showed its values, as in [`RunOutput`](crate::RunOutput).
    #[serde(skip)]
    pub shows: bool,
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
}

/// What became of an update that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateEnd {
    /// It is in the state.
    Applied,
    /// The graph cannot take it; nothing changed.
    Declined {
        /// Why.
        refusal: Refusal,
    },
    /// The thread went on without it, or its log is trimmed there.
    Unknown,
}

/// A subscription to the events of one thread, made before its run is asked for.
#[derive(Debug)]
pub struct Watching {
    client: Client,
    thread: ThreadId,
    feed: EventFeed,
    /// The thread's last record when the watch began: the command comes behind it.
    since: u64,
}

impl Client {
    /// Begins to watch `thread`; active when this returns.
    ///
    /// # Errors
    /// If the queue fails.
    pub async fn watch(&self, thread: &ThreadId) -> Result<Watching, Error> {
        let filter = EventFilter {
            thread: Some(thread.clone()),
            ..EventFilter::default()
        };
        let feed = self.events(&filter).await?;
        let state = self.state_of(thread).await?;
        Ok(Watching {
            client: self.clone(),
            thread: thread.clone(),
            feed,
            since: state.map_or(0, |state| state.head.version),
        })
    }

    /// Finds the record that closes an update, between the one that asked and the head.
    async fn update_of(
        &self,
        thread: &ThreadId,
        asked: Head,
        head: Head,
    ) -> Result<UpdateEnd, Error> {
        for version in asked.version + 1..=head.version {
            let found = self.threads.at(thread, version).await?;
            match found.map(|(record, _)| record.body) {
                Some(RecordBody::Committed(committed)) if committed.closes == asked => {
                    return Ok(UpdateEnd::Applied);
                }
                Some(RecordBody::ChildUpdated { closes, .. }) if closes == asked => {
                    return Ok(UpdateEnd::Applied);
                }
                Some(RecordBody::Declined {
                    closes, refusal, ..
                }) if closes == asked => return Ok(UpdateEnd::Declined { refusal }),
                _ => {}
            }
        }
        Ok(UpdateEnd::Unknown)
    }
}

impl Watching {
    /// Waits until `run` has ended or stopped at a question, or its command turns out to be
    /// none that the graph can take; `None` if it has not `within` that time.
    ///
    /// # Errors
    /// If the store or the queue fails.
    pub async fn run_end(mut self, run: &RunId, within: Duration) -> Result<Option<RunEnd>, Error> {
        let deadline = Instant::now() + within;
        let mut told: Option<Ended> = None;
        let mut searched = self.since;
        loop {
            let state = self.client.state_of(&self.thread).await?;
            let found = match &state {
                Some(state) if is_last(state, run) => {
                    ended(state, self.client.graph_of(state)).map(|ended| (ended, shows(state)))
                }
                _ => told.take().map(|ended| (ended, true)),
            };
            let found = match (found, &state) {
                (None, Some(state)) if state.head.version > searched && !is_last(state, run) => {
                    searched = state.head.version;
                    let fate = self.client.threads.fate(&self.thread, self.since, run);
                    fate.await?.map(|fate| match fate {
                        Fate::Declined(refusal) => (Ended::Declined { refusal }, false),
                        Fate::Cancelled => (Ended::Cancelled, false),
                    })
                }
                (found, _) => found,
            };
            if let Some((ended, shows)) = found {
                return Ok(Some(RunEnd {
                    thread_id: self.thread,
                    run_id: run.clone(),
                    shows,
                    ended,
                }));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            if let Some(event) = self.next_look(deadline).await?
                && event.run_id.as_deref() == Some(run.as_str())
            {
                told = said_by(event).or(told);
            }
        }
    }

    /// Waits until the update that became `record` is applied or declined; `None` if it is
    /// neither `within` that time.
    ///
    /// # Errors
    /// If the store or the queue fails.
    pub async fn update_end(
        mut self,
        record: Head,
        within: Duration,
    ) -> Result<Option<UpdateEnd>, Error> {
        let deadline = Instant::now() + within;
        loop {
            match self.client.state_of(&self.thread).await? {
                Some(state) if state.waits_for(record) => {}
                Some(state) => {
                    let found = self.client.update_of(&self.thread, record, state.head);
                    return found.await.map(Some);
                }
                None => return Ok(Some(UpdateEnd::Unknown)),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            self.next_look(deadline).await?;
        }
    }

    /// Waits until there is a reason to look at the thread again: the event, if one came.
    async fn next_look(&mut self, deadline: Instant) -> Result<Option<Event>, Error> {
        let look_again = deadline.min(Instant::now() + LOOK_EVERY);
        match timeout_at(look_again, self.feed.next()).await {
            Err(_) | Ok(Ok(None)) => {
                tokio::time::sleep_until(look_again).await;
                Ok(None)
            }
            Ok(Ok(Some((event, _)))) => Ok(Some(event)),
            Ok(Err(error)) => Err(error),
        }
    }
}

fn is_last(state: &ThreadState, run: &RunId) -> bool {
    state.run.as_ref().is_some_and(|last| last.id == *run)
}

/// How the last run of a thread ended; `None` while it goes on.
fn ended(state: &ThreadState, graph: Option<&Graph>) -> Option<Ended> {
    // With a task that sleeps the run goes on by itself, but whoever is asked is to know of it.
    let asks = !state.has_work() && state.open_questions().next().is_some();
    if state.is_paused() && asks {
        let (values, _) = output(state, graph);
        return Some(Ended::Interrupted {
            interrupts: OpenInterrupt::all_of(state),
            values,
        });
    }
    let run = state.run.as_ref().filter(|_| !state.is_running())?;
    match run.status {
        RunStatus::Pending | RunStatus::Running => None,
        RunStatus::Error | RunStatus::Timeout => Some(Ended::Failed {
            error: run.error.clone().unwrap_or_else(|| RunError {
                kind: run.status.to_string(),
                message: "the run ended without a reason".to_owned(),
                node: None,
                task: None,
            }),
        }),
        RunStatus::Interrupted => Some(Ended::Cancelled),
        RunStatus::Success => Some(match output(state, graph) {
            (_, Some(error)) => Ended::Failed { error },
            (values, None) if !state.tasks.is_empty() => Ended::Interrupted {
                interrupts: OpenInterrupt::all_of(state),
                values,
            },
            (values, None) => Ended::Completed {
                values: Some(values),
            },
        }),
    }
}

/// The end that an event tells, if it is one.
fn said_by(event: Event) -> Option<Ended> {
    match event.kind {
        EventKind::RunCompleted => Some(Ended::Completed {
            values: match event.values {
                Some(Value::Object(values)) => Some(values),
                _ => None,
            },
        }),
        EventKind::RunFailed => event.error.map(|error| Ended::Failed {
            error: RunError {
                kind: error.kind,
                message: error.message,
                node: error.node.map(Into::into),
                task: error.task_id.map(Into::into),
            },
        }),
        EventKind::RunCancelled => Some(Ended::Cancelled),
        _ => None,
    }
}
