//! Runs one task: polls its node, catches what it does wrong, and makes its result.
//!
//! The node's future is dropped right after the poll in which it raised a question; a panic, a
//! hang beyond the timeout and an error are results like any other. Nothing here is stored.

use std::{sync::Arc, task::Poll, time::Duration};

use superstep_graph::{
    Horizon, NodeName, Task, input_of, output_from_update, route_within, start_writes,
};
use superstep_protocol::{RunError, TaskResult, ThreadState};
use tokio_util::sync::CancellationToken;

use crate::{
    child::{self, Inside},
    compute::unknown_targets,
    error::{ERROR_CHARS_MAX, shortened},
    graphs::{NodeCode, RunnableGraph},
    node::{NodeContext, NodeError, NodeReturn, Offer, OutputSink, TaskInfo},
    panics::{Guarded, caught},
};

/// The longest name of a kind of errors.
const KIND_CHARS_MAX: usize = 256;

/// What a task is run with.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) number: u64,
    pub(crate) timeout: Duration,
    pub(crate) cancel: CancellationToken,
    pub(crate) sink: Option<Arc<dyn OutputSink>>,
    /// The nodes whose subgraph the task belongs to, from the outside in.
    pub(crate) path: Arc<[NodeName]>,
    /// An answer without a question: the first task that asks takes it.
    pub(crate) offer: Offer,
    /// What else the task has of those subgraphs.
    pub(crate) inside: Inside,
}

/// Why a task has no result: it was told to stop, and will be run again by someone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Runs `task` of `state` to its result.
pub(crate) async fn run_task(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
    attempt: Attempt,
) -> Result<TaskResult, Stopped> {
    if task.node == superstep_graph::START {
        return Ok(caught(|| start(graph, state, task)).unwrap_or_else(|m| panicked(task, &m)));
    }
    let Some(code) = graph.node(task.node.as_str()) else {
        let message = format!(
            "graph {} has no node `{}` any more; run a worker of the version that planned it, or \
             update the state",
            graph.id(),
            task.node
        );
        return Ok(failed(task, "UnknownNode", message));
    };
    let run = state.run.as_ref();
    let horizon = Horizon {
        step: state.next_step(),
        stop: run.map_or(i64::MAX, |run| run.stop),
    };
    let input = input_of(graph.topology(), &state.checkpoint, task, horizon);
    let info = TaskInfo {
        thread: state.thread.clone(),
        run: run.map_or_else(|| "".into(), |run| run.id.clone()),
        task: task.id.clone(),
        node: task.node.clone(),
        path: Arc::clone(&attempt.path),
        step: horizon.step,
        attempt: attempt.number,
        config: Arc::new(run.map(|run| run.config.clone()).unwrap_or_default()),
    };
    let node = match code {
        NodeCode::Function(node) => node,
        NodeCode::Graph(subgraph) => {
            let called = child::call(graph, subgraph, state, task, input, &attempt).await?;
            let route = |output| {
                let ended = Ended::Returned(Ok(NodeReturn::Output(output)));
                caught(|| result_of(graph, state, task, ended, horizon, &attempt.inside))
                    .unwrap_or_else(|message| panicked(task, &message))
            };
            return Ok(called.into_result(route));
        }
    };
    let answers = state
        .task(&task.id)
        .map(superstep_protocol::TaskState::answers);
    let mut answers = answers.unwrap_or_default();
    attempt.inside.add_known(&task.id, &mut answers);
    let ctx = NodeContext::new(
        info,
        answers,
        attempt.offer.clone(),
        attempt.cancel.clone(),
        attempt.sink.clone(),
    );
    // A node may panic before its first await, while its future is made.
    let ended = match caught(|| node.call(input, ctx.clone())) {
        Ok(future) => {
            let future = Guarded::new(future);
            tokio::select! {
                biased;
                ended = tokio::time::timeout(attempt.timeout, polled(future, ctx.clone())) => {
                    match ended {
                        Ok(ended) => ended,
                        Err(_) => return Ok(timed_out(task, attempt.timeout)),
                    }
                }
                () = attempt.cancel.cancelled() => return Err(Stopped),
            }
        }
        Err(message) => Ended::Panicked(message),
    };
    // Its paths are the graph's code too.
    let result = caught(|| result_of(graph, state, task, ended, horizon, &attempt.inside));
    let mut result = result.unwrap_or_else(|message| panicked(task, &message));
    if let TaskResult::Interrupted { took, .. } | TaskResult::Failed { took, .. } = &mut result {
        *took = ctx.took();
    }
    Ok(result)
}

fn start(graph: &RunnableGraph, state: &ThreadState, task: &Task) -> TaskResult {
    let input = state.checkpoint.content(superstep_graph::START);
    let input = input.cloned().unwrap_or_default();
    match start_writes(graph.topology(), &state.checkpoint, &input) {
        Ok(writes) => TaskResult::finished(writes),
        Err(error) => failed(task, error.kind(), error.to_string()),
    }
}

enum Ended {
    Returned(Result<NodeReturn, NodeError>),
    Raised(Vec<superstep_protocol::Raised>),
    Panicked(String),
}

/// Polls the node until it returns, raises a question, or panics.
async fn polled(mut node: Guarded<Result<NodeReturn, NodeError>>, ctx: NodeContext) -> Ended {
    std::future::poll_fn(move |cx| {
        ctx.set_runner(cx.waker());
        let poll = node.poll(cx);
        let raised = ctx.raised();
        match poll {
            // A question wins over whatever else the node did in that poll.
            _ if !raised.is_empty() => Poll::Ready(Ended::Raised(raised)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(returned)) => Poll::Ready(Ended::Returned(returned)),
            Poll::Ready(Err(message)) => Poll::Ready(Ended::Panicked(message)),
        }
    })
    .await
}

fn result_of(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
    ended: Ended,
    horizon: Horizon,
    inside: &Inside,
) -> TaskResult {
    let output = match ended {
        Ended::Raised(raised) => return TaskResult::interrupted(raised),
        Ended::Panicked(message) => return panicked(task, &message),
        Ended::Returned(Err(error)) => {
            return failed(task, error.kind(), error.message().to_owned());
        }
        Ended::Returned(Ok(NodeReturn::Output(output))) => output,
        Ended::Returned(Ok(NodeReturn::Update(update))) => {
            match output_from_update(graph.topology(), update) {
                Ok(output) => output,
                Err(error) => return failed(task, "InvalidUpdateError", error.to_string()),
            }
        }
    };
    let unknown = unknown_targets(state.profile);
    let routed = route_within(
        graph.topology(),
        &state.checkpoint,
        &task.node,
        output,
        unknown,
        horizon,
    );
    if let Some(command) = routed.parent {
        // What ends the run of a subgraph is no result of its task.
        if inside.to_parent(&task.id, command).is_ok() {
            return TaskResult::finished(Vec::new());
        }
        let message = format!("node `{}` goes to a parent graph, and has none", task.node);
        return failed(task, "NoParentGraph", message);
    }
    match routed.error {
        None => TaskResult::finished(routed.writes),
        Some(error) => {
            let kept = error.keeps_writes();
            let failed = run_error(task, error.kind(), error.to_string());
            TaskResult::failed(failed, kept.then_some(routed.writes))
        }
    }
}

fn panicked(task: &Task, message: &str) -> TaskResult {
    failed(
        task,
        "Panic",
        format!("node `{}` panicked: {message}", task.node),
    )
}

fn failed(task: &Task, kind: &str, message: String) -> TaskResult {
    TaskResult::failed(run_error(task, kind, message), None)
}

fn run_error(task: &Task, kind: &str, message: String) -> RunError {
    RunError {
        kind: shortened(kind.to_owned(), KIND_CHARS_MAX),
        message: shortened(message, ERROR_CHARS_MAX),
        node: Some(task.node.clone()),
        task: Some(task.id.clone()),
    }
}

fn timed_out(task: &Task, timeout: Duration) -> TaskResult {
    let message = format!(
        "node `{}` took longer than {} s; raise the task timeout or make the node faster",
        task.node,
        timeout.as_secs_f64()
    );
    failed(task, "NodeTimeout", message)
}
