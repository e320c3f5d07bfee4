//! A healthy store is clean, and each way to damage one is found as exactly that.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use superstep_checkpoint::{
    Kept, StoredRecord, Stray, StrayKind,
    memory::{MemoryLog, Tampered},
};
use superstep_graph::{
    Branch, ChannelKind, END, GraphBuilder, NodeSpec, Reducer, START, Send, Target,
};
use superstep_protocol::{
    CommandRef, Event, GraphId, Nonce, Profile, Record, RecordBody, RunId, Start, Strategy, Terms,
    ThreadStatus, UnixMillis,
};
use superstep_wire::record;

use super::*;
use crate::{
    Graphs, Local, Node, NodeContext, NodeError, NodeReturn, RunOptions, RunnableGraph,
    SystemWorld, WorkerSettings, engine::Engine, threads::Threads,
};

fn id() -> GraphId {
    GraphId {
        name: "letter".into(),
        version: "1".into(),
    }
}

/// Spreads over two tasks that add to a list, then asks if the input says so.
fn graph() -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .channel("ask", ChannelKind::Last)
        .channel("big", ChannelKind::Last)
        .channel("log", ChannelKind::Reduce(Reducer::Append));
    for node in ["spread", "work", "end"] {
        builder.node(NodeSpec::new(node));
    }
    builder
        .edge(START, "spread")
        .edge("work", "end")
        .edge("end", END);
    builder.branch(
        "spread",
        Branch::new(|_: &Value| {
            let send = |n| Target::Send(Send::new("work", json!({"n": n})));
            Ok((1..=2).map(send).collect())
        }),
    );
    let spread = |_: Value, _: NodeContext| async { Ok(NodeReturn::Update(Value::Null)) };
    let work = |input: Value, _: NodeContext| async move {
        Ok::<_, NodeError>(NodeReturn::Update(json!({"log": [input["n"]]})))
    };
    let end = |input: Value, ctx: NodeContext| async move {
        if input["ask"] == true {
            let _: Value = ctx.interrupt("?").await?;
        }
        Ok(NodeReturn::Update(json!({"log": ["end"]})))
    };
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([
        ("spread".into(), Arc::new(spread) as Arc<dyn Node>),
        ("work".into(), Arc::new(work) as _),
        ("end".into(), Arc::new(end) as _),
    ]);
    RunnableGraph::new(id(), builder.compile().unwrap(), nodes).unwrap()
}

struct Store {
    log: Arc<MemoryLog>,
}

/// Threads that rest, ask, wait to be worked on, and are deleted; small ranges, large values.
async fn store() -> Store {
    let log = Arc::new(MemoryLog::new());
    let mut settings = WorkerSettings::default();
    settings.limits.snapshot_every = 4;
    settings.limits.inline_bytes_max = 64;
    let mut graphs = Graphs::new();
    graphs.add(graph());
    let world = Arc::new(SystemWorld);
    let local = Local::new(graphs.clone(), log.clone(), world.clone(), settings.clone());
    let run = async |thread: &str, ask: bool, n: usize| {
        let input = json!({"ask": ask, "big": format!("{n}").repeat(100)});
        let options = RunOptions::default();
        local
            .invoke(&id(), &thread.into(), input, options)
            .await
            .unwrap();
    };
    for n in 0..4 {
        run("rests", false, n).await;
    }
    run("asks", false, 7).await;
    run("asks", true, 8).await;
    run("deleted", true, 9).await;
    local.delete(&"deleted".into()).await.unwrap();
    let threads = Threads::new(log.clone(), world, settings.limits, settings.store_retry);
    let engine = Engine::new(threads, Arc::new(graphs));
    let start = Event::Start(Box::new(Start {
        command: CommandRef {
            id: "c".into(),
            sent_at: UnixMillis(1),
            sender: None,
            trace: None,
            tracestate: None,
        },
        run: RunId::new("r"),
        graph: id(),
        topology: None,
        profile: Profile::Default,
        input: json!({}),
        recursion_limit: 25,
        config: serde_json::Map::new(),
        metadata: serde_json::Map::new(),
        terms: Terms::default(),
        at: None,
        strategy: Strategy::Reject,
        not_before: None,
        before: None,
    }));
    let busy = "busy".into();
    Box::pin(engine.accept(&busy, &start, None, || None))
        .await
        .unwrap();
    Store { log }
}

impl Store {
    async fn wrongs(&self, repair: bool) -> Vec<Wrong> {
        let verifier = Verifier::new(self.log.clone(), self.log.clone()).with_repair(repair);
        let mut wrongs = Vec::new();
        let summary = verifier.all(|step| {
            if let Step::Wrong(wrong) = step {
                wrongs.push(wrong);
            }
        });
        let summary = summary.await.unwrap();
        assert_eq!(summary.wrong, wrongs.len() as u64);
        assert!(summary.records > 20, "{summary:?}");
        wrongs
    }

    async fn kept(&self, thread: &str) -> Kept {
        self.log.kept(&thread.into()).await.unwrap().unwrap()
    }
}

/// Changes a record as it lies in the log.
fn rewrite(held: &mut Tampered, version: u64, change: impl FnOnce(&mut Record)) {
    let stored = held.records.get_mut(&version).unwrap();
    let decoded = record::decode(&stored.bytes).unwrap();
    let blobs = held.blobs.clone();
    let mut changed = decoded.resolve(&blobs).unwrap();
    change(&mut changed);
    let encoded = record::encode(changed, 64);
    let blobs = encoded.blobs.into_iter();
    held.blobs
        .extend(blobs.map(|(id, bytes)| (id, bytes.into())));
    stored.bytes = encoded.bytes.into();
}

/// The first version whose record is like that.
fn find(held: &Tampered, wanted: impl Fn(&StoredRecord, &Record) -> bool) -> u64 {
    let found = held.records.values().find(|stored| {
        let decoded = record::decode(&stored.bytes).unwrap();
        wanted(stored, &decoded.resolve(&held.blobs).unwrap())
    });
    found.unwrap().head.version
}

fn a_later_snapshot(held: &Tampered) -> u64 {
    find(held, |stored, _| {
        stored.is_snapshot() && stored.head.version > 1
    })
}

fn a_fan_in(held: &Tampered) -> u64 {
    find(held, |stored, record| {
        matches!(&record.body, RecordBody::Committed(c) if c.traces.len() == 2)
            && !stored.is_snapshot()
    })
}

#[tokio::test(start_paused = true)]
async fn a_healthy_store_is_clean() {
    let store = store().await;
    assert_eq!(store.wrongs(false).await, []);
    assert!(store.kept("rests").await.records > 12);
    assert!(!store.kept("rests").await.blobs.is_empty());
    assert!(store.kept("busy").await.watched.is_some());
}

/// Each way to damage a thread, and the checks that fail by it.
#[tokio::test(start_paused = true)]
async fn each_damage_is_found_as_what_it_is() {
    type Change = fn(&mut Tampered);
    let table: &[(&str, &str, &[Check], Change)] = &[
        (
            "a record in between is lost",
            "rests",
            &[Check::Chain],
            |held| {
                held.records.remove(&7);
            },
        ),
        (
            "the first snapshot is lost",
            "rests",
            &[Check::Chain],
            |held| {
                held.records.remove(&1);
            },
        ),
        ("a record is another's", "rests", &[Check::Chain], |held| {
            let version = a_fan_in(held);
            let other = held.records[&(version + 1)].bytes.clone();
            held.records.get_mut(&version).unwrap().bytes = other;
        }),
        ("a record is no record", "rests", &[Check::Chain], |held| {
            held.records.get_mut(&3).unwrap().bytes = "{}".into();
        }),
        ("time goes back", "rests", &[Check::Chain], |held| {
            let version = a_fan_in(held);
            rewrite(held, version - 1, |record| {
                record.time = UnixMillis(u64::MAX >> 12);
            });
        }),
        (
            "a ghost answers what was not asked",
            "rests",
            &[Check::Chain],
            |held| {
                let version = a_fan_in(held);
                rewrite(held, version, |record| {
                    if let RecordBody::Committed(committed) = &mut record.body {
                        committed.closes.nonce = Nonce(99);
                    }
                });
            },
        ),
        (
            "a snapshot says something else",
            "rests",
            &[Check::Snapshots],
            |held| {
                let version = a_later_snapshot(held);
                rewrite(held, version, |record| {
                    let snapshot = record.snapshot.as_mut().unwrap();
                    snapshot
                        .checkpoint
                        .values
                        .insert("log".into(), json!(["x"]));
                });
            },
        ),
        (
            "a record names a wrong snapshot",
            "rests",
            &[Check::Snapshots],
            |held| {
                let version = a_fan_in(held);
                held.records.get_mut(&version).unwrap().snapshot -= 1;
            },
        ),
        ("a value is lost", "rests", &[Check::Blobs], |held| {
            held.blobs.pop_first();
        }),
        ("a value is left over", "rests", &[Check::Blobs], |held| {
            held.blobs.insert("old-1".to_owned(), "x".into());
        }),
        ("a task wrote twice", "rests", &[Check::Writes], |held| {
            let version = a_fan_in(held);
            rewrite(held, version, |record| {
                if let RecordBody::Committed(committed) = &mut record.body {
                    committed.traces.push(committed.traces[0].clone());
                }
            });
        }),
        (
            "a task's writes are lost",
            "rests",
            &[Check::Writes],
            |held| {
                let version = a_fan_in(held);
                rewrite(held, version, |record| {
                    if let RecordBody::Committed(committed) = &mut record.body {
                        committed.traces.pop();
                    }
                });
            },
        ),
        (
            "a run that is over says it runs",
            "deleted",
            &[Check::Status],
            |held| {
                let version = *held.records.keys().next().unwrap();
                let run = json!({
                    "id": "r", "status": "running", "stop": 1, "recursion_limit": 1,
                    "command": {"id": "c", "sent_at": 1},
                });
                rewrite(held, version, |record| {
                    let snapshot = record.snapshot.as_mut().unwrap();
                    snapshot.run = Some(serde_json::from_value(run).unwrap());
                });
            },
        ),
        (
            "the row has another status",
            "asks",
            &[Check::Index],
            |held| {
                held.row.as_mut().unwrap().status = ThreadStatus::Idle;
            },
        ),
        ("the row is lost", "asks", &[Check::Index], |held| {
            held.row = None;
        }),
        (
            "a question is not listed",
            "asks",
            &[Check::Index],
            |held| {
                held.interrupts.clear();
            },
        ),
        (
            "a question is listed that is not open",
            "rests",
            &[Check::Index],
            |held| {
                held.interrupts.insert("q".into(), UnixMillis(1));
            },
        ),
        (
            "a timer is set for nothing",
            "rests",
            &[Check::Index],
            |held| {
                held.due.insert("interrupt:q".to_owned(), UnixMillis(1));
            },
        ),
        (
            "a round is open that is over",
            "rests",
            &[Check::Index],
            |held| {
                held.rounds.insert("1-00c0ffee00c0ffee".parse().unwrap());
            },
        ),
        (
            "work is owed and not watched",
            "busy",
            &[Check::Owner],
            |held| {
                held.watched = None;
            },
        ),
        (
            "the watch is ahead of the log",
            "busy",
            &[Check::Owner],
            |held| {
                held.watched.as_mut().unwrap().version += 5;
            },
        ),
    ];
    for (name, thread, checks, change) in table {
        let store = store().await;
        store.log.tamper(&(*thread).into(), change);
        let wrongs = store.wrongs(false).await;
        let mut found: Vec<Check> = wrongs.iter().map(|wrong| wrong.check).collect();
        found.sort();
        found.dedup();
        assert_eq!(found, *checks, "{name}: {wrongs:#?}");
        assert!(
            wrongs
                .iter()
                .all(|wrong| wrong.thread_id.as_str() == *thread)
        );
        assert!(wrongs.iter().all(|wrong| !wrong.repaired));

        let hints = checks.iter().all(|check| check.is_hint());
        let again = store.wrongs(true).await;
        let repairable = again.iter().all(|wrong| wrong.repaired);
        assert_eq!(repairable, hints, "{name}: {again:#?}");
        let left = store.wrongs(false).await;
        assert_eq!(left.is_empty(), hints, "{name}: {left:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_no_thread_is_found_and_removed() {
    let store = store().await;
    store.log.tamper(&"asks".into(), |held| {
        held.records.clear();
        let round = Stray {
            kind: StrayKind::Results,
            thread: "rests".into(),
            name: "1-00c0ffee00c0ffee".to_owned(),
        };
        held.strays.push(round);
    });
    let found = store.wrongs(false).await;
    assert!(
        found.iter().all(|wrong| wrong.check == Check::Strays),
        "{found:#?}"
    );
    let subjects: Vec<&str> = found.iter().map(|wrong| wrong.subject.as_str()).collect();
    for subject in [
        "list entry",
        "open question",
        "results of a round",
        "value out of line",
    ] {
        let is_there = subjects.iter().any(|found| found.starts_with(subject));
        assert!(is_there, "{subject} in {subjects:?}");
    }
    assert!(store.wrongs(true).await.iter().all(|wrong| wrong.repaired));
    assert_eq!(store.wrongs(false).await, []);
}

#[tokio::test(start_paused = true)]
async fn one_thread_can_be_looked_at() {
    let store = store().await;
    store.log.tamper(&"asks".into(), |held| held.row = None);
    let verifier = Verifier::new(store.log.clone(), store.log.clone());
    let one = async |thread: &str| verifier.one(&thread.into(), |_| {}).await.unwrap();
    assert_eq!(one("rests").await.wrong, 0);
    assert_eq!(one("asks").await.wrong, 1);
    assert_eq!(one("nobody").await.records, 0);
}

#[tokio::test(start_paused = true)]
async fn a_repair_touches_no_record() {
    let store = store().await;
    let before = store.kept("asks").await;
    store.log.tamper(&"asks".into(), |held| {
        held.row = None;
        held.interrupts.clear();
    });
    store.wrongs(true).await;
    assert_eq!(store.kept("asks").await, before);
}
