//! Nodes: the functions of a graph, and what they are given.
//!
//! A node is an async function of its input and a context. It runs at least once for each time
//! its answers allow; its writes are applied exactly once. `ctx.interrupt` never returns while
//! the question is unanswered: after the poll in which it was raised the runtime drops the
//! node's future, so no error handling in a node can swallow it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use superstep_graph::{NodeName, NodeOutput, TaskId};
use superstep_protocol::{Raised, Record, RunId, StreamMode, ThreadId, UnixMillis};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    sleep::{Sleep, Sleeps},
    stream::Stream,
};

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a node returns.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeReturn {
    /// A partial update: an object of channels, or null for none.
    Update(Value),
    /// Commands: updates, gotos, sends.
    Output(NodeOutput),
}

/// A function of a graph.
pub trait Node: Send + Sync + 'static {
    /// Runs it on `input`, the state's channels that it reads or the packet of a send.
    fn call(&self, input: Value, ctx: NodeContext) -> BoxFuture<Result<NodeReturn, NodeError>>;
}

impl<F, Fut> Node for F
where
    F: Fn(Value, NodeContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<NodeReturn, NodeError>> + Send + 'static,
{
    fn call(&self, input: Value, ctx: NodeContext) -> BoxFuture<Result<NodeReturn, NodeError>> {
        Box::pin(self(input, ctx))
    }
}

/// Why a node failed: a short kind that policies and people match on, and a message.
///
/// Any error converts into it, so `?` works in nodes; its causes are joined into the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeError {
    kind: Cow<'static, str>,
    message: String,
}

impl NodeError {
    /// A failure of this kind.
    pub fn new(kind: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            message: message.into(),
        }
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl<E: std::error::Error> From<E> for NodeError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        let name = std::any::type_name::<E>();
        let kind = name.rsplit("::").next().unwrap_or(name);
        Self {
            kind: Cow::Owned(kind.to_owned()),
            message,
        }
    }
}

/// The failure of a node, as its error handler gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFailure {
    /// The node that failed.
    pub node: NodeName,
    /// Why, at its last attempt.
    pub error: NodeError,
}

/// Who and where a task is.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    /// The thread.
    pub thread: ThreadId,
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeName,
    /// The nodes whose subgraph it belongs to, from the outside in; empty in the root graph.
    pub path: Arc<[NodeName]>,
    /// The superstep.
    pub step: i64,
    /// 1 at the first attempt of the task in its run.
    pub attempt: u64,
    /// Values that the run's caller gave.
    pub config: Arc<Map<String, Value>>,
}

#[derive(Default)]
struct Questions {
    next: usize,
    raised: BTreeMap<usize, Value>,
    took: Vec<(usize, Value)>,
    runner: Option<Waker>,
}

/// An answer without a question, for whoever asks first.
pub(crate) type Offer = Arc<Mutex<Option<Value>>>;

/// What the same task did before in this round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// How often the node was tried.
    pub(crate) tries: u32,
    /// The failure that is handled, for an error handler.
    pub(crate) failure: Option<NodeFailure>,
    /// How many questions the node asked whose failure is handled: the handler's come after them.
    pub(crate) asked: usize,
    /// How many sleeps that node had begun.
    pub(crate) slept: usize,
    /// The ends of the sleeps of earlier attempts.
    pub(crate) sleeps: BTreeMap<String, UnixMillis>,
    /// The questions of earlier attempts that took the answer which was offered, by index.
    pub(crate) took: Vec<(usize, Value)>,
    /// What its subgraph did in earlier attempts.
    pub(crate) child: Vec<Record>,
}

struct Shared {
    info: TaskInfo,
    answers: Vec<Option<Value>>,
    offer: Offer,
    questions: Mutex<Questions>,
    sleeps: Sleeps,
    /// When the node was last known to live.
    lives: Mutex<Instant>,
    cancel: CancellationToken,
    stream: Stream,
    /// The failure that is handled, if this is an error handler.
    failure: Option<NodeFailure>,
}

/// What a node knows of its place, and how it asks and tells.
#[derive(Clone)]
pub struct NodeContext {
    shared: Arc<Shared>,
}

impl fmt::Debug for NodeContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeContext")
            .field("info", &self.shared.info)
            .finish_non_exhaustive()
    }
}

impl NodeContext {
    pub(crate) fn new(
        info: TaskInfo,
        answers: Vec<Option<Value>>,
        offer: Offer,
        cancel: CancellationToken,
        stream: Stream,
        before: Before,
        sleeps: Sleeps,
    ) -> Self {
        let questions = Mutex::new(Questions {
            next: before.asked,
            took: before.took,
            ..Questions::default()
        });
        Self {
            shared: Arc::new(Shared {
                info,
                answers,
                offer,
                questions,
                sleeps: sleeps.after(before.slept),
                lives: Mutex::new(Instant::now()),
                cancel,
                stream,
                failure: before.failure,
            }),
        }
    }

    /// The thread's id.
    pub fn thread_id(&self) -> &ThreadId {
        &self.shared.info.thread
    }

    /// The run's id; a resume begins a new run.
    pub fn run_id(&self) -> &RunId {
        &self.shared.info.run
    }

    /// The task's id: the same at every attempt, and when the superstep is done again.
    pub fn task_id(&self) -> &TaskId {
        &self.shared.info.task
    }

    /// The node's name.
    pub fn node(&self) -> &NodeName {
        &self.shared.info.node
    }

    /// The nodes whose subgraph this one belongs to, from the outside in; empty in the root graph.
    pub fn path(&self) -> &[NodeName] {
        &self.shared.info.path
    }

    /// The superstep's number.
    pub fn step(&self) -> i64 {
        self.shared.info.step
    }

    /// 1 at the first attempt of the task in its run, 2 at the next one, whether the node's retry
    /// policy or the loss of a worker called for it.
    pub fn attempt(&self) -> u64 {
        self.shared.info.attempt
    }

    /// The failure that is to be handled, in an error handler; `None` in a node.
    pub fn failure(&self) -> Option<&NodeFailure> {
        self.shared.failure.as_ref()
    }

    /// A key for outside effects: equal for every attempt and redo of this task, different for
    /// every other task. A service that keeps keys charges once.
    pub fn idempotency_key(&self) -> &str {
        self.shared.info.task.as_str()
    }

    /// A value that the run's caller gave under `config.configurable`.
    pub fn config(&self, key: &str) -> Option<&Value> {
        self.shared.info.config.get(key)
    }

    /// Sends a value to whoever follows the run's live output. It is not stored, and is sent
    /// again if the node runs again.
    pub fn emit(&self, data: impl Serialize) {
        self.heartbeat();
        let Shared { stream, info, .. } = &*self.shared;
        if stream.wants(StreamMode::Custom)
            && let Ok(data) = serde_json::to_value(data)
        {
            stream.send(StreamMode::Custom, info.step, || data);
        }
    }

    /// Sends a piece of a message to whoever follows the run's `messages`: a token of a model's
    /// answer, say, as an object with the message's `id` and the `content` that is new. It comes
    /// as a list of two, as in LangGraph: the piece, and an object that says which node and step
    /// sent it. Like what is emitted it is not stored.
    pub fn emit_message(&self, piece: impl Serialize) {
        self.heartbeat();
        let Shared { stream, info, .. } = &*self.shared;
        if stream.wants(StreamMode::Messages)
            && let Ok(piece) = serde_json::to_value(piece)
        {
            let place = json!({
                "langgraph_node": info.node,
                "langgraph_step": info.step,
                "task_id": info.task,
                "thread_id": info.thread,
                "run_id": info.run,
            });
            stream.send(StreamMode::Messages, info.step, || json!([piece, place]));
        }
    }

    /// Whether the task is to stop; see [`cancelled`](Self::cancelled).
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancel.is_cancelled()
    }

    /// Waits until the task is to stop: its thread was cancelled, another run took the place of its
    /// run, or its worker must go. For a node that has something to stop or to put in order itself;
    /// any other one need not look, and is dropped where it awaits.
    ///
    /// After a cancel the node has a grace (5 seconds, unless the worker's settings say otherwise) to
    /// return, and whatever it returns is not applied. A worker that must go waits for the nodes that
    /// it runs until its own time is over: a value that is returned meanwhile counts, and with an error
    /// the node gives up, has not failed, and runs again on another worker.
    ///
    /// ```
    /// use serde_json::{Value, json};
    /// use superstep_worker::{NodeContext, NodeError, NodeReturn};
    ///
    /// # struct Model;
    /// # impl Model {
    /// #     async fn answer(&self, _: &Value) -> Result<String, NodeError> { Ok("yes".into()) }
    /// #     async fn stop(&self) {}
    /// # }
    /// # static MODEL: Model = Model;
    /// async fn reply(input: Value, ctx: NodeContext) -> Result<NodeReturn, NodeError> {
    ///     let answer = tokio::select! {
    ///         answer = MODEL.answer(&input) => answer?,
    ///         () = ctx.cancelled() => {
    ///             MODEL.stop().await;
    ///             return Err(NodeError::new("Cancelled", "the model was stopped"));
    ///         }
    ///     };
    ///     Ok(NodeReturn::Update(json!({"answer": answer})))
    /// }
    /// ```
    pub async fn cancelled(&self) {
        self.shared.cancel.cancelled().await;
    }

    /// Asks a person or a service, and gives the answer.
    ///
    /// Questions are counted in the order of the calls; on a re-run each gets the answer that
    /// was recorded for its place, so a node must ask in the same order every time. While it is
    /// unanswered this never returns, and what the node awaits beside it is dropped.
    ///
    /// # Errors
    /// If the payload is no JSON, or the answer does not have the form of `T`.
    pub fn interrupt<T: DeserializeOwned>(&self, payload: impl Serialize) -> Interrupt<T> {
        let mut questions = self.questions();
        let index = questions.next;
        questions.next += 1;
        drop(questions);
        Interrupt {
            shared: Arc::clone(&self.shared),
            index,
            payload: Some(serde_json::to_value(payload)),
            answer: PhantomData,
        }
    }

    /// Sleeps for so long, and outlives its worker meanwhile.
    ///
    /// A short sleep (5 seconds at most, unless the worker's settings say otherwise) is spent where
    /// the node runs. In a longer one the node holds no worker: it is dropped, with what it awaits
    /// beside, and runs again from its top when the time has come, on whatever worker there is.
    /// Sleeps are counted in the order of the calls, and a sleep has one end: in a node that runs
    /// again, those before return at once. So a node must sleep in the same order every time.
    ///
    /// A sleep beside a question ends with whichever comes first, the answer or the time. The sleep
    /// is looked at first, or the question would be asked again when the time has come:
    ///
    /// ```
    /// use std::time::Duration;
    /// use serde_json::{Value, json};
    /// use superstep_worker::{NodeContext, NodeError, NodeReturn};
    ///
    /// async fn approve(_: Value, ctx: NodeContext) -> Result<NodeReturn, NodeError> {
    ///     let asked = ctx.interrupt::<Value>("approve?");
    ///     let approved = tokio::select! {
    ///         biased;
    ///         () = ctx.sleep(Duration::from_secs(3600)) => json!(false),
    ///         answer = asked => answer?,
    ///     };
    ///     Ok(NodeReturn::Update(json!({"approved": approved})))
    /// }
    /// ```
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::of(self.clone(), duration)
    }

    /// As [`sleep`](Self::sleep), until a time of day; by the store's clock if it is far off.
    pub fn sleep_until(&self, end: SystemTime) -> Sleep {
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default();
        Sleep::until(self.clone(), UnixMillis(crate::sleep::millis(end)))
    }

    /// Says that the node lives: one with an idle timeout is taken for hung if it is silent for
    /// longer than that. What it emits says so too.
    pub fn heartbeat(&self) {
        self.lives_until(Instant::now());
    }

    pub(crate) fn lives_until(&self, until: Instant) {
        let lives = self.shared.lives.lock();
        let mut lives = lives.unwrap_or_else(PoisonError::into_inner);
        *lives = until.max(*lives);
    }

    /// When the node was last known to live.
    pub(crate) fn lived(&self) -> Instant {
        *self
            .shared
            .lives
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sleeps(&self) -> &Sleeps {
        &self.shared.sleeps
    }

    /// Has whoever polls the node look at it.
    pub(crate) fn wake_runner(&self) {
        if let Some(runner) = &self.questions().runner {
            runner.wake_by_ref();
        }
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        lock(&self.shared)
    }

    /// How many questions were asked up to now, those of the node before its handler too.
    pub(crate) fn asked(&self) -> usize {
        self.questions().next
    }

    /// Remembers who polls the node, so that a question raised elsewhere wakes it.
    pub(crate) fn set_runner(&self, waker: &Waker) {
        let mut questions = self.questions();
        if !questions
            .runner
            .as_ref()
            .is_some_and(|runner| runner.will_wake(waker))
        {
            questions.runner = Some(waker.clone());
        }
    }

    /// Whether a question took the answer which was offered.
    pub(crate) fn has_taken(&self) -> bool {
        !self.questions().took.is_empty()
    }

    /// The questions that took the answer which was offered, by index.
    pub(crate) fn took(&self) -> Vec<(usize, Value)> {
        self.questions().took.clone()
    }

    /// The questions that were raised and have no answer, by index.
    pub(crate) fn raised(&self) -> Vec<Raised> {
        self.questions()
            .raised
            .iter()
            .map(|(index, payload)| Raised {
                index: *index,
                id: None,
                payload: payload.clone(),
                expires_at: None,
            })
            .collect()
    }
}

/// The recorded answer to a question, or the one that is offered to whoever asks first.
fn answer_to(shared: &Shared, index: usize) -> Option<Value> {
    if let Some(Some(answer)) = shared.answers.get(index) {
        return Some(answer.clone());
    }
    let mut questions = lock(shared);
    if let Some((_, took)) = questions.took.iter().find(|(took, _)| *took == index) {
        return Some(took.clone());
    }
    let mut offer = shared.offer.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = offer.take()?;
    questions.took.push((index, answer.clone()));
    Some(answer)
}

fn lock(shared: &Shared) -> MutexGuard<'_, Questions> {
    // A poisoned lock means a panic in `serde_json::Value::clone`; the data is whole all the same.
    shared
        .questions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// A question that was asked; see [`NodeContext::interrupt`].
#[must_use = "a question is asked when it is awaited"]
pub struct Interrupt<T> {
    shared: Arc<Shared>,
    index: usize,
    payload: Option<Result<Value, serde_json::Error>>,
    answer: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Interrupt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> Future for Interrupt<T> {
    type Output = Result<T, NodeError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(answer) = answer_to(&this.shared, this.index) {
            let read = serde_json::from_value(answer).map_err(|error| {
                NodeError::new(
                    "InvalidAnswer",
                    format!(
                        "the answer to question {} does not have the form the node expects: {error}",
                        this.index
                    ),
                )
            });
            return Poll::Ready(read);
        }
        match this.payload.take() {
            Some(Ok(payload)) => {
                let mut questions = lock(&this.shared);
                questions.raised.insert(this.index, payload);
                if let Some(runner) = &questions.runner {
                    runner.wake_by_ref();
                }
                Poll::Pending
            }
            Some(Err(error)) => Poll::Ready(Err(NodeError::new(
                "InvalidPayload",
                format!("the payload of question {} is no JSON: {error}", this.index),
            ))),
            // Raised before: the runtime is about to drop the node.
            None => Poll::Pending,
        }
    }
}

impl<T> Unpin for Interrupt<T> {}
