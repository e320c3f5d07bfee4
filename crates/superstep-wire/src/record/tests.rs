//! Golden files of the stored format, blobs out of line, and what cannot be read.
//!
//! `golden/record-v1` holds one record of every kind as version 1 wrote it. The files are read
//! back for ever; `SUPERSTEP_GOLDEN=write` makes those of kinds that have none yet.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Map, json};
use superstep_graph::{Breakpoints, Delta, Lineage, Source, Task, TaskId, TaskPath, Write};
use superstep_protocol::{
    Amended, AskedCommand, Base, CommandRef, Committed, Displaced, Durability, Goto, Head, Nonce,
    Origin, Parked, Pause, Paused, Profile, QueuedRun, Raised, RecordBody, Refusal, Restored,
    RunError, Segment, StreamMode, Streams, Terms, Then, ThreadId, Trace, TracedWrite, UnixMillis,
    fold, sleep_name,
};

use super::*;

mod random;

fn head(version: u64) -> Head {
    Head {
        version,
        nonce: Nonce(0x00c0_ffee_0000_0000 + version),
    }
}

fn command() -> CommandRef {
    CommandRef {
        id: "cmd-1".into(),
        sent_at: UnixMillis(1_773_480_413_000),
        sender: Some("ada".to_owned()),
        trace: None,
        tracestate: None,
    }
}

fn task() -> Task {
    let lineage = Lineage::root("cmd-1");
    let path = TaskPath::Push(0);
    let node = "review".into();
    Task {
        id: Task::id_of(
            &lineage,
            &superstep_graph::Namespace::root(),
            1,
            &node,
            &path,
        ),
        node,
        path,
        triggers: Vec::new(),
        packet: Some(json!({"draft": null})),
    }
}

fn error() -> RunError {
    RunError {
        kind: "NodeTimeout".to_owned(),
        message: "node `review` took too long".to_owned(),
        node: Some("review".into()),
        task: Some(task().id),
    }
}

fn started() -> RecordBody {
    RecordBody::Started {
        command: command(),
        run: "run-1".into(),
        graph: superstep_protocol::GraphId {
            name: "email".into(),
            version: "1".into(),
        },
        topology: None,
        profile: Profile::Default,
        input: json!({"topic": "tea", "count": 9_007_199_254_740_993_i64}),
        recursion_limit: 25,
        config: Map::from_iter([("user".to_owned(), json!("ada"))]),
        metadata: Map::new(),
        terms: Terms::default(),
        at: None,
        discards: Vec::new(),
    }
}

fn committed() -> RecordBody {
    let mut delta = Delta::default();
    delta
        .channels
        .insert("draft".into(), ChannelChange::Set(json!("hello")));
    delta
        .channels
        .insert("log".into(), ChannelChange::Push(vec![json!(1), json!(2)]));
    delta
        .channels
        .insert("branch:to:a".into(), ChannelChange::Remove);
    delta.versions.insert("draft".into(), 3);
    delta
        .seen
        .insert("a".into(), BTreeMap::from([("branch:to:a".into(), 2)]));
    RecordBody::Committed(Box::new(Committed {
        source: Source::Loop,
        step: 1,
        lineage: Lineage::root("cmd-1"),
        delta,
        tasks: vec![task()],
        then: Then::Run,
        closes: head(2),
        run: Some("run-1".into()),
        as_node: None,
        traces: vec![Trace {
            task: task().id,
            wrote: vec![
                TracedWrite::AsDelta("draft".into()),
                TracedWrite::Value(Write::set("log", json!([1]))),
            ],
            handled: None,
        }],
        output: false,
        kept: BTreeMap::new(),
    }))
}

fn parked(error: Option<RunError>) -> Parked {
    let other = TaskId::from("0123456789abcdef0123456789abcdef");
    let results = BTreeMap::from([
        (
            task().id,
            TaskResult::interrupted(vec![Raised {
                index: 0,
                id: None,
                payload: json!({"message": "Approve email?"}),
                expires_at: None,
            }]),
        ),
        (
            other,
            TaskResult::finished(vec![Write::set("draft", json!(null))]),
        ),
    ]);
    Parked {
        closes: head(4),
        run: Some("run-1".into()),
        results,
        error,
    }
}

/// One record of every kind.
fn records() -> Vec<Record> {
    let id = superstep_graph::InterruptId::of(&task().id, 0);
    let bodies = vec![
        started(),
        committed(),
        RecordBody::Interrupted(parked(None)),
        RecordBody::Failed(parked(Some(error()))),
        RecordBody::Resumed {
            command: command(),
            run: "run-2".into(),
            answers: BTreeMap::from([(id.clone(), json!({"approved": true}))]),
            tasks: vec![task().id],
            offer: None,
            recursion_limit: None,
            terms: Terms::default(),
        },
        RecordBody::Retried {
            command: command(),
            run: "run-3".into(),
            tasks: vec![task().id],
            again: false,
            recursion_limit: None,
            terms: Terms::default(),
        },
        RecordBody::UpdateAsked {
            command: command(),
            values: json!({"draft": "better"}),
            as_node: Some("review".into()),
            more: Vec::new(),
            at: None,
            subgraph: Vec::new(),
        },
        RecordBody::Declined {
            closes: head(6),
            command: command(),
            refusal: Refusal::InvalidUpdate {
                reason: "no such channel".to_owned(),
            },
            spoils: false,
            resume: false,
            queued: None,
        },
        RecordBody::Cancelled {
            command: command(),
            reason: Some("ordered twice".to_owned()),
            spares: false,
            queued: Vec::new(),
            restores: None,
        },
        RecordBody::DeadlinePassed { interrupt: id },
        RecordBody::Deleted { command: command() },
    ];
    let mut records: Vec<Record> = bodies
        .into_iter()
        .zip(1..)
        .map(|(body, version)| Record {
            head: head(version),
            time: UnixMillis(1_773_480_413_000 + version),
            told: version / 2,
            body,
            snapshot: None,
        })
        .collect();
    let first = records[0].clone();
    let mut state = fold(&ThreadId::from("order-42"), None, &first).unwrap();
    // Written before states remembered their runs, and since when workers are at them.
    state.begun.clear();
    state.segment = None;
    records[0].snapshot = Some(Box::new(state));
    records
}

fn golden(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden/record-v1")
        .join(format!("{kind}.json"))
}

/// As it was written before records said the topology.
fn without_topology(mut body: RecordBody) -> RecordBody {
    if let RecordBody::Created { topology, .. } = &mut body {
        *topology = None;
    }
    body
}

/// Kinds that came later, and those before them with what they can say since.
fn grown() -> Vec<(&'static str, Record)> {
    let id = superstep_graph::InterruptId::of(&task().id, 0);
    let terms = || Terms {
        interrupt_before: Some(Breakpoints::Nodes(["review".into()].into())),
        interrupt_after: Some(Breakpoints::All),
        durability: Durability::Exit,
        streams: Streams {
            modes: [StreamMode::Values, StreamMode::Updates].into(),
            subgraphs: true,
        },
        ..Terms::default()
    };
    let mut before = records();
    let graph = superstep_protocol::GraphId {
        name: "email".into(),
        version: "1".into(),
    };
    let created = RecordBody::Created {
        command: command(),
        graph: graph.clone(),
        topology: Some("179e651be7926a3b20d8a6ec30e781fc".to_owned()),
        profile: Profile::Langgraph,
        ttl_ms: None,
    };
    let state = before[0].snapshot.clone().expect("the first one has it");
    let base = || {
        Some(Box::new(Base {
            saved: (head(3), UnixMillis(1_773_480_413_003)),
            checkpoint: state.checkpoint.clone(),
            tasks: vec![task()],
        }))
    };
    let commanded = RecordBody::Commanded {
        asked: Box::new(AskedCommand {
            command: command(),
            run: "run-4".into(),
            answers: BTreeMap::from([(id.clone(), json!(true))]),
            offer: Some(json!(null)),
            update: json!({"draft": "better"}),
            goto: vec![
                Goto::Node("review".into()),
                Goto::Send(superstep_graph::Send::new("check", json!({"n": 1}))),
            ],
            again: true,
            recursion_limit: Some(7),
            terms: terms(),
        }),
        at: base(),
    };
    let RecordBody::Committed(saved) = committed() else {
        unreachable!("a checkpoint")
    };
    let amended = RecordBody::Amended(Box::new(Amended {
        closes: head(4),
        run: "run-4".into(),
        delta: saved.delta,
        tasks: vec![task()],
        round: vec![task().id],
    }));
    let child_updated = RecordBody::ChildUpdated {
        closes: head(4),
        task: task().id,
        child: vec![before.remove(0)],
    };
    let mut inside = parked(None);
    inside.results.insert(
        "inside".into(),
        TaskResult::Interrupted {
            raised: vec![Raised {
                index: 0,
                id: Some(id.clone()),
                payload: json!("inside?"),
                expires_at: Some(UnixMillis(1_773_480_500_000)),
            }],
            took: vec![(1, json!("taken"))],
            child: vec![before.remove(0)],
        },
    );
    let resumed = RecordBody::Resumed {
        command: command(),
        run: "run-2".into(),
        answers: BTreeMap::new(),
        tasks: vec![task().id],
        offer: Some(json!("for whoever asks")),
        recursion_limit: Some(3),
        terms: terms(),
    };
    let until = UnixMillis(1_773_484_013_000);
    let mut waits = parked(None);
    waits.results = BTreeMap::from([
        (
            task().id,
            TaskResult::Paused(Box::new(Paused {
                sleeps: BTreeMap::from([(sleep_name(&task().id, 0), until)]),
                raised: vec![Raised {
                    index: 0,
                    id: None,
                    payload: json!("or now?"),
                    expires_at: None,
                }],
                took: vec![(1, json!("taken"))],
                child: vec![before.remove(0)],
                ..Paused::new(until, Pause::Sleep)
            })),
        ),
        (
            "flaky".into(),
            TaskResult::Paused(Box::new(Paused {
                attempts: 2,
                since: Some(UnixMillis(1_773_480_413_000)),
                ..Paused::new(until, Pause::Retry { error: error() })
            })),
        ),
        (
            "inside".into(),
            TaskResult::Paused(Box::new(Paused::new(until, Pause::Inside))),
        ),
    ]);
    let woken = RecordBody::Woken {
        run: "run-1".into(),
        tasks: vec![task().id],
    };
    let topology = || Some("940b3b7926a3b20d8a6ec30e781fc179".to_owned());
    let queued_run = || QueuedRun {
        command: command(),
        run: "run-5".into(),
        graph: graph.clone(),
        topology: None,
        profile: Profile::Langgraph,
        input: json!({"topic": "more tea"}),
        recursion_limit: 25,
        config: Map::from_iter([("user".to_owned(), json!("ada"))]),
        metadata: Map::from_iter([("tier".to_owned(), json!(2))]),
        terms: terms(),
        at: base(),
        queued_at: UnixMillis(1_773_480_413_004),
        not_before: Some(UnixMillis(1_773_480_423_004)),
    };
    let restores = || {
        Some(Box::new(Restored {
            version: 3,
            graph: None,
            topology: None,
            checkpoint: state.checkpoint.clone(),
            saved: Some((head(3), UnixMillis(1_773_480_413_003))),
            tasks: vec![task()],
            kept: BTreeMap::new(),
        }))
    };
    let displaced = RecordBody::Displaced(Box::new(Displaced {
        start: queued_run(),
        run: Some("run-1".into()),
        queued: vec!["run-4".into()],
        restores: restores(),
    }));
    let cancelled = RecordBody::Cancelled {
        command: command(),
        reason: None,
        spares: true,
        queued: vec!["run-4".into(), "run-5".into()],
        restores: restores(),
    };
    let declined = RecordBody::Declined {
        closes: head(4),
        command: command(),
        refusal: Refusal::QueueFull {
            thread: "order-42".into(),
            queued: 64,
        },
        spoils: false,
        resume: false,
        queued: Some("run-5".into()),
    };
    let of_a_version = Displaced {
        start: QueuedRun {
            topology: topology(),
            ..queued_run()
        },
        run: Some("run-1".into()),
        queued: Vec::new(),
        restores: restores().map(|before| {
            Box::new(Restored {
                graph: Some(graph.clone()),
                topology: topology(),
                ..*before
            })
        }),
    };
    let mut discarding = started();
    if let RecordBody::Started { discards, .. } = &mut discarding {
        *discards = vec![id.clone()];
    }
    let to = superstep_protocol::GraphId {
        version: "2".into(),
        ..graph.clone()
    };
    let move_asked = RecordBody::MoveAsked {
        to: to.clone(),
        topology: topology(),
        command: Some(command()),
        results: BTreeMap::from([(task().id, TaskResult::finished(Vec::new()))]),
    };
    let mut delta = Delta::default();
    let value = ChannelChange::Set(json!({"text": "hello"}));
    delta.channels.insert("draft".into(), value);
    let moved = RecordBody::Moved {
        closes: head(4),
        graph: to.clone(),
        topology: topology(),
        delta,
    };
    let move_declined = RecordBody::MoveDeclined {
        closes: head(4),
        refusal: Some(Refusal::MissingNode {
            thread: "order-42".into(),
            node: "review".into(),
            from: graph.clone(),
            to,
        }),
    };
    let named = [
        ("enqueued", RecordBody::Enqueued(Box::new(queued_run()))),
        ("displaced", displaced),
        (
            "displaced_between_versions",
            RecordBody::Displaced(Box::new(of_a_version)),
        ),
        ("cancelled_of_the_queue", cancelled),
        ("declined_of_the_queue", declined),
        ("started_over_questions", discarding),
        ("move_asked", move_asked),
        ("moved", moved),
        ("move_declined", move_declined),
        ("created_with_topology", created.clone()),
        ("created", without_topology(created)),
        ("commanded", commanded),
        ("amended", amended),
        ("child_updated", child_updated),
        ("interrupted_inside", RecordBody::Interrupted(inside)),
        ("resumed_with_terms", resumed),
        ("paused", RecordBody::Paused(waits)),
        ("woken", woken),
    ];
    let record = |body| Record {
        head: head(5),
        time: UnixMillis(1_773_480_413_005),
        told: 4,
        body,
        snapshot: None,
    };
    named.map(|(name, body)| (name, record(body))).into()
}

/// A resume that came with a trace of its own, and a state whose trace began with a run before.
fn traced() -> (&'static str, Record) {
    let context = |span: &str| Some(format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01"));
    let first = records().remove(0);
    let mut state = *first.snapshot.expect("the first one has it");
    state.run.as_mut().expect("it began").origin = Some(Box::new(Origin {
        run: "run-0".into(),
        trace: context("00f067aa0ba902b7"),
        tracestate: Some("vendor=1".to_owned()),
    }));
    state.segment = Some(Segment {
        began: head(1),
        at: first.time,
        first: true,
    });
    let body = RecordBody::Resumed {
        command: CommandRef {
            trace: context("b7ad6b7169203331"),
            tracestate: Some("vendor=2".to_owned()),
            ..command()
        },
        run: "run-2".into(),
        answers: BTreeMap::new(),
        tasks: vec![task().id],
        offer: None,
        recursion_limit: None,
        terms: Terms::default(),
    };
    let record = Record {
        body,
        snapshot: Some(Box::new(state)),
        ..first
    };
    ("resumed_traced", record)
}

#[test]
fn records_of_version_1_are_read_for_ever() {
    let first = records().into_iter();
    let named = first.map(|record| (record.body.kind(), record));
    for (name, record) in named.chain(grown()).chain([traced()]) {
        let path = golden(name);
        let encoded = encode(record.clone(), usize::MAX);
        assert!(encoded.blobs.is_empty());
        if std::env::var_os("SUPERSTEP_GOLDEN").is_some() && !path.exists() {
            std::fs::write(&path, &encoded.bytes).unwrap();
        }
        let stored = std::fs::read(&path).unwrap();
        let read = decode(&stored).unwrap();
        assert_eq!(read.blob_ids(), Vec::<String>::new());
        let read = read.resolve::<Vec<u8>>(&BTreeMap::new()).unwrap();
        assert_eq!(read, record, "{} reads otherwise", path.display());
        let written = String::from_utf8(encoded.bytes).unwrap();
        assert_eq!(
            written.trim(),
            String::from_utf8(stored).unwrap().trim(),
            "{} is written otherwise: that is a new format version",
            path.display()
        );
    }
}

#[test]
fn large_values_go_out_of_line_and_come_back() {
    let large = json!("x".repeat(5000));
    let mut record = records().remove(0);
    let snapshot = record.snapshot.as_mut().unwrap();
    snapshot
        .checkpoint
        .values
        .insert("draft".into(), large.clone());
    let RecordBody::Committed(mut committed) = committed() else {
        unreachable!("a checkpoint")
    };
    committed
        .delta
        .channels
        .insert("draft".into(), ChannelChange::Set(large.clone()));
    committed
        .delta
        .channels
        .insert("log".into(), ChannelChange::Push(vec![large.clone(); 2]));
    record.body = RecordBody::Committed(committed);

    let encoded = encode(record.clone(), 1000);
    assert!(encoded.bytes.len() < 4000, "{}", encoded.bytes.len());
    assert_eq!(encoded.blobs.len(), 2, "the same value is one blob");
    let decoded = decode(&encoded.bytes).unwrap();
    assert_eq!(
        decoded.blob_ids(),
        encoded.blobs.keys().cloned().collect::<Vec<_>>()
    );
    assert_eq!(decoded.clone().resolve(&encoded.blobs).unwrap(), record);

    let missing: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    assert!(matches!(decoded.resolve(&missing), Err(Error::Blob { .. })));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let newer = br#"{"format": 2, "whatever": true}"#;
    let error = decode(newer).unwrap_err().to_string();
    assert_eq!(
        error,
        "the record has format 2 and this version reads up to 1; upgrade this process"
    );
    assert!(matches!(
        decode(b"{\"format\": 1}"),
        Err(Error::Unreadable { .. })
    ));
    assert!(matches!(decode(b"\x00"), Err(Error::Unreadable { .. })));
}

#[test]
fn task_results_are_read_as_they_were_written() {
    for (_, result) in parked(None).results {
        assert_eq!(
            decode_result(&encode_result(result.clone())).unwrap(),
            result
        );
    }
    let failed = TaskResult::failed(error(), Some(Vec::new()));
    assert_eq!(
        decode_result(&encode_result(failed.clone())).unwrap(),
        failed
    );
}

#[test]
fn progress_comes_back_as_it_was_written() {
    for took_offer in [false, true] {
        let entry = ProgressEntry {
            records: records(),
            took_offer,
        };
        let bytes = encode_progress(&entry);
        assert_eq!(decode_progress(&bytes).unwrap(), entry);
    }
    // A round may be open while its workers are replaced by newer ones.
    let entry = ProgressEntry {
        records: records().split_off(1),
        took_offer: true,
    };
    let (path, written) = (golden("progress"), encode_progress(&entry));
    if std::env::var_os("SUPERSTEP_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, &written).unwrap();
    }
    let stored = std::fs::read(&path).unwrap();
    assert_eq!(decode_progress(&stored).unwrap(), entry);
    let newer = br#"{"format":2,"records":[]}"#;
    assert!(matches!(decode_progress(newer), Err(Error::Newer { .. })));
}
