//! The engine: one dispatch of a thread, from its state to the record that answers it.
//!
//! Shared by the worker and the embedded mode. It loads, asks the pure crates, runs nodes and
//! appends; on a moved head it looks again and, if the dispatch is still open, decides again
//! with the results in hand: the nodes do not run again. What an append calls for (events,
//! work) is left to its caller.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt as _;
use superstep_checkpoint::PutResult;
use superstep_graph::{NodeName, TaskId};
use superstep_protocol::{
    Asked, AskedCommand, CommandId, Dispatch, Event, Head, Nothing, Parked, Record, RecordBody,
    Refusal, Restored, RunError, TaskResult, ThreadId, ThreadState, UnixMillis, Update, Verdict,
    decide, rolls_back,
};
use superstep_wire::record::{decode_result, encode_result};
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use crate::{
    child::{self, Progress, WhyStopped},
    compute, decisions,
    error::Error,
    graphs::{Graphs, RunnableGraph},
    moves,
    poison::is_poisoned,
    rounds::{Running, run_all, run_each},
    run_task::Attempt,
    stop::Stop,
    stream::{self, Stream, nodes_of},
    threads::{Outcome, OutcomeBytes, Thread, Threads},
};

/// How often a decision is made again because others changed the thread in between.
const DECISIONS_MAX: usize = 64;

/// How many results are put at once by one dispatch.
const PUTS_AT_ONCE: usize = 32;

/// What became of the results of a dispatch.
enum Put {
    /// Stored; so many of the round are there.
    Stored(u64),
    RoundOver,
    UnknownThread,
}

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
}

impl Engine {
    pub(crate) fn new(threads: Threads, graphs: Arc<Graphs>) -> Self {
        Self {
            threads,
            graphs,
            alone: Arc::new(Semaphore::new(1)),
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

    /// Decides a command and appends what it calls for. `outcome` makes what is remembered of
    /// an accepted command.
    pub(crate) async fn accept(
        &self,
        thread: &ThreadId,
        event: &Event,
        command: Option<&CommandId>,
        outcome: impl Fn() -> Option<OutcomeBytes>,
    ) -> Result<Accepted, Error> {
        let now = self.threads.world().now();
        self.accept_with(thread, event, command, outcome, now).await
    }

    /// Decides an event of no sender at a time of the store's clock, and appends what it calls
    /// for.
    pub(crate) async fn accept_at(
        &self,
        thread: &ThreadId,
        event: &Event,
        now: UnixMillis,
    ) -> Result<Accepted, Error> {
        self.accept_with(thread, event, None, || None, now).await
    }

    async fn accept_with(
        &self,
        thread: &ThreadId,
        event: &Event,
        command: Option<&CommandId>,
        outcome: impl Fn() -> Option<OutcomeBytes>,
        now: UnixMillis,
    ) -> Result<Accepted, Error> {
        for _ in 0..DECISIONS_MAX {
            let before = self.threads.load(thread).await?;
            let now = before
                .as_ref()
                .map_or(now, |before| now.max(before.state.time));
            let state = before.as_ref().map(|before| &*before.state);
            let rolling_back = match state.and_then(|state| rolls_back(state, event)) {
                Some(version) => match self.with_before(thread, state, event, version).await? {
                    Ok(event) => Some(event),
                    Err(refusal) => return Ok(Accepted::Refused(refusal)),
                },
                None => None,
            };
            let event = rolling_back.as_ref().unwrap_or(event);
            let body = match decide(thread, state, event, now) {
                Verdict::Append(body) => body,
                Verdict::Known(head) => return Ok(Accepted::Known(head)),
                Verdict::Refuse(refusal) => return Ok(Accepted::Refused(refusal)),
                Verdict::Wait if rolling_back.is_some() => {
                    // The thread went on while what it was before was read.
                    let now = self.threads.load(thread).await?;
                    if now.map(|now| now.state.head) != state.map(|state| state.head) {
                        continue;
                    }
                    return Ok(Accepted::Wait);
                }
                Verdict::Nothing(_) => return Ok(Accepted::Nothing),
                Verdict::Wait => return Ok(Accepted::Wait),
            };
            let kept = command.cloned().zip(outcome());
            let queued = match &body {
                RecordBody::Enqueued(_) => state.map_or(0, |state| state.queue.len()),
                _ => 0,
            };
            match self.threads.append(thread, before, body, kept).await? {
                Outcome::Done(done) => return Ok(Accepted::Appended(done)),
                Outcome::Moved => {}
                Outcome::Decided(bytes) => return Ok(Accepted::Decided(bytes)),
                Outcome::TooLarge(error) => {
                    let mut reason = error.message;
                    if queued > 0 {
                        reason = format!(
                            "{reason}; the inputs of runs that wait count too, and {queued} wait \
                             on this thread"
                        );
                    }
                    return Ok(Accepted::Refused(Refusal::InvalidInput { reason }));
                }
            }
        }
        Err(Error::Contended {
            thread: thread.clone(),
        })
    }

    /// The event with what the thread was after `version`, the last record before the run that
    /// it rolls back.
    async fn with_before(
        &self,
        thread: &ThreadId,
        state: Option<&ThreadState>,
        event: &Event,
        version: u64,
    ) -> Result<Result<Event, Refusal>, Error> {
        let found = match version {
            0 => None,
            version => match self.threads.at(thread, version).await? {
                Some((_, state)) => Some(state),
                None => {
                    return Ok(Err(Refusal::Unsupported {
                        what: "a rollback to before what is left of the thread's history"
                            .to_owned(),
                        instead: "use `interrupt`".to_owned(),
                    }));
                }
            },
        };
        let restored = match (&found, state) {
            (Some(before), _) if !before.deleted => Restored::of(before),
            (_, Some(state)) => Restored::nothing(version, &state.incarnation),
            (_, None) => return Ok(Ok(event.clone())),
        };
        let mut event = event.clone();
        match &mut event {
            Event::Start(start) => start.before = Some(Box::new(restored)),
            Event::Cancel(cancel) => cancel.before = Some(Box::new(restored)),
            _ => {}
        }
        Ok(Ok(event))
    }

    /// Tells the sender of the next run of the queue why it cannot begin.
    pub(crate) async fn decline_next(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        refusal: Refusal,
    ) -> Result<Worked, Error> {
        self.answer(thread, dispatch, &BTreeMap::new(), |_| Event::NextRun {
            dispatch,
            refusal: Some(refusal.clone()),
        })
        .await
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

    async fn run_round(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        tasks: &[TaskId],
        running: &Running,
    ) -> Result<Worked, Error> {
        let id = thread.state.thread.clone();
        let open: Vec<TaskId> = thread
            .state
            .round_tasks(dispatch)
            .map(|task| task.task.id.clone())
            .collect();
        if open.is_empty() {
            return Ok(Worked::Late(Some(Box::new(thread))));
        }
        let mut mine: Vec<TaskId> = open
            .iter()
            .filter(|id| tasks.is_empty() || tasks.contains(id))
            .cloned()
            .collect();
        let graph = self.graph_of(&thread)?;
        let tasks_max = self.threads.limits().tasks_max;
        let progress = Progress::of_round(&self.threads, &id, dispatch, running.again);
        let mut attempt = running.first_attempt(&thread.state, tasks_max, &progress);
        // Where several workers share a round, the one with its first task tells that it begins.
        if mine.first() == open.first() {
            stream::round_begins(&attempt.stream, graph.topology(), &thread.state, dispatch);
        }
        let whole = open.len() == mine.len();
        let stored = if running.again && open.len() > 1 {
            self.stored_results(&id, dispatch).await?
        } else {
            BTreeMap::new()
        };
        let first = mine.first().cloned();
        mine.retain(|task| !stored.contains_key(task));
        if let Some(attempts_max) = running.attempts_max.filter(|_| running.again) {
            let place = (&*thread.state, dispatch);
            // Where nothing is left to run, it is closing the round that may kill.
            let closing: Vec<TaskId> = first.into_iter().collect();
            let counted = if mine.is_empty() { &closing } else { &mine };
            let count = running
                .charged
                .count(&self.threads, place, counted, attempts_max);
            let Some(counts) = count.await? else {
                return self.late(&id).await;
            };
            attempt.number = attempt.number.max(counts.most + 1);
            if counts.suspect {
                running.charged.forgive(&self.threads).await;
                let Ok(_alone) = self.alone.try_acquire() else {
                    return Ok(Worked::Crowded);
                };
                let tasks = (counted.as_slice(), !mine.is_empty());
                let alone = self.run_alone(thread, dispatch, tasks, &attempt, running);
                return match Box::pin(alone).await? {
                    Some(worked) => Ok(worked),
                    None => self.stopped(&id, &progress).await,
                };
            }
        }
        // The round's map is needed only where several workers bring results.
        if whole {
            let Some(mut results) = run_all(&graph, &thread.state, &mine, &attempt).await else {
                return self.stopped(&id, &progress).await;
            };
            results.extend(stored);
            return self.close(thread, dispatch, results).await;
        }
        let (sender, results) = mpsc::unbounded_channel();
        let run = async {
            // Dropped with the last result, which ends the puts.
            let sender = sender;
            let give = |task: &TaskId, result| {
                // Nobody takes it any more only if the round is over.
                let _ = sender.send((task.clone(), result));
            };
            run_each(&graph, &thread.state, &mine, &attempt, give).await
        };
        let (ran, put) = tokio::join!(run, self.put_all(&id, dispatch, results, &running.stop));
        let mut there = match put? {
            Put::Stored(count) => count,
            Put::RoundOver => return self.late(&id).await,
            Put::UnknownThread => return Ok(Worked::Late(None)),
        };
        if ran.is_none() {
            return self.stopped(&id, &progress).await;
        }
        if mine.is_empty() {
            there = open.len() as u64;
        }
        if there < open.len() as u64 {
            return Ok(Worked::Partial);
        }
        let results = self.stored_results(&id, dispatch).await?;
        self.close(thread, dispatch, results).await
    }

    /// Runs tasks that were begun before and came to no end, one after the other, each counted as
    /// it begins and stored as it ends: if the process dies, the one that was running is to blame.
    /// With nothing to `run` the round only lacks its end. `None` if it was told to stop.
    async fn run_alone(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        (tasks, run): (&[TaskId], bool),
        attempt: &Attempt,
        running: &Running,
    ) -> Result<Option<Worked>, Error> {
        let graph = self.graph_of(&thread)?;
        let id = thread.state.thread.clone();
        let attempts_max = running.attempts_max.unwrap_or(u64::MAX);
        let mut brought = BTreeMap::new();
        for task in tasks.chunks(1) {
            let place = (&*thread.state, dispatch);
            let count = running
                .charged
                .count(&self.threads, place, task, attempts_max);
            let Some(counts) = count.await? else {
                return self.late(&id).await.map(Some);
            };
            let results = if run && counts.poisoned.is_empty() {
                match run_all(&graph, &thread.state, task, attempt).await {
                    Some(results) => results,
                    None => return Ok(None),
                }
            } else {
                counts.poisoned
            };
            for (task, result) in &results {
                let bytes = Bytes::from(encode_result(result.clone()));
                let put = self.threads.retrying(&id, || {
                    let log = self.threads.log();
                    log.put_result(&id, dispatch, task, bytes.clone())
                });
                match put.await? {
                    PutResult::Stored { .. } | PutResult::Duplicate { .. } => {}
                    PutResult::RoundOver => return self.late(&id).await.map(Some),
                    PutResult::UnknownThread => return Ok(Some(Worked::Late(None))),
                }
            }
            brought.extend(
                results
                    .into_iter()
                    .filter(|(_, result)| is_poisoned(result)),
            );
        }
        let mut results = self.stored_results(&id, dispatch).await?;
        if results.len() < thread.state.round_tasks(dispatch).count() {
            return Ok(Some(Worked::Partial));
        }
        // A task whose result is there is poisoned by what closing the round makes of it.
        results.extend(brought);
        self.close(thread, dispatch, results).await.map(Some)
    }

    /// The thread as it is, which does not wait for the work any more.
    async fn late(&self, id: &ThreadId) -> Result<Worked, Error> {
        let now = self.threads.load(id).await?;
        Ok(Worked::Late(now.map(Box::new)))
    }

    /// Puts results into the map of their round as they come: one that is there is not lost with
    /// the worker. A round that is over ends the work on it.
    async fn put_all(
        &self,
        id: &ThreadId,
        dispatch: Dispatch,
        results: mpsc::UnboundedReceiver<(TaskId, TaskResult)>,
        stop: &Stop,
    ) -> Result<Put, Error> {
        let results = futures_util::stream::unfold(results, async |mut results| {
            let next = results.recv().await?;
            Some((next, results))
        });
        let puts = results.map(async |(task, result)| {
            let bytes = Bytes::from(encode_result(result));
            let put = self.threads.retrying(id, || {
                let log = self.threads.log();
                log.put_result(id, dispatch, &task, bytes.clone())
            });
            put.await
        });
        let puts = puts.buffer_unordered(PUTS_AT_ONCE);
        tokio::pin!(puts);
        let mut there = 0;
        while let Some(put) = puts.next().await {
            let ended = match put {
                Ok(PutResult::Stored { count } | PutResult::Duplicate { count }) => {
                    there = there.max(count);
                    continue;
                }
                Ok(PutResult::RoundOver) => Ok(Put::RoundOver),
                Ok(PutResult::UnknownThread) => Ok(Put::UnknownThread),
                Err(error) => Err(error),
            };
            stop.go();
            return ended;
        }
        Ok(Put::Stored(there))
    }

    /// What it came to when tasks have no result.
    async fn stopped(&self, id: &ThreadId, progress: &Progress) -> Result<Worked, Error> {
        match progress.why_stopped() {
            None => Ok(Worked::Stopped),
            Some(WhyStopped::Late) => self.late(id).await,
            Some(WhyStopped::Failed(error)) => Err(error),
        }
    }

    /// What tasks of a round have brought so far.
    pub(crate) async fn stored_results(
        &self,
        thread: &ThreadId,
        dispatch: Dispatch,
    ) -> Result<BTreeMap<TaskId, TaskResult>, Error> {
        let stored = self
            .threads
            .retrying(thread, || self.threads.log().results(thread, dispatch))
            .await?;
        stored
            .into_iter()
            .map(|(task, bytes)| match decode_result(&bytes) {
                Ok(result) => Ok((task, result)),
                Err(source) => Err(Error::Record {
                    thread: thread.clone(),
                    version: dispatch.version,
                    source,
                }),
            })
            .collect()
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
