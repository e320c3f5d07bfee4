//! Workers over one store and one queue, each in a process that can die and is then started
//! again.
//!
//! The test itself is a client that nothing happens to: it publishes commands straight into
//! the queue and reads the store as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use superstep_graph::InterruptId;
use superstep_protocol::{CommandId, Question, Run, RunStatus, ThreadId, ThreadState};
use superstep_queue::{
    CommandKind, CommandMessage, Headers, Queue, header,
    memory::{MemoryQueue, MemoryQueueSettings},
    subject::Subjects,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    check::{Check, Lenient, thread_of},
    graphs::{GRAPHS, Runs, Stage, answer_to},
    log::{FaultyLog, Store},
    plan::{Faults, Odds, Process, lock},
    queue::{Broker, FaultyQueue},
};
use superstep_worker::{Client, Error, Limits, RunnableGraph, Threads, Worker, WorkerSettings};

/// The longest that anything may take, in virtual time.
const DEADLINE: Duration = Duration::from_secs(1200);

/// How a test is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    /// The graphs that the workers hold.
    pub(crate) graphs: Vec<&'static str>,
    /// Graphs of the test's own.
    pub(crate) own: fn(&Stage) -> Vec<RunnableGraph>,
    pub(crate) odds: Odds,
    pub(crate) lenient: Lenient,
    pub(crate) durable_after: Duration,
    pub(crate) settings: WorkerSettings,
    pub(crate) node_ms_max: u64,
    /// Whether the command stream knows a command that is published again.
    pub(crate) dedupes: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 0,
            workers: 2,
            graphs: GRAPHS.to_vec(),
            own: |_| Vec::new(),
            odds: Odds::default(),
            lenient: Lenient::default(),
            durable_after: Duration::ZERO,
            settings: settings(),
            node_ms_max: 0,
            dedupes: true,
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
    pub(crate) check: Arc<Check>,
    pub(crate) runs: Runs,
    pub(crate) shutdown: CancellationToken,
    /// Set once nothing goes wrong any more.
    pub(crate) calm: CancellationToken,
    sent: Mutex<Vec<(ThreadId, CommandId)>>,
    threads: Threads,
}

impl Rig {
    /// The store and the queue, with no worker yet.
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        let faults = Arc::new(Faults::new(setup.seed, setup.odds.clone()));
        let store = Arc::new(Store::new(&faults, setup.durable_after));
        let window = if setup.dedupes { 120 } else { 0 };
        let queue = MemoryQueue::new(MemoryQueueSettings {
            duplicate_window: Duration::from_secs(window),
            event_messages_max: 1_000_000,
            ..MemoryQueueSettings::default()
        });
        let check = Arc::new(Check::new(&store, &faults, setup.lenient));
        let broker = Arc::new(Broker::new(queue.unwrap()));
        // The client's own view of the store: nothing goes wrong in it.
        let quiet = Arc::new(Faults::new(0, Odds::default()));
        let threads = Threads::new(
            Arc::new(FaultyLog {
                store: Arc::clone(&store),
                process: quiet.new_process(),
                faults: quiet,
                check: Arc::clone(&check),
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
            check,
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
                rig.faults.note(&format!("w{} starts", process.number));
                let run = tokio::spawn(rig.worker(&process).run(rig.shutdown.clone()));
                tokio::select! {
                    biased;
                    () = process.died() => {
                        rig.faults.note(&format!("w{} is dead", process.number));
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
            Subjects::new("superstep", "default").unwrap(),
            Arc::clone(&self.faults.world) as _,
            self.setup.settings.clone(),
        )
    }

    pub(crate) fn log_of(&self, process: &Process) -> FaultyLog {
        FaultyLog {
            store: Arc::clone(&self.store),
            faults: Arc::clone(&self.faults),
            check: Arc::clone(&self.check),
            process: process.clone(),
        }
    }

    pub(crate) fn queue_of(&self, process: &Process) -> FaultyQueue {
        FaultyQueue {
            broker: Arc::clone(&self.broker),
            faults: Arc::clone(&self.faults),
            check: Arc::clone(&self.check),
            process: process.clone(),
        }
    }

    /// A client of the library's own.
    pub(crate) fn client(&self) -> Client {
        let process = self.faults.new_process();
        Client::with_world(
            Arc::new(self.log_of(&process)),
            Arc::new(self.queue_of(&process)),
            Subjects::new("superstep", "default").unwrap(),
            Arc::clone(&self.faults.world) as _,
        )
    }

    /// Publishes a command, and remembers that it must come to an outcome.
    pub(crate) async fn send(&self, kind: CommandKind, target: &str, id: &str, body: &Value) {
        self.send_bytes(kind, target, id, Bytes::from(body.to_string()))
            .await;
    }

    pub(crate) async fn send_bytes(&self, kind: CommandKind, target: &str, id: &str, body: Bytes) {
        let command = CommandId::new(id);
        let thread = thread_of(kind, target, &body, &command);
        self.faults
            .note(&format!("client sends {} {target} as {id}", kind.as_str()));
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
        let now = superstep_worker::World::now(&*self.faults.world);
        self.broker.publish(&message, now).await;
        let mut sent = lock(&self.sent);
        if !sent.contains(&(thread.clone(), command.clone())) {
            sent.push((thread, command));
        }
    }

    /// The state of a thread as it is in the store.
    pub(crate) fn state(&self, thread: &str) -> Option<ThreadState> {
        self.check.state(&thread.into())
    }

    /// Waits until the thread's state is so.
    pub(crate) async fn until(
        &self,
        thread: &str,
        what: &str,
        so: impl Fn(&ThreadState) -> bool,
    ) -> ThreadState {
        let found = timeout(DEADLINE, async {
            loop {
                self.check.assert_nothing_wrong();
                if let Some(state) = self.state(thread)
                    && so(&state)
                {
                    return state;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("{thread} is never {what}\n{}", self.faults.story()))
    }

    pub(crate) async fn is_decided(&self, thread: &str, command: &str) -> bool {
        let (thread, command) = (ThreadId::new(thread), CommandId::new(command));
        let kept = self.threads.log().outcome(&thread, &command).await;
        kept.unwrap().is_some()
    }

    /// The outcome of a command, once it has one.
    pub(crate) async fn outcome(&self, thread: &str, command: &str) -> superstep_wire::Reply {
        let (id, command) = (ThreadId::new(thread), CommandId::new(command));
        let found = timeout(DEADLINE, async {
            loop {
                self.check.assert_nothing_wrong();
                let kept = self.threads.log().outcome(&id, &command).await.unwrap();
                if let Some(kept) = kept {
                    return superstep_wire::decode::reply(&kept).unwrap();
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("{command} has no outcome\n{}", self.faults.story()))
    }

    /// Waits until no message is held by the queue and nothing went wrong on the way.
    pub(crate) async fn quiet(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.check.assert_nothing_wrong();
            let findings = self.broker.queue.check().await;
            let held: Vec<&str> = findings
                .iter()
                .filter(|finding| finding.subject != "stream events")
                .map(|finding| finding.detail.as_str())
                .filter(|detail| !detail.starts_with("in memory, 0 of"))
                .collect();
            if held.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "messages stay in the queue: {held:?}\n{}",
                self.faults.story()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for silence and checks what must be true of threads and commands then.
    pub(crate) async fn rest(&self) {
        self.quiet().await;
        let sent = lock(&self.sent).clone();
        for (thread, command) in &sent {
            self.check.command_at_rest(thread, command);
            if self.state(thread.as_str()).is_some() {
                self.check.at_rest(thread);
            }
        }
        self.check.assert_nothing_wrong();
    }

    /// Starts a thread whose input is `input`.
    pub(crate) async fn begin(&self, graph: &str, thread: &str, input: Value) {
        let body = json!({"thread_id": thread, "input": input});
        let id = format!("{thread}-start");
        self.send(CommandKind::Start, graph, &id, &body).await;
    }

    /// Starts a thread and answers each of its questions once, until it has completed.
    pub(crate) async fn see_through(&self, graph: &str, thread: &str) {
        self.begin(graph, thread, json!({"count": 4})).await;
        let mut answered = BTreeSet::new();
        loop {
            let state = self
                .until(thread, "done or asking", |state| {
                    is_done(state) || unanswered(state, &answered).is_some()
                })
                .await;
            let Some(question) = unanswered(&state, &answered) else {
                return;
            };
            self.answer(thread, question).await;
            answered.insert(question.id.clone());
        }
    }

    /// Answers a question by its id.
    pub(crate) async fn answer(&self, thread: &str, question: &Question) {
        let id = format!("{thread}-answer-{}", question.id);
        let value = answer_to(&question.payload, &id);
        let body = json!({"resume": value, "interrupt_id": question.id});
        self.send(CommandKind::Resume, thread, &id, &body).await;
    }

    /// The checkpoints of a thread, oldest first: source, step, values and what came next.
    pub(crate) async fn checkpoints(&self, thread: &str) -> Vec<(String, i64, Value, Vec<String>)> {
        let history = self.threads.history(&thread.into(), None, 1000).await;
        let mut views: Vec<_> = history
            .unwrap()
            .into_iter()
            .map(|view| {
                let next = view.next.iter().map(ToString::to_string).collect();
                let values = crate::graphs::comparable(&view.values);
                (view.source.to_owned(), view.step, values, next)
            })
            .collect();
        views.reverse();
        views
    }

    /// Does what a reconciler would do: performs what watched threads owe.
    pub(crate) async fn recover(&self) -> Result<usize, Error> {
        let process = self.faults.new_process();
        self.faults.note("-- recover --");
        self.worker(&process).recover().await
    }

    pub(crate) fn runs_of(&self, node: &str) -> usize {
        let runs: BTreeMap<_, _> = lock(&self.runs).clone();
        runs.get(node).copied().unwrap_or(0)
    }
}

/// Whether a thread has reached its graph's end.
pub(crate) fn is_done(state: &ThreadState) -> bool {
    let succeeded = |run: &Run| run.status == RunStatus::Success;
    !state.is_busy() && state.tasks.is_empty() && state.run.as_ref().is_some_and(succeeded)
}

fn unanswered<'a>(
    state: &'a ThreadState,
    answered: &BTreeSet<InterruptId>,
) -> Option<&'a Question> {
    state
        .open_questions()
        .map(|(_, question)| question)
        .find(|question| !answered.contains(&question.id))
}

/// Runs a test in a world of its own, with virtual time.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}
