//! The port: what a message system must do.
//!
//! Three durable streams (commands and work, each message for one consumer and kept until it
//! is acked; events, kept by limits) and core messages that are not stored (replies, live
//! output). Bodies are bytes here; their shapes are in `proto/`. The queue is a hint for work
//! (a lost message loses time, a duplicate changes nothing) and the keeper of commands until
//! they are decided.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_protocol::{GraphId, GraphName, RunId, ThreadId, UnixMillis};

use crate::Error;

/// Names of headers that superstep reads and writes.
pub mod header {
    /// The idempotency key of a command, the dedupe key of an event.
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// The subject that the outcome of a command goes to.
    pub const REPLY: &str = "Superstep-Reply";
    /// Who sent a command, in the sender's own words; kept with the answer.
    pub const SENDER: &str = "Superstep-Sender";
    /// The W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// What vendors add to it.
    pub const TRACESTATE: &str = "tracestate";
}

/// Headers of a message; names keep their case, one value each.
pub type Headers = BTreeMap<String, String>;

/// What a command asks for; the token after the namespace in its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandKind {
    /// Start a run; the subject names the graph.
    Start,
    /// Answer questions; the subject names the thread.
    Resume,
    /// Cancel what runs or waits; the subject names the thread.
    Cancel,
    /// Change the state; the subject names the thread.
    Update,
    /// Try the failed or cancelled superstep again; the subject names the thread.
    Retry,
}

impl CommandKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Start,
        Self::Resume,
        Self::Cancel,
        Self::Update,
        Self::Retry,
    ];

    /// The kind as its token in a subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Update => "update",
            Self::Retry => "retry",
        }
    }
}

/// A command to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandMessage {
    /// What it asks for.
    pub kind: CommandKind,
    /// The graph's name for a start, else the thread id, decoded.
    pub target: String,
    /// Headers; [`header::MSG_ID`] makes it idempotent within the stream's window.
    pub headers: Headers,
    /// The JSON body.
    pub body: Bytes,
}

/// A work message to publish: a hint to look at a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkMessage {
    /// The graph and version whose workers it is for.
    pub graph: GraphId,
    /// Headers, such as the trace context.
    pub headers: Headers,
    /// The JSON body.
    pub body: Bytes,
}

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMessage {
    /// The kind's token in the subject, such as `interrupt`.
    pub kind: String,
    /// The graph it concerns; `-` in the subject where there is none (an unknown thread).
    pub graph: Option<GraphName>,
    /// The thread it concerns.
    pub thread: ThreadId,
    /// Headers; [`header::MSG_ID`] is the event id.
    pub headers: Headers,
    /// The JSON body.
    pub body: Bytes,
}

/// What a stream says of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Names the message in its stream: stream and sequence.
    pub id: String,
    /// Whether the stream already had a message of that [`header::MSG_ID`].
    pub duplicate: bool,
}

/// What a delivery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryBody {
    /// A command.
    Command {
        /// What it asks for.
        kind: CommandKind,
        /// The graph's name for a start, else the thread id, decoded.
        target: String,
    },
    /// A work message of this graph.
    Work {
        /// The graph and version.
        graph: GraphId,
    },
    /// A message under a subject that superstep does not know.
    Unknown {
        /// Its subject.
        subject: String,
    },
}

/// One hand-over of a message. It must be acked, nak-ed or termed; dropped without, it comes
/// again after `ack_wait`.
#[derive(Debug)]
pub struct Delivery {
    /// What it is.
    pub kind: DeliveryBody,
    /// Names the message in its stream, the same at each redelivery.
    pub id: String,
    /// When the stream took it.
    pub published_at: UnixMillis,
    /// 1 at the first hand-over of this message, 2 at the next ...
    pub attempt: u64,
    /// Headers.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// How to answer it.
    pub acker: Box<dyn Acker>,
}

/// The four answers to a delivery. Each is a hint that may be lost: the store decides.
#[async_trait]
pub trait Acker: Send + Sync + std::fmt::Debug {
    /// Done: never deliver again.
    async fn ack(&self) -> Result<(), Error>;
    /// Not now: deliver again after `delay`.
    async fn nak(&self, delay: Duration) -> Result<(), Error>;
    /// Never again, for `reason`.
    async fn term(&self, reason: &str) -> Result<(), Error>;
    /// Still at it: `ack_wait` begins again.
    async fn in_progress(&self) -> Result<(), Error>;
}

/// A durable pull consumer.
#[async_trait]
pub trait Consumer: Send {
    /// Waits up to `wait` for the first message and returns it with what else is at hand, at
    /// most `max`; empty if none came. Nothing is fetched beyond `max`, so what is returned is
    /// all that this consumer holds.
    ///
    /// A consumer that has gone deaf (deleted, its server restarted empty) is noticed and made
    /// anew within this call or the next; `Err` says that this failed and the caller should
    /// call again after a pause.
    ///
    /// # Cancel safety
    /// Dropping the future may leave messages with the server's count of this consumer's
    /// deliveries; they come again after `ack_wait`.
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, Error>;

    /// The time after which an unanswered delivery is handed over again.
    fn ack_wait(&self) -> Duration;
}

/// Which stored events a subscription wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this graph.
    pub graph: Option<GraphName>,
    /// Only this thread.
    pub thread: Option<ThreadId>,
    /// Also what the stream still holds from before; otherwise only what comes from now on.
    pub from_start: bool,
}

/// An event or a live output message as a subscriber gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The subject, as on NATS.
    pub subject: String,
    /// Headers.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// A subscription. Ends when dropped.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next message; `None` if the subscription ended with its queue.
    ///
    /// # Cancel safety
    /// No message is lost by dropping the future.
    async fn next(&mut self) -> Result<Option<Received>, Error>;
}

/// When the events stream was made: it holds nothing from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsMade {
    /// When; another time is another stream.
    pub at: UnixMillis,
    /// Whether this very queue made it.
    pub here: bool,
}

/// A finding of a queue about itself, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was looked at, such as `stream SUPERSTEP_default_WORK`.
    pub subject: String,
    /// What was found, and what to do if it is not ok.
    pub detail: String,
}

/// The kind of the events that [`Queue::cancellations`] brings.
pub const RUN_CANCELLED: &str = "run_cancelled";

/// A message system.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Creates the streams, or checks those that are there.
    ///
    /// # Errors
    /// `Incompatible` if a stream exists with settings that break a guarantee; it is never
    /// altered.
    async fn setup(&self) -> Result<(), Error>;

    /// Publishes a command and awaits the stream's ack.
    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error>;

    /// Publishes work messages, pipelined, and awaits every stream ack.
    ///
    /// # Errors
    /// `Full` if the stream refuses one; those before it may be published.
    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error>;

    /// Publishes events, pipelined, and awaits every stream ack. A repeated event id within
    /// the stream's window is one event.
    async fn publish_events(&self, events: &[EventMessage]) -> Result<(), Error>;

    /// Sends the outcome of a command to the subject that its sender named. Not stored; a
    /// subject that is no valid one is refused.
    async fn reply(&self, subject: &str, body: Bytes) -> Result<(), Error>;

    /// Sends live output of a run. Not stored, never waits for anyone.
    async fn output(&self, thread: &ThreadId, run: &RunId, body: Bytes) -> Result<(), Error>;

    /// The consumer of commands, shared by all workers.
    async fn commands(&self) -> Result<Box<dyn Consumer>, Error>;

    /// The consumer of one graph's work, shared by all its workers.
    async fn work(&self, graph: &GraphId) -> Result<Box<dyn Consumer>, Error>;

    /// For how long the oldest work message of `graph` has waited that no worker holds; `None` if
    /// none waits. May be a second old: it is a hint for whoever wonders why a thread stands
    /// still.
    async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error>;

    /// The events stream that there is; `None` where it cannot be lost without the store.
    async fn events_made(&self) -> Result<Option<EventsMade>, Error>;

    /// Subscribes to stored events; active when this returns.
    async fn events(&self, filter: &EventFilter) -> Result<Box<dyn Subscription>, Error>;

    /// Subscribes to the events of cancelled runs as they go by; active when this returns. For whoever
    /// works on those threads and wants to know soon: what goes by unheard, while a connection is
    /// gone, is not brought later.
    async fn cancellations(&self) -> Result<Box<dyn Subscription>, Error> {
        let filter = EventFilter {
            kind: Some(RUN_CANCELLED.to_owned()),
            ..EventFilter::default()
        };
        self.events(&filter).await
    }

    /// Subscribes to live output of a thread, of all its runs; active when this returns.
    async fn outputs(&self, thread: &ThreadId) -> Result<Box<dyn Subscription>, Error>;

    /// Publishes a command and waits for its outcome, at most `wait`. `None` if none came in
    /// time: the command is stored all the same.
    async fn request(
        &self,
        command: CommandMessage,
        wait: Duration,
    ) -> Result<(Published, Option<Bytes>), Error>;

    /// The largest body that a message may have.
    fn body_bytes_max(&self) -> usize;

    /// What the queue finds about itself.
    async fn check(&self) -> Vec<Finding>;
}
