//! The worker over the memory log and queue: runs, questions, answers, fan-out, redelivery.
//!
//! Real worker code, no server. What needs processes and servers is in `tests/cluster`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_graph::{
    Branch, ChannelKind, Command, END, GraphBuilder, NodeOutput, NodeSpec, Reducer, START, Send,
    Target,
};
use superstep_protocol::{GraphId, ThreadStatus};
use superstep_queue::{
    CommandMessage, EventFilter, Subscription,
    memory::{MemoryQueue, MemoryQueueSettings},
};
use superstep_wire::{Event, EventKind, Outcome, Reply, decode};

mod scripted;
mod stops;
mod strategies;

use super::*;
use crate::{Node, NodeContext, NodeError, NodeReturn, RunnableGraph, StateView, SystemWorld};

fn id(name: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: "1".into(),
    }
}

async fn ask(input: Value, ctx: NodeContext) -> Result<NodeReturn, NodeError> {
    let answer: Value = ctx.interrupt(json!({"draft": input["draft"]})).await?;
    Ok(NodeReturn::Update(json!({"status": answer["approved"]})))
}

fn asking() -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .channel("draft", ChannelKind::Last)
        .channel("status", ChannelKind::Last);
    builder
        .node(NodeSpec::new("review"))
        .edge(START, "review")
        .edge("review", END);
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([("review".into(), Arc::new(ask) as _)]);
    RunnableGraph::new(id("asking"), builder.compile().unwrap(), nodes).unwrap()
}

fn fanning() -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder.channel("count", ChannelKind::Last);
    builder.channel("results", ChannelKind::Reduce(Reducer::Append));
    builder
        .node(NodeSpec::new("spread"))
        .node(NodeSpec::new("work"));
    builder.edge(START, "spread").branch(
        "spread",
        Branch::new(|state: &Value| {
            let count = state["count"].as_u64().unwrap_or(0);
            Ok((0..count)
                .map(|n| Target::Send(Send::new("work", json!({"n": n}))))
                .collect())
        }),
    );
    let spread = |_: Value, _: NodeContext| async { Ok(NodeReturn::Update(Value::Null)) };
    let work = |input: Value, _: NodeContext| async move {
        tokio::task::yield_now().await;
        Ok(NodeReturn::Update(json!({"results": [input["n"]]})))
    };
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([
        ("spread".into(), Arc::new(spread) as Arc<dyn Node>),
        ("work".into(), Arc::new(work) as _),
    ]);
    RunnableGraph::new(id("fanning"), builder.compile().unwrap(), nodes).unwrap()
}

fn failing() -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder.channel("how", ChannelKind::Last);
    builder.node(NodeSpec::new("n")).edge(START, "n");
    let node = |input: Value, _: NodeContext| async move {
        match input["how"].as_str() {
            Some("panic") => panic!("as it was told"),
            Some("route") => Ok(NodeReturn::Output(NodeOutput::command(Command {
                goto: vec!["nowhere".into()],
                ..Command::default()
            }))),
            Some("hang") => std::future::pending().await,
            _ => Err(NodeError::new("Told", "it was told to fail")),
        }
    };
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([("n".into(), Arc::new(node) as _)]);
    RunnableGraph::new(id("failing"), builder.compile().unwrap(), nodes).unwrap()
}

fn message(kind: superstep_queue::CommandKind, target: &str, body: &Value) -> CommandMessage {
    CommandMessage {
        kind,
        target: target.to_owned(),
        headers: BTreeMap::new(),
        body: Bytes::from(body.to_string()),
    }
}

struct Cluster {
    log: Arc<MemoryLog>,
    queue: Arc<MemoryQueue>,
    events: Box<dyn Subscription>,
    shutdown: CancellationToken,
    workers: Vec<tokio::task::JoinHandle<Result<Drained, Error>>>,
}

impl Cluster {
    async fn start(workers: usize, settings: WorkerSettings) -> Self {
        let mut cluster = Self::empty(MemoryQueueSettings::default()).await;
        for _ in 0..workers {
            let mut graphs = Graphs::new();
            graphs.add(asking()).add(fanning()).add(failing());
            cluster.add(graphs, settings.clone());
        }
        cluster
    }

    /// Without workers.
    async fn empty(queue: MemoryQueueSettings) -> Self {
        let queue = Arc::new(MemoryQueue::new(queue).unwrap());
        let events = queue.events(&EventFilter::default()).await.unwrap();
        Self {
            log: Arc::new(MemoryLog::new()),
            queue,
            events,
            shutdown: CancellationToken::new(),
            workers: Vec::new(),
        }
    }

    /// Adds a worker of these graphs.
    fn add(&mut self, graphs: Graphs, settings: WorkerSettings) {
        let worker = self.worker(graphs, settings);
        let working = worker.run(self.shutdown.clone());
        self.workers.push(tokio::spawn(working));
    }

    fn worker(&self, graphs: Graphs, settings: WorkerSettings) -> Worker {
        Worker::new(
            graphs,
            Arc::clone(&self.log) as _,
            Arc::clone(&self.queue) as _,
            Subjects::new("superstep", "default").unwrap(),
            Arc::new(SystemWorld),
            settings,
        )
    }

    async fn send(&self, kind: superstep_queue::CommandKind, target: &str, body: Value) -> Reply {
        let command = message(kind, target, &body);
        let (_, reply) = self
            .queue
            .request(command, Duration::from_secs(20))
            .await
            .unwrap();
        decode::reply(&reply.expect("an outcome in time")).unwrap()
    }

    async fn event(&mut self, kind: EventKind) -> Event {
        tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let received = self.events.next().await.unwrap().expect("the queue lives");
                let event = decode::event(&received.body).unwrap();
                if event.kind == kind {
                    return event;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {kind} event in time"))
    }

    fn threads(&self) -> Threads {
        Threads::new(
            Arc::clone(&self.log) as _,
            Arc::new(SystemWorld),
            crate::Limits::default(),
            Duration::from_secs(1),
        )
    }

    async fn state(&self, thread: &str) -> ThreadState {
        let found = self.threads().load(&thread.into()).await.unwrap();
        Arc::unwrap_or_clone(found.expect("the thread is there").state)
    }

    async fn checkpoints(&self, thread: &str) -> Vec<String> {
        let history = self
            .threads()
            .history(&thread.into(), None, 100)
            .await
            .unwrap();
        let ids = history.into_iter().map(|found| found.checkpoint_id);
        ids.collect()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for worker in self.workers {
            assert_eq!(worker.await.unwrap().unwrap(), Drained::Clean);
        }
    }
}

use superstep_queue::CommandKind::{Cancel, Resume, Retry, Start as Begin, Update};

#[tokio::test]
async fn a_run_asks_is_answered_and_completes() {
    let mut cluster = Cluster::start(2, WorkerSettings::default()).await;
    let reply = cluster
        .send(
            Begin,
            "asking",
            json!({"thread_id": "t 1", "input": {"draft": "d"}}),
        )
        .await;
    assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    let asked = cluster.event(EventKind::Interrupt).await;
    let interrupt = asked.interrupt.unwrap();
    assert_eq!(interrupt.value, json!({"draft": "d"}));
    assert_eq!(interrupt.resume_subject, "superstep.default.resume.t%201");
    assert_eq!(
        cluster.state("t 1").await.status(),
        ThreadStatus::Interrupted
    );

    let reply = cluster
        .send(Resume, "t 1", json!({"resume": {"approved": true}}))
        .await;
    assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    let done = cluster.event(EventKind::RunCompleted).await;
    assert_eq!(done.values, Some(json!({"draft": "d", "status": true})));

    let state = cluster.state("t 1").await;
    assert_eq!(state.status(), ThreadStatus::Idle);
    let view = StateView::of(&state, None);
    assert_eq!((view.step, view.next.len()), (Some(1), 0));

    let again = cluster.send(Resume, "t 1", json!({"resume": 1})).await;
    assert_eq!(again.refusal.unwrap().kind.as_str(), "not_waiting");
    cluster.stop().await;
}

#[tokio::test]
async fn a_fan_out_is_applied_once_and_in_order() {
    for run_ahead in [0, 100] {
        let settings = WorkerSettings {
            run_ahead_supersteps: run_ahead,
            ..WorkerSettings::default()
        };
        let mut cluster = Cluster::start(3, settings).await;
        cluster
            .send(
                Begin,
                "fanning",
                json!({"thread_id": "f", "input": {"count": 200}}),
            )
            .await;
        let done = cluster.event(EventKind::RunCompleted).await;
        let expected: Vec<u64> = (0..200).collect();
        assert_eq!(done.values.unwrap()["results"], json!(expected));
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_failed_run_says_why_and_can_be_retried() {
    let settings = WorkerSettings {
        task_timeout: Duration::from_millis(200),
        ..WorkerSettings::default()
    };
    let mut cluster = Cluster::start(1, settings).await;
    for (how, kind) in [
        ("error", "Told"),
        ("panic", "Panic"),
        ("route", "UnknownTarget"),
        ("hang", "NodeTimeout"),
    ] {
        let body = json!({"thread_id": how, "input": {"how": how}});
        cluster.send(Begin, "failing", body).await;
        let failed = cluster.event(EventKind::RunFailed).await;
        assert_eq!(failed.error.unwrap().kind, kind);
        assert_eq!(cluster.state(how).await.status(), ThreadStatus::Error);
    }
    let update = json!({"values": {"how": "error"}, "as_node": START});
    let reply = cluster.send(Update, "panic", update).await;
    assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    cluster.event(EventKind::StateUpdated).await;
    let reply = cluster.send(Retry, "panic", json!({})).await;
    assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    assert_eq!(
        cluster
            .event(EventKind::RunFailed)
            .await
            .error
            .unwrap()
            .kind,
        "Told"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn commands_that_cannot_be_taken_are_refused_by_kind() {
    let settings = WorkerSettings {
        hold_back: Duration::from_millis(200),
        ..WorkerSettings::default()
    };
    let mut cluster = Cluster::start(1, settings).await;
    let kind = |reply: Reply| reply.refusal.expect("refused").kind.as_str();
    let reply = cluster.send(Begin, "nothing", json!({"input": {}})).await;
    assert_eq!(kind(reply), "unknown_graph");
    assert_eq!(
        kind(cluster.send(Resume, "none", json!({"resume": 1})).await),
        "unknown_thread"
    );
    assert_eq!(
        kind(cluster.send(Resume, "none", json!({"resum": 1})).await),
        "malformed"
    );
    cluster
        .send(
            Begin,
            "asking",
            json!({"thread_id": "a", "input": {"draft": "d"}}),
        )
        .await;
    cluster.event(EventKind::Interrupt).await;
    let unknown = json!({"resume": 1, "interrupt_id": "00000000000000000000000000000000"});
    assert_eq!(
        kind(cluster.send(Resume, "a", unknown).await),
        "unknown_interrupt"
    );
    let start = json!({
        "thread_id": "a",
        "input": {"draft": "e"},
        "multitask_strategy": "reject",
    });
    assert_eq!(kind(cluster.send(Begin, "asking", start).await), "busy");
    assert_eq!(
        cluster.send(Cancel, "a", json!({})).await.outcome,
        Outcome::Accepted
    );
    assert_eq!(
        kind(cluster.send(Resume, "a", json!({"resume": 1})).await),
        "cancelled"
    );
    assert_eq!(
        kind(cluster.send(Cancel, "a", json!({})).await),
        "nothing_to_cancel"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_retry_goes_back_to_a_checkpoint() {
    let mut cluster = Cluster::start(2, WorkerSettings::default()).await;
    let start = json!({"thread_id": "f", "input": {"count": 3}});
    cluster.send(Begin, "fanning", start).await;
    let done = cluster.event(EventKind::RunCompleted).await;
    let first = done.checkpoint_id.expect("it ended in a checkpoint");
    let from = cluster.checkpoints("f").await;
    assert!(from.contains(&first), "{from:?}");
    // Newest first: the end, the fan-out, `spread`, the input.
    let reply = cluster
        .send(Retry, "f", json!({"checkpoint_id": from[1]}))
        .await;
    assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    let done = cluster.event(EventKind::RunCompleted).await;
    assert_eq!(done.values.unwrap()["results"], json!([0, 1, 2]));
    assert_eq!(cluster.checkpoints("f").await.len(), from.len() + 2);

    let nowhere = json!({"checkpoint_id": "01957f2e-6a3b-7c1d-8e4f-0123456789ab"});
    let refused = cluster.send(Retry, "f", nowhere.clone()).await;
    let kind = refused.refusal.expect("refused").kind;
    assert_eq!(kind.as_str(), "invalid_input");
    let refused = cluster.send(Retry, "nobody", nowhere).await;
    let kind = refused.refusal.expect("refused").kind;
    assert_eq!(kind.as_str(), "unknown_thread");
    cluster.stop().await;
}
