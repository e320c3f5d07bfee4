//! Attempts: a task from its first try to its result, as the policies of its node say.
//!
//! A cached result is taken as it is; a failed attempt is made again after a pause; what has
//! failed for good goes to the node's error handler. One attempt is `run_task`'s business, and
//! what becomes of the result is the engine's.
//!
//! The rule it keeps: a pause is spent within the task's slot and ends when the task is told to
//! stop; a worker that dies meanwhile leaves nothing behind but the attempt not made.

use superstep_graph::{Task, input_of};
use superstep_protocol::{RunError, TaskResult, ThreadState};
use tracing::debug;

use crate::{
    cache::{CacheKey, keep, look_up},
    graphs::RunnableGraph,
    node::{NodeError, NodeFailure},
    run_task::{Attempt, Attempted, Stopped, attempt, handle, horizon_of},
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
    let policy = graph.policies(&task.node).and_then(|p| p.retry.as_ref());
    let mut made = 0;
    let mut now = given.clone();
    let attempted = loop {
        let attempted = Box::pin(attempt(graph, state, task, now.clone())).await?;
        made += 1;
        let TaskResult::Failed {
            error, took, child, ..
        } = &attempted.result
        else {
            break attempted;
        };
        now.number += 1;
        now.before.tries = made;
        now.before.took.clone_from(took);
        // What finished inside a subgraph does not run again.
        now.before.child.clone_from(child);
        let seed = task.id.as_str();
        let pause = policy.and_then(|policy| policy.pause(made, &node_error(error), seed));
        let Some(pause) = pause else {
            break attempted;
        };
        debug!(task_id = %task.id, attempts = made, kind = error.kind, ?pause, "trying a task again");
        tokio::select! {
            biased;
            () = given.cancel.cancelled() => return Err(Stopped),
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
    Ok(attempted)
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
    if let TaskResult::Failed { took, .. } = &failed.result {
        given.before.took.clone_from(took);
    }
    let recovered = handle(graph, state, task, given, handler);
    Ok(match (Box::pin(recovered).await?, failed.result) {
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
