//! Loads as a whole, on a log and a queue in memory: that the verdict sees what goes wrong.
//!
//! The worker is the real one; only its graph is, where a test wants it, not the scenario's.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use superstep::{Channel, Context, END, Graph, NodeError, Reducer, RunnableGraph, START};
use superstep_checkpoint::memory::MemoryLog;
use superstep_queue::{
    Queue,
    memory::{MemoryQueue, MemoryQueueSettings},
    subject::Subjects,
};
use superstep_worker::{Graphs, SystemWorld, Worker, WorkerSettings};
use tokio_util::sync::CancellationToken;

use super::{
    drive::{Load, Watch, drive},
    progress::Progress,
    scenario::{CHAIN, Scenario, Size, payload},
    verdict::Verdict,
    window::{Span, Spread, Window},
};
use crate::output::Output;

const SIZE: Size = Size {
    payload_bytes: 20,
    width: 5,
};

struct Unwatched;

impl Watch for Unwatched {
    fn opened(&mut self) {}
    fn ticked(&mut self) {}
    fn closed(&mut self) {}
}

/// Drives `scenario` until eight runs have ended, by a worker that holds `graph`.
async fn driven(scenario: Scenario, graph: RunnableGraph) -> (Window, Verdict) {
    let subjects = Subjects::new("superstep", "default").unwrap();
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(MemoryQueueSettings::default()).unwrap());
    let mut graphs = Graphs::new();
    graphs.add(graph);
    let worker = Worker::new(
        graphs,
        Arc::new(MemoryLog::new()),
        Arc::clone(&queue),
        subjects.clone(),
        Arc::new(SystemWorld),
        WorkerSettings::default(),
    );
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    let load = Load {
        scenario,
        size: SIZE,
        in_flight: 2,
        span: Span {
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(60),
            count: Some(8),
        },
        runs_max: 100,
        patience: Duration::from_secs(30),
    };
    let progress = Progress::new(Output::new(true), String::new());
    let driven = drive(
        queue,
        &subjects,
        &load,
        &progress,
        &mut Unwatched,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    shutdown.cancel();
    running.await.unwrap().unwrap();
    (driven.window, driven.tally.verdict(0))
}

#[tokio::test]
async fn every_scenario_ends_right_and_in_number() {
    for scenario in Scenario::ALL {
        let (window, verdict) = driven(scenario, scenario.graph()).await;
        assert!(verdict.ok, "{scenario:?}: {verdict:?}");
        assert_eq!(window.runs(), 8, "{scenario:?}");
        assert!(verdict.right >= 8 && verdict.right <= 10, "{verdict:?}");
        let latency = window.latency();
        let whats: Vec<&str> = latency.keys().copied().collect();
        match scenario {
            Scenario::Interrupt => assert_eq!(whats, ["ask", "resume", "resume_to_node"]),
            _ => assert_eq!(whats, ["run"]),
        }
        for (what, times) in latency {
            assert!(times.count >= 8, "{what} {times:?}");
            assert!(
                times.p50_ms <= times.p99_ms && times.p99_ms <= times.max_ms,
                "{times:?}"
            );
        }
    }
}

/// A chain in one node, whose writes are `update`.
fn in_one_node(update: fn(u64) -> Result<Value, NodeError>) -> RunnableGraph {
    Graph::dynamic(Scenario::Chain.name())
        .channel("number", Channel::Last)
        .channel("bytes", Channel::Last)
        .channel("steps", Channel::Reduce(Reducer::Append))
        .channel("sum", Channel::Last)
        .channel("payload", Channel::Last)
        .node("all", move |state: Value, _: Context| async move {
            update(state["number"].as_u64().unwrap_or_default())
        })
        .edge(START, "all")
        .edge("all", END)
        .build()
        .unwrap()
        .into()
}

#[tokio::test]
async fn a_wrong_result_is_not_right() {
    let graph = in_one_node(|number| {
        let steps: Vec<u64> = (1..=CHAIN).chain([CHAIN]).collect();
        Ok(json!({"steps": steps, "sum": 55 * number, "payload": payload(number, CHAIN, 20)}))
    });
    let (_, verdict) = driven(Scenario::Chain, graph).await;
    assert!(!verdict.ok, "{verdict:?}");
    assert_eq!((verdict.wrong, verdict.right), (verdict.begun, 0));
    let finding = &verdict.findings[0];
    assert!(
        finding.contains("steps is [1,2,3,4,5,6,7,8,9,10,10]"),
        "{finding}"
    );
}

#[tokio::test]
async fn a_run_that_fails_is_wrong() {
    let graph = in_one_node(|_| Err(NodeError::new("no", "it does not want to")));
    let load = tokio::time::timeout(Duration::from_secs(60), driven(Scenario::Chain, graph));
    let (window, verdict) = load.await.unwrap();
    assert!(!verdict.ok, "{verdict:?}");
    assert_eq!(window.runs(), 0);
    assert!(verdict.findings[0].contains("run_failed"), "{verdict:?}");
}

#[test]
fn only_what_ends_in_the_window_counts() {
    let mut window = Window::new(Span {
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(2),
        count: Some(2),
    });
    let opens = window.opens();
    let at = |seconds: u64| -> Instant { opens + Duration::from_secs(seconds) };
    let early = opens.checked_sub(Duration::from_millis(1)).unwrap();
    let [first, second, late] = [at(0), at(1), at(2)];
    for now in [early, first, second, late] {
        window.took(now, "run", Duration::from_millis(7));
        window.ended(now);
    }
    assert_eq!(window.runs(), 2);
    assert_eq!(window.latency()["run"].count, 2);
    assert!(window.is_over(late), "as many as were asked for have ended");
    assert!((window.seconds(late) - 1.0).abs() < 1e-9);
}

#[test]
fn the_middle_of_figures_is_told() {
    let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
    let is = |figure: f64, other: f64| assert!((figure - other).abs() < 1e-9, "{figure} {other}");
    is(spread.median, 2.0);
    is(spread.min, 1.0);
    is(spread.max, 3.0);
    is(Spread::of(&[1.0, 2.0]).unwrap().median, 1.5);
    assert_eq!(Spread::of(&[]), None);
}
