//! Runs one task once: polls its node, catches what it does wrong, and makes its result.
//!
//! The node's future is dropped right after the poll in which it raised a question; a panic, a
//! hang beyond the timeout and an error are results like any other. Nothing here is stored, and
//! whether a failed task is tried again is left to `attempts`.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, PoisonError},
    task::Poll,
    time::Duration,
};

use serde_json::Value;
use superstep_graph::{
    Horizon, Task, TaskId, input_of, output_from_update, route_handled, route_within, start_writes,
};
use superstep_protocol::{Pause, Paused, RunError, TaskResult, ThreadState, UnixMillis};
use tokio::sync::Semaphore;

use crate::{
    child::{self, Inside},
    compute::unknown_targets,
    error::{ERROR_CHARS_MAX, shortened},
    graphs::{NodeCode, RunnableGraph},
    health::Health,
    node::{Before, Node, NodeContext, NodeError, NodeReturn, Offer, TaskInfo},
    panics::{Guarded, caught},
    sleep::{Clock, known_ends},
    stop::Stop,
    stream::Stream,
    trace::{Place, Traces},
};

/// The longest name of a kind of errors.
const KIND_CHARS_MAX: usize = 256;

/// What a task is run with.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) number: u64,
    /// How many attempts at each task of the round came to no end, with their workers.
    pub(crate) lost: Arc<BTreeMap<TaskId, u32>>,
    pub(crate) timeout: Duration,
    /// How long the node may be silent.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) clock: Clock,
    pub(crate) stop: Stop,
    /// What the run tells, from the subgraph that the task belongs to.
    pub(crate) stream: Stream,
    /// An answer without a question: the first task that asks takes it.
    pub(crate) offer: Offer,
    /// What the task did before.
    pub(crate) before: Before,
    /// What else the task has of those subgraphs.
    pub(crate) inside: Inside,
    /// How many tasks of a superstep run at once; all of them otherwise.
    pub(crate) at_once: Option<NonZeroUsize>,
    /// The worker's slots, where tasks share them with other work.
    pub(crate) slots: Option<Arc<Semaphore>>,
    /// What is told of how long tasks take.
    pub(crate) health: Health,
    /// What tells of tasks, and where these are.
    pub(crate) traced: Option<(Traces, Place)>,
}

impl Attempt {
    /// The offered answer is gone: a superstep that is not run again took it.
    pub(crate) fn take_offer_away(&self) {
        let mut offer = self.offer.lock().unwrap_or_else(PoisonError::into_inner);
        *offer = None;
    }
}

/// Why a task has no result: it was told to stop, and will be run again by someone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// What one attempt came to.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) result: TaskResult,
    /// How many questions the node asked, the answered ones too.
    pub(crate) asked: usize,
    /// How many attempts have failed, with those that the log knows of.
    pub(crate) tries: u32,
    /// How many sleeps it began.
    pub(crate) slept: usize,
    /// The ends of its sleeps.
    pub(crate) sleeps: BTreeMap<String, UnixMillis>,
}

impl From<TaskResult> for Attempted {
    fn from(result: TaskResult) -> Self {
        Self {
            result,
            asked: 0,
            tries: 0,
            slept: 0,
            sleeps: BTreeMap::new(),
        }
    }
}

/// Runs `task` of `state` once.
pub(crate) async fn attempt(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
    attempt: Attempt,
) -> Result<Attempted, Stopped> {
    if attempt.stop.is_gone() {
        return Err(Stopped);
    }
    if task.node == superstep_graph::START {
        let started = caught(|| start(graph, state, task));
        return Ok(started.unwrap_or_else(|m| panicked(task, &m)).into());
    }
    let Some(code) = graph.node(task.node.as_str()) else {
        let message = format!(
            "graph {} has no node `{}` any more; run a worker of the version that planned it, or \
             update the state",
            graph.id(),
            task.node
        );
        return Ok(failed(task, "UnknownNode", message).into());
    };
    let called = Called {
        graph,
        state,
        task,
        attempt: &attempt,
    };
    match code {
        NodeCode::Function(node) => called.function(node.as_ref()).await,
        NodeCode::Graph(subgraph) => {
            let input = called.input(horizon_of(state));
            let ended = child::call(graph, subgraph, state, task, input, &attempt).await?;
            let route = |output| {
                let ended = Ended::Returned(Ok(NodeReturn::Output(output)));
                caught(|| called.result_of(ended)).unwrap_or_else(|m| panicked(task, &m))
            };
            Ok(ended.into_result(route).into())
        }
    }
}

/// Runs the error handler of a task whose node has failed for good, once.
pub(crate) async fn handle(
    graph: &RunnableGraph,
    state: &ThreadState,
    task: &Task,
    attempt: Attempt,
    handler: &dyn Node,
) -> Result<TaskResult, Stopped> {
    let called = Called {
        graph,
        state,
        task,
        attempt: &attempt,
    };
    Ok(called.function(handler).await?.result)
}

/// What a task's node or error handler is called on.
struct Called<'a> {
    graph: &'a RunnableGraph,
    state: &'a ThreadState,
    task: &'a Task,
    attempt: &'a Attempt,
}

impl Called<'_> {
    async fn function(&self, function: &dyn Node) -> Result<Attempted, Stopped> {
        let Self { task, attempt, .. } = *self;
        let horizon = horizon_of(self.state);
        let ctx = self.context(horizon).await;
        let input = self.input(horizon);
        // A node may panic before its first await, while its future is made.
        let ended = match caught(|| function.call(input, ctx.clone())) {
            Ok(future) => {
                let future = Guarded::new(future);
                tokio::select! {
                    biased;
                    ended = tokio::time::timeout(attempt.timeout, polled(future, ctx.clone())) => {
                        ended.unwrap_or(Ended::TimedOut(attempt.timeout))
                    }
                    () = attempt.stop.is_over() => return Err(Stopped),
                    idle = idle(&ctx, attempt.idle_timeout) => Ended::Silent(idle),
                }
            }
            Err(message) => Ended::Panicked(message),
        };
        let told = attempt.stop.told().is_cancelled();
        let gave_up = told && matches!(ended, Ended::Returned(Err(_)));
        // A node that gives up because it was told to has not failed.
        if attempt.stop.is_gone() || gave_up {
            return Err(Stopped);
        }
        // Also of a sleep that is over: another attempt is told when it ended.
        let now = if ctx.sleeps().count() > 0 {
            attempt.clock.now().await
        } else {
            attempt.clock.threads.world().now()
        };
        let (sleeps, until) = ctx.sleeps().ends(now);
        // Its paths are the graph's code too.
        let result = caught(|| self.result_of(ended));
        let mut result = result.unwrap_or_else(|message| panicked(task, &message));
        if let (TaskResult::Interrupted { raised, .. }, Some(until)) = (&mut result, until) {
            let mut paused = Paused::new(until, Pause::Sleep);
            paused.raised = std::mem::take(raised);
            paused.sleeps.clone_from(&sleeps);
            result = TaskResult::Paused(Box::new(paused));
        }
        note_taken(&mut result, &ctx);
        if ctx.has_taken() {
            attempt.inside.offer_taken();
        }
        Ok(Attempted {
            result,
            asked: ctx.asked(),
            tries: 0,
            slept: ctx.sleeps().count(),
            sleeps,
        })
    }

    fn result_of(&self, ended: Ended) -> TaskResult {
        let Self {
            graph,
            state,
            task,
            attempt,
        } = *self;
        let topology = graph.topology();
        let output = match ended {
            Ended::Raised(raised) => return TaskResult::interrupted(raised),
            Ended::Panicked(message) => return panicked(task, &message),
            Ended::TimedOut(timeout) => return timed_out(task, timeout),
            Ended::Silent(timeout) => return silent(task, timeout),
            Ended::Returned(Err(error)) => {
                return failed(task, error.kind(), error.message().to_owned());
            }
            Ended::Returned(Ok(NodeReturn::Output(output))) => output,
            Ended::Returned(Ok(NodeReturn::Update(update))) => {
                match output_from_update(topology, update) {
                    Ok(output) => output,
                    Err(error) => return failed(task, "InvalidUpdateError", error.to_string()),
                }
            }
        };
        let unknown = unknown_targets(state.profile);
        let node = &task.node;
        let routed = if attempt.before.failure.is_some() {
            route_handled(topology, node, output, unknown)
        } else {
            let horizon = horizon_of(state);
            route_within(topology, &state.checkpoint, node, output, unknown, horizon)
        };
        if let Some(command) = routed.parent {
            // What ends the run of a subgraph is no result of its task.
            if attempt.inside.to_parent(&task.id, command).is_ok() {
                return TaskResult::finished(Vec::new());
            }
            let message = format!("node `{node}` goes to a parent graph, and has none");
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

    fn input(&self, horizon: Horizon) -> Value {
        let graph = self.graph.topology();
        input_of(graph, &self.state.checkpoint, self.task, horizon)
    }

    async fn context(&self, horizon: Horizon) -> NodeContext {
        let run = self.state.run.as_ref();
        let info = TaskInfo {
            thread: self.state.thread.clone(),
            run: run.map_or_else(|| "".into(), |run| run.id.clone()),
            task: self.task.id.clone(),
            node: self.task.node.clone(),
            path: Arc::clone(self.attempt.stream.path()),
            step: horizon.step,
            attempt: self.attempt.number,
            config: Arc::new(run.map(|run| run.config.clone()).unwrap_or_default()),
        };
        let answers = self.state.task(&self.task.id);
        let answers = answers.map(superstep_protocol::TaskState::answers);
        let mut answers = answers.unwrap_or_default();
        self.attempt.inside.add_known(&self.task.id, &mut answers);
        let known = self.state.task(&self.task.id);
        let mut ends = known_ends(known, &self.attempt.inside.sleeps);
        let earlier = self.attempt.before.sleeps.iter();
        ends.extend(earlier.map(|(name, end)| (name.clone(), *end)));
        let woken = known.and_then(|known| known.woken);
        let sleeps = self.attempt.clock.sleeps(&self.task.id, ends, woken).await;
        NodeContext::new(
            info,
            answers,
            self.attempt.offer.clone(),
            self.attempt.stop.told().clone(),
            self.attempt.stream.clone(),
            self.attempt.before.clone(),
            sleeps,
        )
    }
}

/// Questions that took the answer which was offered keep it when the task runs again.
fn note_taken(result: &mut TaskResult, ctx: &NodeContext) {
    match result {
        TaskResult::Interrupted { took, .. } | TaskResult::Failed { took, .. } => {
            *took = ctx.took();
        }
        TaskResult::Paused(paused) => paused.took = ctx.took(),
        TaskResult::Finished { .. } => {}
    }
}

/// Where the superstep after `state` stands in its run.
pub(crate) fn horizon_of(state: &ThreadState) -> Horizon {
    Horizon {
        step: state.next_step(),
        stop: state.run.as_ref().map_or(i64::MAX, |run| run.stop),
    }
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
    TimedOut(Duration),
    Silent(Duration),
}

/// Waits until the node is silent for too long; gives how long that is.
async fn idle(ctx: &NodeContext, timeout: Option<Duration>) -> Duration {
    let Some(timeout) = timeout else {
        return std::future::pending().await;
    };
    loop {
        let lived = ctx.lived();
        tokio::time::sleep_until(lived + timeout).await;
        if ctx.lived() == lived {
            return timeout;
        }
    }
}

/// Polls the node until it returns, raises a question, or panics.
async fn polled(mut node: Guarded<Result<NodeReturn, NodeError>>, ctx: NodeContext) -> Ended {
    std::future::poll_fn(move |cx| {
        ctx.set_runner(cx.waker());
        let poll = node.poll(cx);
        let raised = ctx.raised();
        match poll {
            // A question wins over whatever else the node did in that poll.
            _ if !raised.is_empty() => {
                ctx.sleeps().park();
                Poll::Ready(Ended::Raised(raised))
            }
            Poll::Pending if ctx.sleeps().park() => Poll::Ready(Ended::Raised(raised)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(returned)) => Poll::Ready(Ended::Returned(returned)),
            Poll::Ready(Err(message)) => Poll::Ready(Ended::Panicked(message)),
        }
    })
    .await
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

fn silent(task: &Task, timeout: Duration) -> TaskResult {
    let message = format!(
        "node `{}` was silent for {} s; raise its idle timeout, or call `heartbeat` while it works",
        task.node,
        timeout.as_secs_f64()
    );
    failed(task, "NodeIdle", message)
}

fn timed_out(task: &Task, timeout: Duration) -> TaskResult {
    let message = format!(
        "node `{}` took longer than {} s; raise the task timeout or make the node faster",
        task.node,
        timeout.as_secs_f64()
    );
    failed(task, "NodeTimeout", message)
}
