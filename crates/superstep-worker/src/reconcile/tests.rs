//! The reconciler and the poison rules over the memory log and queue, under paused time.
//!
//! A process is a future here: dropped, it is dead, with all that it held. Where only one look is
//! of interest the reconciler is asked for one; elsewhere whole workers run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::{Value, json};
use superstep_checkpoint::{ThreadLog as _, memory::MemoryLog};
use superstep_graph::{Branch, ChannelKind, END, GraphBuilder, NodeSpec, Reducer, START, Target};
use superstep_protocol::{
    Cancel, CommandId, CommandRef, Event, Profile, RunId, Start, Strategy, TASK_POISONED, Terms,
    ThreadStatus,
};
use superstep_queue::{
    EventFilter, Queue as _, Subscription,
    memory::{MemoryQueue, MemoryQueueSettings},
    subject::Subjects,
};
use superstep_wire::{EventKind, decode};
use tokio::sync::Notify;

use super::*;
use crate::{
    Graphs, Node, NodeContext, NodeError, NodeReturn, RunnableGraph, Worker, WorkerSettings, World,
    engine::Engine,
    threads::Threads,
    work::{Done, Holding, Works},
};

/// Virtual time, and nonces in order.
struct Virtual {
    began: Instant,
    nonces: AtomicU64,
}

const EPOCH_MS: u64 = 1_800_000_000_000;

impl World for Virtual {
    fn now(&self) -> UnixMillis {
        UnixMillis(EPOCH_MS + millis(self.began.elapsed()))
    }

    fn nonce(&self) -> Nonce {
        Nonce(self.nonces.fetch_add(1, Ordering::SeqCst))
    }
}

/// What the nodes of these graphs do, and what they did.
#[derive(Default)]
struct Nodes {
    ran: AtomicUsize,
    kill: Notify,
    mended: std::sync::atomic::AtomicBool,
    ended: Mutex<Vec<u64>>,
}

fn id() -> GraphId {
    GraphId {
        name: "job".into(),
        version: "1".into(),
    }
}

/// Spreads over as many tasks as `of` names; each waits for so many seconds, asks if it is told
/// `"ask"`, or kills its process if it is told `"kill"`.
fn graph(nodes: &Arc<Nodes>) -> Graphs {
    let mut builder = GraphBuilder::new();
    builder
        .channel("of", ChannelKind::Last)
        .channel("done", ChannelKind::Reduce(Reducer::Append));
    builder
        .node(NodeSpec::new("spread"))
        .node(NodeSpec::new("work"));
    let branch = |state: &Value| {
        let of = state["of"].as_array().cloned().unwrap_or_default();
        let send =
            |what: Value| Target::Send(superstep_graph::Send::new("work", json!({ "what": what })));
        Ok(of.into_iter().map(send).collect())
    };
    builder
        .edge(START, "spread")
        .branch("spread", Branch::new(branch))
        .edge("work", END);
    let spread = |_: Value, _: NodeContext| async { Ok(NodeReturn::Update(Value::Null)) };
    let nodes = Arc::clone(nodes);
    let work = move |input: Value, ctx: NodeContext| {
        let nodes = Arc::clone(&nodes);
        async move {
            nodes.ran.fetch_add(1, Ordering::SeqCst);
            match &input["what"] {
                Value::String(what) if what == "kill" && !nodes.mended.load(Ordering::SeqCst) => {
                    sleep(Duration::from_millis(20)).await;
                    nodes.kill.notify_one();
                    std::future::pending::<()>().await;
                }
                Value::String(what) if what == "ask" => {
                    ctx.interrupt::<Value>(json!("sure?")).await?;
                }
                what => sleep(Duration::from_secs(what.as_u64().unwrap_or(0))).await,
            }
            let n = input["what"].as_u64().unwrap_or(0);
            nodes.ended.lock().unwrap().push(n);
            Ok::<_, NodeError>(NodeReturn::Update(json!({"done": [input["what"]]})))
        }
    };
    let of: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([
        ("spread".into(), Arc::new(spread) as Arc<dyn Node>),
        ("work".into(), Arc::new(work) as _),
    ]);
    let mut graphs = Graphs::new();
    graphs.add(RunnableGraph::new(id(), builder.compile().unwrap(), of).unwrap());
    graphs
}

fn command(id: &str) -> CommandRef {
    CommandRef {
        id: CommandId::from(id),
        sent_at: UnixMillis(EPOCH_MS),
        sender: None,
        trace: None,
        tracestate: None,
    }
}

struct Place {
    world: Arc<Virtual>,
    log: Arc<MemoryLog>,
    queue: Arc<MemoryQueue>,
    nodes: Arc<Nodes>,
    settings: WorkerSettings,
    /// How far the store's clock is behind, in milliseconds.
    behind: Arc<AtomicU64>,
}

impl Place {
    fn new() -> Self {
        let world = Arc::new(Virtual {
            began: Instant::now(),
            nonces: AtomicU64::new(1),
        });
        let clock = Arc::clone(&world);
        let behind = Arc::new(AtomicU64::new(0));
        let by = Arc::clone(&behind);
        let now = move || UnixMillis(clock.now().0 - by.load(Ordering::SeqCst));
        Self {
            behind,
            log: Arc::new(MemoryLog::with_clock(Arc::new(now))),
            queue: Arc::new(MemoryQueue::new(MemoryQueueSettings::default()).unwrap()),
            world,
            nodes: Arc::default(),
            settings: WorkerSettings::default(),
        }
    }

    fn threads(&self) -> Threads {
        Threads::new(
            Arc::clone(&self.log) as _,
            Arc::clone(&self.world) as _,
            self.settings.limits.clone(),
            Duration::from_secs(1),
        )
    }

    fn effects(&self) -> Effects {
        let subjects = Subjects::new("superstep", "default").unwrap();
        Effects::new(self.threads(), Arc::clone(&self.queue) as _, subjects)
    }

    fn engine(&self) -> Engine {
        Engine::new(self.threads(), Arc::new(graph(&self.nodes)))
    }

    fn reconciler(&self) -> Reconciler {
        Reconciler::new(
            self.engine(),
            self.effects(),
            Registry::default(),
            Duration::from_secs(9),
            Duration::from_secs(1),
        )
    }

    /// A worker that runs until it is cancelled; without graphs it only decides and reconciles.
    fn worker(&self, graphs: Graphs) -> CancellationToken {
        let shutdown = CancellationToken::new();
        let worker = Worker::new(
            graphs,
            Arc::clone(&self.log) as _,
            Arc::clone(&self.queue) as _,
            Subjects::new("superstep", "default").unwrap(),
            Arc::clone(&self.world) as _,
            self.settings.clone(),
        );
        tokio::spawn(worker.run(shutdown.clone()));
        shutdown
    }

    /// Starts a thread as a worker does that dies before it publishes anything.
    async fn start(&self, thread: &str, of: Value) {
        let event = Event::Start(Box::new(Start {
            command: command(&format!("start {thread} {of}")),
            run: RunId::from(format!("run of {thread} {of}")),
            graph: id(),
            topology: None,
            profile: Profile::Default,
            input: json!({ "of": of }),
            recursion_limit: 25,
            config: serde_json::Map::new(),
            metadata: serde_json::Map::new(),
            terms: Terms::default(),
            at: None,
            strategy: Strategy::Reject,
            not_before: None,
            before: None,
        }));
        let (engine, thread) = (self.engine(), ThreadId::from(thread));
        let accepted = engine.accept(&thread, &event, None, || None).await.unwrap();
        assert!(
            matches!(accepted, crate::engine::Accepted::Appended(_)),
            "{accepted:?}"
        );
    }

    async fn state(&self, thread: &str) -> Arc<ThreadState> {
        let found = self.threads().load(&thread.into()).await.unwrap();
        found.expect("the thread is there").state
    }

    /// Waits until a thread is as it should be.
    async fn until(&self, thread: &str, status: ThreadStatus) -> Duration {
        let began = Instant::now();
        while self.state(thread).await.status() != status {
            assert!(began.elapsed() < Duration::from_secs(3_600), "{thread}");
            sleep(Duration::from_millis(50)).await;
        }
        began.elapsed()
    }

    /// How many work messages there are.
    async fn work(&self) -> usize {
        let findings = self.queue.check().await;
        let work = findings
            .iter()
            .find(|finding| finding.subject == "stream work");
        let detail = &work.unwrap().detail;
        detail.split(' ').nth(2).unwrap().parse().unwrap()
    }
}

/// Waits for an event of this kind.
async fn heard(events: &mut dyn Subscription, kind: EventKind) -> superstep_wire::Event {
    loop {
        let received = events.next().await.unwrap().expect("the queue lives");
        let event = decode::event(&received.body).unwrap();
        if event.kind == kind {
            return event;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn work_nobody_published_is_published_again() {
    let place = Place::new();
    place.start("t", json!([0])).await;
    assert_eq!(place.work().await, 0, "its worker died before");
    let worker = place.worker(graph(&place.nodes));
    let took = place.until("t", ThreadStatus::Idle).await;
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(place.nodes.ran.load(Ordering::SeqCst), 1);
    worker.cancel();
}

/// A failover to a master whose clock is an hour behind: what was entered before it is no less
/// there.
#[tokio::test(start_paused = true)]
async fn a_clock_an_hour_behind_hides_no_thread() {
    let place = Place::new();
    place.start("t", json!([0])).await;
    place.behind.store(3_600_000, Ordering::SeqCst);
    let worker = place.worker(graph(&place.nodes));
    let took = place.until("t", ThreadStatus::Idle).await;
    assert!(took < Duration::from_secs(12), "{took:?}");
    worker.cancel();
}

#[tokio::test(start_paused = true)]
async fn threads_outlive_all_streams_while_they_run() {
    let place = Place::new();
    let workers = [(); 3].map(|()| place.worker(graph(&place.nodes)));
    for n in 0..100 {
        place.start(&format!("t{n}"), json!([1, 2, 3])).await;
    }
    for pause in [9_500, 1_500] {
        sleep(Duration::from_millis(pause)).await;
        place.queue.forget();
    }
    let began = Instant::now();
    for n in 0..100 {
        place.until(&format!("t{n}"), ThreadStatus::Idle).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    for worker in workers {
        worker.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_not_fed() {
    const THREADS: usize = 5_000;
    let place = Place::new();
    for n in 0..THREADS {
        let thread = format!("t{n}");
        place.start(&thread, json!([0])).await;
        let mut found = place.threads().load(&thread.into()).await.unwrap().unwrap();
        let effects = place.effects();
        effects
            .perform(&mut found, None, Publish::All)
            .await
            .unwrap();
    }
    assert_eq!(place.work().await, THREADS);
    let mut reconciler = place.reconciler();
    for _ in 0..60 {
        sleep(Duration::from_secs(10)).await;
        assert_eq!(reconciler.look().await.unwrap(), 0);
    }
    assert_eq!(place.work().await, THREADS);
    // The same threads once nothing waits: each once by two workers, and again with pauses that
    // grow.
    place.queue.forget();
    let mut other = place.reconciler();
    let mut acted = 0;
    for _ in 0..4 {
        acted += reconciler.look().await.unwrap() + other.look().await.unwrap();
    }
    assert_eq!((acted, place.work().await), (THREADS, THREADS));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_runs_long_is_left_alone() {
    let place = Place::new();
    place.start("t", json!([590])).await;
    let workers = [(); 2].map(|()| place.worker(graph(&place.nodes)));
    while place.nodes.ran.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..580 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(place.work().await, 1);
    }
    place.until("t", ThreadStatus::Idle).await;
    assert_eq!(place.nodes.ran.load(Ordering::SeqCst), 1);
    for worker in workers {
        worker.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_the_dead_only_delays() {
    let place = Place::new();
    place.start("t", json!([0])).await;
    let state = place.state("t").await;
    let dispatch = state.head;
    let lease = Duration::from_secs(40);
    let (t, owner) = (ThreadId::from("t"), Nonce(u64::MAX));
    let dead = place.log.claim(&t, dispatch, "", owner, lease);
    assert_eq!(dead.await.unwrap(), Claimed::Mine);
    let worker = place.worker(graph(&place.nodes));
    sleep(Duration::from_secs(39)).await;
    assert_eq!(place.state("t").await.head, dispatch, "a living claim");
    let took = place.until("t", ThreadStatus::Idle).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    worker.cancel();
}

#[tokio::test(start_paused = true)]
async fn work_that_comes_again_waits_for_a_claim() {
    let place = Place::new();
    place.start("t", json!([0])).await;
    let mut thread = place.threads().load(&"t".into()).await.unwrap().unwrap();
    let lease = Duration::from_secs(7);
    let (t, owner) = (ThreadId::from("t"), Nonce(u64::MAX));
    let slow = place.log.claim(&t, thread.state.head, "", owner, lease);
    assert_eq!(slow.await.unwrap(), Claimed::Mine);
    let effects = place.effects();
    effects
        .perform(&mut thread, None, Publish::All)
        .await
        .unwrap();
    let mut consumer = place.queue.work(&id()).await.unwrap();
    let pulled = consumer.pull(1, Duration::ZERO).await.unwrap();
    let process = Process::new(&place);
    assert_eq!(process.handle(&pulled[0]).await, Done::Again(lease));
    sleep(lease).await;
    assert_eq!(process.handle(&pulled[0]).await, Done::Ack);
}

#[tokio::test(start_paused = true)]
async fn leaving_the_watch_late_takes_no_newer_entry() {
    let place = Place::new();
    let worker = place.worker(graph(&place.nodes));
    place.start("t", json!([])).await;
    place.until("t", ThreadStatus::Idle).await;
    let mut before = place.threads().load(&"t".into()).await.unwrap().unwrap();
    worker.cancel();
    sleep(Duration::from_secs(1)).await;
    place.start("t", json!([0])).await;
    let effects = place.effects();
    effects
        .perform(&mut before, None, Publish::All)
        .await
        .unwrap();
    let watched = place.log.watched(UnixMillis(0), UnixMillis(u64::MAX), 10);
    let watched = watched.await.unwrap();
    assert_eq!(watched.len(), 1);
    assert_eq!(watched[0].head, place.state("t").await.head);
}

#[tokio::test(start_paused = true)]
async fn untold_events_of_a_resting_thread_are_told() {
    let place = Place::new();
    place.start("t", json!([])).await;
    let cancel = Event::Cancel(Box::new(Cancel::new(command("cancel"), None)));
    let engine = place.engine();
    engine
        .accept(&"t".into(), &cancel, None, || None)
        .await
        .unwrap();
    let mut events = place.queue.events(&EventFilter::default()).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(place.reconciler().look().await.unwrap(), 1);
    heard(&mut *events, EventKind::RunCancelled).await;
    assert_eq!(place.work().await, 0);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(place.reconciler().look().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn questions_are_announced_in_a_new_events_stream() {
    let place = Place::new();
    let worker = place.worker(graph(&place.nodes));
    place.start("t", json!(["ask", 0, "ask"])).await;
    place.until("t", ThreadStatus::Interrupted).await;
    sleep(Duration::from_secs(5)).await;
    place.queue.forget();
    let mut events = place.queue.events(&EventFilter::default()).await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..2 {
        let event = heard(&mut *events, EventKind::Interrupt).await;
        asked.push(event.interrupt.unwrap().interrupt_id);
    }
    asked.sort();
    let state = place.state("t").await;
    let mut open: Vec<_> = state
        .open_questions()
        .map(|(_, question)| question.id.to_string())
        .collect();
    open.sort();
    assert_eq!(asked, open);
    worker.cancel();
}

#[tokio::test(start_paused = true)]
async fn announcing_goes_on_where_a_worker_died_in_it() {
    let place = Place::new();
    let worker = place.worker(graph(&place.nodes));
    place.start("t", json!(["ask"])).await;
    place.until("t", ThreadStatus::Interrupted).await;
    worker.cancel();
    let (mut one, mut other) = (place.reconciler(), place.reconciler());
    one.look().await.unwrap();
    other.look().await.unwrap();
    sleep(Duration::from_secs(5)).await;
    place.queue.forget();
    let mut events = place.queue.events(&EventFilter::default()).await.unwrap();
    let made = place.queue.events_made().await.unwrap().unwrap().at;
    let stream = Head {
        version: made.0,
        nonce: Nonce(0),
    };
    let (nobody, dead) = ("@events".into(), Nonce(u64::MAX));
    let claimed = place
        .log
        .claim(&nobody, stream, RECONCILING, dead, ANNOUNCE_LEASE);
    assert_eq!(claimed.await.unwrap(), Claimed::Mine);

    one.look().await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    assert!(next.is_err(), "another worker seems to be at it");
    sleep(ANNOUNCE_LEASE).await;
    one.look().await.unwrap();
    heard(&mut *events, EventKind::Interrupt).await;
    other.look().await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    assert!(next.is_err(), "announced once");
}

/// What one process holds; dropped, it is dead.
struct Process {
    works: Works,
}

impl Process {
    fn new(place: &Place) -> Self {
        Self {
            works: Works {
                slots: Arc::new(tokio::sync::Semaphore::new(place.settings.concurrency)),
                engine: place.engine(),
                effects: place.effects(),
                registry: Registry::default(),
                settings: place.settings.clone(),
                sink: None,
                cancels: crate::worker::Cancels::default(),
                draining: CancellationToken::new(),
                stopping: CancellationToken::new(),
            },
        }
    }

    async fn handle(&self, delivery: &superstep_queue::Delivery) -> Done {
        let nonce = self.works.engine.threads.world().nonce();
        let holding = Holding::new(nonce, Duration::from_secs(8));
        self.works.handle(delivery, &holding).await
    }
}

/// Processes one after the other, each on all the work there is, until one lives to be idle.
/// Answers how many died.
async fn live_and_die(place: &Place) -> usize {
    for died in 0..100 {
        let process = Process::new(place);
        let mut consumer = place.queue.work(&id()).await.unwrap();
        let mut held = FuturesUnordered::new();
        let process = &process;
        loop {
            let pulled = tokio::select! {
                biased;
                () = place.nodes.kill.notified() => break,
                Some(()) = held.next() => continue,
                pulled = consumer.pull(8, Duration::from_secs(20)) => pulled.unwrap(),
            };
            if pulled.is_empty() && held.is_empty() {
                return died;
            }
            for delivery in pulled {
                held.push(async move {
                    match process.handle(&delivery).await {
                        Done::Ack => delivery.acker.ack().await.unwrap(),
                        Done::Again(pause) => delivery.acker.nak(pause).await.unwrap(),
                        Done::Never(why) => panic!("{why}"),
                    }
                });
            }
        }
    }
    panic!("it kills for ever");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_kills_fails_alone() {
    let place = Place::new();
    let mut events = place.queue.events(&EventFilter::default()).await.unwrap();
    // The innocent take longer than the guilty leaves them.
    place.start("t", json!([1, "kill", 2])).await;
    place.start("other", json!([3])).await;
    for thread in ["t", "other"] {
        let mut found = place.threads().load(&thread.into()).await.unwrap().unwrap();
        let effects = place.effects();
        effects
            .perform(&mut found, None, Publish::All)
            .await
            .unwrap();
    }
    let died = live_and_die(&place).await;
    assert!(died <= 5, "{died} died");

    assert_eq!(place.state("other").await.status(), ThreadStatus::Idle);
    let state = place.state("t").await;
    assert_eq!(state.status(), ThreadStatus::Error);
    let error = state.run.clone().unwrap().error.unwrap();
    assert_eq!(error.kind, TASK_POISONED);
    assert_eq!(error.node.unwrap().as_str(), "work");
    assert!(error.message.contains("begun 5 times"), "{}", error.message);
    let failed = |task: &superstep_protocol::TaskState| {
        matches!(task.progress, superstep_protocol::Progress::Failed { .. })
    };
    assert_eq!(state.tasks.iter().filter(|task| failed(task)).count(), 1);
    let letter = heard(&mut *events, EventKind::DeadLetter).await;
    assert_eq!(letter.thread_id, "t");
    assert_eq!(
        letter.error.unwrap().task_id,
        error.task.map(|t| t.to_string())
    );
    heard(&mut *events, EventKind::RunFailed).await;

    // Mended, it goes on from that very superstep, and only with what failed.
    place.nodes.mended.store(true, Ordering::SeqCst);
    let before = place.nodes.ran.load(Ordering::SeqCst);
    let retry = Event::Retry {
        command: command("retry"),
        run: "again".into(),
        recursion_limit: None,
    };
    let engine = place.engine();
    engine
        .accept(&"t".into(), &retry, None, || None)
        .await
        .unwrap();
    let mut found = place.threads().load(&"t".into()).await.unwrap().unwrap();
    let effects = place.effects();
    effects
        .perform(&mut found, None, Publish::All)
        .await
        .unwrap();
    assert_eq!(live_and_die(&place).await, 0);
    let state = place.state("t").await;
    assert_eq!(state.status(), ThreadStatus::Idle);
    assert_eq!(state.visible_values()["done"], json!([1, "kill", 2]));
    assert_eq!(place.nodes.ran.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(start_paused = true)]
async fn handing_a_task_back_is_not_counted() {
    let place = Place::new();
    place.start("t", json!([3_000])).await;
    let mut found = place.threads().load(&"t".into()).await.unwrap().unwrap();
    let effects = place.effects();
    effects
        .perform(&mut found, None, Publish::All)
        .await
        .unwrap();
    // A rolling restart, again and again.
    for _ in 0..10 {
        let shutdown = place.worker(graph(&place.nodes));
        sleep(Duration::from_secs(40)).await;
        shutdown.cancel();
        sleep(Duration::from_secs(30)).await;
    }
    assert!(place.nodes.ran.load(Ordering::SeqCst) >= 10);
    assert_eq!(place.state("t").await.status(), ThreadStatus::Busy);
}
