//! Workers over one store and one queue, each in a process that can die and is then started
//! again.
//!
//! The test itself is a client that nothing happens to: it publishes commands straight into
//! the queue and reads the store as it is.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use superstep_graph::InterruptId;
use superstep_protocol::{CommandId, Run, RunStatus, ThreadId, ThreadState};
use superstep_queue::{
    CommandKind, CommandMessage, Headers, Queue, header, memory::MemoryQueueSettings,
    subject::Subjects,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    graphs::{GRAPHS, Runs, Stage},
    ledger::{Ledger, Lenient, thread_of},
    log::{FaultyLog, Store},
    mutant::Mutant,
    plan::{Faults, Odds, Process, lock},
    queue::{Broker, FaultyQueue},
};
use superstep_worker::{Limits, RunnableGraph, Threads, Worker, WorkerSettings, World};

/// The longest that anything may take, in virtual time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1200);

/// How a test is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    /// The graphs that the workers hold.
    pub(crate) graphs: Vec<String>,
    /// Graphs of the test's own.
    pub(crate) own: fn(&Stage) -> Vec<RunnableGraph>,
    pub(crate) odds: Odds,
    pub(crate) lenient: Lenient,
    pub(crate) durable_after: Duration,
    pub(crate) settings: WorkerSettings,
    pub(crate) node_ms_max: u64,
    /// Whether the command stream knows a command that is published again.
    pub(crate) dedupes: bool,
    /// How far the clocks of workers may be from the true time, in milliseconds.
    pub(crate) skew_ms_max: u64,
    /// The mistake that store and queue make.
    pub(crate) mutant: Option<Mutant>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 0,
            workers: 2,
            graphs: GRAPHS.map(str::to_owned).to_vec(),
            own: |_| Vec::new(),
            odds: Odds::default(),
            lenient: Lenient::default(),
            durable_after: Duration::ZERO,
            settings: settings(),
            node_ms_max: 0,
            dedupes: true,
            skew_ms_max: 0,
            mutant: None,
        }
    }
}

/// Settings with which a small test meets snapshots, blobs and run-ahead.
pub(crate) fn settings() -> WorkerSettings {
    WorkerSettings {
        store_retry: Duration::from_secs(3),
        limits: Limits {
            snapshot_every: 4,
            inline_bytes_max: 600,
            ..Limits::default()
        },
        ..WorkerSettings::default()
    }
}

/// The shared world of one test.
pub(crate) struct Rig {
    pub(crate) setup: Setup,
    pub(crate) faults: Arc<Faults>,
    pub(crate) store: Arc<Store>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) runs: Runs,
    pub(crate) shutdown: CancellationToken,
    /// Set once nothing goes wrong any more.
    pub(crate) calm: CancellationToken,
    sent: Mutex<Vec<(ThreadId, CommandId)>>,
    pub(crate) threads: Threads,
}

impl Rig {
    /// The store and the queue, with no worker yet.
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        let faults = Faults::new(setup.seed, setup.odds.clone())
            .with_skew(setup.skew_ms_max)
            .with_mutant(setup.mutant);
        let faults = Arc::new(faults);
        let store = Arc::new(Store::new(&faults, setup.durable_after));
        let window = if setup.dedupes { 120 } else { 0 };
        let broker = Broker::new(MemoryQueueSettings {
            duplicate_window: Duration::from_secs(window),
            event_messages_max: 1_000_000,
            ..MemoryQueueSettings::default()
        });
        let ledger = Arc::new(Ledger::new(&store, &faults, setup.lenient));
        let broker = Arc::new(broker);
        // The client's own view of the store: nothing goes wrong in it.
        let quiet = Arc::new(Faults::new(0, Odds::default()));
        let threads = Threads::new(
            Arc::new(FaultyLog {
                store: Arc::clone(&store),
                process: quiet.new_process(),
                faults: quiet,
                ledger: Arc::clone(&ledger),
            }),
            Arc::clone(&faults.world) as _,
            Limits::default(),
            Duration::from_secs(1),
        );
        Arc::new(Self {
            setup,
            faults,
            store,
            broker,
            ledger,
            runs: Runs::default(),
            shutdown: CancellationToken::new(),
            calm: CancellationToken::new(),
            sent: Mutex::default(),
            threads,
        })
    }

    /// The store, the queue and the workers.
    pub(crate) fn start(setup: Setup) -> Arc<Self> {
        let rig = Self::new(setup);
        for _ in 0..rig.setup.workers {
            rig.add_worker();
        }
        rig
    }

    /// A worker that is started again whenever it dies.
    pub(crate) fn add_worker(self: &Arc<Self>) {
        let rig = Arc::clone(self);
        tokio::spawn(async move {
            while !rig.shutdown.is_cancelled() {
                let process = rig.faults.new_process();
                rig.faults.note(format!("w{} starts", process.number));
                let run = tokio::spawn(rig.worker(&process).run(rig.shutdown.clone()));
                tokio::select! {
                    biased;
                    () = process.died() => {
                        rig.faults.note(format!("w{} is dead", process.number));
                        run.abort();
                    }
                    () = rig.shutdown.cancelled() => return,
                }
                sleep(rig.faults.ms(100..3000)).await;
            }
        });
    }

    /// One worker in `process`.
    pub(crate) fn worker(&self, process: &Process) -> Worker {
        let stage = Stage {
            faults: Arc::clone(&self.faults),
            ledger: Arc::clone(&self.ledger),
            process: process.clone(),
            runs: Arc::clone(&self.runs),
            node_ms_max: self.setup.node_ms_max,
        };
        let mut graphs = stage.graphs(&self.setup.graphs);
        for graph in (self.setup.own)(&stage) {
            graphs.add(graph);
        }
        Worker::new(
            graphs,
            Arc::new(self.log_of(process)),
            Arc::new(self.queue_of(process)),
            Subjects::new("superstep", "default").expect("they are subjects"),
            self.faults.world_of(process) as _,
            self.setup.settings.clone(),
        )
    }

    pub(crate) fn log_of(&self, process: &Process) -> FaultyLog {
        FaultyLog {
            store: Arc::clone(&self.store),
            faults: Arc::clone(&self.faults),
            ledger: Arc::clone(&self.ledger),
            process: process.clone(),
        }
    }

    pub(crate) fn queue_of(&self, process: &Process) -> FaultyQueue {
        FaultyQueue {
            broker: Arc::clone(&self.broker),
            faults: Arc::clone(&self.faults),
            ledger: Arc::clone(&self.ledger),
            process: process.clone(),
        }
    }

    /// Publishes a command, and remembers that it must come to an outcome.
    pub(crate) async fn send(&self, kind: CommandKind, target: &str, id: &str, body: &Value) {
        self.send_bytes(kind, target, id, Bytes::from(body.to_string()))
            .await;
    }

    pub(crate) async fn send_bytes(&self, kind: CommandKind, target: &str, id: &str, body: Bytes) {
        let command = CommandId::new(id);
        let thread = thread_of(kind, target, &body, &command);
        self.faults.note(format!(
            "client sends {} {target} as {id} {}",
            kind.as_str(),
            String::from_utf8_lossy(&body)
        ));
        let headers = Headers::from([
            (header::MSG_ID.to_owned(), id.to_owned()),
            (header::REPLY.to_owned(), format!("_INBOX.test.{id}")),
        ]);
        let message = CommandMessage {
            kind,
            target: target.to_owned(),
            headers,
            body,
        };
        let now = World::now(&*self.faults.world);
        let plain = kind == CommandKind::Resume && is_plain(&message.body);
        self.ledger.sent(&command, plain);
        self.broker.publish(&message, now).await;
        let mut sent = lock(&self.sent);
        if !sent.contains(&(thread.clone(), command.clone())) {
            sent.push((thread, command));
        }
    }

    /// The state of a thread as it is in the store.
    pub(crate) fn state(&self, thread: &str) -> Option<ThreadState> {
        self.ledger.state(&thread.into())
    }

    pub(crate) async fn is_decided(&self, thread: &str, command: &str) -> bool {
        let (thread, command) = (ThreadId::new(thread), CommandId::new(command));
        let kept = self.threads.log().outcome(&thread, &command).await;
        kept.is_ok_and(|kept| kept.is_some())
    }

    /// Whether every command that was sent is decided, or lost.
    pub(crate) async fn holds_no_command(&self) -> bool {
        let findings = self.broker.queue().check().await;
        let commands = findings.iter().find(|of| of.subject == "stream commands");
        commands.is_none_or(|of| of.detail.starts_with("in memory, 0 of"))
    }

    /// Waits until no message is held by the queue, no thread owes anything, and nothing went
    /// wrong on the way.
    pub(crate) async fn silence(&self) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if !self.ledger.findings().is_empty() {
                return Err(self.ledger.findings().join("\n"));
            }
            let findings = self.broker.queue().check().await;
            let held: Vec<&str> = findings
                .iter()
                .filter(|finding| finding.subject != "stream events")
                .map(|finding| finding.detail.as_str())
                .filter(|detail| !detail.starts_with("in memory, 0 of"))
                .collect();
            let watched = self.ledger.watched();
            if held.is_empty() && watched.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "liveness: messages stay in the queue: {held:?}; watched stay {watched:?}"
                ));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for silence and checks what must be true of threads and commands then.
    pub(crate) async fn settle(&self) -> Result<(), String> {
        self.silence().await?;
        let sent = lock(&self.sent).clone();
        for (thread, command) in &sent {
            self.ledger.command_rests(thread, command);
        }
        let threads: BTreeSet<_> = sent.into_iter().map(|(thread, _)| thread).collect();
        for thread in &threads {
            if self.state(thread.as_str()).is_some() {
                self.ledger.thread_rests(thread);
            }
        }
        match self.ledger.findings() {
            wrong if wrong.is_empty() => Ok(()),
            wrong => Err(wrong.join("\n")),
        }
    }

    /// One of the workers stands still for a while, as under SIGSTOP.
    pub(crate) fn freeze_one(&self) {
        let living = self.faults.living();
        let pick = usize::try_from(self.faults.draw(0..living.len().max(1) as u64));
        let Some(process) = living.get(pick.expect("an index")) else {
            return;
        };
        let time = self.faults.ms(500..30_000);
        self.faults.note(format!(
            "== w{} stands still for {} ms ==",
            process.number,
            time.as_millis()
        ));
        process.freeze(time);
    }
}

/// Whether a thread has reached its graph's end.
pub(crate) fn is_done(state: &ThreadState) -> bool {
    let succeeded = |run: &Run| run.status == RunStatus::Success;
    !state.is_busy() && state.tasks.is_empty() && state.run.as_ref().is_some_and(succeeded)
}

/// Runs a test in a world of its own, with virtual time.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built")
        .block_on(future)
}

/// Whether an answer names no question.
fn is_plain(body: &Bytes) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_map = |value: &Value| {
        value
            .as_object()
            .is_some_and(|map| !map.is_empty() && map.keys().all(|key| InterruptId::is_id(key)))
    };
    body.get("interrupt_id").is_none() && !is_map(&body["resume"])
}
