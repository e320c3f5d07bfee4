//! Cluster: private servers for the whole run, and on them a worker and a client for each case.
//!
//! A case has a namespace of its own, so that its worker decides no other's commands and can go
//! without a word when the case is over. The worker is the real one, in this process as the
//! scripted nodes note here what ran; commands go to it through NATS, and what became of them is
//! awaited and read by the real client.
//!
//! The rule it keeps: the worker has one slot, so that the tasks of a superstep run one after the
//! other in the order in which they were published (FORMAT, section 5).

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value};
use superstep::{
    CheckpointView, Graph, GraphId, Graphs, InterruptView, Profile, RunOptions, RunOutput,
    RunStatus, StateView, StreamEvent, Streams, ThreadId, Update, WorkerSettings,
};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_queue::{Queue as _, subject::Subjects};
use superstep_queue_nats::{NatsQueue, NatsSettings};
use superstep_tests::servers::{NatsServer, RedisServer};
use superstep_wire::{ResumeCommand, RunConfig, StartCommand, StateUpdate, UpdateCommand, outward};
use superstep_worker::{
    Client, Ended, OutputFeed, RunEnd, Sending, Sent, SystemWorld, Told, UpdateEnd, Watching,
    Worker, chain,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    handle::{Commanded, Declined, broken},
    ops::Fault,
};

/// How long an outcome, and then an end, may take. The case's own time is over before.
const SOON: Duration = Duration::from_secs(60);

/// What a case's streams may hold each: the server sets it aside for every one of them.
const STREAM_BYTES_MAX: u64 = 4 << 20;

/// The servers of a run of the whole program.
#[derive(Debug)]
pub(crate) struct Servers {
    nats: NatsServer,
    redis: RedisServer,
    namespaces: AtomicU64,
}

impl Servers {
    /// Starts both.
    ///
    /// # Errors
    /// If there is no binary of one, or it does not come up.
    pub(crate) fn start() -> anyhow::Result<Self> {
        Ok(Self {
            nats: NatsServer::start()?,
            redis: RedisServer::start()?,
            namespaces: AtomicU64::new(0),
        })
    }
}

/// A case's own part of the servers, with its worker.
#[derive(Debug)]
pub(crate) struct Cluster {
    client: Client,
    graph: GraphId,
    /// Ends the worker.
    _worker: DropGuard,
    runs: AtomicU64,
}

impl Cluster {
    /// Makes the streams of a new namespace, and starts a worker of `graph` there.
    pub(crate) async fn open(servers: &Servers, graph: Graph<Value>) -> Result<Self, Fault> {
        let number = servers.namespaces.fetch_add(1, Ordering::Relaxed);
        let nats = NatsSettings {
            urls: vec![servers.nats.url()],
            namespace: format!("case-{number}"),
            work_bytes_max: STREAM_BYTES_MAX,
            command_bytes_max: STREAM_BYTES_MAX,
            event_bytes_max: STREAM_BYTES_MAX,
            ..NatsSettings::default()
        };
        let redis = RedisSettings {
            namespace: nats.namespace.clone(),
            // Nothing is killed here, so that what was said is durable.
            durable_after: Some(Duration::ZERO),
            ..RedisSettings::new(&servers.redis.url())
        };
        let subjects = Subjects::new(&nats.prefix, &nats.namespace).map_err(|e| broken(&e))?;
        let (queue, log) = tokio::join!(
            Box::pin(NatsQueue::connect(nats)),
            Box::pin(RedisLog::connect(redis))
        );
        let queue = Arc::new(queue.map_err(|error| broken(&error))?);
        let log = Arc::new(log.map_err(|error| broken(&error))?);
        // A command is stored before the worker is up, and a client listens before that.
        queue.setup().await.map_err(|error| broken(&error))?;

        let id = graph.id().clone();
        let mut graphs = Graphs::new();
        graphs.add(graph.into());
        let settings = WorkerSettings {
            concurrency: 1,
            tasks_at_once: Some(NonZeroUsize::MIN),
            // The graph is there before the first command, and commands come one by one.
            hold_back: Duration::ZERO,
            drain_timeout: Duration::from_secs(1),
            profile: Profile::Langgraph,
            ..WorkerSettings::default()
        };
        let worker = Worker::new(
            graphs.clone(),
            log.clone(),
            queue.clone(),
            subjects.clone(),
            Arc::new(SystemWorld),
            settings,
        );
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            if let Err(error) = Box::pin(worker.run(stop)).await {
                eprintln!("the worker of a case ended: {}", chain(&error));
            }
        });
        Ok(Self {
            runs: AtomicU64::new(0),
            client: Client::new(log, queue, subjects).with_graphs(graphs),
            graph: id,
            _worker: shutdown.drop_guard(),
        })
    }

    /// Runs the graph on a thread that is deleted when the run is over.
    pub(crate) async fn run_once(
        &self,
        input: Value,
        options: RunOptions,
    ) -> Result<RunOutput, Declined> {
        let runs = self.runs.fetch_add(1, Ordering::Relaxed);
        let thread = self.thread(&format!("run-{runs}"));
        let ran = Box::pin(thread.invoke_with(input, options, &mut Vec::new())).await?;
        accepted(self.client.delete(&thread.id, &sending()).await?)?;
        Ok(ran)
    }

    /// A thread by its name.
    pub(crate) fn thread(&self, name: &str) -> ClusterThread {
        ClusterThread {
            client: self.client.clone(),
            graph: self.graph.clone(),
            id: ThreadId::new(name),
            checkpoint: None,
        }
    }
}

/// A thread of a case, maybe as of one of its checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct ClusterThread {
    client: Client,
    graph: GraphId,
    id: ThreadId,
    checkpoint: Option<String>,
}

impl ClusterThread {
    /// The thread as of one of its checkpoints.
    pub(crate) fn at(&self, checkpoint: &str) -> Self {
        Self {
            checkpoint: Some(checkpoint.to_owned()),
            ..self.clone()
        }
    }

    pub(crate) async fn invoke_with(
        &self,
        input: Value,
        options: RunOptions,
        events: &mut Vec<StreamEvent>,
    ) -> Result<RunOutput, Declined> {
        let start = StartCommand {
            thread_id: Some(self.id.to_string()),
            run_id: options.run.map(|run| run.to_string()),
            input: Some(input),
            config: Some(RunConfig {
                recursion_limit: options.recursion_limit,
                configurable: options.config.into_iter().collect(),
                ..RunConfig::default()
            }),
            metadata: options.metadata.into_iter().collect(),
            checkpoint_id: self.checkpoint.clone(),
            interrupt_before: options.interrupt_before.as_ref().map(outward::breakpoints),
            interrupt_after: options.interrupt_after.as_ref().map(outward::breakpoints),
            durability: Some(outward::durability(options.durability).to_owned()),
            stream_mode: modes(&options.streams),
            stream_subgraphs: options.streams.subgraphs,
            ..StartCommand::default()
        };
        let feed = self.feed(&options.streams).await?;
        let watching = self.watch().await?;
        let sent = Box::pin(self.client.start(&self.graph.name, start, &sending())).await;
        let output = self.run_of(sent?, watching).await?;
        follow(feed, &output.run, events).await?;
        Ok(output)
    }

    pub(crate) async fn command_with(
        &self,
        command: Commanded,
        options: RunOptions,
        events: &mut Vec<StreamEvent>,
    ) -> Result<RunOutput, Declined> {
        let goto: Vec<_> = command.goto.into_iter().map(Into::into).collect();
        let resume = ResumeCommand {
            resume: command.resume,
            update: Some(command.update),
            goto: Some(outward::goto(&goto)),
            config: Some(RunConfig {
                recursion_limit: options.recursion_limit,
                ..RunConfig::default()
            }),
            checkpoint_id: self.checkpoint.clone(),
            interrupt_before: options.interrupt_before.as_ref().map(outward::breakpoints),
            interrupt_after: options.interrupt_after.as_ref().map(outward::breakpoints),
            durability: Some(outward::durability(options.durability).to_owned()),
            graph: Some(self.graph.name.to_string()),
            stream_mode: modes(&options.streams),
            stream_subgraphs: options.streams.subgraphs,
            ..ResumeCommand::default()
        };
        let feed = self.feed(&options.streams).await?;
        let watching = self.watch().await?;
        let sent = Box::pin(self.client.resume(&self.id, resume, &sending())).await;
        let output = self.run_of(sent?, watching).await?;
        follow(feed, &output.run, events).await?;
        Ok(output)
    }

    pub(crate) async fn update_state(
        &self,
        supersteps: Vec<Vec<Update>>,
    ) -> Result<StateView, Declined> {
        // Only the first one is at the checkpoint: the next ones build on it.
        let mut checkpoint = self.checkpoint.clone();
        for updates in supersteps {
            let update = UpdateCommand {
                checkpoint_id: checkpoint.take(),
                graph: Some(self.graph.name.to_string()),
                ..UpdateCommand::default()
            };
            self.update_superstep(updates, update).await?;
        }
        let state = self.client.thread(&self.id).await?;
        let state = state.ok_or_else(|| fault("a thread is gone after an update"))?;
        Ok(state.state)
    }

    /// Updates the state of a subgraph in which a task waits.
    pub(crate) async fn update_inside(
        &self,
        place: &[String],
        values: Value,
        as_node: Option<&str>,
    ) -> Result<(), Declined> {
        let as_node = as_node.map(Into::into);
        let update = UpdateCommand {
            subgraph: place.to_vec(),
            ..UpdateCommand::default()
        };
        self.update_superstep(vec![Update { values, as_node }], update)
            .await
    }

    pub(crate) async fn state_inside(
        &self,
        place: &[String],
        subgraphs: bool,
    ) -> Result<Option<StateView>, Declined> {
        let place: Vec<_> = place.iter().map(|node| node.as_str().into()).collect();
        Ok(self
            .client
            .thread_inside(&self.id, &place, subgraphs)
            .await?)
    }

    pub(crate) async fn history_inside(
        &self,
        place: &[String],
        limit: usize,
    ) -> Result<Vec<CheckpointView>, Declined> {
        let place: Vec<_> = place.iter().map(|node| node.as_str().into()).collect();
        let history = self.client.history_inside(&self.id, &place, limit).await?;
        Ok(history.unwrap_or_default())
    }

    async fn update_superstep(
        &self,
        updates: Vec<Update>,
        update: UpdateCommand,
    ) -> Result<(), Declined> {
        let updates = updates.into_iter().map(|update| StateUpdate {
            values: update.values,
            as_node: update.as_node.map(|node| node.to_string()),
        });
        let update = UpdateCommand {
            updates: updates.collect(),
            ..update
        };
        let watching = self.watch().await?;
        let sent = Box::pin(self.client.update(&self.id, &update, &sending())).await;
        let record = accepted(sent?)?.record;
        let record = record.and_then(|record| record.parse().ok());
        let Some(record) = record else {
            return Err(fault("an accepted update names no record"));
        };
        match Box::pin(watching.update_end(record, SOON)).await? {
            Some(UpdateEnd::Applied) => Ok(()),
            Some(UpdateEnd::Declined { refusal }) => {
                Err(Declined::Refused(refusal.kind().to_owned()))
            }
            Some(UpdateEnd::Unknown) => Err(fault("the log does not tell of an update")),
            None => Err(fault("an update was neither applied nor declined in time")),
        }
    }

    pub(crate) async fn state(&self) -> Result<Option<StateView>, Declined> {
        if let Some(checkpoint) = &self.checkpoint {
            return Ok(self.client.thread_at(&self.id, checkpoint).await?);
        }
        let detail = self.client.thread(&self.id).await?;
        Ok(detail.map(|detail| detail.state))
    }

    pub(crate) async fn history(&self, limit: usize) -> Result<Vec<CheckpointView>, Declined> {
        Ok(self.client.history(&self.id, None, limit).await?)
    }

    /// The thread's live output, if anything of it is asked for.
    async fn feed(&self, streams: &Streams) -> Result<Option<OutputFeed>, Declined> {
        if streams.modes.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.client.outputs(&self.id).await?))
    }

    async fn watch(&self) -> Result<Watching, Declined> {
        Ok(self.client.watch(&self.id).await?)
    }

    /// Waits for the end of the run that a command began.
    async fn run_of(&self, sent: Sent, watching: Watching) -> Result<RunOutput, Declined> {
        let Some(run) = accepted(sent)?.run else {
            return Err(fault("an accepted command names no run"));
        };
        match Box::pin(watching.run_end(&run, SOON)).await? {
            Some(end) => output(end),
            None => Err(fault("a run did not end in time")),
        }
    }
}

fn modes(streams: &Streams) -> Vec<String> {
    let words = streams.modes.iter().map(|mode| mode.as_str().to_owned());
    words.collect()
}

/// What a run that is over has told.
async fn follow(
    feed: Option<OutputFeed>,
    run: &superstep::RunId,
    events: &mut Vec<StreamEvent>,
) -> Result<(), Declined> {
    let Some(mut feed) = feed else {
        return Ok(());
    };
    loop {
        match tokio::time::timeout(SOON, feed.next()).await {
            Ok(Ok(Some(Told::Event(of, event)))) if of == *run => events.push(event),
            Ok(Ok(Some(Told::End(of)))) if of == *run => return Ok(()),
            Ok(Ok(Some(Told::Event(..) | Told::End(_)))) => {}
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(None)) | Err(_) => return Err(fault("the end of a run's output did not come")),
        }
    }
}

fn sending() -> Sending {
    Sending {
        wait: SOON,
        ..Sending::default()
    }
}

/// What an accepted command became.
struct Accepted {
    run: Option<superstep::RunId>,
    record: Option<String>,
}

fn accepted(sent: Sent) -> Result<Accepted, Declined> {
    match sent {
        Sent::Accepted { run_id, record, .. } => Ok(Accepted {
            run: run_id,
            record,
        }),
        Sent::Refused { refusal, .. } => Err(Declined::Refused(refusal.kind.as_str().to_owned())),
        Sent::Stored { .. } => Err(fault("no worker decided a command in time")),
    }
}

/// The end of a run in the form that the embedded mode gives it.
fn output(end: RunEnd) -> Result<RunOutput, Declined> {
    let mut output = superstep_worker::RunOutput {
        run: end.run_id,
        values: Map::new(),
        shows: end.shows,
        interrupts: Vec::new(),
        status: RunStatus::Success,
        error: None,
    };
    match end.ended {
        Ended::Completed { values } => output.values = values.unwrap_or_default(),
        Ended::Interrupted { interrupts, values } => {
            output.values = values;
            output.interrupts = interrupts
                .into_iter()
                .map(|open| InterruptView {
                    id: open.interrupt_id,
                    value: open.value,
                })
                .collect();
        }
        Ended::Failed { error } => {
            output.status = RunStatus::Error;
            output.error = Some(error);
        }
        Ended::Cancelled => output.status = RunStatus::Interrupted,
        Ended::Declined { refusal } => return Err(Declined::Refused(refusal.kind().to_owned())),
    }
    Ok(output.into())
}

fn fault(reason: &str) -> Declined {
    Declined::Fault(Fault::Broken(reason.to_owned()))
}
