//! The engine: one dispatch of a thread, from its state to the record that answers it.
//!
//! Shared by the worker and the embedded mode. It loads, asks the pure crates, runs nodes and
//! appends; on a moved head it looks again and, if the dispatch is still open, decides again
//! with the results in hand: the nodes do not run again. What an append calls for (events,
//! work) is left to its caller.

mod accept;
mod round;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use superstep_graph::{NodeName, TaskId};
use superstep_protocol::{
    Asked, AskedCommand, Dispatch, Event, Head, Nothing, Parked, Record, RecordBody, Refusal,
    RunError, TaskResult, Update, Verdict, decide,
};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::{
    child::{self},
    compute, decisions,
    error::Error,
    graphs::{Graphs, RunnableGraph},
    moves,
    rounds::Running,
    stream::{self, Stream, nodes_of},
    threads::{Outcome, Thread, Threads},
};

/// How often a decision is made again because others changed the thread in between.
const DECISIONS_MAX: usize = 64;

/// What a command came to.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A record: the thread after it.
    Appended(Box<(Thread, Record)>),
    /// It was decided before; this is what was said.
    Decided(Bytes),
    /// It was accepted before, as this record.
    Known(Head),
    /// It is refused.
    Refused(Refusal),
    /// To be asked again soon.
    Wait,
    /// It calls for nothing.
    Nothing,
}

/// What working on a dispatch came to.
#[derive(Debug)]
pub(crate) enum Worked {
    /// A record answers it: the thread after it.
    Appended(Box<(Thread, Record)>),
    /// The state does not wait for it; the thread as it is, if it is there.
    Late(Option<Box<Thread>>),
    /// My tasks are done; others of the round are not.
    Partial,
    /// Told to stop before it was done.
    Stopped,
    /// To be run alone, which something else is at this moment.
    Crowded,
}

#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) threads: Threads,
    pub(crate) graphs: Arc<Graphs>,
    /// Held by what is run alone in this process.
    pub(crate) alone: Arc<Semaphore>,
    /// Held by what closes a round that came in parts: each takes several times the room of the
    /// thread, and of many that see the last result stored one is enough.
    pub(crate) closing: Arc<Semaphore>,
}

impl Engine {
    pub(crate) fn new(threads: Threads, graphs: Arc<Graphs>) -> Self {
        Self {
            threads,
            graphs,
            alone: Arc::new(Semaphore::new(1)),
            closing: Arc::new(Semaphore::new(1)),
        }
    }

    /// The graph that runs `thread`.
    pub(crate) fn graph_of(&self, thread: &Thread) -> Result<Arc<RunnableGraph>, Error> {
        let graph = self.graphs.get(&thread.state.graph).cloned();
        graph.ok_or_else(|| self.graphs.lacks(&thread.state))
    }

    /// The graph whose worker sees to a dispatch of `thread`.
    fn graph_for(&self, thread: &Thread, dispatch: Dispatch) -> Result<Arc<RunnableGraph>, Error> {
        let graph = self.graphs.get(thread.state.graph_for(dispatch)).cloned();
        graph.ok_or_else(|| self.graphs.lacks(&thread.state))
    }

    /// Works on `dispatch`: decides on an input or update, or runs `tasks` of its round (all of
    /// them if empty) and closes it when nothing is missing.
    pub(crate) async fn work(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        tasks: &[TaskId],
        running: &Running,
    ) -> Result<Worked, Error> {
        if thread.state.begins_next() && thread.state.waits_for(dispatch) {
            return self
                .answer(thread, dispatch, &BTreeMap::new(), |_| Event::NextRun {
                    dispatch,
                    refusal: None,
                })
                .await;
        }
        let graph = self.graph_for(&thread, dispatch)?;
        let ran = nodes_of(
            &Stream::of(running.sink.as_ref(), &thread.state),
            &thread.state,
        );
        let worked = Box::pin(self.work_on(thread, dispatch, tasks, running)).await?;
        if let Worked::Appended(done) = &worked {
            let (after, record) = &**done;
            let stream = Stream::of(running.sink.as_ref(), &after.state);
            stream::appended(&stream, graph.topology(), &ran, record, &after.state);
            if !after.state.is_running() && stream::is_of_run(&record.body) {
                stream.end();
            }
        }
        Ok(worked)
    }

    async fn work_on(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        tasks: &[TaskId],
        running: &Running,
    ) -> Result<Worked, Error> {
        let decision = thread
            .state
            .decision
            .clone()
            .filter(|d| d.dispatch == dispatch);
        match decision.map(|decision| decision.asked) {
            Some(Asked::Input { input }) => self.take_input(thread, dispatch, &input).await,
            Some(Asked::Update {
                values,
                as_node,
                more,
                subgraph,
                ..
            }) => {
                let mut updates = vec![Update { values, as_node }];
                updates.extend(more);
                self.apply_update(thread, dispatch, &updates, &subgraph)
                    .await
            }
            Some(Asked::Command(asked)) => self.apply_command(thread, dispatch, &asked).await,
            Some(Asked::Move(_)) => {
                let graph = self.graph_for(&thread, dispatch)?;
                self.answer(thread, dispatch, &BTreeMap::new(), |thread| {
                    moves::made(&graph, &thread.state, dispatch)
                })
                .await
            }
            Some(Asked::Close) => {
                let graph = self.graph_of(&thread)?;
                let stream = Stream::of(running.sink.as_ref(), &thread.state);
                stream::round_begins(&stream, graph.topology(), &thread.state, dispatch);
                self.close(thread, dispatch, BTreeMap::new()).await
            }
            // It was begun above.
            Some(Asked::Next) => Ok(Worked::Late(Some(Box::new(thread)))),
            None => self.run_round(thread, dispatch, tasks, running).await,
        }
    }

    async fn take_input(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        input: &serde_json::Value,
    ) -> Result<Worked, Error> {
        let graph = self.graph_of(&thread)?;
        let tasks_max = self.threads.limits().tasks_max;
        self.answer(thread, dispatch, &BTreeMap::new(), |thread| {
            decisions::input_taken(&graph, &thread.state, dispatch, input, tasks_max)
        })
        .await
    }

    async fn apply_update(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        updates: &[Update],
        subgraph: &[NodeName],
    ) -> Result<Worked, Error> {
        let graph = self.graph_of(&thread)?;
        let tasks_max = self.threads.limits().tasks_max;
        self.answer(thread, dispatch, &BTreeMap::new(), |thread| {
            let state = &thread.state;
            if subgraph.is_empty() {
                decisions::update_applied(&graph, state, dispatch, updates, tasks_max)
            } else {
                child::updated(&graph, state, dispatch, updates, subgraph, tasks_max)
            }
        })
        .await
    }

    async fn apply_command(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        asked: &AskedCommand,
    ) -> Result<Worked, Error> {
        let graph = self.graph_of(&thread)?;
        let tasks_max = self.threads.limits().tasks_max;
        self.answer(thread, dispatch, &BTreeMap::new(), |thread| {
            let state = thread.state.decided_on(dispatch);
            let decision = thread.state.decision.as_ref();
            let copies = decision.is_some_and(|decision| decision.at.is_some());
            Event::CommandApplied {
                dispatch,
                superstep: compute::command(&graph, &state, asked, copies, tasks_max),
            }
        })
        .await
    }

    /// Ends a round with `results`: the checkpoint if the superstep is complete, else parked.
    async fn close(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        results: BTreeMap<TaskId, TaskResult>,
    ) -> Result<Worked, Error> {
        let graph = self.graph_of(&thread)?;
        let tasks_max = self.threads.limits().tasks_max;
        self.answer(thread, dispatch, &results, |thread| {
            decisions::round_ended(&graph, &thread.state, dispatch, &results, tasks_max)
        })
        .await
    }

    /// Decides what `event` makes of the thread and appends it; on a moved head, again.
    async fn answer(
        &self,
        mut thread: Thread,
        dispatch: Dispatch,
        results: &BTreeMap<TaskId, TaskResult>,
        event: impl Fn(&Thread) -> Event,
    ) -> Result<Worked, Error> {
        let id = thread.state.thread.clone();
        for _ in 0..DECISIONS_MAX {
            let now = self.threads.world().now().max(thread.state.time);
            let told = thread.told;
            let body = match decide(&id, Some(&thread.state), &event(&thread), now) {
                Verdict::Append(body) => body,
                Verdict::Nothing(Nothing::Incomplete { .. }) => return Ok(Worked::Partial),
                Verdict::Nothing(Nothing::Late | Nothing::NotDue)
                | Verdict::Known(_)
                | Verdict::Refuse(_)
                | Verdict::Wait => return Ok(Worked::Late(Some(Box::new(thread)))),
            };
            let appended = match self.threads.append(&id, Some(thread), body, None).await? {
                Outcome::TooLarge(error) => {
                    let Some(before) = self.threads.load(&id).await? else {
                        return Ok(Worked::Late(None));
                    };
                    if !before.state.waits_for(dispatch) {
                        return Ok(Worked::Late(Some(Box::new(before))));
                    }
                    let body = too_large(&before, dispatch, results, error);
                    self.threads.append(&id, Some(before), body, None).await?
                }
                appended => appended,
            };
            if let Outcome::Done(done) = appended {
                return Ok(Worked::Appended(done));
            }
            debug!(thread_id = %id, %dispatch, "the thread moved on; looking again");
            match self.threads.load(&id).await? {
                Some(mut now) if now.state.waits_for(dispatch) => {
                    now.told = told;
                    thread = now;
                }
                now => return Ok(Worked::Late(now.map(Box::new))),
            }
        }
        Err(Error::Contended { thread: id })
    }
}

/// The run fails because its state would be over a bound: nothing of the superstep is kept but
/// that its tasks failed, so that a retry runs them again.
fn too_large(
    thread: &Thread,
    dispatch: Dispatch,
    results: &BTreeMap<TaskId, TaskResult>,
    error: RunError,
) -> RecordBody {
    if let Some(moving) = thread.state.moving() {
        return RecordBody::MoveDeclined {
            closes: dispatch,
            refusal: Some(Refusal::MigrationFailed {
                thread: thread.state.thread.clone(),
                from: thread.state.graph.clone(),
                to: moving.to.clone(),
                reason: error.message,
            }),
        };
    }
    // What came from outside and does not fit is no failure of a run: it is declined, and nothing
    // changed.
    let mut begins = None;
    let declined = match thread
        .state
        .decision
        .as_ref()
        .map(|decision| &decision.asked)
    {
        Some(Asked::Update { command, .. }) => Some((command, false)),
        Some(Asked::Command(asked)) => Some((&asked.command, true)),
        Some(Asked::Next) => {
            let next = thread.state.next_queued(thread.state.time);
            begins = next.map(|next| next.run.clone());
            next.map(|next| (&next.command, false))
        }
        Some(Asked::Input { .. } | Asked::Close | Asked::Move(_)) | None => None,
    };
    if let Some((command, resume)) = declined {
        return RecordBody::Declined {
            closes: dispatch,
            command: command.clone(),
            refusal: Refusal::InvalidUpdate {
                reason: error.message,
            },
            spoils: false,
            resume,
            queued: begins,
        };
    }
    let failed = |task: &TaskId| {
        let error = RunError {
            task: Some(task.clone()),
            ..error.clone()
        };
        TaskResult::failed(error, None)
    };
    RecordBody::Failed(Parked {
        closes: dispatch,
        run: thread.state.run_of(dispatch),
        results: results
            .keys()
            .map(|task| (task.clone(), failed(task)))
            .collect(),
        error: Some(error),
    })
}
