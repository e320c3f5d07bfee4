//! Timers over the memory log and queue, in virtual time: who fires them, when, and how often.
//!
//! Workers are tasks that are aborted to die. The store's clock is virtual too, and a test may set
//! it back; each worker has a clock of its own that may be wrong.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use serde_json::{Value, json};
use superstep_checkpoint::{ThreadLog as _, memory::MemoryLog};
use superstep_graph::{ChannelKind, GraphBuilder, NodeSpec, Reducer, START};
use superstep_protocol::{GraphId, Nonce, RecordBody, RunStatus, ThreadState, Timer};
use superstep_queue::{
    CommandKind, CommandMessage, Queue,
    memory::{MemoryQueue, MemoryQueueSettings},
    subject::Subjects,
};
use tokio::{task::JoinHandle, time::Instant};

use super::*;
use crate::{
    Drained, Graphs, Limits, Local, Node, NodeContext, NodeError, NodeReturn, Policies,
    RetryPolicy, RunOptions, RunOutput, RunnableGraph, Threads, Worker, WorkerSettings, World,
    answers,
};

mod attempts;
mod expiry;

const LONG: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);
const BEGIN: i64 = 1_773_480_413_000;

/// A clock that goes with the test's, and may be set.
#[derive(Clone)]
struct Hand {
    began: Instant,
    off: Arc<AtomicI64>,
}

impl Hand {
    fn new(off: i64) -> Self {
        Self {
            began: Instant::now(),
            off: Arc::new(AtomicI64::new(off)),
        }
    }

    fn set_back(&self, by: Duration) {
        self.off
            .fetch_sub(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl World for Hand {
    fn now(&self) -> UnixMillis {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        let now = BEGIN + passed + self.off.load(Ordering::Relaxed);
        UnixMillis(u64::try_from(now).unwrap())
    }

    fn nonce(&self) -> Nonce {
        Nonce(rand::random())
    }
}

#[derive(Default)]
struct Seen {
    runs: AtomicUsize,
}

type Body = Arc<
    dyn Fn(NodeContext) -> futures_util::future::BoxFuture<'static, Result<Value, NodeError>>
        + Send
        + Sync,
>;

fn body<F, Fut>(run: F) -> Body
where
    F: Fn(NodeContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, NodeError>> + Send + 'static,
{
    Arc::new(move |ctx| Box::pin(run(ctx)))
}

struct Rig {
    hand: Hand,
    log: Arc<MemoryLog>,
    queue: Arc<MemoryQueue>,
    seen: Arc<Seen>,
    body: Body,
    policies: Policies,
    settings: WorkerSettings,
}

fn id() -> GraphId {
    GraphId {
        name: "g".into(),
        version: "1".into(),
    }
}

impl Rig {
    fn new(body: Body) -> Self {
        let hand = Hand::new(0);
        let clock = hand.clone();
        Self {
            hand,
            log: Arc::new(MemoryLog::with_clock(Arc::new(move || clock.now()))),
            queue: Arc::new(MemoryQueue::new(MemoryQueueSettings::default()).unwrap()),
            seen: Arc::default(),
            body,
            policies: Policies::default(),
            settings: WorkerSettings::default(),
        }
    }

    /// A graph of one node, which counts its runs and writes what its body returns.
    fn graph(&self) -> RunnableGraph {
        let mut builder = GraphBuilder::new();
        builder.channel("in", ChannelKind::Last);
        builder.channel("out", ChannelKind::Reduce(Reducer::Append));
        builder.node(NodeSpec::new("n")).edge(START, "n");
        let (seen, run) = (Arc::clone(&self.seen), Arc::clone(&self.body));
        let node = move |_: Value, ctx: NodeContext| {
            seen.runs.fetch_add(1, Ordering::Relaxed);
            let running = run(ctx);
            async move { Ok(NodeReturn::Update(json!({"out": [running.await?]}))) }
        };
        let nodes: BTreeMap<_, Arc<dyn Node>> =
            BTreeMap::from([("n".into(), Arc::new(node) as Arc<dyn Node>)]);
        let graph = RunnableGraph::new(id(), builder.compile().unwrap(), nodes).unwrap();
        graph.with_policies(BTreeMap::from([("n".into(), self.policies.clone())]))
    }

    fn graphs(&self) -> Graphs {
        let mut graphs = Graphs::new();
        graphs.add(self.graph());
        graphs
    }

    fn local(&self) -> Local {
        let world = Arc::new(self.hand.clone());
        Local::new(
            self.graphs(),
            Arc::clone(&self.log) as _,
            world,
            self.settings.clone(),
        )
    }

    fn worker_of(&self, world: Hand) -> Worker {
        Worker::new(
            self.graphs(),
            Arc::clone(&self.log) as _,
            Arc::clone(&self.queue) as _,
            Subjects::new("superstep", "default").unwrap(),
            Arc::new(world),
            self.settings.clone(),
        )
    }

    fn worker(&self) -> JoinHandle<Result<Drained, Error>> {
        tokio::spawn(
            self.worker_of(self.hand.clone())
                .run(CancellationToken::new()),
        )
    }

    async fn send(&self, kind: CommandKind, target: &str, body: Value) {
        let command = CommandMessage {
            kind,
            target: target.to_owned(),
            headers: BTreeMap::new(),
            body: Bytes::from(body.to_string()),
        };
        self.queue.setup().await.unwrap();
        let sent = self.queue.request(command, MINUTE).await.unwrap();
        assert!(sent.1.is_some(), "an outcome in time");
    }

    async fn start(&self, thread: &str) {
        let input = json!({"thread_id": thread, "input": {"in": 1}});
        self.send(CommandKind::Start, "g", input).await;
    }

    fn threads(&self) -> Threads {
        Threads::new(
            Arc::clone(&self.log) as _,
            Arc::new(self.hand.clone()),
            Limits::default(),
            Duration::from_secs(1),
        )
    }

    async fn state(&self, thread: &str) -> Option<ThreadState> {
        let found = self.threads().load(&thread.into()).await.unwrap();
        found.map(|thread| Arc::unwrap_or_clone(thread.state))
    }

    /// Waits until the thread is as it should be, for four hours of virtual time at most.
    async fn until(&self, thread: &str, what: impl Fn(&ThreadState) -> bool) -> ThreadState {
        for _ in 0..(4 * 3600) {
            if let Some(state) = self.state(thread).await.filter(&what) {
                return state;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{:#?}", self.state(thread).await);
    }

    async fn kinds(&self, thread: &str) -> Vec<&'static str> {
        let threads = self.threads();
        let mut kinds = Vec::new();
        for version in 1.. {
            match threads.at(&thread.into(), version).await.unwrap() {
                Some((record, _)) => kinds.push(record.body.kind()),
                None => return kinds,
            }
        }
        unreachable!("a log ends")
    }

    fn runs(&self) -> usize {
        self.seen.runs.load(Ordering::Relaxed)
    }

    fn engine(&self) -> Engine {
        Engine::new(self.threads(), Arc::new(self.graphs()))
    }
}

async fn invoke(local: Local) -> Result<RunOutput, Error> {
    let (graph, input) = (id(), json!({"in": 1}));
    let thread = "t".into();
    let ran = local.invoke(&graph, &thread, input, RunOptions::default());
    ran.await
}

fn sleeps(state: &ThreadState) -> bool {
    state.is_paused() && !state.has_work()
}

fn completed(state: &ThreadState) -> bool {
    let succeeded = |status| status == RunStatus::Success;
    state.tasks.is_empty() && state.run.as_ref().is_some_and(|run| succeeded(run.status))
}

fn failed(state: &ThreadState) -> bool {
    let failed = |status| status == RunStatus::Error;
    !state.is_busy() && state.run.as_ref().is_some_and(|run| failed(run.status))
}

fn sleeper(duration: Duration) -> Body {
    body(move |ctx| async move {
        ctx.sleep(duration).await;
        Ok(json!("slept"))
    })
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_thread_goes_on_without_its_worker() {
    let rig = Rig::new(sleeper(LONG));
    let first = rig.worker();
    rig.start("t").await;
    let until = rig.until("t", sleeps).await.wakes_at().unwrap();
    assert!(until >= UnixMillis(BEGIN as u64).plus_ms(600_000));
    first.abort();
    let second = rig.worker();
    rig.until("t", completed).await;
    let late = rig.hand.now().0 - until.0;
    assert!(late < 2_000, "{late} ms late");
    assert_eq!(rig.runs(), 2, "once before the sleep, once after it");
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn a_short_sleep_is_spent_in_its_worker() {
    let rig = Rig::new(sleeper(Duration::from_secs(4)));
    let worker = rig.worker();
    rig.start("t").await;
    rig.until("t", completed).await;
    assert_eq!(rig.runs(), 1);
    assert!(!rig.kinds("t").await.contains(&"paused"));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_timer_fires_once_however_many_workers_look() {
    let mut rig = Rig::new(sleeper(MINUTE));
    rig.settings.timers_every = Duration::from_millis(100);
    let workers: Vec<_> = (0..4).map(|_| rig.worker()).collect();
    for thread in 0..40 {
        rig.start(&format!("t{thread}")).await;
    }
    for thread in 0..40 {
        let name = format!("t{thread}");
        rig.until(&name, completed).await;
        let kinds = rig.kinds(&name).await;
        let woken = kinds.iter().filter(|kind| **kind == "woken").count();
        assert_eq!(woken, 1, "{kinds:?}");
    }
    assert_eq!(rig.runs(), 80);
    for worker in workers {
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn sleeps_are_as_long_as_the_store_says() {
    for skew in [-3_600_000, 3_600_000] {
        let rig = Rig::new(sleeper(10 * MINUTE));
        let wrong = Hand::new(skew);
        let worker = tokio::spawn(rig.worker_of(wrong).run(CancellationToken::new()));
        let began = Instant::now();
        rig.start("t").await;
        rig.until("t", completed).await;
        let took = began.elapsed();
        assert!(took >= 10 * MINUTE, "{skew}: {took:?}");
        assert!(
            took < 10 * MINUTE + Duration::from_secs(3),
            "{skew}: {took:?}"
        );
        assert_eq!(rig.runs(), 2, "{skew}");
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_in_time_wakes_nobody_twice() {
    let rig = Rig::new(sleeper(LONG));
    let worker = rig.worker();
    rig.start("t").await;
    let asleep = rig.until("t", sleeps).await;
    worker.abort();
    tokio::time::sleep(LONG).await;
    // A worker wakes it and dies before it publishes anything; the store's clock goes back.
    let name = Timer::Task(asleep.tasks[0].task.id.clone()).name();
    let event = Event::TimerDue { name };
    let (engine, id, now) = (rig.engine(), "t".into(), rig.hand.now());
    let woken = engine.accept_at(&id, &event, now).await.unwrap();
    assert!(matches!(woken, Accepted::Appended(_)));
    rig.hand.set_back(LONG);
    assert!(rig.log.due(rig.hand.now(), 10).await.unwrap().is_empty());
    let next = rig.worker_of(rig.hand.clone());
    assert_eq!(next.recover().await.unwrap(), 1, "it is watched");
    let next = tokio::spawn(next.run(CancellationToken::new()));
    let began = Instant::now();
    rig.until("t", completed).await;
    assert!(began.elapsed() < MINUTE, "it sleeps no second time");
    assert_eq!(rig.runs(), 2);
    next.abort();
}

#[tokio::test(start_paused = true)]
async fn two_who_fire_one_timer_append_one_record() {
    let rig = Rig::new(sleeper(LONG));
    let worker = rig.worker();
    rig.start("t").await;
    let asleep = rig.until("t", sleeps).await;
    worker.abort();
    tokio::time::sleep(LONG).await;
    let name = Timer::Task(asleep.tasks[0].task.id.clone()).name();
    let event = Event::TimerDue { name };
    let (one, other) = (rig.engine(), rig.engine());
    let (id, now) = ("t".into(), rig.hand.now());
    let (one, other) = tokio::join!(
        one.accept_at(&id, &event, now),
        other.accept_at(&id, &event, now)
    );
    let both = [one.unwrap(), other.unwrap()];
    let woke = both.iter().filter(|a| matches!(a, Accepted::Appended(_)));
    assert_eq!(woke.count(), 1, "{both:?}");
    let kinds = rig.kinds("t").await;
    assert_eq!(kinds.iter().filter(|kind| **kind == "woken").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_taken_for_hung_and_a_living_one_not() {
    for (beats, kind) in [(true, None), (false, Some("NodeIdle"))] {
        let mut rig = Rig::new(body(move |ctx| async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                if beats {
                    ctx.heartbeat();
                }
            }
            Ok(json!("done"))
        }));
        rig.policies.idle_timeout = Some(Duration::from_secs(30));
        let ran = invoke(rig.local());
        let found = ran.await.unwrap().error;
        assert_eq!(found.as_ref().map(|error| error.kind.as_str()), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_the_time_that_its_node_says() {
    let mut rig = Rig::new(body(|_| std::future::pending()));
    rig.policies.timeout = Some(MINUTE);
    rig.policies.retry = Some(RetryPolicy::new(3).without_pauses());
    let began = Instant::now();
    let ran = invoke(rig.local());
    assert_eq!(ran.await.unwrap().error.unwrap().kind, "NodeTimeout");
    assert_eq!((rig.runs(), began.elapsed().as_secs()), (3, 180));
}

#[tokio::test(start_paused = true)]
async fn sleeps_beside_each_other_end_at_their_own_times() {
    let rig = Rig::new(body(|ctx| async move {
        let began = ctx.sleep(Duration::from_secs(1));
        began.await;
        let (long, short) = (ctx.sleep(3 * LONG), ctx.sleep(LONG));
        let ((), ()) = tokio::join!(long, short);
        Ok(json!("slept"))
    }));
    let began = Instant::now();
    let ran = invoke(rig.local());
    assert_eq!(ran.await.unwrap().status, RunStatus::Success);
    let took = began.elapsed();
    assert!(took >= 3 * LONG && took < 3 * LONG + MINUTE, "{took:?}");
    // It runs once for each end, and waits for the short one no second time.
    assert_eq!(rig.runs(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_node_goes_on_past_its_sleep() {
    let rig = Rig::new(body(|ctx| async move {
        let _ = tokio::time::timeout(Duration::from_millis(1), ctx.sleep(LONG)).await;
        Ok(json!(ctx.attempt()))
    }));
    let began = Instant::now();
    let ran = invoke(rig.local());
    assert_eq!(ran.await.unwrap().status, RunStatus::Success);
    assert!(began.elapsed() >= LONG);
}

#[tokio::test(start_paused = true)]
async fn an_answer_or_the_time_ends_a_sleep_beside_a_question() {
    let asks = || {
        Rig::new(body(|ctx| async move {
            let asked = ctx.interrupt::<Value>("now?");
            tokio::select! {
                biased;
                () = ctx.sleep(LONG) => Ok(json!("nobody came")),
                answer = asked => answer,
            }
        }))
    };
    let rig = asks();
    let local = rig.local();
    let thread = "t".into();
    let began = Instant::now();
    let ran = invoke(local.clone());
    let ran = ran.await.unwrap();
    assert_eq!((ran.interrupts.len(), ran.status), (1, RunStatus::Running));
    let ran = local
        .resume(&thread, answers(json!("yes"), None))
        .await
        .unwrap();
    assert_eq!(Value::Object(ran.values)["out"], json!(["yes"]));
    assert!(began.elapsed() < MINUTE);

    let rig = asks();
    let local = rig.local();
    let ran = invoke(local.clone());
    assert_eq!(ran.await.unwrap().interrupts.len(), 1);
    let keeper = local.clone();
    let keeper = tokio::spawn(async move { keeper.keep_time().await });
    let state = rig.until("t", completed).await;
    assert_eq!(state.visible_values()["out"], json!(["nobody came"]));
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_process_goes_on_with_what_another_left_asleep() {
    let rig = Rig::new(sleeper(LONG));
    let (first, thread) = (rig.local(), "t".into());
    let left = tokio::time::timeout(MINUTE, invoke(first.clone()));
    assert!(left.await.is_err(), "it sleeps for longer");
    let next = rig.local();
    // It is under way: new input does not displace it, nor is it waited for.
    let refused = invoke(next.clone());
    let refused = tokio::time::timeout(MINUTE, refused).await.unwrap();
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    next.finish(&thread).await.unwrap();
    assert!(completed(&rig.state("t").await.unwrap()));
    assert_eq!(rig.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_a_sleep_for_good() {
    let rig = Rig::new(sleeper(LONG));
    let worker = rig.worker();
    rig.start("t").await;
    rig.until("t", sleeps).await;
    rig.send(CommandKind::Cancel, "t", json!({})).await;
    let state = rig.state("t").await.unwrap();
    assert!(!state.is_busy());
    tokio::time::sleep(2 * LONG).await;
    assert_eq!(rig.runs(), 1);
    let last = rig
        .threads()
        .at(&"t".into(), state.head.version)
        .await
        .unwrap();
    assert!(matches!(last.unwrap().0.body, RecordBody::Cancelled { .. }));
    // What is left of the sleep is what is left of it: nothing.
    let began = Instant::now();
    rig.send(CommandKind::Retry, "t", json!({})).await;
    rig.until("t", completed).await;
    assert!(began.elapsed() < MINUTE);
    worker.abort();
}
