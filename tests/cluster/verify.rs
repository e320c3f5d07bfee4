//! `superstep verify` on a real Redis: it names what was damaged by hand, and nothing else.
//!
//! Threads that rest, ask, sleep, and are in the middle of a round are left behind by a worker that
//! was killed; then keys are changed as a person with `redis-cli` could change them. The same
//! verifier is also run again and again beside workers whose threads move.
//!
//! The rule it keeps: all that is found is compared, so what is told too much fails as well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::ThreadStatus;
use superstep_tests::eventually_async;
use superstep_tests::servers::Reply;
use superstep_worker::{Step, Summary, Verifier, Wrong};

use crate::SOON;
use crate::cluster::Cluster;
use crate::outside::Outside;

/// A round that no thread has had.
const NO_ROUND: &str = "1-00c0ffee00c0ffee";

/// A thread that is not there, and how keys of the shard begin that it would be in.
const NOBODY: &str = "order-42";
const SHARD_OF_NOBODY: &str = "superstep:{default:12}:";

/// What was found: the check, the thread and what it is about.
type Found = BTreeSet<(&'static str, String, String)>;

async fn verifier(cluster: &Cluster) -> Verifier {
    let log = RedisLog::connect(RedisSettings::new(&cluster.redis.url())).await;
    let log = Arc::new(log.expect("the log can be read"));
    Verifier::new(log.clone(), log)
}

async fn verify(verifier: &Verifier) -> (Summary, Vec<Wrong>) {
    let mut wrongs = Vec::new();
    let summary = verifier.all(|step| {
        if let Step::Wrong(wrong) = step {
            wrongs.push(wrong);
        }
    });
    let summary = summary.await.expect("the store can be read");
    assert_eq!(summary.wrong, wrongs.len() as u64);
    (summary, wrongs)
}

fn found(wrongs: &[Wrong]) -> Found {
    let wrongs = wrongs.iter();
    wrongs
        .map(|wrong| {
            let thread = wrong.thread_id.to_string();
            (wrong.check.as_str(), thread, wrong.subject.clone())
        })
        .collect()
}

fn expected(table: &[(&'static str, &str, &str)]) -> Found {
    let table = table.iter();
    table
        .map(|(check, thread, subject)| (*check, (*thread).to_owned(), (*subject).to_owned()))
        .collect()
}

/// What a person with `redis-cli` sees and does.
struct Hand<'a>(&'a Cluster);

impl Hand<'_> {
    fn run(&self, command: &[&str]) -> Reply {
        let reply = self.0.redis.command(command).expect("Redis answers");
        assert!(!matches!(reply, Reply::Error(_)), "{command:?}: {reply:?}");
        reply
    }

    /// Does something that must change so many entries.
    fn changes(&self, count: i64, command: &[&str]) {
        assert_eq!(self.run(command), Reply::Integer(count), "{command:?}");
    }

    fn texts(&self, command: &[&str]) -> Vec<String> {
        let Reply::List(list) = self.run(command) else {
            panic!("{command:?} gives a list");
        };
        let texts = list.iter().filter_map(Reply::text);
        texts.map(str::to_owned).collect()
    }

    fn text(&self, command: &[&str]) -> String {
        let reply = self.run(command);
        let text = reply.text();
        text.unwrap_or_else(|| panic!("{command:?}: {reply:?}"))
            .to_owned()
    }

    /// The hash of a thread.
    fn thread(&self, thread: &str) -> String {
        let keys = self.texts(&["KEYS", &format!("*}}:t:{thread}")]);
        let [key] = &keys[..] else {
            panic!("one key for {thread}: {keys:?}");
        };
        key.clone()
    }

    /// A key of the thread's shard.
    fn beside(&self, thread: &str, name: &str) -> String {
        let key = self.thread(thread);
        let shard = key.strip_suffix(&format!("t:{thread}"));
        format!("{}{name}", shard.expect("a key of that end"))
    }

    /// The thread's records, as they lie in its hash.
    fn records(&self, thread: &str) -> Vec<(u64, String)> {
        let fields = self.texts(&["HGETALL", &self.thread(thread)]);
        let pairs = fields.chunks_exact(2);
        let mut records: Vec<(u64, String)> = pairs
            .filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].clone())))
            .collect();
        records.sort_unstable();
        records
    }

    /// Changes the newest record for which `change` says that it did.
    fn rewrite(&self, thread: &str, change: impl Fn(&mut Value) -> bool) -> u64 {
        for (version, field) in self.records(thread).into_iter().rev() {
            let at = field.find('{').expect("a record is JSON");
            let (place, record) = field.split_at(at);
            let mut record: Value = serde_json::from_str(record).expect("a record is JSON");
            if change(&mut record) {
                let field = format!("{place}{record}");
                let version_field = version.to_string();
                self.changes(0, &["HSET", &self.thread(thread), &version_field, &field]);
                return version;
            }
        }
        panic!("no record of {thread} is like that");
    }

    /// The open round of a thread.
    fn round(&self, thread: &str) -> String {
        let fields = self.texts(&["HKEYS", &self.thread(thread)]);
        let round = fields.iter().find_map(|field| field.strip_prefix("r:"));
        round.expect("a round is open").to_owned()
    }

    /// The only one of a thread's questions and timers, as its own set has it.
    fn entry(&self, thread: &str) -> String {
        let own = self.beside(thread, &format!("x:{thread}"));
        let entries = self.texts(&["ZRANGE", &own, "0", "-1"]);
        let [entry] = &entries[..] else {
            panic!("one entry of {thread}: {entries:?}");
        };
        entry.clone()
    }
}

async fn start(outside: &Outside, graph: &str, thread: &str, input: Value) {
    let config = json!({"recursion_limit": 100});
    let start = json!({"thread_id": thread, "input": input, "config": config});
    let subject = format!("superstep.default.start.{graph}");
    let reply = outside.ask(&subject, &[], start).await;
    assert_eq!(reply["outcome"], "accepted", "{reply}");
}

/// A store in which nothing moves: threads that rest, ask, sleep, and were running when their
/// worker was killed.
async fn left_behind() -> (Cluster, Verifier) {
    let cluster = Cluster::start();
    let mut worker = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    for thread in ["rests-1", "rests-2"] {
        start(&outside, "steps", thread, json!({"count": 40})).await;
    }
    start(&outside, "spread", "spread", json!({"count": 3})).await;
    for thread in ["asks-1", "asks-2", "asks-3"] {
        start(&outside, "runs", thread, json!({"how": "ask"})).await;
    }
    start(&outside, "runs", "sleeps", json!({"how": "sleep"})).await;
    for thread in ["held-1", "held-2"] {
        start(&outside, "gate", thread, json!({})).await;
        cluster.noted(&format!("hold {thread}"), 1).await;
    }
    let wide = json!({"count": 4, "wait_for": "never"});
    start(&outside, "spread", "wide", wide).await;
    cluster.noted("item", 7).await;
    for thread in ["rests-1", "rests-2", "spread"] {
        store.rests(thread, ThreadStatus::Idle).await;
    }
    for thread in ["asks-1", "asks-2", "asks-3"] {
        store.rests(thread, ThreadStatus::Interrupted).await;
    }
    let sleeps = Hand(&cluster).beside("sleeps", "x:sleeps");
    eventually_async("the thread sleeps", SOON, async || {
        let there = Hand(&cluster).run(&["EXISTS", &sleeps]);
        (there == Reply::Integer(1)).then_some(())
    })
    .await;
    worker.kill();
    let verifier = verifier(&cluster).await;
    let (summary, wrongs) = verify(&verifier).await;
    assert_eq!(wrongs, [], "before anything is damaged");
    assert_eq!(summary.threads, 10);
    (cluster, verifier)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_every_hint_and_mends_it() {
    let (cluster, verifier) = left_behind().await;
    let hand = Hand(&cluster);

    // A row that lies, and one in a list beside its own.
    let asks = hand.thread("asks-1");
    let row = hand.text(&["HGET", &asks, "i"]);
    hand.changes(0, &["HSET", &asks, "i", &format!("1{}", &row[1..])]);
    let errors = hand.beside("rests-1", "l:4:steps");
    hand.changes(1, &["ZADD", &errors, "-5", "rests-1"]);
    // A watch entry that is gone, and one that is gone from the index alone.
    hand.changes(1, &["HDEL", &hand.thread("held-1"), "w"]);
    hand.changes(1, &["ZREM", &hand.beside("held-1", "w"), "held-1"]);
    hand.changes(1, &["ZREM", &hand.beside("held-2", "w"), "held-2"]);
    // A question that nobody is shown, and one that is not open.
    let question = hand.entry("asks-2");
    hand.changes(1, &["DEL", &hand.beside("asks-2", "x:asks-2")]);
    let own = hand.beside("asks-3", "x:asks-3");
    let questions = hand.beside("asks-3", "q");
    hand.changes(1, &["ZADD", &own, "5", "qno-such-question"]);
    let member = "no-such-question\0\u{1}asks-3";
    hand.changes(1, &["ZADD", &questions, "5", member]);
    // A timer at another time than the log says.
    let timer = hand.entry("sleeps");
    let own = hand.beside("sleeps", "x:sleeps");
    hand.changes(1, &["ZADD", &own, "CH", "5", &timer]);
    // A round that takes no results, one that is over and takes them, and results of none.
    let round = hand.round("wide");
    hand.changes(1, &["HDEL", &hand.thread("wide"), &format!("r:{round}")]);
    let over = format!("r:{NO_ROUND}");
    hand.changes(1, &["HSET", &hand.thread("spread"), &over, ""]);
    let results = hand.beside("rests-2", &format!("r:{NO_ROUND}:rests-2"));
    hand.changes(1, &["HSET", &results, "task", "{}"]);
    let results = format!("{SHARD_OF_NOBODY}r:{NO_ROUND}:{NOBODY}");
    hand.changes(1, &["HSET", &results, "task", "{}"]);

    let (_, wrongs) = verify(&verifier).await;
    let (question, timer) = (&question[1..], &timer[1..]);
    let table = [
        ("index", "asks-1", "row"),
        ("strays", "asks-1", "list entry 3:runs"),
        ("strays", "rests-1", "list entry 4:steps"),
        ("owner", "held-1", "watch"),
        ("index", "asks-2", &format!("question {question}")),
        ("strays", "asks-2", &format!("open question {question}")),
        ("index", "asks-3", "question no-such-question"),
        ("index", "sleeps", &format!("timer {timer}")),
        ("index", "wide", &format!("round {round}")),
        ("index", "spread", &format!("round {NO_ROUND}")),
        (
            "strays",
            "rests-2",
            &format!("results of a round {NO_ROUND}"),
        ),
        ("strays", NOBODY, &format!("results of a round {NO_ROUND}")),
    ];
    // An entry that differs from its twin is told beside this, in words.
    let (torn, named): (Vec<Wrong>, Vec<Wrong>) = wrongs
        .iter()
        .cloned()
        .partition(|wrong| wrong.detail == "its two entries should be the same");
    let named = found(&named);
    assert_eq!(named, expected(&table), "{wrongs:#?}");
    let torn: BTreeSet<String> = torn.iter().map(|w| w.thread_id.to_string()).collect();
    let twins = ["asks-1", "held-2", "sleeps"].map(str::to_owned);
    assert_eq!(torn, BTreeSet::from(twins), "{wrongs:#?}");

    let threads = ["asks-1", "asks-2", "held-1", "rests-1", "sleeps", "wide"];
    let before = threads.map(|thread| hand.records(thread));
    let (summary, mended) = verify(&verifier.clone().with_repair(true)).await;
    assert_eq!(summary.repaired, summary.wrong, "{mended:#?}");
    assert!(summary.repaired >= 11, "{mended:#?}");
    assert_eq!(threads.map(|thread| hand.records(thread)), before);
    let (_, left) = verify(&verifier).await;
    assert_eq!(left, [], "after the repair");
    // What was mended is not only not told of: whoever goes on finds it.
    let outside = cluster.outside().await;
    let _worker = cluster.worker("b").await;
    for thread in ["held-1", "held-2"] {
        cluster.write(&format!("open.{thread}"), "");
        outside.event("run_completed", thread).await;
    }
    cluster.write("never", "");
    outside.event("run_completed", "wide").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_damaged_history_and_leaves_it() {
    let (cluster, verifier) = left_behind().await;
    let hand = Hand(&cluster);

    let snapshot = hand.rewrite("rests-1", |record| {
        let seen = record.pointer_mut("/snapshot/checkpoint/values/seen");
        let Some(Value::Array(seen)) = seen else {
            return false;
        };
        seen.pop().is_some()
    });
    assert!(snapshot > 1);
    hand.changes(1, &["HDEL", &hand.thread("rests-2"), "20"]);
    let count = hand.rewrite("spread", |record| {
        let traces = record.pointer_mut("/body/committed/traces");
        let Some(Value::Array(traces)) = traces else {
            return false;
        };
        traces.len() == 3 && traces.pop().is_some()
    });
    let round = hand.round("wide");
    let results = hand.beside("wide", &format!("r:{round}:wide"));
    hand.changes(1, &["HSET", &results, "no-such-task", "{}"]);
    let head = hand.text(&["HGET", &hand.thread("asks-1"), "h"]);
    let lie = head.replacen(|c: char| c.is_ascii_digit(), "9", 1);
    hand.changes(0, &["HSET", &hand.thread("asks-1"), "h", &lie]);

    let damaged = ["rests-1", "rests-2", "spread", "wide", "asks-1"];
    let before = damaged.map(|thread| hand.records(thread));
    let (_, wrongs) = verify(&verifier).await;
    let of = |thread: &str| {
        let wrongs = wrongs.iter();
        let mut found: Vec<(&str, Option<u64>)> = wrongs
            .filter(|wrong| wrong.thread_id.as_str() == thread)
            .map(|wrong| (wrong.check.as_str(), wrong.record))
            .collect();
        found.dedup();
        found
    };
    assert_eq!(
        of("rests-1"),
        [("snapshots", Some(snapshot))],
        "{wrongs:#?}"
    );
    let gap = of("rests-2");
    assert!(gap.contains(&("chain", Some(21))), "{wrongs:#?}");
    assert!(gap.iter().all(|(check, _)| *check == "chain"), "{gap:?}");
    assert_eq!(of("spread"), [("writes", Some(count))], "{wrongs:#?}");
    let opened = round
        .split('-')
        .next()
        .and_then(|number| number.parse().ok());
    assert_eq!(of("wide"), [("writes", opened)], "{wrongs:#?}");
    assert!(!of("asks-1").is_empty(), "{wrongs:#?}");
    let threads: BTreeSet<&str> = wrongs.iter().map(|w| w.thread_id.as_str()).collect();
    assert_eq!(threads, BTreeSet::from(damaged), "{wrongs:#?}");

    let (summary, again) = verify(&verifier.clone().with_repair(true)).await;
    assert_eq!(summary.repaired, 0, "{again:#?}");
    assert_eq!(found(&again), found(&wrongs));
    assert_eq!(damaged.map(|thread| hand.records(thread)), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_beside_running_workers_finds_nothing() {
    const THREADS: usize = 40;
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let _b = cluster.worker("b").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let verifier = verifier(&cluster).await;
    let asking: Vec<String> = (0..THREADS)
        .filter(|n| n % 4 == 0)
        .map(|n| format!("t-{n}"))
        .collect();
    for n in 0..THREADS {
        let (graph, input) = match n % 4 {
            0 => (
                "mixed",
                json!({"items": 5, "fails": 1, "asks": true, "nap_ms": 50}),
            ),
            1 => ("spread", json!({"count": 20, "pause_ms": 100})),
            _ => ("steps", json!({"count": 60, "pause_ms": 20})),
        };
        let config = json!({"recursion_limit": 100});
        let thread = format!("t-{n}");
        let start = json!({"thread_id": thread, "input": input, "config": config});
        let subject = format!("superstep.default.start.{graph}");
        outside.publish(&subject, start).await;
    }
    let mut passes = 0;
    let answered = async {
        for thread in &asking {
            outside.event("interrupt", thread).await;
            let subject = format!("superstep.default.resume.{thread}");
            let told = outside.ask(&subject, &[], json!({"resume": "yes"})).await;
            assert_eq!(told["outcome"], "accepted", "{told}");
        }
    };
    let looking = async {
        let within = tokio::time::Instant::now() + Duration::from_secs(150);
        while store.count(Some(ThreadStatus::Idle)).await < THREADS {
            let (summary, wrongs) = verify(&verifier).await;
            assert_eq!(wrongs, [], "in pass {passes}: {summary:?}");
            passes += 1;
            assert!(tokio::time::Instant::now() < within, "the threads end");
        }
    };
    tokio::join!(answered, looking);
    assert!(passes >= 3, "{passes} passes while threads moved");
    let (summary, wrongs) = verify(&verifier).await;
    assert_eq!(wrongs, []);
    assert_eq!(summary.threads, THREADS as u64);
    println!("{passes} passes beside running workers, {summary:?}");
}
