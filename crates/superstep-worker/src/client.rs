//! The client of a cluster, or of an embedded store that a worker works on.
//!
//! It sends commands and tells what became of them, waits for runs, and reads threads. It
//! runs no node, and needs no graph: with one it only shows more of a thread. Commands go
//! through the queue like anyone's, so a worker decides them; only a delete is appended from
//! here, as no message of the contract asks for it. Reading is in `read`, waiting in `wait`.
//!
//! The rule it keeps: an answer is sent with the id of its question, never as a plain value
//! that could meet another question than the one that was seen; as a plain value only where
//! the thread takes it though none is open.

mod read;
mod wait;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use superstep_checkpoint::ThreadLog;
use superstep_graph::InterruptId;
use superstep_protocol::{
    Answers, CommandId, CommandRef, Event, GraphName, RecordBody, Refusal, RunId, ThreadId,
    ThreadState, ThreadStatus, UnixMillis, Verdict, decide,
};
use superstep_queue::{CommandKind, CommandMessage, Headers, Queue, header, subject::Subjects};
use superstep_wire::{
    CancelCommand, Outcome, RefusalKind, Reply, ResumeCommand, RetryCommand, StartCommand,
    UpdateCommand, decode, encode, outward,
};

use crate::{
    clock::{SharedWorld, SystemWorld},
    commands::{made_run, made_thread, resume_event},
    effects::{Effects, Publish},
    engine::{Accepted as Appended, Engine},
    error::Error,
    graphs::Graphs,
    local::uuid_v7,
    settings::Limits,
    threads::Threads,
};

pub use read::{
    EventFeed, OpenInterrupt, OutputFeed, QueuedDetail, RegisteredGraph, RunDetail, ThreadDetail,
    Told,
};
pub use wait::{Ended, RunEnd, UpdateEnd, Watching};

/// For how long a read of the store is tried again.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// How often the store is asked for what nobody told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sends commands to the workers of a store and queue, and reads the store.
#[derive(Clone)]
pub struct Client {
    threads: Threads,
    queue: Arc<dyn Queue>,
    subjects: Subjects,
    graphs: Arc<Graphs>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// How a command is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The command's id, its idempotency key: the same one again gets the same outcome. A new
    /// one otherwise.
    pub command_id: Option<CommandId>,
    /// Who sends it, in one's own words; kept with the answer.
    pub sender: Option<String>,
    /// The W3C trace context that the run belongs to.
    pub traceparent: Option<String>,
    /// What vendors add to that.
    pub tracestate: Option<String>,
    /// How long to wait for the outcome. Default 10 s: twice as long as workers hold back a
    /// command whose thread may still be on its way.
    pub wait: Duration,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            command_id: None,
            sender: None,
            traceparent: None,
            tracestate: None,
            wait: Duration::from_secs(10),
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Sent {
    /// It is in the thread's log.
    Accepted {
        /// The command.
        command_id: CommandId,
        /// The thread.
        thread_id: ThreadId,
        /// The run that it began.
        #[serde(skip_serializing_if = "Option::is_none")]
        run_id: Option<RunId>,
        /// The record that it became.
        #[serde(skip_serializing_if = "Option::is_none")]
        record: Option<String>,
    },
    /// It changed nothing.
    Refused {
        /// The command.
        command_id: CommandId,
        /// The thread that it concerns.
        thread_id: ThreadId,
        /// Why.
        refusal: superstep_wire::Refusal,
    },
    /// It is stored, but nobody said in time what became of it. It will be decided when a
    /// worker runs; sent again with the same id it is not done twice.
    Stored {
        /// The command.
        command_id: CommandId,
        /// The thread.
        thread_id: ThreadId,
        /// The run that it will begin.
        #[serde(skip_serializing_if = "Option::is_none")]
        run_id: Option<RunId>,
        /// How long its outcome was waited for.
        waited_ms: u64,
    },
}

impl Sent {
    /// The thread.
    pub fn thread_id(&self) -> &ThreadId {
        match self {
            Self::Accepted { thread_id, .. }
            | Self::Refused { thread_id, .. }
            | Self::Stored { thread_id, .. } => thread_id,
        }
    }

    /// The run that it began, or will begin.
    pub fn run_id(&self) -> Option<&RunId> {
        match self {
            Self::Accepted { run_id, .. } | Self::Stored { run_id, .. } => run_id.as_ref(),
            Self::Refused { .. } => None,
        }
    }
}

impl Client {
    /// A client over `log` and `queue`; `subjects` are those of the queue.
    pub fn new(log: Arc<dyn ThreadLog>, queue: Arc<dyn Queue>, subjects: Subjects) -> Self {
        Self::with_world(log, queue, subjects, Arc::new(SystemWorld))
    }

    /// As [`new`](Self::new), with a clock and random numbers of the caller's.
    pub fn with_world(
        log: Arc<dyn ThreadLog>,
        queue: Arc<dyn Queue>,
        subjects: Subjects,
        world: SharedWorld,
    ) -> Self {
        Self {
            threads: Threads::new(log, world, Limits::default(), STORE_RETRY),
            queue,
            subjects,
            graphs: Arc::default(),
        }
    }

    /// Reads threads of `graphs` as the embedded mode does: values are what their nodes read,
    /// with the writes of tasks that are done, tasks come in the order of the graph's nodes, and
    /// a run's values are its output. Without the graph, all that is saved is shown as it is.
    #[must_use]
    pub fn with_graphs(mut self, graphs: Graphs) -> Self {
        self.graphs = Arc::new(graphs);
        self
    }

    /// The queue.
    pub fn queue(&self) -> &Arc<dyn Queue> {
        &self.queue
    }

    /// The store.
    pub fn log(&self) -> &Arc<dyn ThreadLog> {
        self.threads.log()
    }

    /// An id for a command, so that what the command begins is known before it is sent.
    pub fn new_command_id(&self) -> CommandId {
        let world = self.threads.world();
        CommandId::new(uuid_v7(world.now().0, world.nonce().0, world.nonce().0))
    }

    /// The thread that a start without `thread_id` makes.
    pub fn thread_of(&self, command: &CommandId) -> ThreadId {
        made_thread(command)
    }

    /// Starts a run of `graph`. What the command leaves out (thread, run) is named after the
    /// command's id, as a worker would.
    ///
    /// # Errors
    /// If the command cannot be stored, or the answer cannot be read.
    pub async fn start(
        &self,
        graph: &GraphName,
        mut start: StartCommand,
        how: &Sending,
    ) -> Result<Sent, Error> {
        let id = self.id_of(how);
        let thread = start
            .thread_id
            .clone()
            .map_or_else(|| made_thread(&id), ThreadId::from);
        let run = start
            .run_id
            .clone()
            .map_or_else(|| made_run(&id), RunId::from);
        start.thread_id = Some(thread.to_string());
        start.run_id = Some(run.to_string());
        let body = encode::body(&start);
        let asked = Asked {
            kind: CommandKind::Start,
            target: graph.to_string(),
            id,
            thread,
            run: Some(run),
        };
        self.send(asked, body, how).await
    }

    /// Answers open questions of `thread`, or changes what waits, and goes on. A value that names
    /// no question is sent for the one that is open now; with none or several open it is refused
    /// here, and nothing is sent. In the `langgraph` profile with none open it is sent for
    /// whoever asks first.
    ///
    /// What changes something is accepted before a worker of the graph has looked at it: the end
    /// of its run may be [`Ended::Declined`].
    ///
    /// # Errors
    /// If the thread cannot be read or the command cannot be stored.
    pub async fn resume(
        &self,
        thread: &ThreadId,
        mut resume: ResumeCommand,
        how: &Sending,
    ) -> Result<Sent, Error> {
        let id = self.id_of(how);
        let names_none = resume.interrupt_id.is_none() && resume.key.is_none();
        let answers = resume.resume.clone();
        let answers = answers.map(|answer| Answers::of(answer, None));
        if names_none && matches!(answers, Some(Answers::Plain(_))) {
            match self.bound_to(thread, &id, &resume).await? {
                Ok(open) => resume.interrupt_id = open,
                // A command that was sent before keeps its outcome, whatever is open now.
                Err(_) if how.command_id.is_some() => {}
                // The thread may be begun by it, where that is done.
                Err(refusal)
                    if resume.graph.is_some() && refusal.kind == RefusalKind::UnknownThread => {}
                Err(refusal) => {
                    return Ok(Sent::Refused {
                        command_id: id,
                        thread_id: thread.clone(),
                        refusal,
                    });
                }
            }
        }
        let run = resume
            .run_id
            .clone()
            .map_or_else(|| made_run(&id), RunId::from);
        resume.run_id = Some(run.to_string());
        let body = encode::body(&resume);
        self.send(
            Asked::of(CommandKind::Resume, thread, id, Some(run)),
            body,
            how,
        )
        .await
    }

    /// Gives up what runs or waits on `thread`.
    ///
    /// # Errors
    /// If the command cannot be stored.
    pub async fn cancel(
        &self,
        thread: &ThreadId,
        cancel: &CancelCommand,
        how: &Sending,
    ) -> Result<Sent, Error> {
        let asked = Asked::of(CommandKind::Cancel, thread, self.id_of(how), None);
        self.send(asked, encode::body(cancel), how).await
    }

    /// Changes the state of `thread` from outside.
    ///
    /// # Errors
    /// If the command cannot be stored.
    pub async fn update(
        &self,
        thread: &ThreadId,
        update: &UpdateCommand,
        how: &Sending,
    ) -> Result<Sent, Error> {
        let asked = Asked::of(CommandKind::Update, thread, self.id_of(how), None);
        self.send(asked, encode::body(update), how).await
    }

    /// Tries again what failed or was cancelled on `thread`.
    ///
    /// # Errors
    /// If the command cannot be stored.
    pub async fn retry(
        &self,
        thread: &ThreadId,
        mut retry: RetryCommand,
        how: &Sending,
    ) -> Result<Sent, Error> {
        let id = self.id_of(how);
        let run = retry
            .run_id
            .clone()
            .map_or_else(|| made_run(&id), RunId::from);
        retry.run_id = Some(run.to_string());
        let body = encode::body(&retry);
        self.send(
            Asked::of(CommandKind::Retry, thread, id, Some(run)),
            body,
            how,
        )
        .await
    }

    /// Deletes `thread` and all it holds, and tells the events stream.
    ///
    /// # Errors
    /// If the store or the queue fails.
    pub async fn delete(&self, thread: &ThreadId, how: &Sending) -> Result<Sent, Error> {
        let command_id = self.id_of(how);
        let engine = Engine::new(self.threads.clone(), Arc::new(Graphs::new()));
        let event = Event::Delete {
            command: self.command(&command_id, how),
        };
        let thread_id = thread.clone();
        let appended = Box::pin(engine.accept(thread, &event, None, || None)).await?;
        Ok(match appended {
            Appended::Appended(done) => {
                let (mut deleted, record) = *done;
                let queue = Arc::clone(&self.queue);
                let effects = Effects::new(self.threads.clone(), queue, self.subjects.clone());
                effects
                    .perform(&mut deleted, Some(&record), Publish::All)
                    .await?;
                Sent::Accepted {
                    command_id,
                    thread_id,
                    run_id: None,
                    record: Some(record.head.to_string()),
                }
            }
            Appended::Refused(refusal) => Sent::Refused {
                command_id,
                thread_id,
                refusal: outward::refusal(&refusal),
            },
            Appended::Wait | Appended::Nothing | Appended::Known(_) | Appended::Decided(_) => {
                return Err(Error::Contended { thread: thread_id });
            }
        })
    }

    /// The question of `thread` that a plain answer is for now, if it is for one at all: in the
    /// `langgraph` profile it may go to whoever asks first. Or why it cannot be taken.
    async fn bound_to(
        &self,
        thread: &ThreadId,
        id: &CommandId,
        resume: &ResumeCommand,
    ) -> Result<Result<Option<String>, superstep_wire::Refusal>, Error> {
        let found = self.threads.load(thread).await?;
        let state = found.as_ref().map(|found| &*found.state);
        // As if it came at once: whether it is in time is for a worker's clock to say.
        let now = state.map_or(UnixMillis(0), |state| state.time);
        let command = CommandRef {
            sent_at: now,
            ..self.command(id, &Sending::default())
        };
        let resume = resume_event(&self.threads, thread, command, made_run(id), resume.clone());
        let event = match resume.await? {
            Ok(resume) => Event::Resume(Box::new(resume)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let the_one = |answers: BTreeMap<InterruptId, Value>| {
            let id = answers.into_keys().next();
            Ok(id.map(|id| id.to_string()))
        };
        Ok(match decide(thread, state, &event, now) {
            Verdict::Append(RecordBody::Resumed { answers, .. }) => the_one(answers),
            Verdict::Append(RecordBody::Commanded { asked, .. }) => the_one(asked.answers),
            Verdict::Append(RecordBody::Retried { .. }) => Ok(None),
            Verdict::Refuse(refusal) => Err(outward::refusal(&refusal)),
            // The thread is about to change. A question that it leaves open can be answered.
            Verdict::Append(_) | Verdict::Known(_) | Verdict::Nothing(_) | Verdict::Wait => {
                let mut open = state.into_iter().flat_map(ThreadState::open_questions);
                match (open.next(), open.next()) {
                    (Some((_, question)), None) => Ok(Some(question.id.to_string())),
                    _ => Err(outward::refusal(&Refusal::NotWaiting {
                        thread: thread.clone(),
                        status: state.map_or(ThreadStatus::Busy, ThreadState::status),
                    })),
                }
            }
        })
    }

    async fn send(&self, asked: Asked, body: Vec<u8>, how: &Sending) -> Result<Sent, Error> {
        let mut headers = Headers::from([(header::MSG_ID.to_owned(), asked.id.to_string())]);
        let sender = how.sender.clone().map(|s| (header::SENDER.to_owned(), s));
        headers.extend(sender);
        for (name, value) in [
            (header::TRACEPARENT, &how.traceparent),
            (header::TRACESTATE, &how.tracestate),
        ] {
            headers.extend(value.clone().map(|value| (name.to_owned(), value)));
        }
        let message = CommandMessage {
            kind: asked.kind,
            target: asked.target,
            headers,
            body: Bytes::from(body),
        };
        let reply = if let (Some(_), Some(known)) = (
            &how.command_id,
            self.outcome(&asked.thread, &asked.id).await?,
        ) {
            Some(known)
        } else {
            tokio::select! {
                answered = self.queue.request(message, how.wait) => answered?.1,
                // The stream keeps a repeat of a command from the workers, and a reply may be
                // lost; the outcome is kept all the same.
                known = self.outcome_in_time(&asked.thread, &asked.id) => Some(known),
            }
        };
        let (command_id, thread_id) = (asked.id, asked.thread);
        let Some(reply) = reply else {
            return Ok(Sent::Stored {
                command_id,
                thread_id,
                run_id: asked.run,
                waited_ms: u64::try_from(how.wait.as_millis()).unwrap_or(u64::MAX),
            });
        };
        let reply: Reply = decode::reply(&reply).map_err(Error::Reply)?;
        let thread_id = reply.thread_id.map_or(thread_id, ThreadId::from);
        match (reply.outcome, reply.refusal) {
            (Outcome::Accepted, _) => Ok(Sent::Accepted {
                command_id,
                thread_id,
                run_id: reply.run_id.map(RunId::from),
                record: reply.record,
            }),
            (Outcome::Refused, Some(refusal)) => Ok(Sent::Refused {
                command_id,
                thread_id,
                refusal,
            }),
            (outcome, _) => Err(Error::UnknownOutcome {
                thread: thread_id,
                outcome: outcome.to_string(),
            }),
        }
    }

    /// What was kept of a command, if it was decided.
    async fn outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
    ) -> Result<Option<Bytes>, Error> {
        let read = || self.log().outcome(thread, command);
        self.threads.retrying(thread, read).await
    }

    /// Looks now and then until the command is decided.
    async fn outcome_in_time(&self, thread: &ThreadId, command: &CommandId) -> Bytes {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A store that fails meanwhile is met by whoever reads next.
            if let Ok(Some(known)) = self.outcome(thread, command).await {
                return known;
            }
        }
    }

    fn id_of(&self, how: &Sending) -> CommandId {
        how.command_id
            .clone()
            .unwrap_or_else(|| self.new_command_id())
    }

    fn command(&self, id: &CommandId, how: &Sending) -> CommandRef {
        CommandRef {
            id: id.clone(),
            sent_at: self.threads.world().now(),
            sender: how.sender.clone(),
            trace: how.traceparent.clone(),
            tracestate: how.tracestate.clone(),
        }
    }
}

/// A command with the ids that it has before it is sent.
struct Asked {
    kind: CommandKind,
    target: String,
    id: CommandId,
    thread: ThreadId,
    run: Option<RunId>,
}

impl Asked {
    fn of(kind: CommandKind, thread: &ThreadId, id: CommandId, run: Option<RunId>) -> Self {
        Self {
            kind,
            target: thread.to_string(),
            id,
            thread: thread.clone(),
            run,
        }
    }
}

#[cfg(test)]
mod tests;
