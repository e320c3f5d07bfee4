//! Sleeps inside: a call that waits for a time goes on at the node that slept, and what finished
//! before it inside does not run again. The store's clock and the process's are the test's.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_graph::START;
use superstep_protocol::{Nonce, RunStatus, ThreadId, UnixMillis};
use tokio::time::Instant;

use super::made::{Made, Ran, World};
use crate::{Checkpointer, Graphs, Local, RunnableGraph, WorkerSettings};

const LONG: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

/// A clock that goes with the test's.
#[derive(Clone, Copy)]
struct Virtual(Instant);

impl crate::World for Virtual {
    fn now(&self) -> UnixMillis {
        let passed = u64::try_from(self.0.elapsed().as_millis()).unwrap();
        UnixMillis(1_773_480_413_000 + passed)
    }

    fn nonce(&self) -> Nonce {
        Nonce(rand::random())
    }
}

/// Two processes, one after the other, on one store.
fn worlds(ran: &Ran, graph: &RunnableGraph) -> [World; 2] {
    let clock = Virtual(Instant::now());
    let now = move || crate::World::now(&clock);
    let log = Arc::new(MemoryLog::with_clock(Arc::new(now)));
    [(), ()].map(|()| {
        let mut graphs = Graphs::new();
        graphs.add(graph.clone());
        let settings = WorkerSettings::default();
        World {
            local: Local::new(graphs, log.clone(), Arc::new(clock), settings),
            thread: ThreadId::new("t"),
            graph: graph.id().clone(),
            ran: Arc::clone(ran),
        }
    })
}

impl Made {
    /// A node that sleeps so many times in a row.
    fn sleeping(self, name: &'static str, times: usize) -> Self {
        self.node(name, move |_, ctx| async move {
            for _ in 0..times {
                ctx.sleep(LONG).await;
            }
            Ok(json!({"log": [name], "out": name}))
        })
    }

    /// The graph of a thread that calls `inner`.
    fn calling(self, inner: RunnableGraph, checkpointer: Checkpointer) -> RunnableGraph {
        self.sub_with("sub", inner, checkpointer)
            .plain("last")
            .chain(&["sub", "last"])
            .make("main")
    }
}

/// `before`, `nap` and `after`, of which `nap` sleeps so many times.
fn napping(ran: &Ran, times: usize) -> RunnableGraph {
    Made::new(ran)
        .plain("before")
        .sleeping("nap", times)
        .plain("after")
        .chain(&["before", "nap", "after"])
        .inner("inner")
}

/// Runs the graph to its end; answers what ran and for how many minutes.
async fn sleeps_through(world: &World) -> (Vec<String>, u64) {
    let began = Instant::now();
    let done = world.invoke(json!({"in": 1})).await;
    assert_eq!(done.status, RunStatus::Success, "{done:?}");
    assert_eq!(done.values["out"], "nap");
    assert!(!world.state().await.is_busy());
    (world.ran(), began.elapsed().as_secs() / MINUTE.as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_sleep_inside_goes_on_right_there() {
    for checkpointer in [Checkpointer::Inherit, Checkpointer::Own] {
        let ran = Ran::default();
        let graph = Made::new(&ran).calling(napping(&ran, 1), checkpointer);
        let [world, _] = worlds(&ran, &graph);
        let expected = ["sub.before", "sub.nap", "sub.nap", "sub.after", "last"];
        let (names, minutes) = sleeps_through(&world).await;
        assert_eq!(names, expected);
        assert_eq!(minutes, 10);
    }
}

#[tokio::test(start_paused = true)]
async fn two_sleeps_inside_are_slept_one_by_one() {
    let ran = Ran::default();
    let graph = Made::new(&ran).calling(napping(&ran, 2), Checkpointer::Inherit);
    let [world, _] = worlds(&ran, &graph);
    let (names, minutes) = sleeps_through(&world).await;
    let naps = ["sub.nap"; 3];
    let expected = [&["sub.before"], &naps[..], &["sub.after", "last"]].concat();
    assert_eq!(names, expected);
    assert_eq!(minutes, 20);
}

#[tokio::test(start_paused = true)]
async fn sleeps_of_inner_supersteps_follow_each_other() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .sleeping("first", 1)
        .sleeping("nap", 1)
        .chain(&["first", "nap"])
        .inner("inner");
    let graph = Made::new(&ran).calling(inner, Checkpointer::Inherit);
    let [world, _] = worlds(&ran, &graph);
    let (names, minutes) = sleeps_through(&world).await;
    let expected = ["sub.first", "sub.first", "sub.nap", "sub.nap", "last"];
    assert_eq!(names, expected);
    assert_eq!(minutes, 20);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_two_calls_deep_goes_on_there() {
    let ran = Ran::default();
    let middle = Made::new(&ran)
        .plain("begin")
        .sub("deep", napping(&ran, 2))
        .plain("end")
        .chain(&["begin", "deep", "end"])
        .inner("middle");
    let graph = Made::new(&ran).calling(middle, Checkpointer::Inherit);
    let [world, _] = worlds(&ran, &graph);
    let (names, minutes) = sleeps_through(&world).await;
    let expected = [
        "sub.begin",
        "sub.deep.before",
        "sub.deep.nap",
        "sub.deep.nap",
        "sub.deep.nap",
        "sub.deep.after",
        "sub.end",
        "last",
    ];
    assert_eq!(names, expected);
    assert_eq!(minutes, 20);
}

#[tokio::test(start_paused = true)]
async fn what_finished_beside_a_sleep_does_not_run_again() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .sleeping("nap", 1)
        .plain("beside")
        .with(|graph| {
            graph.edge(START, "nap").edge(START, "beside");
        })
        .make("inner");
    let graph = Made::new(&ran).calling(inner, Checkpointer::Inherit);
    let [world, _] = worlds(&ran, &graph);
    let (mut names, minutes) = sleeps_through(&world).await;
    names.sort();
    assert_eq!(names, ["last", "sub.beside", "sub.nap", "sub.nap"]);
    assert_eq!(minutes, 10);
}

#[tokio::test(start_paused = true)]
async fn another_process_goes_on_with_a_sleep_inside() {
    let ran = Ran::default();
    let graph = Made::new(&ran).calling(napping(&ran, 1), Checkpointer::Inherit);
    let [first, next] = worlds(&ran, &graph);
    let left = tokio::time::timeout(MINUTE, first.invoke(json!({"in": 1})));
    assert!(left.await.is_err(), "it sleeps for longer");
    assert_eq!(first.ran(), ["sub.before", "sub.nap"]);
    next.local.finish(&next.thread).await.unwrap();
    assert_eq!(next.ran(), ["sub.nap", "sub.after", "last"]);
    assert_eq!(next.state().await.checkpoint.values["out"], "nap");
}

#[tokio::test(start_paused = true)]
async fn a_question_after_a_sleep_inside_is_asked_once() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .plain("before")
        .node("nap", |_, ctx| async move {
            ctx.sleep(LONG).await;
            let answer: Value = ctx.interrupt("well?").await?;
            ctx.sleep(LONG).await;
            Ok(json!({"out": "nap", "log": [answer]}))
        })
        .chain(&["before", "nap"])
        .inner("inner");
    let graph = Made::new(&ran).calling(inner, Checkpointer::Inherit);
    let [world, _] = worlds(&ran, &graph);
    let began = Instant::now();
    let asked = world.invoke(json!({"in": 1})).await;
    assert_eq!(asked.interrupts.len(), 1);
    assert_eq!(world.ran(), ["sub.before", "sub.nap", "sub.nap"]);
    let done = world.resume("yes").await;
    assert_eq!(done.values["out"], "nap");
    assert_eq!(world.ran(), ["sub.nap", "sub.nap", "last"]);
    assert_eq!(began.elapsed().as_secs() / MINUTE.as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_begins_anew_sleeps_what_is_left() {
    let ran = Ran::default();
    let graph = Made::new(&ran).calling(napping(&ran, 2), Checkpointer::None);
    let [world, _] = worlds(&ran, &graph);
    let (names, minutes) = sleeps_through(&world).await;
    let once = ["sub.before", "sub.nap"];
    let expected = [&once[..], &once, &once, &["sub.after", "last"]].concat();
    assert_eq!(names, expected);
    assert_eq!(minutes, 20);
}
