//! A round: its open tasks are run, and their results brought together.
//!
//! One worker may have all of the round or a part of it; whoever sees it full closes it. The rule it
//! keeps: a result that is stored counts, and its task does not run again.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt as _;
use superstep_checkpoint::PutResult;
use superstep_graph::TaskId;
use superstep_protocol::{Dispatch, TaskResult, ThreadId};
use superstep_wire::record::{decode_result, encode_result};
use tokio::sync::mpsc;

use super::{Engine, Worked};
use crate::{
    child::{Progress, WhyStopped},
    error::Error,
    poison::is_poisoned,
    rounds::{Running, run_all, run_each},
    run_task::Attempt,
    stop::Stop,
    stream,
    threads::Thread,
};

/// How many results are put at once by one dispatch.
const PUTS_AT_ONCE: usize = 32;

/// What became of the results of a dispatch.
enum Put {
    /// Stored; so many of the round are there.
    Stored(u64),
    RoundOver,
    UnknownThread,
}

impl Engine {
    pub(super) async fn run_round(
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
        let mut attempt = running.first_attempt(&thread.state, tasks_max, &progress, dispatch);
        // Where several workers share a round, the one with its first task tells that it begins.
        if mine.first() == open.first() {
            stream::round_begins(&attempt.stream, graph.topology(), &thread.state, dispatch);
        }
        let whole = open.len() == mine.len();
        let stored = if running.again && open.len() > 1 {
            self.stored_results(&id, dispatch, (!whole).then_some(&mine))
                .await?
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
            attempt.lost = Arc::new(counts.lost);
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
        if let Some((task, result)) = stored.into_iter().next().filter(|_| mine.is_empty()) {
            // Nothing was left to run: the answer to a result that is there tells how many are.
            there = match self.put(&id, dispatch, &task, result).await? {
                PutResult::Stored { count } | PutResult::Duplicate { count } => count,
                PutResult::RoundOver => return self.late(&id).await,
                PutResult::UnknownThread => return Ok(Worked::Late(None)),
            };
        }
        if there < open.len() as u64 {
            return Ok(Worked::Partial);
        }
        self.close_stored(thread, dispatch, BTreeMap::new()).await
    }

    /// Closes a round whose results are stored, if they all are; `brought` go before these.
    async fn close_stored(
        &self,
        mut thread: Thread,
        dispatch: Dispatch,
        brought: BTreeMap<TaskId, TaskResult>,
    ) -> Result<Worked, Error> {
        let id = thread.state.thread.clone();
        let closing = self.closing.acquire().await;
        let _closing = closing.expect("it is never closed");
        let head = self
            .threads
            .retrying(&id, || self.threads.log().head(&id))
            .await?;
        if head != Some(thread.state.head) {
            // Mostly closed by whoever held it before.
            match self.threads.load_wide(&id).await? {
                Some(now) if now.state.waits_for(dispatch) => thread = now,
                now => return Ok(Worked::Late(now.map(Box::new))),
            }
        }
        let mut results = self.stored_results(&id, dispatch, None).await?;
        if results.len() < thread.state.round_tasks(dispatch).count() {
            return Ok(Worked::Partial);
        }
        results.extend(brought);
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
                let mut attempt = attempt.clone();
                attempt.lost = Arc::new(counts.lost);
                match run_all(&graph, &thread.state, task, &attempt).await {
                    Some(results) => results,
                    None => return Ok(None),
                }
            } else {
                counts.poisoned
            };
            for (task, result) in &results {
                match self.put(&id, dispatch, task, result.clone()).await? {
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
        // A task whose result is there is poisoned by what closing the round makes of it.
        let closed = self.close_stored(thread, dispatch, brought);
        closed.await.map(Some)
    }

    /// The thread as it is, which does not wait for the work any more: of a wide round many parts
    /// come to it at once.
    async fn late(&self, id: &ThreadId) -> Result<Worked, Error> {
        let now = self.threads.load_wide(id).await?;
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
        let puts = results.map(async |(task, result)| self.put(id, dispatch, &task, result).await);
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

    /// Puts one result into the map of its round.
    async fn put(
        &self,
        id: &ThreadId,
        dispatch: Dispatch,
        task: &TaskId,
        result: TaskResult,
    ) -> Result<PutResult, Error> {
        let bytes = Bytes::from(encode_result(result));
        let put = self.threads.retrying(id, || {
            let log = self.threads.log();
            log.put_result(id, dispatch, task, bytes.clone())
        });
        put.await
    }

    /// What it came to when tasks have no result.
    async fn stopped(&self, id: &ThreadId, progress: &Progress) -> Result<Worked, Error> {
        match progress.why_stopped() {
            None => Ok(Worked::Stopped),
            Some(WhyStopped::Late) => self.late(id).await,
            Some(WhyStopped::Failed(error)) => Err(error),
        }
    }

    /// What the tasks of a round have brought so far; of these only, if some are named: a round may
    /// have very many.
    pub(crate) async fn stored_results(
        &self,
        thread: &ThreadId,
        dispatch: Dispatch,
        tasks: Option<&[TaskId]>,
    ) -> Result<BTreeMap<TaskId, TaskResult>, Error> {
        let stored = self.threads.retrying(thread, || async {
            let log = self.threads.log();
            match tasks {
                None => log.results(thread, dispatch).await,
                Some(tasks) => log.results_of(thread, dispatch, tasks).await,
            }
        });
        let stored = stored.await?;
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
}
