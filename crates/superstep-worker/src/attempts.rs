//! Attempts: a task from its first try to its result, as the policies of its node say.
//!
//! A cached result is taken as it is; a failed attempt is made again after a pause; what has
//! failed for good goes to the node's error handler. One attempt is `run_task`'s business, and
//! what becomes of the result is the engine's.
//!
//! The rule it keeps: a short pause is spent within the task's slot and ends when the task is told
//! to stop. A longer one ends the task's round: how many attempts are over and when the first
//! began go into the log, so that they count for whoever goes on. An attempt that died with its
//! worker is over as well.

use std::time::Duration;

use superstep_graph::{Task, input_of};
use superstep_protocol::{Pause, Paused, RunError, TaskResult, ThreadState, UnixMillis};
use tokio::time::Instant;
use tracing::debug;

use crate::{
    cache::{CacheKey, keep, look_up},
    graphs::RunnableGraph,
    node::{NodeError, NodeFailure},
    policies::RetryPolicy,
    run_task::{Attempt, Attempted, Stopped, attempt, handle, horizon_of},
    sleep::{Clock, millis},
};

/// The result that is kept for `task`, if its node is cached and one is there.
pub(crate) async fn cached(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
) -> Option<TaskResult> {
    let key = cache_key(graph, state, task)?;
    let writes = look_up(graph.cache(), &key).await?;
    Some(TaskResult::finished(writes))
}

/// Runs `task` until an attempt ends well, asks, or fails for good.
pub(crate) async fn try_task(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
    given: &Attempt,
) -> Result<Attempted, Stopped> {
    let policies = graph.policies(&task.node);
    let policy = policies.and_then(|p| p.retry.as_ref());
    let mut tries = Tries::of(state, task, given);
    let mut now = given.clone();
    now.number += u64::from(tries.made);
    now.before.tries = tries.made;
    now.timeout = policies.and_then(|p| p.timeout).unwrap_or(given.timeout);
    now.idle_timeout = policies.and_then(|p| p.idle_timeout).or(given.idle_timeout);
    let attempt_timeout = now.timeout;
    let attempted = loop {
        if let Some(left) = tries.left(policy).await {
            now.timeout = attempt_timeout.min(left);
        }
        let mut attempted = Box::pin(attempt(graph, state, task, now.clone())).await?;
        if let TaskResult::Paused(paused) = &mut attempted.result {
            // A task that sleeps between attempts has made those before.
            (paused.attempts, paused.since) = tries.recorded().await;
        }
        let TaskResult::Failed {
            error, took, child, ..
        } = &attempted.result
        else {
            break attempted;
        };
        tries.made = tries.made.saturating_add(1);
        now.number += 1;
        now.before.tries = tries.made;
        now.before.took.clone_from(took);
        now.before.sleeps.clone_from(&attempted.sleeps);
        // What finished inside a subgraph does not run again.
        now.before.child.clone_from(child);
        let made = tries.over();
        let Some(pause) = tries.pause(policy, task, error).await else {
            break attempted;
        };
        debug!(task_id = %task.id, attempts = made, kind = error.kind, ?pause, "trying a task again");
        if pause > given.clock.short_pause_max {
            attempted.result = tries.parked(error, pause, &now).await;
            break attempted;
        }
        tokio::select! {
            biased;
            () = given.stop.ends() => return Err(Stopped),
            () = tokio::time::sleep(pause) => {}
        }
    };
    if let TaskResult::Finished {
        writes,
        handled: None,
        keeps: None,
    } = &attempted.result
        && let Some(key) = cache_key(graph, state, task)
        && let Some(policy) = graph.policies(&task.node).and_then(|p| p.cache.as_ref())
    {
        keep(graph.cache(), &key, writes, policy).await;
    }
    Ok(Attempted {
        tries: tries.made,
        ..attempted
    })
}

/// The attempts of a task, those that the log knows of too.
struct Tries<'a> {
    clock: &'a Clock,
    /// Those that failed.
    made: u32,
    /// Those of this round that came to no end: they count for the policy. What a call stored is
    /// found by those that failed, so the two are kept apart.
    lost: u32,
    since: Option<UnixMillis>,
    began: Instant,
}

impl<'a> Tries<'a> {
    fn of(state: &ThreadState, task: &Task, given: &'a Attempt) -> Self {
        let known = state.task(&task.id);
        Self {
            clock: &given.clock,
            made: known.map_or(0, |known| known.attempts),
            lost: given.lost.get(&task.id).copied().unwrap_or(0),
            since: known.and_then(|known| known.tried_since),
            began: Instant::now(),
        }
    }

    /// How many were begun and are over.
    fn over(&self) -> u32 {
        self.made.saturating_add(self.lost)
    }

    /// When the first of them began.
    async fn since(&mut self) -> UnixMillis {
        if let Some(since) = self.since {
            return since;
        }
        let now = self.clock.now().await;
        let since = UnixMillis(now.0.saturating_sub(millis(self.began.elapsed())));
        self.since = Some(since);
        since
    }

    /// What the log is to know of them, of a task that goes on later.
    async fn recorded(&mut self) -> (u32, Option<UnixMillis>) {
        if self.over() == 0 {
            return (0, self.since);
        }
        (self.over(), Some(self.since().await))
    }

    /// What is left of the time for all of them, if it is bounded.
    async fn left(&mut self, policy: Option<&RetryPolicy>) -> Option<Duration> {
        let total = policy?.total_of()?;
        let since = self.since().await;
        let passed = self.clock.now().await.0.saturating_sub(since.0);
        Some(total.saturating_sub(Duration::from_millis(passed)))
    }

    /// The pause before the next one; `None` if there is none.
    async fn pause(
        &mut self,
        policy: Option<&RetryPolicy>,
        task: &Task,
        error: &RunError,
    ) -> Option<Duration> {
        let pause = policy?.pause(self.over(), &node_error(error), task.id.as_str())?;
        match self.left(policy).await {
            Some(left) if left <= pause => None,
            _ => Some(pause),
        }
    }

    /// The result of a task whose next attempt comes later, on whatever worker there is.
    async fn parked(&mut self, error: &RunError, pause: Duration, next: &Attempt) -> TaskResult {
        let since = self.since().await;
        let until = self.clock.now().await.plus_ms(millis(pause));
        let why = Pause::Retry {
            error: error.clone(),
        };
        TaskResult::Paused(Box::new(Paused {
            attempts: self.over(),
            since: Some(since),
            sleeps: next.before.sleeps.clone(),
            took: next.before.took.clone(),
            child: next.before.child.clone(),
            ..Paused::new(until, why)
        }))
    }
}

/// How `task` failed for its error handler, if its node has one and nothing of it is kept.
pub(crate) fn failure(
    graph: &RunnableGraph,
    task: &Task,
    attempted: &Attempted,
) -> Option<NodeFailure> {
    let has_handler = graph.policies(&task.node)?.on_error.is_some();
    match &attempted.result {
        TaskResult::Failed {
            error,
            writes: None,
            ..
        } if has_handler => Some(NodeFailure {
            node: task.node.clone(),
            error: node_error(error),
        }),
        _ => None,
    }
}

/// Lets the error handler of `task` take the place of its node, which has failed so.
pub(crate) async fn recover(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
    given: &Attempt,
    (failed, failure): (Attempted, NodeFailure),
) -> Result<TaskResult, Stopped> {
    let policies = graph.policies(&task.node);
    let Some(handler) = policies.and_then(|p| p.on_error.as_deref()) else {
        return Ok(failed.result);
    };
    let mut given = given.clone();
    given.before.failure = Some(failure);
    given.before.asked = failed.asked;
    given.before.slept = failed.slept;
    given.before.sleeps.clone_from(&failed.sleeps);
    if let TaskResult::Failed { took, .. } = &failed.result {
        given.before.took.clone_from(took);
    }
    let recovered = handle(graph, state, task, given.clone(), handler);
    let mut tries = Tries::of(state, task, &given);
    tries.made = failed.tries;
    Ok(match (Box::pin(recovered).await?, failed.result) {
        // The node is not tried more often for that its handler sleeps.
        (TaskResult::Paused(mut paused), _) => {
            (paused.attempts, paused.since) = tries.recorded().await;
            TaskResult::Paused(paused)
        }
        (TaskResult::Finished { writes, keeps, .. }, TaskResult::Failed { error, .. }) => {
            TaskResult::Finished {
                writes,
                handled: Some(error),
                keeps,
            }
        }
        (other, _) => other,
    })
}

fn node_error(error: &RunError) -> NodeError {
    NodeError::new(error.kind.clone(), error.message.clone())
}

fn cache_key(graph: &RunnableGraph, state: &ThreadState, task: &Task) -> Option<CacheKey> {
    let policy = graph.policies(&task.node)?.cache.as_ref()?;
    let horizon = horizon_of(state);
    let input = input_of(graph.topology(), &state.checkpoint, task, horizon);
    Some(CacheKey::of(graph.id(), &task.node, policy, &input))
}

#[cfg(test)]
mod tests;
