//! How long a thread stands still when its worker is killed in a node, and when it is asked to go.
//!
//! A dead worker is noticed by the lease of its delivery, so the time is compared with `ack_wait`:
//! a claim that a worker leaves behind must not add to it, nor may polling. Kills fall on different
//! moments between two in-progress signals. The figures are printed.
//!
//! The rule it keeps: the time ends when another worker is in the node, as the node itself notes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use superstep_tests::{Program, eventually_async};

use crate::SOON;
use crate::cluster::{Cluster, works};
use crate::outside::Outside;

/// How often a worker is killed.
const KILLS: u32 = 50;
/// The lease that is set, and what may come on top of any.
const ACK_WAIT: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_secs(1);
/// What is promised with the default settings.
const DEFAULT_WORST: Duration = Duration::from_secs(8);
/// What is promised of a worker that is asked to go.
const TERMINATED_WORST: Duration = Duration::from_secs(1);

async fn start(outside: &Outside, graph: &str, thread: &str, input: Value) {
    let subject = format!("superstep.default.start.{graph}");
    let body = json!({"thread_id": thread, "input": input});
    outside.publish(&subject, body).await;
}

/// Waits for so many notes, and returns the name of the worker that made the last one.
async fn noted_by(cluster: &Cluster, what: &str, count: usize) -> String {
    let lines = cluster.noted(&format!("{what} "), count).await;
    let by = lines.last().and_then(|line| line.rsplit(' ').next());
    by.expect("a note names its worker").to_owned()
}

/// Prints median and worst, and returns the worst.
fn told(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!(
        "{what}: {} times, median {median:.3?}, worst {worst:.3?}",
        took.len()
    );
    worst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_workers_node_is_taken_over_soon() {
    let cluster = Cluster::start();
    let outside = cluster.outside().await;
    let mut born = 3;
    let mut workers: Vec<(String, Program)> = Vec::new();
    for name in ["w0", "w1", "w2"] {
        workers.push((name.to_owned(), cluster.worker(name).await));
    }
    let mut took = Vec::new();
    for kill in 0..KILLS {
        let thread = format!("t-{kill}");
        start(&outside, "gate", &thread, json!({"by": []})).await;
        let hold = format!("hold {thread}");
        let holder = noted_by(&cluster, &hold, 1).await;
        // Not a wait for anything: kills are to fall on all moments between two signals.
        tokio::time::sleep(ACK_WAIT * (kill % 10) / 8).await;
        let place = workers.iter().position(|(name, _)| *name == holder);
        let (_, mut dies) = workers.swap_remove(place.expect("the holder runs"));
        let began = Instant::now();
        dies.kill();
        let next = noted_by(&cluster, &hold, 2).await;
        took.push(began.elapsed());
        assert_ne!(next, holder);
        cluster.write(&format!("open.{thread}"), "");
        let name = format!("w{born}");
        born += 1;
        let mut worker = cluster.launch(&name, json!({}));
        works(&mut worker).await;
        workers.push((name, worker));
        outside.event("run_completed", &thread).await;
    }
    let worst = told(&format!("SIGKILL with ack_wait {ACK_WAIT:?}"), took);
    assert!(worst < ACK_WAIT + SLACK, "{worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_settings_continue_within_eight_seconds() {
    const THREADS: u32 = 8;
    let cluster = Cluster::start();
    let outside = cluster.outside().await;
    let defaults = json!({"ack_wait_ms": 0});
    let mut a = cluster.worker_with("a", defaults.clone()).await;
    for n in 0..THREADS {
        let thread = format!("t-{n}");
        start(&outside, "gate", &thread, json!({"by": []})).await;
        noted_by(&cluster, &format!("hold {thread}"), 1).await;
        // As above: each delivery has its own beat.
        tokio::time::sleep(Duration::from_millis(450)).await;
    }
    let _b = cluster.worker_with("b", defaults).await;
    let began = Instant::now();
    a.kill();
    let mut took = vec![None; THREADS as usize];
    eventually_async("all are taken over", SOON, async || {
        let ledger = cluster.ledger();
        for (n, took) in took.iter_mut().enumerate() {
            let taken = ledger.contains(&format!("hold t-{n} b"));
            *took = took.or(taken.then(|| began.elapsed()));
        }
        took.iter().all(Option::is_some).then_some(())
    })
    .await;
    let worst = told(
        "SIGKILL with the default settings",
        took.into_iter().flatten().collect(),
    );
    assert!(worst < DEFAULT_WORST, "{worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_asked_to_go_hands_over_within_a_second() {
    let cluster = Cluster::start();
    let outside = cluster.outside().await;
    let mut took = Vec::new();
    let mut goes = ("w0".to_owned(), cluster.worker("w0").await);
    for round in 1..=8 {
        let thread = format!("t-{round}");
        start(
            &outside,
            "steps",
            &thread,
            json!({"count": 12, "pause_ms": 100}),
        )
        .await;
        noted_by(&cluster, &format!("step {thread} 1"), 1).await;
        let name = format!("w{round}");
        let stays = cluster.worker(&name).await;
        let began = Instant::now();
        goes.1.terminate();
        let what = format!("worker {name} goes on with {thread}");
        eventually_async(&what, SOON, async || {
            let ledger = cluster.ledger();
            ledger
                .iter()
                .any(|line| line.starts_with(&format!("step {thread} ")) && line.ends_with(&name))
                .then_some(())
        })
        .await;
        took.push(began.elapsed());
        outside.event("run_completed", &thread).await;
        assert!(goes.1.wait(SOON).expect("it drains").success());
        goes = (name, stays);
    }
    let worst = told("SIGTERM", took);
    assert!(worst < TERMINATED_WORST, "{worst:?}");
}
