//! Runs one task: polls its node, catches what it does wrong, and makes its result.
//!
//! The node's future is dropped right after the poll in which it raised a question; a panic, a
//! hang beyond the timeout and an error are results like any other. Nothing here is stored.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use superstep_graph::{
    Horizon, Task, UnknownTargets, input_of, output_from_update, route_within, start_writes,
};
use superstep_protocol::{Profile, RunError, TaskResult, ThreadState};
use tokio_util::sync::CancellationToken;

use crate::{
    graphs::RunnableGraph,
    node::{BoxFuture, NodeContext, NodeError, NodeReturn, OutputSink, TaskInfo},
};

/// What a task is run with.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) number: u64,
    pub(crate) timeout: Duration,
    pub(crate) cancel: CancellationToken,
    pub(crate) sink: Option<Arc<dyn OutputSink>>,
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
        let input = state
            .checkpoint
            .content(superstep_graph::START)
            .cloned()
            .unwrap_or_default();
        return Ok(
            match start_writes(graph.topology(), &state.checkpoint, &input) {
                Ok(writes) => TaskResult::Finished { writes },
                Err(error) => failed(task, error.kind(), error.to_string()),
            },
        );
    }
    let Some(node) = graph.node(task.node.as_str()) else {
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
        step: horizon.step,
        attempt: attempt.number,
        config: Arc::new(run.map(|run| run.config.clone()).unwrap_or_default()),
    };
    let answers = state
        .task(&task.id)
        .map(superstep_protocol::TaskState::answers);
    let ctx = NodeContext::new(
        info,
        answers.unwrap_or_default(),
        attempt.cancel.clone(),
        attempt.sink.clone(),
    );
    // A node may panic before its first await, while its future is made.
    let future = catch_unwind(AssertUnwindSafe(|| node.call(input, ctx.clone())));
    let ended = match future {
        Ok(future) => {
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
        Err(panic) => Ended::Panicked(panic_message(panic.as_ref())),
    };
    Ok(result_of(graph, state, task, ended, horizon))
}

enum Ended {
    Returned(Result<NodeReturn, NodeError>),
    Raised(Vec<superstep_protocol::Raised>),
    Panicked(String),
}

/// Polls the node until it returns, raises a question, or panics.
async fn polled(mut future: BoxFuture<Result<NodeReturn, NodeError>>, ctx: NodeContext) -> Ended {
    std::future::poll_fn(move |cx| {
        ctx.set_runner(cx.waker());
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        let raised = ctx.raised();
        match poll {
            // A question wins over whatever else the node did in that poll.
            _ if !raised.is_empty() => Poll::Ready(Ended::Raised(raised)),
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(returned)) => Poll::Ready(Ended::Returned(returned)),
            Err(panic) => Poll::Ready(Ended::Panicked(panic_message(panic.as_ref()))),
        }
    })
    .await
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

fn result_of(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
    ended: Ended,
    horizon: Horizon,
) -> TaskResult {
    let output = match ended {
        Ended::Raised(raised) => return TaskResult::Interrupted { raised },
        Ended::Panicked(message) => {
            return failed(
                task,
                "Panic",
                format!("node `{}` panicked: {message}", task.node),
            );
        }
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
    let unknown = match state.profile {
        Profile::Default => UnknownTargets::Refused,
        Profile::Langgraph => UnknownTargets::Ignored,
    };
    let routed = route_within(
        graph.topology(),
        &state.checkpoint,
        &task.node,
        output,
        unknown,
        horizon,
    );
    if routed.parent.is_some() {
        let message = format!("node `{}` goes to a parent graph, and has none", task.node);
        return failed(task, "NoParentGraph", message);
    }
    match routed.error {
        None => TaskResult::Finished {
            writes: routed.writes,
        },
        Some(error) => {
            let kept = error.keeps_writes();
            TaskResult::Failed {
                error: run_error(task, error.kind(), error.to_string()),
                writes: kept.then_some(routed.writes),
            }
        }
    }
}

fn failed(task: &Task, kind: &str, message: String) -> TaskResult {
    TaskResult::Failed {
        error: run_error(task, kind, message),
        writes: None,
    }
}

fn run_error(task: &Task, kind: &str, message: String) -> RunError {
    RunError {
        kind: kind.to_owned(),
        message,
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
