//! What the loops' touches add up to, and what a run measures.

use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Value, json};
use superstep_checkpoint::MemoryLog;
use superstep_graph::{END, GraphBuilder, NodeSpec, START};
use superstep_protocol::GraphId;
use superstep_queue::{
    CommandKind, CommandMessage, EventFilter, Queue as _,
    memory::{MemoryQueue, MemoryQueueSettings},
    subject::Subjects,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Graphs, Node, NodeContext, NodeError, NodeReturn, RunnableGraph, SystemWorld, Worker,
    WorkerSettings,
};

/// Keeps what was measured, without times.
#[derive(Default)]
struct Kept(Mutex<Vec<String>>);

impl Meter for Kept {
    fn measure(&self, measure: Measure<'_>) {
        let line = match measure {
            Measure::RunBegun { graph } => format!("begun {graph}"),
            Measure::RunEnded { graph, status } => format!("{status} {graph}"),
            Measure::Superstep { graph } => format!("superstep {graph}"),
            Measure::Task {
                graph, node, ended, ..
            } => format!("{ended} {graph}/{node}"),
            Measure::PickedUp { consumer, .. } => format!("picked up {consumer}"),
            Measure::Command { kind, outcome } => format!("{kind} {outcome}"),
            Measure::StoreCall { call, ok, .. } => format!("store {call} {ok}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

fn graph() -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .node(NodeSpec::new("n"))
        .edge(START, "n")
        .edge("n", END);
    let node =
        |_: Value, _: NodeContext| async { Ok::<_, NodeError>(NodeReturn::Update(Value::Null)) };
    let nodes = BTreeMap::from([("n".into(), Arc::new(node) as Arc<dyn Node>)]);
    let id = GraphId {
        name: "g".into(),
        version: "1".into(),
    };
    RunnableGraph::new(id, builder.compile().unwrap(), nodes).unwrap()
}

#[tokio::test]
async fn a_run_is_measured_once() {
    let kept = Arc::new(Kept::default());
    let health = Health::new(Some(Arc::clone(&kept) as _));
    let queue = Arc::new(MemoryQueue::new(MemoryQueueSettings::default()).unwrap());
    let mut events = queue.events(&EventFilter::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let mut graphs = Graphs::new();
    graphs.add(graph());
    let settings = WorkerSettings::default();
    let bounds = HealthSettings::from(&settings);
    let worker = Worker::new(
        graphs,
        Arc::new(MemoryLog::new()),
        Arc::clone(&queue) as _,
        Subjects::new("superstep", "default").unwrap(),
        Arc::new(SystemWorld),
        settings,
    )
    .with_health(health.clone());
    assert!(
        !verdict(&health.snapshot(), Instant::now(), &bounds)
            .startup
            .is_ok()
    );
    let running = tokio::spawn(worker.run(shutdown.clone()));
    let command = CommandMessage {
        kind: CommandKind::Start,
        target: "g".to_owned(),
        headers: BTreeMap::new(),
        body: Bytes::from(json!({"thread_id": "t", "input": {}}).to_string()),
    };
    let (_, reply) = queue
        .request(command, Duration::from_secs(20))
        .await
        .unwrap();
    assert!(reply.is_some());
    // Begun and completed.
    for _ in 0..2 {
        events.next().await.unwrap().expect("the queue lives");
    }
    let said = verdict(&health.snapshot(), Instant::now(), &bounds);
    assert_eq!(said, Verdict::default());
    shutdown.cancel();
    running.await.unwrap().unwrap();

    let measured = kept.0.lock().unwrap();
    let count = |line: &str| measured.iter().filter(|kept| *kept == line).count();
    for (line, times) in [
        ("begun g", 1),
        ("completed g", 1),
        ("superstep g", 3),
        ("finished g/n", 1),
        ("picked up commands", 1),
        ("picked up g@1", 1),
        ("start accepted", 1),
        ("store append true", 4),
        ("AppendConflict", 0),
    ] {
        assert_eq!(count(line), times, "{line} in {measured:#?}");
    }
    let facts = health.snapshot();
    assert_eq!(facts.stage, Stage::Draining);
    assert_eq!((facts.slots, facts.slots_used), (32, 0));
    assert!(facts.appended.is_some() && facts.store_failed.is_none());
}

#[tokio::test(start_paused = true)]
async fn pulls_that_fail_again_do_not_begin_anew() {
    let health = Health::default();
    health.reached(Stage::Working);
    let commands: Arc<str> = "commands".into();
    let bounds = HealthSettings::from(&WorkerSettings::default());
    let is_alive = || {
        let said = verdict(&health.snapshot(), Instant::now(), &bounds);
        said.liveness.is_ok()
    };
    for _ in 0..3 {
        health.does(&commands, Doing::Pulling, Duration::from_secs(8));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(is_alive());
        health.pull_failed(&commands);
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!is_alive());
    health.pulled(&commands, &[], UnixMillis(0));
    assert!(is_alive());
}

#[test]
fn a_slot_is_free_once_dropped() {
    let health = Health::default();
    let (one, two) = (health.use_slot(), health.use_slot());
    assert_eq!(health.snapshot().slots_used, 2);
    drop((one, two));
    assert_eq!(health.snapshot().slots_used, 0);
}
