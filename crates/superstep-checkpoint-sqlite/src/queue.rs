//! The queue of the embedded mode: commands, work and events in the store's file.
//!
//! Being in the file, it outlives the worker, and other processes reach it: a client publishes
//! commands, waits for their outcome and follows events while the worker runs. Waiting is
//! woken at once by what happens in this process, and within [`wake::POLL`] by others.
//!
//! Commands are durable when they are answered. The rest may be lost with the machine's power,
//! as the protocol allows, but never out of order with the thread log: both are one file.
//!
//! What is stored is decided in the modules, which are synchronous; here is only who asks.

mod consumer;
mod events;
mod output;
mod replies;
mod stream;
mod wake;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use superstep_protocol::{GraphId, RunId, ThreadId, UnixMillis};
use superstep_queue::{
    CommandMessage, Consumer, Error, ErrorKind, EventFilter, EventMessage, EventsMade, Finding,
    Headers, Published, Queue, Subscription, WorkMessage, header, subject::Subjects,
};

use self::{
    consumer::SqliteConsumer,
    events::EventSubscription,
    output::{OutputSubscription, Outputs},
    replies::{Inbox, Inboxes},
    stream::{Incoming, StreamName},
    wake::{Topic, Wake},
};
use crate::{database::Database, failure::Failure, sweeps::Sweeps};

/// How often what is over is removed at most.
const SWEEP_PERIOD_MS: u64 = 10_000;

/// Bounds and times of a [`SqliteQueue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteQueueSettings {
    /// The first token of subjects.
    pub prefix: String,
    /// The second token of subjects.
    pub namespace: String,
    /// The lease of a work delivery: how soon a dead worker's work is handed over.
    pub ack_wait: Duration,
    /// The lease of a command delivery.
    pub command_ack_wait: Duration,
    /// Work messages held at once; more are refused as `Full`.
    pub work_messages_max: usize,
    /// Commands held at once; more are refused as `Full`.
    pub command_messages_max: usize,
    /// Events held at once; the oldest make room.
    pub event_messages_max: usize,
    /// How old an event may get.
    pub event_age_max: Duration,
    /// The largest body.
    pub body_bytes_max: usize,
    /// How long a message id is remembered.
    pub duplicate_window: Duration,
}

/// The bounds of the other queues where they have the same, so that a graph that runs embedded
/// meets no others in production.
impl Default for SqliteQueueSettings {
    fn default() -> Self {
        Self {
            prefix: "superstep".to_owned(),
            namespace: "default".to_owned(),
            ack_wait: Duration::from_secs(8),
            command_ack_wait: Duration::from_secs(12),
            work_messages_max: 100_000,
            command_messages_max: 100_000,
            event_messages_max: 100_000,
            event_age_max: Duration::from_secs(7 * 24 * 60 * 60),
            body_bytes_max: 1 << 20,
            duplicate_window: Duration::from_secs(120),
        }
    }
}

/// A queue in the store's file. Clones share it.
#[derive(Clone, Debug)]
pub struct SqliteQueue {
    shared: Arc<Shared>,
}

/// What the queue's consumers and subscriptions share.
#[derive(Debug)]
struct Shared {
    settings: SqliteQueueSettings,
    subjects: Subjects,
    database: Arc<Database>,
    wake: Wake,
    inboxes: Inboxes,
    outputs: Outputs,
    sweeps: Sweeps,
}

impl SqliteQueue {
    /// The queue in an open file.
    ///
    /// # Errors
    /// `Invalid` if prefix or namespace cannot be part of a subject.
    pub fn new(database: Arc<Database>, settings: SqliteQueueSettings) -> Result<Self, Error> {
        let subjects = Subjects::new(&settings.prefix, &settings.namespace)?;
        Ok(Self {
            shared: Arc::new(Shared {
                wake: Wake::new(database.path()),
                inboxes: Inboxes::default(),
                outputs: Outputs::new(database.unique_name()),
                sweeps: Sweeps::every(SWEEP_PERIOD_MS),
                settings,
                subjects,
                database,
            }),
        })
    }

    /// Ends every lease and delay: what a worker that is gone held is handed over at once,
    /// not after `ack_wait`. For the one worker process, at its start, when it holds the
    /// [data folder's](crate::DataDir) lock.
    pub async fn end_leases(&self) -> Result<(), Error> {
        self.shared
            .write_unsynced(|connection, _| stream::end_leases(connection))
            .await?;
        self.shared.wake.ring_all();
        Ok(())
    }

    /// Publishes under a subject as a plain client would: what lands in the streams of
    /// commands or work is delivered, even under a subject that superstep cannot read.
    ///
    /// # Errors
    /// `Invalid` if the subject is in neither stream.
    pub async fn publish_raw(
        &self,
        subject: &str,
        headers: Headers,
        body: Bytes,
    ) -> Result<Published, Error> {
        let subjects = &self.shared.subjects;
        let under = |pattern: &str| subject.starts_with(pattern.trim_end_matches('>'));
        let stream = if under(&subjects.work_stream()) {
            StreamName::Work
        } else if subjects.commands_stream().iter().any(|p| under(p)) {
            StreamName::Commands
        } else {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("no stream takes the subject {subject}; use one of a command or of work"),
            ));
        };
        let incoming = Incoming {
            stream,
            subject: subject.to_owned(),
            headers,
            body,
        };
        let mut published = self.shared.publish(vec![incoming]).await?;
        Ok(published.remove(0))
    }
}

impl Shared {
    /// Stores messages of one stream, all or none, and wakes who waits for them.
    async fn publish(&self, incoming: Vec<Incoming>) -> Result<Vec<Published>, Error> {
        for message in &incoming {
            self.check_size(message.body.len())?;
        }
        let mut lanes: Vec<_> = incoming.iter().map(|m| m.lane().to_owned()).collect();
        lanes.dedup();
        let durable = incoming.iter().any(|m| m.stream == StreamName::Commands);
        let bounds = stream::Bounds {
            commands: self.settings.command_messages_max,
            work: self.settings.work_messages_max,
            window: self.settings.duplicate_window,
        };
        let store = move |connection: &Connection, now| {
            let store = |message| stream::publish(connection, message, &bounds, now);
            incoming.iter().map(store).collect()
        };
        let published = if durable {
            self.write(store).await?
        } else {
            self.write_unsynced(store).await?
        };
        for lane in lanes {
            self.wake.ring(&Topic::Lane(lane));
        }
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

    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection, UnixMillis) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let changed = self.database.write(self.swept(change)).await;
        changed.map_err(|failure| self.told(failure))
    }

    async fn write_unsynced<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection, UnixMillis) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let changed = self.database.write_unsynced(self.swept(change)).await;
        changed.map_err(|failure| self.told(failure))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let read = self.database.read(read).await;
        read.map_err(|failure| self.told(failure))
    }

    /// A change at the time of now, with a sweep before it when it is time for one.
    fn swept<T, F>(&self, change: F) -> impl FnOnce(&Connection) -> Result<T, Failure> + use<T, F>
    where
        F: FnOnce(&Connection, UnixMillis) -> Result<T, Failure>,
    {
        let now = self.database.now();
        let sweep = self.sweeps.is_due(now);
        let (window, age) = (self.settings.duplicate_window, self.settings.event_age_max);
        move |connection| {
            if sweep {
                stream::sweep(connection, now, window)?;
                events::sweep(connection, now, age)?;
                replies::sweep(connection, now)?;
            }
            change(connection, now)
        }
    }

    fn told(&self, failure: Failure) -> Error {
        failure.into_queue_error(self.database.path())
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    /// The tables came with the file; an incompatible file was refused when it was opened.
    async fn setup(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error> {
        let incoming = Incoming {
            stream: StreamName::Commands,
            subject: self
                .shared
                .subjects
                .command(command.kind, &command.target)?,
            headers: command.headers.clone(),
            body: command.body.clone(),
        };
        let mut published = self.shared.publish(vec![incoming]).await?;
        Ok(published.remove(0))
    }

    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error> {
        let mut incoming = Vec::with_capacity(work.len());
        for message in work {
            incoming.push(Incoming {
                stream: StreamName::Work,
                subject: self.shared.subjects.work(&message.graph)?,
                headers: message.headers.clone(),
                body: message.body.clone(),
            });
        }
        self.shared.publish(incoming).await?;
        Ok(())
    }

    async fn publish_events(&self, events: &[EventMessage]) -> Result<(), Error> {
        let mut incoming = Vec::with_capacity(events.len());
        for event in events {
            self.shared.check_size(event.body.len())?;
            let graph = event.graph.as_ref();
            let subject = self
                .shared
                .subjects
                .event(&event.kind, graph, &event.thread)?;
            incoming.push((subject, event.clone()));
        }
        let window = self.shared.settings.duplicate_window;
        let bound = self.shared.settings.event_messages_max;
        self.shared
            .write_unsynced(move |connection, now| {
                events::publish(connection, &incoming, bound, window, now)
            })
            .await?;
        self.shared.wake.ring(&Topic::Events);
        Ok(())
    }

    async fn reply(&self, subject: &str, body: Bytes) -> Result<(), Error> {
        self.shared.subjects.check_reply(subject)?;
        self.shared.check_size(body.len())?;
        if self.shared.inboxes.answer(subject, &body) || !replies::is_inbox(subject) {
            return Ok(());
        }
        let subject = subject.to_owned();
        self.shared
            .write_unsynced(move |connection, now| replies::put(connection, &subject, &body, now))
            .await
    }

    async fn output(&self, thread: &ThreadId, run: &RunId, body: Bytes) -> Result<(), Error> {
        self.shared.check_size(body.len())?;
        let subject = self.shared.subjects.output(thread, run)?;
        let database = &self.shared.database;
        let sent = self.shared.outputs.send(database, thread, subject, body);
        sent.map_err(|failure| self.shared.told(failure))
    }

    async fn commands(&self) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(SqliteConsumer::new(
            Arc::clone(&self.shared),
            stream::COMMANDS_LANE.to_owned(),
            self.shared.settings.command_ack_wait,
        )))
    }

    async fn work(&self, graph: &GraphId) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(SqliteConsumer::new(
            Arc::clone(&self.shared),
            self.shared.subjects.work(graph)?,
            self.shared.settings.ack_wait,
        )))
    }

    async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        let lane = self.shared.subjects.work(graph)?;
        let now = self.shared.database.now();
        let read = move |connection: &Connection| stream::waited(connection, &lane, now);
        self.shared.read(read).await
    }

    /// Streams are in the file of the log: neither is lost alone.
    async fn events_made(&self) -> Result<Option<EventsMade>, Error> {
        Ok(None)
    }

    async fn events(&self, filter: &EventFilter) -> Result<Box<dyn Subscription>, Error> {
        // Also refuses a filter that no subject can have.
        self.shared.subjects.events_of(filter)?;
        let subscription = EventSubscription::open(&self.shared, filter.clone()).await?;
        Ok(Box::new(subscription))
    }

    async fn outputs(&self, thread: &ThreadId) -> Result<Box<dyn Subscription>, Error> {
        let pattern = self.shared.subjects.outputs_of(thread)?;
        let under = pattern.trim_end_matches('*').to_owned();
        let subscription = OutputSubscription::open(&self.shared, thread.clone(), under).await?;
        Ok(Box::new(subscription))
    }

    async fn request(
        &self,
        mut command: CommandMessage,
        wait: Duration,
    ) -> Result<(Published, Option<Bytes>), Error> {
        let mut inbox = Inbox::open(&self.shared);
        let reply_to = inbox.subject().to_owned();
        command.headers.insert(header::REPLY.to_owned(), reply_to);
        let published = self.publish_command(&command).await?;
        let outcome = inbox.wait(wait).await?;
        Ok((published, outcome))
    }

    fn body_bytes_max(&self) -> usize {
        self.shared.settings.body_bytes_max
    }

    async fn check(&self) -> Vec<Finding> {
        let settings = &self.shared.settings;
        let bounds = [
            ("commands", settings.command_messages_max),
            ("work", settings.work_messages_max),
            ("events", settings.event_messages_max),
        ];
        match self.shared.read(stream::counts).await {
            Ok(counts) => {
                let finding = |((name, bound), held): ((&str, usize), u64)| Finding {
                    ok: name == "events" || held < bound as u64,
                    subject: format!("stream {name}"),
                    detail: format!("{held} of at most {bound} messages"),
                };
                bounds.into_iter().zip(counts).map(finding).collect()
            }
            Err(error) => vec![Finding {
                ok: false,
                subject: format!("queue {}", self.shared.database.path().display()),
                detail: error.to_string(),
            }],
        }
    }
}
