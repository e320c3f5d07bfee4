//! Versions over the log and queue in memory: real workers of several versions, one thread.
//!
//! The graph `g` is one node that asks, then `done`. Each version notes its own name in `by`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_graph::{ChannelKind, END, GraphBuilder, NodeSpec, Reducer, START};
use superstep_protocol::{GraphId, RecordBody, ThreadStatus};
use superstep_queue::{
    memory::{MemoryQueue, MemoryQueueSettings},
    subject::Subjects,
};
use superstep_wire::{ResumeCommand, StartCommand};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

mod embedded;

use super::*;
use crate::{
    Checkpointer, Client, Drained, Graphs, Node, NodeCode, NodeContext, NodeError, NodeReturn,
    RunnableGraph, Sending, Sent, Subgraph, SystemWorld, Threads, VersionPolicy, Worker,
    WorkerSettings,
};

fn id(name: &str, version: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: version.into(),
    }
}

/// Asks, and notes the version that took the answer.
fn asks(version: &str) -> Arc<dyn Node> {
    let by = version.to_owned();
    Arc::new(move |_: Value, ctx: NodeContext| {
        let by = by.clone();
        async move {
            let answer: Value = ctx.interrupt(json!({"well": "?"})).await?;
            Ok::<_, NodeError>(NodeReturn::Update(json!({"by": [by], "said": answer})))
        }
    })
}

fn notes(version: &str) -> Arc<dyn Node> {
    let by = format!("done by {version}");
    Arc::new(move |_: Value, _: NodeContext| {
        let by = by.clone();
        async move { Ok::<_, NodeError>(NodeReturn::Update(json!({"by": [by]}))) }
    })
}

fn two_nodes(graph: GraphId, first: &str, code: impl Into<NodeCode>) -> RunnableGraph {
    let version = graph.version.to_string();
    let mut builder = GraphBuilder::new();
    builder.channel("by", ChannelKind::Reduce(Reducer::Append));
    builder.channel("said", ChannelKind::Last);
    builder
        .node(NodeSpec::new(first))
        .node(NodeSpec::new("done"))
        .edge(START, first)
        .edge(first, "done")
        .edge("done", END);
    let nodes: BTreeMap<_, NodeCode> = BTreeMap::from([
        (first.into(), code.into()),
        ("done".into(), notes(&version).into()),
    ]);
    RunnableGraph::new(graph, builder.compile().unwrap(), nodes).unwrap()
}

/// A version whose first node, `ask` in most, asks.
fn version(version: &str, first: &str, policy: VersionPolicy) -> RunnableGraph {
    two_nodes(id("g", version), first, asks(version)).with_versions(policy)
}

fn first() -> RunnableGraph {
    version("1", "ask", VersionPolicy::Pinned)
}

struct Place {
    log: Arc<MemoryLog>,
    queue: Arc<MemoryQueue>,
    client: Client,
}

struct Running {
    shutdown: CancellationToken,
    worker: JoinHandle<Result<Drained, Error>>,
}

impl Running {
    async fn stop(self) -> Drained {
        self.shutdown.cancel();
        self.worker.await.unwrap().unwrap()
    }
}

fn subjects() -> Subjects {
    Subjects::new("superstep", "default").unwrap()
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        register_every: Duration::from_millis(20),
        drain_timeout: Duration::from_millis(200),
        reconcile_after: Some(Duration::from_millis(100)),
        reconcile_every: Duration::from_millis(20),
        timers_every: Duration::from_millis(20),
        short_pause_max: Duration::ZERO,
        hold_back: Duration::from_millis(500),
        ..WorkerSettings::default()
    }
}

impl Place {
    fn new() -> Self {
        let log = Arc::new(MemoryLog::new());
        let queue = Arc::new(MemoryQueue::new(MemoryQueueSettings::default()).unwrap());
        let client = Client::new(log.clone(), queue.clone(), subjects());
        Self { log, queue, client }
    }

    fn made(&self, graphs: Vec<RunnableGraph>, settings: WorkerSettings) -> Worker {
        let mut held = Graphs::new();
        for graph in graphs {
            held.add(graph);
        }
        Worker::new(
            held,
            Arc::clone(&self.log) as _,
            Arc::clone(&self.queue) as _,
            subjects(),
            Arc::new(SystemWorld),
            settings,
        )
    }

    /// Starts a worker of one version and waits until it is registered.
    async fn worker(&self, graph: RunnableGraph) -> Running {
        let id = graph.id().clone();
        let worker = self.made(vec![graph], settings());
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(worker.run(shutdown.clone()));
        let running = Running { shutdown, worker };
        self.until("it is live", async || {
            let graphs = self.client.graphs().await.unwrap();
            let mut mine = graphs.iter().filter(|g| g.version == id.version);
            mine.any(|graph| graph.live).then_some(())
        })
        .await;
        running
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let found = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(late) => panic!("{what}: {late}; {:#?}", self.state().await),
        }
    }

    fn threads(&self) -> Threads {
        let log = Arc::clone(&self.log) as _;
        let limits = crate::Limits::default();
        Threads::new(log, Arc::new(SystemWorld), limits, Duration::from_secs(1))
    }

    async fn state(&self) -> Arc<ThreadState> {
        let found = self.threads().load(&"t".into()).await.unwrap();
        found.expect("the thread is there").state
    }

    async fn start(&self, graph: &str) -> Sent {
        self.start_on(graph, None).await
    }

    async fn start_on(&self, graph: &str, version: Option<&str>) -> Sent {
        let start = StartCommand {
            thread_id: Some("t".to_owned()),
            graph_version: version.map(str::to_owned),
            input: Some(json!({"by": [], "said": "nothing"})),
            ..StartCommand::default()
        };
        let graph = graph.into();
        self.client
            .start(&graph, start, &Sending::default())
            .await
            .unwrap()
    }

    async fn rests(&self, status: ThreadStatus) -> Arc<ThreadState> {
        self.until(&format!("it is {status}"), async || {
            let state = self.threads().load(&"t".into()).await.unwrap()?.state;
            (state.status() == status).then_some(state)
        })
        .await
    }

    /// Starts a thread and waits until it asks; the question's id.
    async fn asked(&self) -> superstep_graph::InterruptId {
        assert!(matches!(self.start("g").await, Sent::Accepted { .. }));
        let state = self.rests(ThreadStatus::Interrupted).await;
        let (_, question) = state.open_questions().next().unwrap();
        question.id.clone()
    }

    async fn answer(&self, interrupt: &superstep_graph::InterruptId) -> Sent {
        let resume = ResumeCommand {
            resume: Some(json!("yes")),
            interrupt_id: Some(interrupt.to_string()),
            ..ResumeCommand::default()
        };
        let sending = Sending::default();
        self.client
            .resume(&"t".into(), resume, &sending)
            .await
            .unwrap()
    }
}

#[track_caller]
fn accepted(sent: &Sent) {
    assert!(matches!(sent, Sent::Accepted { .. }), "{sent:?}");
}

#[track_caller]
fn refused(sent: &Sent, kind: &str) {
    let Sent::Refused { refusal, .. } = sent else {
        panic!("{sent:?} is not refused");
    };
    assert_eq!(refusal.kind.as_str(), kind, "{refusal:?}");
}

fn by(state: &ThreadState) -> Value {
    state.visible_values()["by"].clone()
}

#[tokio::test]
async fn the_latest_version_takes_the_thread_with_its_question() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    assert_eq!(old.stop().await, Drained::Clean);
    let new = version("2", "ask", VersionPolicy::Latest);
    let hash = new.topology_hash();
    let _new = place.worker(new).await;
    accepted(&place.answer(&question).await);
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["2", "done by 2"]));
    assert_eq!(state.graph, id("g", "2"));
    assert_eq!(state.topology, Some(hash));
    assert_eq!(state.closed.len(), 1);
}

#[tokio::test]
async fn a_pinned_thread_waits_for_its_own_version() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    old.stop().await;
    let _new = place
        .worker(version("2", "ask", VersionPolicy::Pinned))
        .await;
    accepted(&place.answer(&question).await);
    let detail = place.client.thread(&"t".into()).await.unwrap().unwrap();
    assert_eq!(detail.status, ThreadStatus::Busy);
    let why = detail.waits_for.expect("it says why");
    assert!(why.starts_with("no worker of g@1 since "), "{why}");
    // Its work waited in the queue for a worker that knows it.
    let _old = place.worker(first()).await;
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["1", "done by 1"]));
    // What is new goes to the newest version all the same.
    accepted(&place.start("g").await);
    let state = place.rests(ThreadStatus::Interrupted).await;
    assert_eq!(state.graph, id("g", "2"));
}

#[tokio::test]
async fn a_migration_makes_the_values_its_own() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    old.stop().await;
    let policy = VersionPolicy::migrate(|from, mut values: Map<String, Value>| {
        values.insert("by".to_owned(), json!([format!("from {from}")]));
        values.remove("said").ok_or("nothing was said")?;
        Ok::<_, &str>(values)
    });
    let _new = place.worker(version("2", "ask", policy)).await;
    accepted(&place.answer(&question).await);
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["from 1", "2", "done by 2"]));
    assert_eq!(state.visible_values()["said"], "yes");
}

#[tokio::test]
async fn new_input_finds_migrated_values() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    accepted(&place.answer(&question).await);
    place.rests(ThreadStatus::Idle).await;
    old.stop().await;
    let policy = VersionPolicy::migrate(|from, mut values: Map<String, Value>| {
        values.insert("by".to_owned(), json!([format!("from {from}")]));
        Ok::<_, &str>(values)
    });
    let _new = place.worker(version("2", "ask", policy)).await;
    accepted(&place.start("g").await);
    let state = place.rests(ThreadStatus::Interrupted).await;
    let found = (by(&state), &state.graph);
    assert_eq!(found, (json!(["from 1"]), &id("g", "2")));
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    let before = place.state().await;
    old.stop().await;
    let policy = VersionPolicy::migrate(|from, _| Err(format!("not from {from}")));
    let _new = place.worker(version("2", "ask", policy)).await;
    let sent = place.answer(&question).await;
    refused(&sent, "migration_failed");
    assert!(format!("{sent:?}").contains("not from 1"), "{sent:?}");
    let after = place.state().await;
    assert_eq!(after.checkpoint, before.checkpoint);
    assert_eq!(after.tasks, before.tasks);
    assert_eq!(after.graph, id("g", "1"));
}

#[tokio::test]
async fn a_missing_node_is_refused_and_its_question_stays() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    old.stop().await;
    let _new = place
        .worker(version("2", "ask_nicely", VersionPolicy::Latest))
        .await;
    let sent = place.answer(&question).await;
    refused(&sent, "missing_node");
    for word in ["`ask` of g@1", "g@2 does not have", "start a worker of g@1"] {
        assert!(format!("{sent:?}").contains(word), "{word}: {sent:?}");
    }
    let open = place.client.interrupts_of(&"t".into()).await.unwrap();
    assert_eq!(open[0].interrupt_id, question);
    // With a worker that has the node it can be answered.
    let _old = place.worker(first()).await;
    accepted(&place.answer(&question).await);
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["1", "done by 1"]));
}

#[tokio::test]
async fn a_version_with_the_node_again_takes_the_thread() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    old.stop().await;
    let _wrong = place
        .worker(version("2", "ask_nicely", VersionPolicy::Latest))
        .await;
    refused(&place.answer(&question).await, "missing_node");
    let _right = place
        .worker(version("3", "ask", VersionPolicy::Latest))
        .await;
    accepted(&place.answer(&question).await);
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["3", "done by 3"]));
}

/// A graph whose node `ask` is a graph with one node of this name, which asks.
fn nested(version: &str, inside: &str, policy: VersionPolicy) -> RunnableGraph {
    let inner = two_nodes(id("inner", "1"), inside, asks(version));
    let subgraph = Subgraph {
        graph: Arc::new(inner),
        checkpointer: Checkpointer::Inherit,
    };
    two_nodes(id("g", version), "ask", NodeCode::Graph(subgraph)).with_versions(policy)
}

#[tokio::test]
async fn a_missing_node_inside_a_subgraph_is_missed() {
    let place = Place::new();
    let old = place
        .worker(nested("1", "inside", VersionPolicy::Pinned))
        .await;
    let question = place.asked().await;
    old.stop().await;
    let _wrong = place
        .worker(nested("2", "elsewhere", VersionPolicy::Latest))
        .await;
    let sent = place.answer(&question).await;
    refused(&sent, "missing_node");
    assert!(format!("{sent:?}").contains("`ask|inside`"), "{sent:?}");
    let _right = place
        .worker(nested("3", "inside", VersionPolicy::Latest))
        .await;
    accepted(&place.answer(&question).await);
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["3", "done by 1", "done by 3"]));
}

/// A version whose node `ask` counts its calls and waits to be let go.
fn holds(version: &str, calls: &Arc<AtomicUsize>, go: &Arc<Notify>) -> RunnableGraph {
    let (calls, go, by) = (Arc::clone(calls), Arc::clone(go), version.to_owned());
    let node = move |_: Value, _: NodeContext| {
        let (calls, go, by) = (Arc::clone(&calls), Arc::clone(&go), by.clone());
        async move {
            calls.fetch_add(1, Ordering::SeqCst);
            go.notified().await;
            Ok::<_, NodeError>(NodeReturn::Update(json!({"by": [by]})))
        }
    };
    let node: Arc<dyn Node> = Arc::new(node);
    two_nodes(id("g", version), "ask", node).with_versions(VersionPolicy::Latest)
}

#[tokio::test]
async fn work_of_a_version_that_went_is_taken_over() {
    let place = Place::new();
    let (calls, go) = (Arc::default(), Arc::default());
    let old = place.worker(holds("1", &calls, &go)).await;
    accepted(&place.start("g").await);
    place
        .until("it runs", async || {
            (calls.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
    // Its drain is over before the node is: the work goes back, and nobody of version 1 is left.
    assert_eq!(old.stop().await, Drained::HandedBack { deliveries: 1 });
    let (other_calls, other_go) = (Arc::default(), Arc::<Notify>::default());
    let _new = place.worker(holds("2", &other_calls, &other_go)).await;
    other_go.notify_one();
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["2", "done by 2"]));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_old_worker_cannot_touch_a_moved_thread() {
    let place = Place::new();
    let (calls, go) = (Arc::default(), Arc::<Notify>::default());
    let old = place.worker(holds("1", &calls, &go)).await;
    accepted(&place.start("g").await);
    place
        .until("it runs", async || {
            (calls.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
    let (other_calls, other_go) = (Arc::default(), Arc::<Notify>::default());
    let new = place.worker(holds("2", &other_calls, &other_go)).await;
    // Somebody takes the first worker for dead while it only is slow.
    let engine = Engine::new(place.threads(), Arc::default());
    let effects = Effects::new(place.threads(), place.queue.clone(), subjects());
    let versions = Registry::default()
        .versions(&engine.threads, true)
        .await
        .unwrap();
    let second = versions.iter().find(|v| v.graph == id("g", "2")).unwrap();
    let state = place.state().await;
    let asked = ask(&engine, &effects, &state, second, None).await.unwrap();
    assert!(asked);
    place
        .until("it runs", async || {
            (other_calls.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
    go.notify_one();
    assert_eq!(
        old.stop().await,
        Drained::Clean,
        "its late result is let go"
    );
    assert_eq!(place.state().await.status(), ThreadStatus::Busy);
    other_go.notify_one();
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["2", "done by 2"]));
    new.stop().await;
}

/// A version whose node `ask` sleeps until the store says so, and notes who woke.
fn sleeps(version: &str, policy: VersionPolicy) -> RunnableGraph {
    let by = version.to_owned();
    let node = move |_: Value, ctx: NodeContext| {
        let by = by.clone();
        async move {
            ctx.sleep(Duration::from_secs(1)).await;
            Ok::<_, NodeError>(NodeReturn::Update(json!({"by": [by]})))
        }
    };
    let node: Arc<dyn Node> = Arc::new(node);
    two_nodes(id("g", version), "ask", node).with_versions(policy)
}

#[tokio::test]
async fn a_sleeping_thread_wakes_on_the_new_version() {
    let place = Place::new();
    let old = place.worker(sleeps("1", VersionPolicy::Pinned)).await;
    accepted(&place.start("g").await);
    let slept = place
        .until("it sleeps", async || {
            let state = place.threads().load(&"t".into()).await.unwrap()?.state;
            state.is_paused().then_some(state)
        })
        .await;
    old.stop().await;
    let _new = place.worker(sleeps("2", VersionPolicy::Latest)).await;
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(by(&state), json!(["2", "done by 2"]));
    let (_, until) = slept.paused().next().unwrap();
    assert!(state.time >= until, "it slept its whole time");
}

/// Starts a thread on version 1 and, while that runs, another run, which is for version 2.
async fn queued(place: &Place, policy: VersionPolicy) -> [Running; 2] {
    let (calls, go) = (Arc::default(), Arc::<Notify>::default());
    let old = place.worker(holds("1", &calls, &go)).await;
    accepted(&place.start("g").await);
    place
        .until("it runs", async || {
            (calls.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
    let new = place.worker(version("2", "ask", policy)).await;
    accepted(&place.start_on("g", Some("2")).await);
    assert_eq!(place.state().await.queue[0].graph, id("g", "2"));
    go.notify_one();
    [old, new]
}

#[tokio::test]
async fn a_queued_run_has_the_values_migrated_first() {
    let place = Place::new();
    let policy = VersionPolicy::migrate(|from, mut values: Map<String, Value>| {
        values.insert("by".to_owned(), json!([format!("from {from}")]));
        Ok::<_, &str>(values)
    });
    let _workers = queued(&place, policy).await;
    let state = place.rests(ThreadStatus::Interrupted).await;
    assert_eq!(state.graph, id("g", "2"));
    assert_eq!(by(&state), json!(["from 1"]));
}

#[tokio::test]
async fn a_queued_run_is_declined_if_its_migration_fails() {
    let place = Place::new();
    let policy = VersionPolicy::migrate(|from, _| Err(format!("not from {from}")));
    let _workers = queued(&place, policy).await;
    let state = place.rests(ThreadStatus::Idle).await;
    assert_eq!(state.graph, id("g", "1"));
    assert_eq!(by(&state), json!(["1", "done by 1"]));
    let record = place.threads().at(&"t".into(), state.head.version).await;
    let (record, _) = record.unwrap().unwrap();
    let RecordBody::Declined { refusal, .. } = &record.body else {
        panic!("{record:?}");
    };
    assert_eq!(refusal.kind(), "migration_failed");
}

#[tokio::test]
async fn a_queued_run_of_a_version_that_went_is_taken_over() {
    let place = Place::new();
    let old = place.worker(first()).await;
    let question = place.asked().await;
    accepted(&place.start("g").await);
    old.stop().await;
    let _new = place
        .worker(version("2", "ask", VersionPolicy::Latest))
        .await;
    accepted(&place.answer(&question).await);
    let state = place
        .until("the next run asks", async || {
            let state = place.threads().load(&"t".into()).await.unwrap()?.state;
            let asks = state.open_questions().next()?.1.id != question;
            (asks && state.queue.is_empty()).then_some(state)
        })
        .await;
    assert_eq!(state.graph, id("g", "2"));
    assert_eq!(by(&state), json!(["2", "done by 2"]));
}

#[tokio::test]
async fn two_topologies_of_one_version_are_told_apart() {
    let place = Place::new();
    let _first = place.worker(first()).await;
    let other = || vec![version("1", "other", VersionPolicy::Pinned)];
    let strict = WorkerSettings {
        strict_topology: true,
        ..settings()
    };
    let refused = place
        .made(other(), strict)
        .run(CancellationToken::new())
        .await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("graph `g@1` has topology"), "{error}");
    assert!(error.contains("give the graph another version"), "{error}");
    // Otherwise it warns and works.
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let ended = place.made(other(), settings()).run(shutdown).await;
    assert_eq!(ended.unwrap(), Drained::Clean);
}

#[tokio::test]
async fn what_is_registered_says_all_of_a_version() {
    let place = Place::new();
    let worker = place
        .worker(version("2", "ask", VersionPolicy::Latest))
        .await;
    let about = |graphs: &[crate::RegisteredGraph]| graphs[0].about.clone();
    let before = about(&place.client.graphs().await.unwrap());
    assert_eq!(before["versions"], "latest");
    assert_eq!(before["nodes"], json!(["ask", "done"]));
    assert_eq!(before["workers"].as_object().unwrap().len(), 1);
    worker.stop().await;
    let graphs = place.client.graphs().await.unwrap();
    assert!(!graphs[0].live);
    let _again = place
        .worker(version("2", "ask", VersionPolicy::Latest))
        .await;
    let after = about(&place.client.graphs().await.unwrap());
    assert_eq!(after["registered_at"], before["registered_at"]);
    assert!(after["registered_at"].as_u64().unwrap() > 0);
}
