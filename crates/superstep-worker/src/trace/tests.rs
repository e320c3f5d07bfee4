//! What is a context, and that a worker's spans are named by the log alone.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use superstep_checkpoint::MemoryLog;
use superstep_graph::{END, GraphBuilder, NodeSpec, START};
use superstep_protocol::GraphId;
use superstep_queue::{
    CommandKind, CommandMessage, Queue as _,
    memory::{MemoryQueue, MemoryQueueSettings},
    subject::Subjects,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Graphs, Node, NodeContext, NodeError, NodeReturn, RunnableGraph, SystemWorld, Worker,
    WorkerSettings,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[track_caller]
fn check(parent: &str, state: Option<&str>, read: Option<(&str, bool, Option<&str>)>) {
    let found = TraceContext::parse(parent, state);
    let found = found.as_ref().map(|found| {
        let traceparent = found.traceparent();
        (traceparent, found.sampled, found.state.as_deref())
    });
    let read = read.map(|(parent, sampled, state)| (parent.to_owned(), sampled, state));
    assert_eq!(found, read, "{parent}");
}

#[test]
fn a_context_is_read_as_the_w3c_says() {
    let kept = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let dropped = format!("00-{TRACE}-00f067aa0ba902b7-00");
    check(&kept, None, Some((&kept, true, None)));
    check(&dropped, None, Some((&dropped, false, None)));
    check(
        &kept,
        Some(" a=1,b=2 "),
        Some((&kept, true, Some("a=1,b=2"))),
    );
    check(&kept, Some(&"x".repeat(513)), Some((&kept, true, None)));
    check(&kept, Some("a=\u{e9}"), Some((&kept, true, None)));
    // Flags of later versions, and what they add.
    check(
        &format!("00-{TRACE}-00f067aa0ba902b7-03"),
        None,
        Some((&kept, true, None)),
    );
    check(
        &format!("01-{TRACE}-00f067aa0ba902b7-01-more"),
        None,
        Some((&kept, true, None)),
    );
}

#[test]
fn what_is_no_context_is_none() {
    for parent in [
        String::new(),
        "hello".to_owned(),
        "00-ab-cd-01".to_owned(),
        format!("ff-{TRACE}-00f067aa0ba902b7-01"),
        format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-00f067aa0ba902b7"),
        format!("00-+{}-00f067aa0ba902b7-01", &TRACE[1..]),
    ] {
        check(&parent, None, None);
    }
}

/// Keeps what is told: name, span, parent, outcome.
#[derive(Default)]
struct Kept(Mutex<Vec<Told>>);

type Told = (SpanName, TraceContext, Option<TraceContext>, String);

impl Tracer for Kept {
    fn samples(&self, _: u128, parent: Option<&TraceContext>) -> bool {
        parent.is_none_or(|parent| parent.sampled)
    }

    fn begin(&self, _: &Begins<'_>) -> Live {
        Live::default()
    }

    fn link(&self, _: &Span, _: &TraceContext) {}

    fn came_out(&self, _: &Live, _: &Outcome<'_>) {}

    fn over(&self, over: &Over<'_>) {
        let told = (over.name, over.context.clone(), over.parent.cloned());
        let outcome = format!("{:?}", over.outcome);
        self.0
            .lock()
            .unwrap()
            .push((told.0, told.1, told.2, outcome));
    }
}

/// A graph of one node that sleeps for a moment, as a timer, and then waits until it is told to stop.
fn graph(awake: &Arc<Notify>) -> RunnableGraph {
    let awake = Arc::clone(awake);
    let mut builder = GraphBuilder::new();
    builder
        .node(NodeSpec::new("n"))
        .edge(START, "n")
        .edge("n", END);
    let node = move |_: Value, ctx: NodeContext| {
        let awake = Arc::clone(&awake);
        async move {
            ctx.sleep(Duration::from_millis(20)).await;
            awake.notify_one();
            ctx.cancelled().await;
            Ok::<_, NodeError>(NodeReturn::Update(Value::Null))
        }
    };
    let nodes = BTreeMap::from([("n".into(), Arc::new(node) as Arc<dyn Node>)]);
    let id = GraphId {
        name: "g".into(),
        version: "1".into(),
    };
    RunnableGraph::new(id, builder.compile().unwrap(), nodes).unwrap()
}

fn command(kind: CommandKind, target: &str, body: &Value) -> CommandMessage {
    let headers = headers(&format!("00-{TRACE}-00f067aa0ba902b7-01"), None);
    CommandMessage {
        kind,
        target: target.to_owned(),
        headers,
        body: Bytes::from(body.to_string()),
    }
}

#[tokio::test]
async fn a_run_that_sleeps_and_is_cancelled_is_two_spans() {
    let kept = Arc::new(Kept::default());
    let queue = Arc::new(MemoryQueue::new(MemoryQueueSettings::default()).unwrap());
    let shutdown = CancellationToken::new();
    let mut graphs = Graphs::new();
    let awake = Arc::<Notify>::default();
    graphs.add(graph(&awake));
    let settings = WorkerSettings {
        short_pause_max: Duration::ZERO,
        timers_every: Duration::from_millis(10),
        ..WorkerSettings::default()
    };
    let worker = Worker::new(
        graphs,
        Arc::new(MemoryLog::new()),
        Arc::clone(&queue) as _,
        Subjects::new("superstep", "default").unwrap(),
        Arc::new(SystemWorld),
        settings,
    )
    .with_tracer(Arc::clone(&kept) as _);
    let running = tokio::spawn(worker.run(shutdown.clone()));
    let wait = Duration::from_secs(20);
    let start = command(
        CommandKind::Start,
        "g",
        &json!({"thread_id": "t", "input": {}}),
    );
    queue.request(start, wait).await.unwrap();
    let told = |name: SpanName| {
        let kept = kept.0.lock().unwrap();
        let told = kept.iter().filter(|told| told.0 == name);
        told.cloned().collect::<Vec<_>>()
    };
    awake.notified().await;
    let cancel = command(CommandKind::Cancel, "t", &json!({}));
    queue.request(cancel, wait).await.unwrap();
    shutdown.cancel();
    running.await.unwrap().unwrap();

    let runs = told(SpanName::Run);
    let outcomes: Vec<&str> = runs.iter().map(|run| run.3.as_str()).collect();
    assert_eq!(outcomes, [r#"Ended("paused")"#, r#"Ended("cancelled")"#]);
    for (_, run, parent, _) in &runs {
        let parent = parent.as_ref().expect("the sender's span");
        assert_eq!(
            (run.trace_id(), parent.span_id()),
            (TRACE.to_owned(), "00f067aa0ba902b7".to_owned())
        );
    }
    let supersteps = told(SpanName::Superstep);
    let seen: Vec<_> = supersteps
        .iter()
        .map(|(_, superstep, parent, outcome)| {
            assert_eq!(superstep.trace_id(), TRACE);
            let of = runs
                .iter()
                .position(|(_, run, ..)| Some(run) == parent.as_ref());
            (of, outcome.as_str())
        })
        .collect();
    let committed = r#"Ended("committed")"#;
    assert_eq!(
        seen,
        [
            (Some(0), committed),
            (Some(0), committed),
            (Some(0), r#"Ended("paused")"#),
            (Some(1), r#"Ended("given_up")"#),
        ]
    );
}
