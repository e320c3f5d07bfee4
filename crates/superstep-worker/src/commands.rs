//! Commands: one delivery from its bytes to its outcome.
//!
//! Every command has an id before it is decided, and its outcome is remembered under that id
//! before anyone is told, refusals too: the same command again gets the same outcome. Commands
//! are acked late, when the record that they became is durable and still in the log; otherwise
//! they are decided again.

mod read;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use superstep_checkpoint::ThreadLog;
use superstep_protocol::{
    CommandId, CommandRef, Event, Head, Record, RecordBody, Refusal, RunId, ThreadId, ThreadState,
    UnixMillis,
};
use superstep_queue::{CommandKind, Delivery, header};
use superstep_wire::{Outcome, RefusalKind, Reply, decode, encode, outward};
use tracing::{debug, info};

use crate::{
    effects::{Effects, Publish},
    engine::{Accepted, Engine},
    error::Error,
    movers,
    registry::Registry,
    settings::WorkerSettings,
    stream::{self, OutputSink, Stream},
    threads::OutcomeBytes,
    trace::sent_with,
    versions::{self, First, Needs},
};

pub(crate) use read::resume_event;
use read::{Absent, Asked};

/// The pause before a command is looked at again that may have come too early.
const EARLY_PAUSE: Duration = Duration::from_millis(100);

/// How a delivery of a command is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Decided, and nothing more can be lost.
    Ack,
    /// Accepted by this record: to be acked once it is durable and still there, with its outcome.
    AckOnceDurable { thread: ThreadId, record: Head },
    /// To be handed over again after a pause.
    Again(Duration),
}

#[derive(Clone)]
pub(crate) struct Commands {
    pub(crate) engine: Engine,
    pub(crate) effects: Effects,
    pub(crate) registry: Registry,
    pub(crate) settings: WorkerSettings,
    pub(crate) sink: Option<Arc<dyn OutputSink>>,
}

impl Commands {
    /// Decides one command.
    pub(crate) async fn handle(
        &self,
        kind: CommandKind,
        target: &str,
        delivery: &Delivery,
    ) -> Result<Handled, Error> {
        let (trace, tracestate) = sent_with(&delivery.headers);
        let command = CommandRef {
            id: command_id(delivery),
            sent_at: delivery.published_at,
            sender: delivery.headers.get(header::SENDER).cloned(),
            trace,
            tracestate,
        };
        let asked = self.read(kind, target, &delivery.body, &command).await?;
        let refusal = match &asked.event {
            Ok(event) => {
                let thread = &asked.thread;
                let accepted = Box::pin(self.accept(&asked, event, &command, delivery)).await?;
                match accepted {
                    Accepted::Appended(done) => {
                        let (mut state, record) = *done;
                        info!(
                            thread_id = %asked.thread, command_id = %command.id,
                            record = %record.head, kind = kind.as_str(), "accepted"
                        );
                        self.engine
                            .threads
                            .health()
                            .decided(kind.as_str(), "accepted");
                        if let Some(traces) = self.engine.threads.traces() {
                            traces.link_here(&state.state);
                        }
                        self.tell_end(&state.state, &record);
                        self.effects
                            .perform(&mut state, Some(&record), Publish::Of(record.head))
                            .await?;
                        let reply =
                            reply_of(&command, asked.run.as_ref(), record.head, &state.state);
                        self.answer(delivery, reply).await;
                        return Ok(Handled::AckOnceDurable {
                            thread: asked.thread,
                            record: record.head,
                        });
                    }
                    Accepted::Decided(outcome) => {
                        return self.again(kind, &asked, &command, delivery, outcome).await;
                    }
                    Accepted::Known(record) => {
                        let Some(outcome) = self.known(&asked, &command, record).await? else {
                            return Ok(Handled::Again(EARLY_PAUSE));
                        };
                        return self.again(kind, &asked, &command, delivery, outcome).await;
                    }
                    Accepted::Refused(refusal) => {
                        if self.is_early(delivery) && self.may_be_early(thread, &refusal).await? {
                            return Ok(Handled::Again(EARLY_PAUSE));
                        }
                        outward::refusal(&refusal)
                    }
                    Accepted::Wait | Accepted::Nothing if self.is_early(delivery) => {
                        return Ok(Handled::Again(Duration::from_millis(50)));
                    }
                    Accepted::Wait | Accepted::Nothing => outward::refusal(&Refusal::Unsupported {
                        what: "a command while another one is being decided".to_owned(),
                        instead: "check that a worker of the thread's graph runs, then send it \
                                  again"
                            .to_owned(),
                    }),
                }
            }
            Err(refusal) => {
                let early = [RefusalKind::UnknownGraph, RefusalKind::UnknownThread];
                if early.contains(&refusal.kind) && self.is_early(delivery) {
                    return Ok(Handled::Again(EARLY_PAUSE));
                }
                refusal.clone()
            }
        };
        self.refuse(kind, &asked, &command, delivery, refusal).await
    }

    /// What is told of a start whose run was accepted before, as `record`, by another command.
    ///
    /// The outcome is put apart from that record, so only once the store cannot forget it any more:
    /// else the command would be done with, and have begun nothing. `None` if it was forgotten.
    async fn known(
        &self,
        asked: &Asked,
        command: &CommandRef,
        record: Head,
    ) -> Result<Option<Bytes>, Error> {
        let log = self.engine.threads.log();
        if !log.durable_after().is_zero() {
            until_durable(log).await.map_err(Error::Store)?;
            let stays = is_in_log(log, &asked.thread, record).await;
            if !stays.map_err(Error::Store)? {
                return Ok(None);
            }
        }
        let mut reply = Reply::new(Outcome::Accepted, command.id.as_str());
        reply.thread_id = Some(asked.thread.to_string());
        reply.run_id = asked.run.as_ref().map(ToString::to_string);
        reply.record = Some(record.to_string());
        let bytes = Bytes::from(encode::body(&reply));
        let (thread, log) = (&asked.thread, self.engine.threads.log());
        let kept = self
            .engine
            .threads
            .retrying(thread, || {
                log.put_outcome(thread, &command.id, bytes.clone())
            })
            .await?;
        Ok(Some(kept.unwrap_or(bytes)))
    }

    /// Decides on what was asked. On a thread that is not there, once it is late for one to come,
    /// on what the command does then.
    async fn accept(
        &self,
        asked: &Asked,
        event: &Event,
        command: &CommandRef,
        delivery: &Delivery,
    ) -> Result<Accepted, Error> {
        let thread = &asked.thread;
        let outcome = || Some(accepted(command, asked.run.clone()));
        let decide = |event| {
            self.engine
                .accept(thread, event, Some(&command.id), outcome)
        };
        if let Some(first) = self.move_first(thread, event, command).await? {
            return Ok(first);
        }
        let accepted = decide(event).await?;
        let is_absent = matches!(accepted, Accepted::Refused(Refusal::UnknownThread { .. }));
        let absent = asked.absent.as_ref();
        match absent.filter(|_| is_absent && !self.is_early(delivery)) {
            None => Ok(accepted),
            Some(Absent::Begun(start)) => decide(start).await,
            Some(Absent::Made(create)) => {
                self.engine.accept(thread, create, None, || None).await?;
                decide(event).await
            }
        }
    }

    /// Has the thread taken over by a newer version of its graph, if that is to go on with it. The
    /// command then waits, and is decided on what became of that.
    async fn move_first(
        &self,
        thread: &ThreadId,
        event: &Event,
        command: &CommandRef,
    ) -> Result<Option<Accepted>, Error> {
        let needs = movers::needs(event);
        if needs == Needs::Nothing {
            return Ok(None);
        }
        let threads = &self.engine.threads;
        let mut versions = self.registry.versions(threads, false).await?;
        if !versions.iter().any(|version| version.takes_over) {
            return Ok(None);
        }
        let Some(found) = threads.load(thread).await? else {
            return Ok(None);
        };
        let state = &found.state;
        if state.stays.is_some() {
            // Whether workers of its own version are left decides on the command for good.
            versions = self.registry.versions(threads, true).await?;
        }
        match versions::before_command(&versions, state, &command.id, needs) {
            First::Nothing => Ok(None),
            First::Refuse(refusal) => Ok(Some(Accepted::Refused(refusal))),
            First::Move(to) => {
                movers::ask(&self.engine, &self.effects, state, to, None).await?;
                Ok(None)
            }
            First::MoveFor(to) => {
                movers::ask(&self.engine, &self.effects, state, to, Some(command)).await?;
                Ok(Some(Accepted::Wait))
            }
        }
    }

    /// Whether what a command names may still be on its way. Time and tries both count: after
    /// all workers were away for long, a start and what follows it are decided at once.
    fn is_early(&self, delivery: &Delivery) -> bool {
        let hold = self.settings.hold_back;
        let hold_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        let now: UnixMillis = self.engine.threads.world().now();
        let tries = hold.as_millis() / EARLY_PAUSE.as_millis();
        now < delivery.published_at.plus_ms(hold_ms) || u128::from(delivery.attempt) <= tries
    }

    /// Whether what the command names may still come: its thread, its graph, or a question that
    /// a run under way has not asked yet.
    async fn may_be_early(&self, thread: &ThreadId, refusal: &Refusal) -> Result<bool, Error> {
        Ok(match refusal {
            Refusal::UnknownInterrupt { .. } => {
                let thread = self.engine.threads.load(thread).await?;
                thread.is_some_and(|thread| thread.state.is_busy())
            }
            other => other.may_be_early(),
        })
    }

    async fn refuse(
        &self,
        kind: CommandKind,
        asked: &Asked,
        command: &CommandRef,
        delivery: &Delivery,
        refusal: superstep_wire::Refusal,
    ) -> Result<Handled, Error> {
        let mut reply = Reply::new(Outcome::Refused, command.id.as_str());
        reply.thread_id = Some(asked.thread.to_string());
        reply.refusal = Some(refusal.clone());
        let bytes = Bytes::from(encode::body(&reply));
        let (thread, log) = (&asked.thread, self.engine.threads.log());
        let kept = self
            .engine
            .threads
            .retrying(thread, || {
                log.put_outcome(thread, &command.id, bytes.clone())
            })
            .await?;
        if let Some(outcome) = kept.filter(|outcome| *outcome != bytes) {
            return self.again(kind, asked, command, delivery, outcome).await;
        }
        info!(
            thread_id = %thread, command_id = %command.id, kind = kind.as_str(),
            refusal = %refusal.kind, "refused"
        );
        self.tell_refusal(kind, asked, command, &refusal).await?;
        self.answer(delivery, bytes).await;
        let health = self.engine.threads.health();
        health.decided(kind.as_str(), refusal.kind.as_str());
        Ok(Handled::Ack)
    }

    /// Puts a refusal on the events stream; the same one again is one event.
    async fn tell_refusal(
        &self,
        kind: CommandKind,
        asked: &Asked,
        command: &CommandRef,
        refusal: &superstep_wire::Refusal,
    ) -> Result<(), Error> {
        let (thread, graph) = (&asked.thread, asked.graph.as_deref());
        let sender = command.sender.clone();
        self.effects
            .tell_refusal(kind, thread, graph, &command.id, sender, refusal)
            .await
    }

    /// The command was decided before: the same outcome again, and whatever its record still
    /// owes, for the worker that decided it may have died right after.
    ///
    /// Once the thread has gone on from that record, somebody has had the work that it called
    /// for, and its events went out before that. What the thread owes now is then theirs to do:
    /// publishing it again would only run a node beside itself.
    async fn again(
        &self,
        kind: CommandKind,
        asked: &Asked,
        command: &CommandRef,
        delivery: &Delivery,
        outcome: Bytes,
    ) -> Result<Handled, Error> {
        debug!(thread_id = %asked.thread, "decided before");
        let mut handled = Handled::Ack;
        let reply = decode::reply(&outcome).ok();
        if let Some(refusal) = reply.as_ref().and_then(|reply| reply.refusal.as_ref()) {
            self.tell_refusal(kind, asked, command, refusal).await?;
        }
        let record = reply.and_then(|reply| reply.record?.parse::<Head>().ok());
        if let Some(record) = record
            && let Some(mut thread) = self.engine.threads.load(&asked.thread).await?
        {
            let state = &thread.state;
            if state.waits_for(record) || state.untold.contains(&record.version) {
                self.effects
                    .perform(&mut thread, None, Publish::Of(record))
                    .await?;
            }
            handled = Handled::AckOnceDurable {
                thread: asked.thread.clone(),
                record,
            };
        }
        self.answer(delivery, outcome).await;
        self.engine
            .threads
            .health()
            .decided(kind.as_str(), "repeated");
        Ok(handled)
    }

    /// Tells the sender, if it named a subject. It is told at most once and nothing waits for
    /// it: the events stream has the outcome too.
    async fn answer(&self, delivery: &Delivery, outcome: Bytes) {
        if let Some(subject) = delivery.headers.get(header::REPLY)
            && let Err(error) = self.effects.queue.reply(subject, outcome).await
        {
            debug!(%error, "the sender could not be told");
        }
    }

    /// A run that begins and finds nothing to do has what it goes on from to tell, where this
    /// worker knows its graph; and whoever follows a run is told that it is over.
    fn tell_end(&self, state: &ThreadState, record: &Record) {
        if let Some(sink) = &self.sink {
            for run in cancelled_in_queue(&record.body) {
                sink.end(&state.thread, run);
            }
        }
        if state.is_running() || !stream::is_of_run(&record.body) {
            return;
        }
        let stream = Stream::of(self.sink.as_ref(), state);
        let begins = matches!(
            record.body,
            RecordBody::Resumed { .. } | RecordBody::Retried { .. }
        );
        if let Some(graph) = self.engine.graphs.get(&state.graph).filter(|_| begins) {
            stream::nothing_left(&stream, graph.topology(), state);
        }
        stream.end();
    }
}

/// Waits until what the store holds by now is durable.
pub(crate) async fn until_durable(
    log: &Arc<dyn ThreadLog>,
) -> Result<(), superstep_checkpoint::Error> {
    if !log.wait_durable().await? {
        tokio::time::sleep(log.durable_after()).await;
    }
    Ok(())
}

/// Whether a record is in the log, or was until the thread had gone on from it.
pub(crate) async fn is_in_log(
    log: &Arc<dyn ThreadLog>,
    thread: &ThreadId,
    record: Head,
) -> Result<bool, superstep_checkpoint::Error> {
    Ok(match log.record(thread, record.version).await? {
        Some(stored) => stored.head == record,
        // Trimmed or deleted since is durable too.
        None => matches!(log.head(thread).await?, Some(head) if head.version > record.version),
    })
}

/// The id that a command is remembered under. A stream that was lost and made anew counts from 1
/// again, so a sequence alone would name another command's outcome: the time tells them apart.
pub(crate) fn command_id(delivery: &Delivery) -> CommandId {
    let given = delivery.headers.get(header::MSG_ID);
    // An empty one is none: streams read it so too.
    match given.filter(|id| !id.is_empty()) {
        Some(id) => CommandId::new(id.as_str()),
        None => CommandId::new(format!("{}:{}", delivery.id, delivery.published_at.0)),
    }
}

/// The runs of the queue that a record cancelled.
fn cancelled_in_queue(body: &RecordBody) -> &[RunId] {
    match body {
        RecordBody::Cancelled { queued, .. } => queued,
        RecordBody::Displaced(displaced) => &displaced.queued,
        _ => &[],
    }
}

fn accepted(command: &CommandRef, run: Option<RunId>) -> OutcomeBytes {
    let command = command.clone();
    Box::new(move |head, state| reply_of(&command, run.as_ref(), head, state))
}

fn reply_of(command: &CommandRef, run: Option<&RunId>, head: Head, state: &ThreadState) -> Bytes {
    let mut reply = Reply::new(Outcome::Accepted, command.id.as_str());
    reply.thread_id = Some(state.thread.to_string());
    reply.run_id = run.map(ToString::to_string);
    reply.record = Some(head.to_string());
    Bytes::from(encode::body(&reply))
}

/// The thread of a start that names none, the same whenever the command is decided.
pub(crate) fn made_thread(command: &CommandId) -> ThreadId {
    ThreadId::new(uuid_of(&["thread", command.as_str()]))
}

/// The run of a command that names none, the same whenever the command is decided.
pub(crate) fn made_run(command: &CommandId) -> RunId {
    RunId::new(uuid_of(&["run", command.as_str()]))
}

/// A UUID of version 8 (made by the application) from a digest.
fn uuid_of(parts: &[&str]) -> String {
    let hex = superstep_graph::digest(parts);
    format!(
        "{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}
