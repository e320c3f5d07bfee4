//! The queue of one process: the embedded default, and the queue that tests and the simulator
//! run on.
//!
//! It keeps the promises of the port with plain maps under one lock: leases by `ack_wait`,
//! attempts, delayed naks, bounds, windows of dedupe. It survives nothing: with the process
//! its messages are gone, which the protocol allows (the queue may forget). It reads tokio's
//! clock, so that a test can pause time. What comes next, and when, is decided in `stream`
//! and `log`, which are synchronous; here is only waiting and waking.

mod log;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_protocol::{GraphId, RunId, ThreadId, UnixMillis};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use self::{
    log::EventLog,
    stream::{Lease, Stream},
};
use crate::{
    Acker, CommandMessage, Consumer, Delivery, DeliveryBody, Error, ErrorKind, EventFilter,
    EventMessage, EventsMade, Finding, Headers, Published, Queue, Received, Subscription,
    WorkMessage, header,
    subject::{Subject, Subjects},
};

/// The lane of all commands: they have one consumer.
const COMMANDS_LANE: &str = "";
/// Live output that a subscriber has not read yet; more is dropped for it, oldest first.
const OUTPUT_BACKLOG_MAX: usize = 1024;

/// Bounds and times of a [`MemoryQueue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryQueueSettings {
    /// The first token of subjects.
    pub prefix: String,
    /// The second token of subjects.
    pub namespace: String,
    /// The lease of a work delivery.
    pub ack_wait: Duration,
    /// The lease of a command delivery: commands are acked late.
    pub command_ack_wait: Duration,
    /// Work messages held at once; more are refused as `Full`.
    pub work_messages_max: usize,
    /// Commands held at once; more are refused as `Full`.
    pub command_messages_max: usize,
    /// Events held at once; the oldest make room.
    pub event_messages_max: usize,
    /// The largest body.
    pub body_bytes_max: usize,
    /// How long a message id is remembered.
    pub duplicate_window: Duration,
}

/// The bounds of the NATS queue where it has the same: a graph that runs embedded meets no
/// others in production. Messages held are fewer, as they live in this process's memory.
impl Default for MemoryQueueSettings {
    fn default() -> Self {
        Self {
            prefix: "superstep".to_owned(),
            namespace: "default".to_owned(),
            ack_wait: Duration::from_secs(8),
            command_ack_wait: Duration::from_secs(12),
            work_messages_max: 100_000,
            command_messages_max: 100_000,
            event_messages_max: 10_000,
            body_bytes_max: 1 << 20,
            duplicate_window: Duration::from_secs(120),
        }
    }
}

/// A queue in this process's memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: MemoryQueueSettings,
    subjects: Subjects,
    state: Mutex<State>,
    /// Rings when something may have become deliverable.
    deliverable: watch::Sender<()>,
    /// Rings when an event was stored.
    event_stored: watch::Sender<()>,
    outputs: broadcast::Sender<Received>,
}

#[derive(Debug)]
struct State {
    commands: Stream,
    work: Stream,
    events: EventLog,
    inboxes: HashMap<String, oneshot::Sender<Bytes>>,
    inbox_last: u64,
    /// How often everything was forgotten.
    forgotten: u64,
}

#[derive(Clone, Copy, Debug)]
enum StreamName {
    Commands,
    Work,
}

impl MemoryQueue {
    /// An empty queue.
    ///
    /// # Errors
    /// `Invalid` if prefix or namespace cannot be part of a subject.
    pub fn new(settings: MemoryQueueSettings) -> Result<Self, Error> {
        let subjects = Subjects::new(&settings.prefix, &settings.namespace)?;
        let window = settings.duplicate_window;
        let [commands, work] = streams(&settings);
        let state = State {
            commands,
            work,
            events: EventLog::new(settings.event_messages_max, window),
            inboxes: HashMap::new(),
            inbox_last: 0,
            forgotten: 0,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                settings,
                subjects,
                state: Mutex::new(state),
                deliverable: watch::Sender::new(()),
                event_stored: watch::Sender::new(()),
                outputs: broadcast::Sender::new(OUTPUT_BACKLOG_MAX),
            }),
        })
    }

    /// Forgets every command, work and event, as a server does that comes back with an empty disk.
    /// Deliveries that are held come to nothing.
    pub fn forget(&self) {
        let settings = &self.shared.settings;
        let [commands, work] = streams(settings);
        let mut state = self.shared.state();
        // Sequences go on: a late answer to a delivery from before must not touch another's.
        state.commands.forget(commands);
        state.work.forget(work);
        state.events.forget();
        state.forgotten += 1;
    }

    /// Publishes under a subject as a plain client would: what lands in the streams of
    /// commands or work is delivered, even under a subject that superstep cannot read.
    ///
    /// # Errors
    /// `Invalid` if the subject is in neither stream.
    pub fn publish_raw(
        &self,
        subject: &str,
        headers: Headers,
        body: Bytes,
    ) -> Result<Published, Error> {
        let under = |pattern: &str| subject.starts_with(pattern.trim_end_matches('>'));
        if under(&self.shared.subjects.work_stream()) {
            return self
                .shared
                .publish(StreamName::Work, subject, subject, headers, body);
        }
        if self
            .shared
            .subjects
            .commands_stream()
            .iter()
            .any(|p| under(p))
        {
            return self.shared.publish(
                StreamName::Commands,
                COMMANDS_LANE,
                subject,
                headers,
                body,
            );
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!("no stream takes the subject {subject}"),
        ))
    }

    fn consumer(&self, stream: StreamName, lane: String, ack_wait: Duration) -> Box<dyn Consumer> {
        Box::new(MemoryConsumer {
            deliverable: self.shared.deliverable.subscribe(),
            shared: Arc::clone(&self.shared),
            stream,
            lane,
            ack_wait,
        })
    }
}

fn streams(settings: &MemoryQueueSettings) -> [Stream; 2] {
    let window = settings.duplicate_window;
    let commands = settings.command_messages_max;
    [
        Stream::new("commands", unix_now(), commands, window),
        Stream::new("work", unix_now(), settings.work_messages_max, window),
    ]
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn publish(
        &self,
        stream: StreamName,
        lane: &str,
        subject: &str,
        headers: Headers,
        body: Bytes,
    ) -> Result<Published, Error> {
        self.check_size(body.len())?;
        let published = self.state().stream(stream).publish(
            lane,
            subject,
            headers,
            body,
            Instant::now(),
            unix_now(),
        )?;
        self.deliverable.send_replace(());
        Ok(published)
    }

    fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let max = self.settings.body_bytes_max;
        if bytes <= max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "the body has {bytes} bytes, the queue takes {max}; send less or raise the bound"
            ),
        ))
    }

    fn kind_of(&self, subject: &str) -> DeliveryBody {
        match self.subjects.parse(subject) {
            Some(Subject::Command { kind, target }) => DeliveryBody::Command { kind, target },
            Some(Subject::Work { graph }) => DeliveryBody::Work { graph },
            Some(Subject::Event { .. } | Subject::Output { .. }) | None => DeliveryBody::Unknown {
                subject: subject.to_owned(),
            },
        }
    }
}

impl State {
    fn stream(&mut self, name: StreamName) -> &mut Stream {
        match name {
            StreamName::Commands => &mut self.commands,
            StreamName::Work => &mut self.work,
        }
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn setup(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error> {
        let subject = self
            .shared
            .subjects
            .command(command.kind, &command.target)?;
        let (headers, body) = (command.headers.clone(), command.body.clone());
        self.shared
            .publish(StreamName::Commands, COMMANDS_LANE, &subject, headers, body)
    }

    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error> {
        for message in work {
            let subject = self.shared.subjects.work(&message.graph)?;
            let (headers, body) = (message.headers.clone(), message.body.clone());
            self.shared
                .publish(StreamName::Work, &subject, &subject, headers, body)?;
        }
        Ok(())
    }

    async fn publish_events(&self, events: &[EventMessage]) -> Result<(), Error> {
        for event in events {
            self.shared.check_size(event.body.len())?;
            let subject =
                self.shared
                    .subjects
                    .event(&event.kind, event.graph.as_ref(), &event.thread)?;
            let received = Received {
                subject,
                headers: event.headers.clone(),
                body: event.body.clone(),
            };
            self.shared.state().events.push(received, Instant::now());
        }
        self.shared.event_stored.send_replace(());
        Ok(())
    }

    async fn reply(&self, subject: &str, body: Bytes) -> Result<(), Error> {
        self.shared.subjects.check_reply(subject)?;
        self.shared.check_size(body.len())?;
        let waiting = self.shared.state().inboxes.remove(subject);
        if let Some(waiting) = waiting {
            // The asker may have gone away meanwhile; a reply is not stored.
            let _ = waiting.send(body);
        }
        Ok(())
    }

    async fn output(&self, thread: &ThreadId, run: &RunId, body: Bytes) -> Result<(), Error> {
        self.shared.check_size(body.len())?;
        let subject = self.shared.subjects.output(thread, run)?;
        // Without subscribers there is nobody to tell.
        let _ = self.shared.outputs.send(Received {
            subject,
            headers: Headers::new(),
            body,
        });
        Ok(())
    }

    async fn commands(&self) -> Result<Box<dyn Consumer>, Error> {
        let ack_wait = self.shared.settings.command_ack_wait;
        Ok(self.consumer(StreamName::Commands, COMMANDS_LANE.to_owned(), ack_wait))
    }

    async fn work(&self, graph: &GraphId) -> Result<Box<dyn Consumer>, Error> {
        let lane = self.shared.subjects.work(graph)?;
        Ok(self.consumer(StreamName::Work, lane, self.shared.settings.ack_wait))
    }

    async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        let lane = self.shared.subjects.work(graph)?;
        Ok(self.shared.state().work.waited(&lane, Instant::now()))
    }

    async fn events_made(&self) -> Result<Option<EventsMade>, Error> {
        let forgotten = self.shared.state().forgotten;
        Ok(Some(EventsMade {
            at: UnixMillis(forgotten),
            here: false,
        }))
    }

    async fn events(&self, filter: &EventFilter) -> Result<Box<dyn Subscription>, Error> {
        // Also refuses a filter that no subject can have.
        self.shared.subjects.events_of(filter)?;
        let stored = self.shared.event_stored.subscribe();
        let next = self.shared.state().events.cursor(filter.from_start);
        Ok(Box::new(EventSubscription {
            shared: Arc::downgrade(&self.shared),
            stored,
            next,
            filter: filter.clone(),
        }))
    }

    async fn outputs(&self, thread: &ThreadId) -> Result<Box<dyn Subscription>, Error> {
        let pattern = self.shared.subjects.outputs_of(thread)?;
        Ok(Box::new(OutputSubscription {
            outputs: self.shared.outputs.subscribe(),
            under: pattern.trim_end_matches('*').to_owned(),
        }))
    }

    async fn request(
        &self,
        mut command: CommandMessage,
        wait: Duration,
    ) -> Result<(Published, Option<Bytes>), Error> {
        let (inbox, outcome) = Inbox::open(&self.shared);
        command
            .headers
            .insert(header::REPLY.to_owned(), inbox.subject.clone());
        let published = self.publish_command(&command).await?;
        let outcome = timeout(wait, outcome).await.ok().and_then(Result::ok);
        Ok((published, outcome))
    }

    fn body_bytes_max(&self) -> usize {
        self.shared.settings.body_bytes_max
    }

    async fn check(&self) -> Vec<Finding> {
        let state = self.shared.state();
        let mut findings: Vec<Finding> = [&state.commands, &state.work]
            .into_iter()
            .map(Stream::finding)
            .collect();
        findings.push(state.events.finding());
        findings
    }
}

/// An inbox of one request; closed when dropped, so that an abandoned wait leaves nothing.
struct Inbox {
    shared: Weak<Shared>,
    subject: String,
}

impl Inbox {
    fn open(shared: &Arc<Shared>) -> (Self, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = shared.state();
        state.inbox_last += 1;
        let subject = format!("_INBOX.memory.{}", state.inbox_last);
        state.inboxes.insert(subject.clone(), sender);
        let shared = Arc::downgrade(shared);
        (Self { shared, subject }, receiver)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.state().inboxes.remove(&self.subject);
        }
    }
}

struct MemoryConsumer {
    shared: Arc<Shared>,
    deliverable: watch::Receiver<()>,
    stream: StreamName,
    lane: String,
    ack_wait: Duration,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        let give_up = Instant::now() + wait;
        loop {
            self.deliverable.mark_unchanged();
            let now = Instant::now();
            let (leases, next) =
                self.shared
                    .state()
                    .stream(self.stream)
                    .take(&self.lane, max, now, self.ack_wait);
            if !leases.is_empty() || max == 0 || now >= give_up {
                return Ok(leases.into_iter().map(|l| self.delivery(l)).collect());
            }
            let until = next.map_or(give_up, |next| next.min(give_up));
            tokio::select! {
                // The sender lives in `shared`, which this consumer holds.
                _ = self.deliverable.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    fn ack_wait(&self) -> Duration {
        self.ack_wait
    }
}

impl MemoryConsumer {
    fn delivery(&self, lease: Lease) -> Delivery {
        Delivery {
            kind: self.shared.kind_of(&lease.subject),
            id: lease.id,
            published_at: lease.published_at,
            attempt: lease.attempt,
            headers: lease.headers,
            body: lease.body,
            acker: Box::new(MemoryAcker {
                shared: Arc::clone(&self.shared),
                stream: self.stream,
                sequence: lease.sequence,
                attempt: lease.attempt,
                ack_wait: self.ack_wait,
            }),
        }
    }
}

#[derive(Debug)]
struct MemoryAcker {
    shared: Arc<Shared>,
    stream: StreamName,
    sequence: u64,
    attempt: u64,
    ack_wait: Duration,
}

#[async_trait]
impl Acker for MemoryAcker {
    async fn ack(&self) -> Result<(), Error> {
        self.shared
            .state()
            .stream(self.stream)
            .remove(self.sequence);
        Ok(())
    }

    async fn nak(&self, delay: Duration) -> Result<(), Error> {
        let at = Instant::now() + delay;
        self.shared
            .state()
            .stream(self.stream)
            .deliver_at(self.sequence, self.attempt, at);
        self.shared.deliverable.send_replace(());
        Ok(())
    }

    async fn term(&self, _reason: &str) -> Result<(), Error> {
        self.ack().await
    }

    async fn in_progress(&self) -> Result<(), Error> {
        let at = Instant::now() + self.ack_wait;
        self.shared
            .state()
            .stream(self.stream)
            .deliver_at(self.sequence, self.attempt, at);
        Ok(())
    }
}

struct EventSubscription {
    shared: Weak<Shared>,
    stored: watch::Receiver<()>,
    next: u64,
    filter: EventFilter,
}

#[async_trait]
impl Subscription for EventSubscription {
    async fn next(&mut self) -> Result<Option<Received>, Error> {
        loop {
            self.stored.mark_unchanged();
            {
                let Some(shared) = self.shared.upgrade() else {
                    return Ok(None);
                };
                let state = shared.state();
                while let Some((sequence, event)) = state.events.at_or_after(self.next) {
                    self.next = sequence + 1;
                    if self.filter.wants(shared.subjects.parse(&event.subject)) {
                        return Ok(Some(event.clone()));
                    }
                }
            }
            if self.stored.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl EventFilter {
    fn wants(&self, subject: Option<Subject>) -> bool {
        let Some(Subject::Event {
            kind,
            graph,
            thread,
        }) = subject
        else {
            return false;
        };
        self.kind.as_ref().is_none_or(|wanted| *wanted == kind)
            && (self.graph.is_none() || self.graph == graph)
            && self.thread.as_ref().is_none_or(|wanted| *wanted == thread)
    }
}

struct OutputSubscription {
    outputs: broadcast::Receiver<Received>,
    under: String,
}

#[async_trait]
impl Subscription for OutputSubscription {
    async fn next(&mut self) -> Result<Option<Received>, Error> {
        use broadcast::error::RecvError;
        loop {
            match self.outputs.recv().await {
                Ok(output) if output.subject.starts_with(&self.under) => return Ok(Some(output)),
                // Another thread's, or this subscriber was too slow: live output is not stored.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }
}

fn unix_now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
