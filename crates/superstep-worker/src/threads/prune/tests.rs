//! What stays of a thread that is pruned as it goes on: as much as was asked for, and all that it
//! needs; a store that was pruned is one that verifies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use superstep_checkpoint::{BLOB_TTL, Inspect, Kept, contract::ManualClock, memory::MemoryLog};
use superstep_graph::{ChannelKind, END, GraphBuilder, NodeSpec, Reducer, START};
use superstep_protocol::{GraphId, Nonce};

use super::*;
use crate::{
    Graphs, Local, Node, NodeContext, NodeError, NodeReturn, RunOptions, RunnableGraph,
    SystemWorld, Verifier, WorkerSettings, World,
};

/// A world on the store's clock.
struct Hand(ManualClock);

impl World for Hand {
    fn now(&self) -> UnixMillis {
        self.0.now()
    }

    fn nonce(&self) -> Nonce {
        SystemWorld.nonce()
    }
}

fn id() -> GraphId {
    GraphId {
        name: "letter".into(),
        version: "1".into(),
    }
}

/// Two nodes, one after the other; the first asks if the input says so.
fn graph() -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .channel("ask", ChannelKind::Last)
        .channel("big", ChannelKind::Last)
        .channel("log", ChannelKind::Reduce(Reducer::Append));
    for node in ["first", "second"] {
        builder.node(NodeSpec::new(node));
    }
    builder
        .edge(START, "first")
        .edge("first", "second")
        .edge("second", END);
    let first = |input: Value, ctx: NodeContext| async move {
        if input["ask"] == true {
            let _: Value = ctx.interrupt("?").await?;
        }
        Ok(NodeReturn::Update(json!({"log": ["first"]})))
    };
    let second = |_: Value, _: NodeContext| async {
        Ok::<_, NodeError>(NodeReturn::Update(json!({"log": ["second"]})))
    };
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([
        ("first".into(), Arc::new(first) as Arc<dyn Node>),
        ("second".into(), Arc::new(second) as _),
    ]);
    RunnableGraph::new(id(), builder.compile().unwrap(), nodes).unwrap()
}

struct Store {
    clock: ManualClock,
    log: Arc<MemoryLog>,
    local: Local,
}

impl Store {
    fn new(retention: Retention) -> Self {
        let clock = ManualClock::default();
        let log = Arc::new(MemoryLog::with_clock(clock.clock()));
        let mut settings = WorkerSettings {
            retention,
            ..WorkerSettings::default()
        };
        settings.limits.snapshot_every = 4;
        settings.limits.inline_bytes_max = 64;
        let mut graphs = Graphs::new();
        graphs.add(graph());
        let world = Arc::new(Hand(clock.clone()));
        let local = Local::new(graphs, log.clone(), world, settings);
        Self { clock, log, local }
    }

    /// One run: four checkpoints and a large value of its own.
    async fn run(&self, n: usize, ask: bool) {
        let input = json!({"ask": ask, "big": format!("{n} ").repeat(100)});
        let options = RunOptions::default();
        let ran = self.local.invoke(&id(), &"t".into(), input, options).await;
        ran.unwrap();
    }

    async fn kept(&self) -> Kept {
        self.log.kept(&"t".into()).await.unwrap().unwrap()
    }

    async fn state(&self) -> ThreadState {
        let found = self.local.threads().load(&"t".into()).await.unwrap();
        Arc::unwrap_or_clone(found.unwrap().state)
    }

    /// What the history says of the last `limit` checkpoints, ids and times aside.
    async fn history(&self, limit: usize) -> Vec<(u64, i64, Value)> {
        let id = "t".into();
        let history = self.local.threads().history(&id, None, limit);
        let views = history.await.unwrap().into_iter();
        views
            .map(|view| (view.version, view.step, json!(view.values)))
            .collect()
    }

    async fn assert_clean(&self) {
        let verifier = Verifier::new(self.log.clone(), self.log.clone());
        let mut wrongs = Vec::new();
        let step = |step| {
            if let crate::Step::Wrong(wrong) = step {
                wrongs.push(wrong);
            }
        };
        verifier.all(step).await.unwrap();
        assert!(wrongs.is_empty(), "{wrongs:?}");
    }
}

#[tokio::test]
async fn the_last_checkpoints_stay_and_older_ones_go() {
    let (whole, pruned) = (Store::new(Retention::Whole), Store::new(Retention::Last(6)));
    for n in 0..30 {
        whole.run(n, false).await;
        pruned.run(n, false).await;
        let asked = pruned.history(6).await;
        assert_eq!(asked, whole.history(6).await, "after run {n}");
        pruned.assert_clean().await;
        pruned.clock.advance(BLOB_TTL / 5);
    }
    let (all, left) = (whole.kept().await, pruned.kept().await);
    assert!(all.oldest == 1 && all.blobs.len() > 60, "{all:?}");
    assert_eq!(left.head.unwrap().version, all.head.unwrap().version);
    assert!(left.records <= 6 + 4 * 5, "{left:?}");
    assert!(left.blobs.len() <= 26, "{left:?}");
    let state = pruned.state().await;
    assert_eq!(
        state.checkpoint.values,
        whole.state().await.checkpoint.values
    );
}

#[tokio::test]
async fn what_is_younger_than_the_age_stays() {
    let store = Store::new(Retention::For(Duration::from_secs(100)));
    let mut heads = Vec::new();
    for n in 0..40 {
        store.run(n, false).await;
        heads.push(store.kept().await.head.unwrap().version);
        store.clock.advance(Duration::from_secs(10));
    }
    let oldest = store.kept().await.oldest;
    // The last ten runs are young; a few ranges before them go with their snapshots.
    assert!(
        oldest <= heads[28] && oldest > heads[20],
        "{oldest} {heads:?}"
    );
    store.assert_clean().await;
}

#[tokio::test]
async fn an_open_question_keeps_what_asked_it() {
    let store = Store::new(Retention::Last(1));
    for n in 0..10 {
        store.run(n, false).await;
    }
    store.run(10, true).await;
    let state = store.state().await;
    let asked_by = state.open_questions().next().unwrap().1.opened_by;
    assert!(first_needed(&state, state.head.version) <= asked_by);
    assert!(first_needed(&state, 0) <= *state.untold.first().unwrap());
    let mut later = state.clone();
    later.head.version += 100;
    later.untold.clear();
    assert_eq!(
        first_needed(&later, 0),
        asked_by.min(state.saved.unwrap().0.version)
    );
    assert!(store.kept().await.oldest > 1);
    store.assert_clean().await;
}

#[tokio::test]
async fn what_may_not_be_on_disk_is_not_built_on() {
    let store = Store::new(Retention::Whole);
    for n in 0..5 {
        store.run(n, false).await;
    }
    store.clock.advance(Duration::from_secs(60));
    let before = store.kept().await.head.unwrap().version;
    for n in 5..10 {
        store.run(n, false).await;
    }
    let threads = store.local.threads().clone();
    let threads = threads.with_retention(Retention::Last(1));
    let state = store.state().await;
    let prune = async |durable_after| {
        let pruned = threads.try_prune(&state, state.head.version, durable_after);
        pruned.await.unwrap()
    };
    assert_eq!(prune(Duration::from_secs(100)).await, 0);
    assert!(prune(Duration::from_secs(30)).await > 0);
    // A snapshot of a minute ago and one before it: all that is young builds on them.
    let first = store.kept().await.oldest;
    assert!(first < before && before - first <= 8, "{first} {before}");
    assert!(prune(Duration::ZERO).await > 0);
    assert!(store.kept().await.oldest > before);
    store.assert_clean().await;
}

#[tokio::test]
async fn a_run_under_way_can_still_be_undone() {
    let store = Store::new(Retention::Whole);
    for n in 0..5 {
        store.run(n, false).await;
    }
    let threads = store.local.threads().clone();
    let threads = threads.with_retention(Retention::Last(1));
    let mut state = store.state().await;
    let since = state.head.version - 12;
    let run = state.run.as_mut().unwrap();
    run.since = since;
    let round = state.head;
    state.rounds.insert(round, run.id.clone());
    assert!(state.is_running());
    threads
        .try_prune(&state, u64::MAX, Duration::ZERO)
        .await
        .unwrap();
    let found = threads.at(&"t".into(), since).await.unwrap();
    assert_eq!(found.unwrap().1.head.version, since);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_a_pruning_writer_sees_whole_states() {
    let store = Arc::new(Store::new(Retention::Last(2)));
    store.run(0, false).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 1..60 {
                store.run(n, false).await;
            }
        }
    });
    while !writer.is_finished() {
        let state = store.state().await;
        assert!(state.saved.is_some());
        let history = store.history(2).await;
        assert!(!history.is_empty());
        let versions: Vec<u64> = history.iter().map(|(version, ..)| *version).collect();
        assert!(versions.is_sorted_by(|newer, older| newer > older));
    }
    writer.await.unwrap();
    assert!(store.kept().await.oldest > 100);
    store.assert_clean().await;
}
