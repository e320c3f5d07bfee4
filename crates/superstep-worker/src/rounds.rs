//! Rounds: the tasks of a superstep run beside each other, or one after the other.
//!
//! Each task runs to its end whatever becomes of its siblings. How one is tried is `attempts`'
//! business; what the results make of the thread is the engine's.
//!
//! The rule it keeps: where only so many tasks may run at once they begin in task order, and those
//! that failed end last, so that one at a time gives the same order every time. A round that is one
//! message of many tasks takes no more than the worker's free slots beside its own.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt as _;
use superstep_graph::{Task, TaskId};
use superstep_protocol::{Dispatch, TaskResult, ThreadState};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{Instrument, Span, info_span};

use crate::{
    attempts::{cached, failure, recover, try_task},
    child::{Inside, Progress},
    graphs::RunnableGraph,
    node::{Before, NodeFailure},
    poison::Charged,
    run_task::{Attempt, Attempted, Stopped},
    sleep::Clock,
    stop::Stop,
    stream::{OutputSink, Stream, TaskEnd, task_ended},
    trace::{Live, Place, TraceContext},
};

/// How tasks are run.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) attempt: u64,
    /// Whether somebody may have worked on the dispatch before.
    pub(crate) again: bool,
    /// How often a task may be begun; not counted otherwise.
    pub(crate) attempts_max: Option<u64>,
    /// The attempts that are counted for this delivery.
    pub(crate) charged: Charged,
    pub(crate) timeout: Duration,
    pub(crate) clock: Clock,
    /// How many at once; all of them otherwise.
    pub(crate) at_once: Option<NonZeroUsize>,
    /// The worker's slots; one of them is this dispatch's.
    pub(crate) slots: Option<Arc<Semaphore>>,
    pub(crate) stop: Stop,
    pub(crate) sink: Option<Arc<dyn OutputSink>>,
    /// The span of the delivery that it is run for.
    pub(crate) delivery: Option<TraceContext>,
}

impl Running {
    /// What the tasks of `state`, of a root graph, are run with first.
    pub(crate) fn first_attempt(
        &self,
        state: &ThreadState,
        tasks_max: usize,
        progress: &Progress,
        dispatch: Dispatch,
    ) -> Attempt {
        let traces = self.clock.threads.traces().cloned();
        let delivery = self.delivery.clone();
        Attempt {
            traced: traces.map(|traces| (traces, Place::Root { dispatch, delivery })),
            stream: Stream::of(self.sink.as_ref(), state),
            number: self.attempt,
            lost: Arc::default(),
            timeout: self.timeout,
            clock: self.clock.clone(),
            idle_timeout: None,
            stop: self.stop.clone(),
            offer: Arc::new(Mutex::new(state.offer.clone())),
            before: Before::default(),
            inside: Inside::root(tasks_max, Some(progress.clone())),
            at_once: self.at_once,
            slots: self.slots.clone(),
            health: progress.health().clone(),
        }
    }
}

/// Runs tasks of `state` beside each other; `None` if they were told to stop.
pub(crate) async fn run_all(
    graph: &RunnableGraph,
    state: &ThreadState,
    tasks: &[TaskId],
    attempt: &Attempt,
) -> Option<BTreeMap<TaskId, TaskResult>> {
    let mut results = BTreeMap::new();
    let keep = |task: &TaskId, result| {
        results.insert(task.clone(), result);
    };
    run_each(graph, state, tasks, attempt, keep).await?;
    Some(results)
}

/// Runs tasks of `state` beside each other and gives each result as soon as it is there; `None` if
/// they were told to stop.
pub(crate) async fn run_each(
    graph: &RunnableGraph,
    state: &ThreadState,
    tasks: &[TaskId],
    attempt: &Attempt,
    mut ended: impl FnMut(&TaskId, TaskResult),
) -> Option<()> {
    let round = Round {
        graph,
        state,
        given: attempt,
        in_order: attempt.at_once.is_some(),
        own: Semaphore::new(1),
    };
    let mut left = Vec::new();
    for id in tasks {
        let task = &state.task(id)?.task;
        match cached(graph, state, task).await {
            Some(result) => {
                round.tell(task, &result, TaskEnd::Cached);
                ended(id, result);
            }
            None => left.push(Box::pin(round.run(task))),
        }
    }
    let at_once = attempt.at_once.map_or(left.len(), NonZeroUsize::get);
    let mut running = futures_util::stream::iter(left).buffer_unordered(at_once.max(1));
    let mut late = Vec::new();
    let mut all = true;
    while let Some(ran) = running.next().await {
        match ran {
            Ok(Ran::Ended(task, result)) => ended(&task.id, result),
            Ok(Ran::Failed(task, attempted, failure)) => late.push((task, attempted, failure)),
            // The others have their grace, whoever needs none of it.
            Err(Stopped) => all = false,
        }
    }
    if !all {
        return None;
    }
    for (task, attempted, failure) in late {
        let result = Box::pin(round.end(task, attempted, failure)).await.ok()?;
        ended(&task.id, result);
    }
    Some(())
}

/// How far a task came.
enum Ran<'a> {
    /// It ended.
    Ended(&'a Task, TaskResult),
    /// It failed, and waits for its siblings to end.
    Failed(&'a Task, Attempted, Option<NodeFailure>),
}

impl Ran<'_> {
    fn result(&self) -> &TaskResult {
        match self {
            Self::Ended(_, result) => result,
            Self::Failed(_, attempted, _) => &attempted.result,
        }
    }
}

/// Tasks of one superstep.
struct Round<'a> {
    graph: &'a RunnableGraph,
    state: &'a ThreadState,
    given: &'a Attempt,
    in_order: bool,
    /// The slot that whoever runs the round holds already.
    own: Semaphore,
}

impl<'a> Round<'a> {
    /// A slot of the worker for one task: the one that is held anyway, or another one.
    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        let slots = self.given.slots.as_deref()?;
        tokio::select! {
            biased;
            own = self.own.acquire() => own.ok(),
            other = slots.acquire() => other.ok(),
        }
    }

    async fn run(&self, task: &'a Task) -> Result<Ran<'a>, Stopped> {
        let _slot = self.slot().await;
        let span = info_span!(
            "task",
            task_id = %task.id,
            node = task.node.as_str(),
            attempt = self.given.number,
            trace_id = tracing::field::Empty,
            span_id = tracing::field::Empty,
        );
        let traced = self.given.traced.as_ref();
        let live = traced.map(|(traces, place)| {
            let number = self.given.number;
            span.in_scope(|| traces.task(self.state, task, number, place))
        });
        if let Some(context) = live.as_ref().and_then(|live| live.context.as_ref()) {
            span.record("trace_id", context.trace_id());
            span.record("span_id", context.span_id());
        }
        let began = tokio::time::Instant::now();
        let ran = async {
            let attempted = try_task(self.graph, self.state, task, self.given).await?;
            let failure = failure(self.graph, task, &attempted);
            if self.in_order && matches!(attempted.result, TaskResult::Failed { .. }) {
                return Ok(Ran::Failed(task, attempted, failure));
            }
            let result = self.end(task, attempted, failure).await?;
            Ok(Ran::Ended(task, result))
        }
        .instrument(
            live.as_ref()
                .map_or_else(Span::none, |live: &Live| live.span.clone()),
        )
        .instrument(span)
        .await;
        let (graph, node) = (&self.state.graph.name, task.node.as_str());
        let ended = ran.as_ref().ok().map(Ran::result);
        self.given.health.task_ended(graph, node, began, ended);
        if let (Some(live), Some((traces, _))) = (&live, traced) {
            traces.task_ended(live, ended);
        }
        ran
    }

    async fn end(
        &self,
        task: &Task,
        attempted: Attempted,
        failure: Option<NodeFailure>,
    ) -> Result<TaskResult, Stopped> {
        self.tell(task, &attempted.result, TaskEnd::Ran);
        let Some(failure) = failure else {
            return Ok(attempted.result);
        };
        let failed = (attempted, failure);
        let result = recover(self.graph, self.state, task, self.given, failed).await?;
        self.tell(task, &result, TaskEnd::Ran);
        Ok(result)
    }

    fn tell(&self, task: &Task, result: &TaskResult, end: TaskEnd) {
        if !self.given.inside.went_to_parent(&task.id) {
            let (stream, graph) = (&self.given.stream, self.graph.topology());
            task_ended(stream, graph, self.state, task, result, end);
        }
    }
}
