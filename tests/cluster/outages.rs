//! Servers go away and come back, while runs go on and while threads wait.
//!
//! What is not covered before workers reconcile: a work message that nobody holds when NATS comes
//! back with an empty disk is gone, and its thread stands still until something else brings it
//! up. So the tests that wipe NATS do it where all work is in the hands of workers, or none is out.
//!
//! The rule it keeps: everything that was started ends as if nothing had happened.

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::{Program, eventually_async};

use crate::SOON;
use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

/// A cluster with two workers, runs under way on it, and a thread that waits for an answer.
struct Busy {
    workers: [Program; 2],
    outside: Outside,
    store: Store,
    cluster: Cluster,
}

/// The threads that run: so many supersteps each.
const RUNNING: [&str; 6] = ["r-0", "r-1", "r-2", "r-3", "r-4", "r-5"];
const STEPS: u64 = 12;

impl Busy {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let workers = [cluster.worker("a").await, cluster.worker("b").await];
        let outside = cluster.outside().await;
        let store = cluster.store().await;
        outside
            .publish(
                "superstep.default.start.email",
                json!({"thread_id": "waits", "input": {"topic": "t"}}),
            )
            .await;
        outside.event("interrupt", "waits").await;
        for thread in RUNNING {
            outside
                .publish(
                    "superstep.default.start.steps",
                    json!({"thread_id": thread, "input": {"count": STEPS, "pause_ms": 100}}),
                )
                .await;
        }
        cluster.noted("step", RUNNING.len() * 3).await;
        Self {
            workers,
            outside,
            store,
            cluster,
        }
    }

    /// Answers the question, and checks that everything ends as it should.
    async fn ends_well(mut self) {
        self.outside
            .publish(
                "superstep.default.resume.waits",
                json!({"resume": {"approved": true}}),
            )
            .await;
        let seen: Vec<u64> = (0..STEPS).collect();
        for thread in RUNNING {
            let values = self.store.rests(thread, ThreadStatus::Idle).await;
            assert_eq!(values["seen"], json!(seen), "{thread}");
            assert_eq!(self.store.history(thread).await.len(), 14);
        }
        let values = self.store.rests("waits", ThreadStatus::Idle).await;
        assert_eq!(values["status"], "sent");
        assert_eq!(self.cluster.outbox("waits").len(), 1);
        self.store.history("waits").await;
        // The answer was published after the outage, so its events must be heard.
        self.outside.event("run_completed", "waits").await;
        for worker in &mut self.workers {
            assert_eq!(worker.ended(), None, "no worker dies of it");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_go_on_after_nats_was_killed() {
    let mut busy = Busy::start().await;
    busy.cluster.nats.kill();
    busy.cluster.nats.restart().expect("NATS comes back");
    busy.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_go_on_after_redis_was_killed() {
    let mut busy = Busy::start().await;
    busy.cluster.redis.kill();
    busy.cluster.redis.restart().expect("Redis comes back");
    busy.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_go_on_after_both_were_killed() {
    let mut busy = Busy::start().await;
    busy.cluster.redis.kill();
    busy.cluster.nats.kill();
    busy.cluster.nats.restart().expect("NATS comes back");
    busy.cluster.redis.restart().expect("Redis comes back");
    busy.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_go_on_after_redis_stood_still() {
    let busy = Busy::start().await;
    busy.cluster.redis.freeze();
    let ledger = busy.cluster.ledger().len();
    // Longer than a delivery may go unanswered: nobody can commit, everybody keeps what it holds.
    let pulled = busy.outside.publish(
        "superstep.default.start.steps",
        json!({"thread_id": "late", "input": {"count": 1}}),
    );
    pulled.await;
    eventually_async("a delivery comes again", SOON, async || {
        let stream = busy.outside.jetstream();
        let stream = stream.get_stream("SUPERSTEP_default_COMMANDS").await.ok()?;
        let consumer: Result<async_nats::jetstream::consumer::PullConsumer, _> =
            stream.get_consumer("workers").await;
        let info = consumer.ok()?.info().await.ok()?.clone();
        (info.num_redelivered > 0).then_some(())
    })
    .await;
    assert!(
        busy.cluster.ledger().len() <= ledger + RUNNING.len(),
        "no superstep begins before the one before it is stored"
    );
    busy.cluster.redis.thaw();
    busy.store.rests("late", ThreadStatus::Idle).await;
    busy.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_waits_through_an_emptied_nats() {
    let mut cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    outside
        .publish(
            "superstep.default.start.multi",
            json!({"thread_id": "t", "input": {"draft": "d"}}),
        )
        .await;
    let question = outside.event("interrupt", "t").await.body["interrupt"].clone();
    cluster.nats.wipe().expect("NATS loses everything");
    cluster.nats.restart().expect("NATS comes back");

    // The streams are made anew by whoever misses them first; then the answer is taken.
    let first = json!({"resume": {"edited_draft": "e"}, "interrupt_id": question["interrupt_id"]});
    let answered = outside.ask("superstep.default.resume.t", &[], first).await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    let values = eventually_async("the second question", SOON, async || {
        outside.heard("interrupt", "t").get(1).cloned()
    })
    .await;
    let second = &values.body["interrupt"];
    let second = json!({"resume": {"approved_draft": "f"}, "interrupt_id": second["interrupt_id"]});
    let answered = outside.ask("superstep.default.resume.t", &[], second).await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(values["final_draft"], "f");
    store.history("t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_ends_though_nats_was_emptied() {
    let mut cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let _b = cluster.worker("b").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    outside
        .publish(
            "superstep.default.start.spread",
            json!({"thread_id": "t", "input": {"count": 30, "wait_for": "go"}}),
        )
        .await;
    // All are in the hands of workers, so that no work message is lost.
    cluster.noted("item", 30).await;
    cluster.nats.wipe().expect("NATS loses everything");
    cluster.nats.restart().expect("NATS comes back");
    cluster.write("go", "");

    let values = store.rests("t", ThreadStatus::Idle).await;
    let results: Vec<Value> = (0..30_u64).map(|n| json!(n * n)).collect();
    assert_eq!(values["results"], json!(results));
    assert_eq!(store.history("t").await.len(), 5);
}
