//! A worker aborts at every line where one can be seen from outside, and another one goes on.
//!
//! One row a point: worker `a` has a namespace of its own and dies there, then worker `b` is
//! started. The run is of everything at once: a chain, a fan-out, a question with its answer and a
//! second one that is refused, a sleep. Its history and values are compared with those of a run
//! that nobody disturbed, and the ledger says which nodes ran again.
//!
//! The rule it keeps: a row whose worker does not die is a failure, not a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::eventually_async;
use superstep_tests::servers::{NatsOptions, RedisOptions};

use crate::SOON;
use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

/// The signal that `abort` ends a process with.
const ABORTED: i32 = 6;
/// The packets of the fan-out: so many tasks may run beside each other when a worker dies.
const ITEMS: usize = 3;
/// How many rows are run at once.
const AT_ONCE: usize = 6;

/// A point, at which time of coming there, and how many nodes at most run again for it.
#[derive(Clone, Copy, Debug)]
struct Row {
    point: &'static str,
    time: u64,
    again_max: usize,
    run_ahead: u32,
    /// How long the second node works.
    slow_ms: u64,
    /// Which publish of work is lost before.
    lose_work: u64,
}

const fn row(point: &'static str, time: u64, again_max: usize) -> Row {
    Row {
        point,
        time,
        again_max,
        run_ahead: 0,
        slow_ms: 0,
        lose_work: 0,
    }
}

const fn ahead(row: Row) -> Row {
    Row {
        run_ahead: 100,
        ..row
    }
}

/// Every point of the way of a superstep and of a command, in their order. Where work is out when the
/// worker dies, it may be in one of its nodes too.
const ROWS: &[Row] = &[
    // A start: handed over, decided, told, acked.
    row("command handed over", 1, 0),
    row("append started", 1, 0),
    row("appended started", 1, 0),
    row("before reply", 1, 1),
    row("after reply", 1, 1),
    row("before ack of command", 1, 1),
    // Work: handed over, in the node, around the append, the publishes and the ack.
    row("work handed over", 1, 0),
    row("work handed over", 2, 0),
    row("in first", 1, 1),
    row("done first", 1, 1),
    row("append committed", 2, 1),
    row("appended committed", 2, 0),
    ahead(row("in second", 1, 1)),
    ahead(row("append committed", 2, 1)),
    ahead(row("appended committed", 2, 0)),
    row("before events", 1, 0),
    row("after events", 1, 0),
    row("before work", 1, 0),
    row("before work", 2, 0),
    row("after work", 1, 1),
    row("after work", 2, 1),
    row("before ack of work", 1, 1),
    row("before ack of work", 2, 1),
    Row {
        slow_ms: 900,
        ..row("claimed", 1, 1)
    },
    // The fan-out: its publish, its results, its closing.
    row("first of several works", 1, 0),
    row("in item", 2, ITEMS),
    row("before put_result", 2, ITEMS),
    row("after put_result", 1, ITEMS),
    row("after put_result", 3, ITEMS),
    row("close", 1, 0),
    row("closed", 1, 0),
    // The question and its answers.
    row("append interrupted", 1, 0),
    row("appended interrupted", 1, 0),
    row("command handed over", 2, 0),
    row("append resumed", 1, 0),
    row("appended resumed", 1, 0),
    row("before reply", 2, 1),
    row("in ask", 1, 1),
    row("before outcome", 1, 1),
    row("after outcome", 1, 1),
    row("before ack of command", 2, 1),
    // The sleep and its timer.
    row("append paused", 1, 0),
    row("appended paused", 1, 0),
    row("append woken", 1, 0),
    row("appended woken", 1, 0),
    row("in nap", 1, 1),
    row("in last", 1, 1),
    // The reconciler, about to publish again what was lost.
    Row {
        lose_work: 2,
        ..row("reconciling", 1, 0)
    },
];

/// What can be told of a run that does not name it.
#[derive(Debug, PartialEq)]
struct Ended {
    history: Vec<(i64, &'static str, Value, Vec<String>)>,
    /// How many keys each node acted under.
    effects: BTreeMap<String, usize>,
}

/// A run that a plain client starts and answers.
struct Run<'a> {
    cluster: &'a Cluster,
    outside: Outside,
    namespace: String,
    settings: Value,
    answered: bool,
    answered_again: bool,
}

impl<'a> Run<'a> {
    async fn begin(cluster: &'a Cluster, namespace: &str, row: Row) -> Self {
        let outside = Outside::connect_in(&cluster.nats.url(), namespace).await;
        let settings = json!({
            "namespace": namespace,
            "run_ahead_supersteps": row.run_ahead,
            "short_pause_max_ms": 50,
        });
        Self {
            cluster,
            outside,
            namespace: namespace.to_owned(),
            settings,
            answered: false,
            answered_again: false,
        }
    }

    async fn start(&self, slow_ms: u64) {
        let input = json!({
            "items": ITEMS, "fails": 1, "asks": true, "nap_ms": 300, "slow_ms": slow_ms,
        });
        let body = json!({"thread_id": self.thread(), "input": input});
        self.send("start.mixed", &body).await;
    }

    /// The thread is called as its namespace: the ledger is shared.
    fn thread(&self) -> &str {
        &self.namespace
    }

    async fn send(&self, target: &str, body: &Value) {
        let subject = format!("superstep.{}.{target}", self.namespace);
        let headers = [("Superstep-Reply", "nobody.listens")];
        let body = body.to_string().into_bytes();
        self.outside.publish_with(&subject, &headers, body).await;
    }

    /// Answers once the question is there, and once more when that was accepted.
    async fn answer(&mut self) {
        let Some(asked) = self.outside.heard("interrupt", self.thread()).pop() else {
            return;
        };
        let id = &asked.body["interrupt"]["interrupt_id"];
        let answer = json!({"resume": "yes", "interrupt_id": id});
        let target = format!("resume.{}", self.thread());
        let accepted = !self
            .outside
            .heard("resume_accepted", self.thread())
            .is_empty();
        if !self.answered {
            self.answered = true;
            self.send(&target, &answer).await;
        } else if accepted && !self.answered_again {
            self.answered_again = true;
            self.send(&target, &answer).await;
        }
    }

    /// Sees the run through, and tells how it ended and how many runs of nodes it took.
    async fn ends(mut self) -> (Ended, usize) {
        let what = format!("the run {} ends", self.namespace);
        eventually_async(&what, SOON, async || {
            self.answer().await;
            let told = |kind| !self.outside.heard(kind, self.thread()).is_empty();
            (told("run_completed") && told("resume_refused")).then_some(())
        })
        .await;
        for kind in ["run_completed", "resume_accepted", "interrupt"] {
            let told = self.outside.heard(kind, self.thread()).len();
            assert_eq!(told, 1, "{}: events {kind}", self.namespace);
        }
        let store = Store::connect_in(&self.cluster.redis.url(), &self.namespace).await;
        store.rests(self.thread(), ThreadStatus::Idle).await;
        let history = store.history(self.thread()).await;
        let shown = history.into_iter().map(|checkpoint| {
            let next = checkpoint.next.iter().map(ToString::to_string).collect();
            let values = Value::Object(checkpoint.values);
            (checkpoint.step, checkpoint.source, values, next)
        });
        let mine = format!("effect {} ", self.thread());
        let ledger = self.cluster.ledger();
        let lines: Vec<&str> = ledger
            .iter()
            .filter_map(|line| line.strip_prefix(&mine))
            .collect();
        let keys: BTreeSet<(&str, &str)> = lines
            .iter()
            .filter_map(|line| line.rsplit_once(' ')?.0.split_once(' '))
            .collect();
        let mut effects = BTreeMap::new();
        for (node, _) in keys {
            *effects.entry(node.to_owned()).or_default() += 1;
        }
        let ended = Ended {
            history: shown.collect(),
            effects,
        };
        (ended, lines.len())
    }
}

async fn undisturbed(cluster: &Cluster, slow_ms: u64) -> (Ended, usize) {
    let name = format!("calm-{slow_ms}");
    let run = Run::begin(cluster, &name, row("", 0, 0)).await;
    let _a = cluster.worker_with(&name, run.settings.clone()).await;
    run.start(slow_ms).await;
    run.ends().await
}

/// One row: what is wrong with it, if anything is.
async fn check(cluster: &Cluster, number: usize, row: Row) -> (String, Ended, usize) {
    let name = format!("{number}-{}", row.point.replace(' ', "-"));
    let mut run = Run::begin(cluster, &name, row).await;
    let mut told = run.settings.clone();
    told["die_at"] = json!({"point": row.point, "time": row.time, "lose_work": row.lose_work});
    let mut a = cluster.launch(&format!("{name}-a"), told);
    run.start(row.slow_ms).await;
    let what = format!("worker a dies at `{}` ({})", row.point, row.time);
    let died = eventually_async(&what, SOON, async || {
        run.answer().await;
        a.ended()
    })
    .await;
    assert_eq!(died.signal(), Some(ABORTED), "{what}: {died}");
    let _b = cluster.launch(&format!("{name}-b"), run.settings.clone());
    let (ended, runs) = run.ends().await;
    (name, ended, runs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_worker_goes_on_wherever_one_dies() {
    let began = Instant::now();
    // Each namespace reserves what its streams may hold, and there is one a row.
    let nats = NatsOptions {
        jetstream_config: "max_file_store: 10TB".to_owned(),
        ..NatsOptions::default()
    };
    let cluster = Cluster::with(nats, RedisOptions::default());
    let (expected, runs_expected) = undisturbed(&cluster, 0).await;
    let (slow, _) = undisturbed(&cluster, 900).await;
    let checks = ROWS
        .iter()
        .enumerate()
        .map(|(number, row)| check(&cluster, number, *row));
    let ended: Vec<_> = futures_util::stream::iter(checks)
        .map(|check| AssertUnwindSafe(check).catch_unwind())
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut wrong = Vec::new();
    for (ended, row) in ended.into_iter().zip(ROWS) {
        let expected = if row.slow_ms > 0 { &slow } else { &expected };
        let Ok((name, ended, runs)) = ended else {
            wrong.push(format!("{row:?}: did not come to its end"));
            continue;
        };
        if ended != *expected {
            wrong.push(format!("{name}: {ended:?}, undisturbed {expected:?}"));
        }
        if runs < runs_expected || runs > runs_expected + row.again_max {
            wrong.push(format!(
                "{name}: {runs} runs of nodes, {runs_expected} undisturbed, at most {} again",
                row.again_max
            ));
        }
    }
    eprintln!("{} points in {:?}", ROWS.len(), began.elapsed());
    assert_eq!(wrong, [""; 0], "what differs from an undisturbed run");
}
