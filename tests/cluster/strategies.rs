//! Several starts of one thread at once, and cancels, over worker processes on real servers.
//!
//! Eight starts of each strategy race on one thread; what came of them is compared with the order of
//! the records that accepted them, with the log that the runs' nodes added to, and with what those
//! noted outside. A cancel meets a run that runs, waits in the queue, sleeps, or has asked.
//!
//! The rule it keeps: the order is the log's. Which start comes first is nobody's choice here.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use superstep_protocol::{Head, RunStatus, ThreadStatus};
use superstep_tests::{Program, eventually_async};

use crate::SOON;
use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

const STARTS: usize = 8;

struct Scene {
    outside: Outside,
    store: Store,
    workers: Vec<Program>,
    cluster: Cluster,
}

impl Scene {
    async fn new(workers: usize, settings: Value) -> Self {
        let cluster = Cluster::start();
        let mut running = Vec::new();
        for n in 0..workers {
            let name = format!("w{n}");
            running.push(cluster.worker_with(&name, settings.clone()).await);
        }
        Self {
            outside: cluster.outside().await,
            store: cluster.store().await,
            workers: running,
            cluster,
        }
    }

    async fn start(&self, run: &str, how: &str, strategy: &str) -> Value {
        let start = json!({
            "thread_id": "t",
            "run_id": run,
            "input": {"how": how},
            "multitask_strategy": strategy,
        });
        let subject = "superstep.default.start.runs";
        self.outside.ask(subject, &[], start).await
    }

    async fn cancel(&self, body: Value) {
        let subject = "superstep.default.cancel.t";
        let reply = self.outside.ask(subject, &[], body).await;
        assert_eq!(reply["outcome"], "accepted", "{reply}");
    }

    /// Eight starts at once: those that were accepted in the order of their records, and the kinds of
    /// the refusals.
    async fn race(&self, strategy: &str) -> (Vec<String>, Vec<String>) {
        let runs: Vec<String> = (0..STARTS).map(|n| format!("r{n}")).collect();
        let replies = join_all(runs.iter().map(|run| self.start(run, "gate", strategy))).await;
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for (run, reply) in runs.into_iter().zip(replies) {
            if let Some(kind) = reply["refusal"]["kind"].as_str() {
                refused.push(kind.to_owned());
                continue;
            }
            let record: Head = reply["record"]
                .as_str()
                .expect("a record")
                .parse()
                .expect("a record's name");
            accepted.push((record.version, run));
        }
        accepted.sort();
        (accepted.into_iter().map(|(_, run)| run).collect(), refused)
    }

    async fn completed(&self, run: &str) {
        self.told("run_completed", run).await;
    }

    async fn told(&self, kind: &str, run: &str) {
        let what = format!("the event {kind} of {run}");
        eventually_async(&what, SOON, async || {
            let heard = self.outside.heard(kind, "t");
            heard
                .iter()
                .find(|told| told.body["run_id"] == run)
                .map(drop)
        })
        .await;
    }

    /// What the runs added to the log, once the thread rests.
    async fn log(&self, status: ThreadStatus) -> Vec<String> {
        let values = self.store.rests("t", status).await;
        let log = values.get("log").and_then(Value::as_array).cloned();
        let words = log.unwrap_or_default();
        words
            .iter()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    }

    /// What nodes noted, without the workers' names.
    fn ledger(&self) -> Vec<String> {
        let lines = self.cluster.ledger();
        let noted = lines.iter().filter_map(|line| line.rsplit_once(' '));
        noted.map(|(what, _)| what.to_owned()).collect()
    }

    fn workers_live(&mut self) {
        for worker in &mut self.workers {
            assert_eq!(worker.ended(), None);
        }
    }
}

fn each(runs: &[String], of: [&str; 2]) -> Vec<String> {
    let pairs = runs.iter();
    pairs
        .flat_map(|run| of.map(|what| format!("{what} {run}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_starts_runs_with_reject() {
    let mut scene = Scene::new(3, json!({})).await;
    let (accepted, refused) = scene.race("reject").await;
    assert_eq!(accepted.len(), 1, "{accepted:?}");
    assert_eq!(refused, vec!["busy"; STARTS - 1]);
    scene.cluster.write("open", "");
    scene.completed(&accepted[0]).await;
    assert_eq!(
        scene.log(ThreadStatus::Idle).await,
        each(&accepted, ["first", "second"])
    );
    assert_eq!(scene.ledger(), each(&accepted, ["begins", "ends"]));
    assert_eq!(scene.store.history("t").await.len(), 4);
    scene.workers_live();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_starts_run_in_turn_with_enqueue() {
    let mut scene = Scene::new(3, json!({})).await;
    let (accepted, refused) = scene.race("enqueue").await;
    assert_eq!((accepted.len(), refused.len()), (STARTS, 0), "{refused:?}");
    scene.cluster.write("open", "");
    scene.completed(&accepted[STARTS - 1]).await;
    assert_eq!(
        scene.log(ThreadStatus::Idle).await,
        each(&accepted, ["first", "second"])
    );
    // One at a time: each ends before the next begins.
    assert_eq!(scene.ledger(), each(&accepted, ["begins", "ends"]));
    assert_eq!(scene.store.history("t").await.len(), 4 * STARTS);
    scene.workers_live();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_many_starts_ends_the_others() {
    for strategy in ["interrupt", "rollback"] {
        let mut scene = Scene::new(3, json!({})).await;
        let (accepted, refused) = scene.race(strategy).await;
        assert_eq!((accepted.len(), refused.len()), (STARTS, 0), "{refused:?}");
        let (last, displaced) = accepted.split_last().expect("there are some");
        for run in displaced {
            scene.told("run_cancelled", run).await;
        }
        scene.cluster.noted(&format!("begins {last} "), 1).await;
        scene.cluster.write("open", "");
        scene.completed(last).await;

        let mut log = scene.log(ThreadStatus::Idle).await;
        let own = log.split_off(log.len().saturating_sub(2));
        assert_eq!(own, [format!("first {last}"), format!("second {last}")]);
        if strategy == "rollback" {
            assert_eq!(log, Vec::<String>::new());
        }
        // What was completed is kept, in the order of the runs, and no second node's write is.
        let firsts = displaced.iter().map(|run| format!("first {run}"));
        let kept: Vec<String> = firsts.filter(|first| log.contains(first)).collect();
        assert_eq!(log, kept);
        // No other run came to its end, and those that had begun were told.
        let ledger = scene.ledger();
        let ends: Vec<_> = ledger
            .iter()
            .filter(|line| line.starts_with("ends"))
            .collect();
        assert_eq!(ends, [&format!("ends {last}")]);
        for run in displaced {
            if ledger.contains(&format!("begins {run}")) {
                scene.cluster.noted(&format!("told {run} "), 1).await;
            }
        }
        scene.store.history("t").await;
        scene.workers_live();
    }
}

/// By default a worker looks at what it works on every third of its lease; here that would be too
/// late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_is_told_of_a_cancel_at_once() {
    const CANCELS: usize = 10;
    let scene = Scene::new(3, json!({"ack_wait_ms": 60_000})).await;
    let mut took = Vec::new();
    for n in 0..CANCELS {
        let run = format!("r{n}");
        scene.start(&run, "gate", "enqueue").await;
        scene.cluster.noted(&format!("begins {run} "), 1).await;
        let sent = Instant::now();
        scene.cancel(json!({"run_id": run})).await;
        scene.cluster.noted(&format!("told {run} "), 1).await;
        took.push(sent.elapsed());
        scene.told("run_cancelled", &run).await;
    }
    took.sort();
    let (median, worst) = (took[CANCELS / 2], took[CANCELS - 1]);
    eprintln!("from the cancel to the node: median {median:?}, worst {worst:?}");
    assert!(median < Duration::from_secs(1), "{took:?}");
    assert!(worst < Duration::from_secs(10), "{took:?}");
    let firsts: Vec<String> = (0..CANCELS).map(|n| format!("first r{n}")).collect();
    assert_eq!(scene.log(ThreadStatus::Interrupted).await, firsts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_ends_what_waits_too() {
    for how in ["ask", "sleep"] {
        let mut scene = Scene::new(2, json!({})).await;
        scene.start("r1", how, "enqueue").await;
        eventually_async("it waits", SOON, async || {
            let state = scene.store.state("t").await;
            (state.is_paused() || state.open_questions().next().is_some()).then_some(())
        })
        .await;
        scene.start("r2", "gate", "enqueue").await;
        // The one in the queue first; then the one before it.
        scene.cancel(json!({"run_id": "r2"})).await;
        scene.told("run_cancelled", "r2").await;
        scene.cancel(json!({})).await;
        scene.told("run_cancelled", "r1").await;
        assert_eq!(scene.log(ThreadStatus::Interrupted).await, ["first r1"]);
        let state = scene.store.state("t").await;
        assert_eq!(state.run.expect("it ran").status, RunStatus::Interrupted);

        scene.cluster.write("open", "");
        scene.start("r3", "gate", "enqueue").await;
        scene.completed("r3").await;
        let log = ["first r1", "first r3", "second r3"];
        assert_eq!(scene.log(ThreadStatus::Idle).await, log);
        assert_eq!(scene.ledger(), ["begins r3", "ends r3"]);
        scene.workers_live();
    }
}
