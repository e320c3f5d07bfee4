//! Every event and refusal of the protocol has its form in the contract.

use std::collections::BTreeMap;

use superstep_graph::InterruptId;
use superstep_protocol::{Head, Nonce, Refusal as R, ThreadStatus, UnixMillis};

use super::*;

const AT: UnixMillis = UnixMillis(1_773_480_413_589);
const AT_TEXT: &str = "2026-03-14T09:26:53.589Z";

fn outward_of(data: EventData) -> Event {
    let told = ThreadEvent {
        id: "abc-8-00c0ffee00c0ffee-0".to_owned(),
        time: AT,
        record: Head {
            version: 8,
            nonce: Nonce(0x00c0_ffee_00c0_ffee),
        },
        run: Some("run-1".into()),
        command: Some(("answer-1".into(), Some("ann".to_owned()))),
        data,
    };
    let graph = GraphId {
        name: "email".into(),
        version: "1".into(),
    };
    event(
        &told,
        &"order-42".into(),
        &graph,
        "superstep.default.resume.order-42",
    )
}

fn error() -> protocol::RunError {
    protocol::RunError {
        kind: "ValueError".to_owned(),
        message: "boom".to_owned(),
        node: Some("send".into()),
        task: Some("t1".into()),
    }
}

#[test]
fn an_event_keeps_what_the_protocol_told() {
    let event = outward_of(EventData::RunFailed { error: error() });
    let expected = json!({
        "event_id": "abc-8-00c0ffee00c0ffee-0",
        "kind": "run_failed",
        "thread_id": "order-42",
        "run_id": "run-1",
        "graph": "email",
        "graph_version": "1",
        "time": AT_TEXT,
        "record": "8-00c0ffee00c0ffee",
        "command_id": "answer-1",
        "sender": "ann",
        "error": {"kind": "ValueError", "message": "boom", "node": "send", "task_id": "t1"},
    });
    assert_eq!(json!(event), expected);
}

#[test]
fn a_question_says_where_to_answer() {
    let event = outward_of(EventData::Interrupt {
        interrupt: "i1".into(),
        task: "t1".into(),
        node: "review".into(),
        index: 1,
        payload: Value::Null,
        expires_at: Some(AT),
    });
    let expected = json!({
        "interrupt_id": "i1",
        "task_id": "t1",
        "node": "review",
        "checkpoint_ns": "",
        "index": 1,
        "value": null,
        "expires_at": AT_TEXT,
        "resume_subject": "superstep.default.resume.order-42",
    });
    assert_eq!(event.kind, EventKind::Interrupt);
    assert_eq!(json!(event.interrupt), expected);
}

#[test]
fn answers_carry_who_gave_them_and_when() {
    let answers = BTreeMap::from([(InterruptId::from("i1"), json!(false))]);
    let event = outward_of(EventData::ResumeAccepted { answers });
    let expected = json!([{"interrupt_id": "i1", "value": false, "at": AT_TEXT, "sender": "ann"}]);
    assert_eq!(json!(event.answers), expected);
}

#[test]
fn every_event_of_the_protocol_has_its_kind() {
    let values = serde_json::Map::from_iter([("draft".to_owned(), Value::Null)]);
    for (data, kind) in [
        (EventData::RunStarted, EventKind::RunStarted),
        (EventData::RunCompleted { values }, EventKind::RunCompleted),
        (
            EventData::RunCancelled { reason: None },
            EventKind::RunCancelled,
        ),
        (
            EventData::InterruptExpired {
                interrupt: "i1".into(),
            },
            EventKind::InterruptExpired,
        ),
        (
            EventData::UpdateRefused {
                refusal: R::InvalidUpdate {
                    reason: "no key `x`".to_owned(),
                },
            },
            EventKind::UpdateRefused,
        ),
        (EventData::RunQueued, EventKind::RunQueued),
        (
            EventData::InterruptDiscarded {
                interrupt: "i1".into(),
            },
            EventKind::InterruptDiscarded,
        ),
        (
            EventData::StartRefused {
                refusal: R::NothingToRetry {
                    thread: "order-42".into(),
                    status: ThreadStatus::Idle,
                },
            },
            EventKind::StartRefused,
        ),
        (EventData::StateUpdated, EventKind::StateUpdated),
        (EventData::ThreadDeleted, EventKind::ThreadDeleted),
    ] {
        assert_eq!(outward_of(data).kind, kind);
    }
}

#[track_caller]
fn check(from: &R, kind: RefusalKind, data: Option<Value>) {
    let message = from.to_string();
    let expected = Refusal {
        data,
        ..Refusal::new(kind, message)
    };
    assert_eq!(refusal(from), expected);
}

#[test]
fn every_refusal_has_its_kind_and_data() {
    let thread = || ThreadId::from("order-42");
    let text = || "text".to_owned();
    let status = ThreadStatus::Idle;
    check(
        &R::Malformed { reason: text() },
        RefusalKind::Malformed,
        None,
    );
    check(
        &R::TooLarge {
            what: text(),
            bytes: 2,
            bytes_max: 1,
        },
        RefusalKind::TooLarge,
        Some(json!({"bytes": 2, "bytes_max": 1})),
    );
    check(
        &R::UnknownGraph {
            graph: text(),
            known: text(),
        },
        RefusalKind::UnknownGraph,
        Some(json!({"graph": "text"})),
    );
    check(
        &R::UnknownThread { thread: thread() },
        RefusalKind::UnknownThread,
        None,
    );
    check(
        &R::WrongGraph {
            thread: thread(),
            graph: "email".into(),
        },
        RefusalKind::WrongGraph,
        Some(json!({"graph": "email"})),
    );
    check(
        &R::Busy {
            thread: thread(),
            status: ThreadStatus::Busy,
            run: "run-1".into(),
        },
        RefusalKind::Busy,
        Some(json!({"status": "busy", "run_id": "run-1"})),
    );
    check(
        &R::NotWaiting {
            thread: thread(),
            status,
        },
        RefusalKind::NotWaiting,
        Some(json!({"status": "idle"})),
    );
    check(
        &R::QueueFull {
            thread: thread(),
            queued: 64,
        },
        RefusalKind::QueueFull,
        Some(json!({"queued": 64})),
    );
    check(
        &R::UnknownRun {
            thread: thread(),
            run: "run-1".into(),
        },
        RefusalKind::UnknownRun,
        Some(json!({"run_id": "run-1"})),
    );
    check(
        &R::NothingToRetry {
            thread: thread(),
            status,
        },
        RefusalKind::NothingToRetry,
        Some(json!({"status": "idle"})),
    );
    check(
        &R::NothingToCancel {
            thread: thread(),
            status,
        },
        RefusalKind::NothingToCancel,
        Some(json!({"status": "idle"})),
    );
    check(
        &R::Ambiguous {
            thread: thread(),
            open: text(),
        },
        RefusalKind::Ambiguous,
        None,
    );
    check(
        &R::InvalidInput { reason: text() },
        RefusalKind::InvalidInput,
        None,
    );
    check(
        &R::InvalidUpdate { reason: text() },
        RefusalKind::InvalidUpdate,
        None,
    );
    check(
        &R::Unsupported {
            what: text(),
            instead: text(),
        },
        RefusalKind::Unsupported,
        None,
    );
}

#[test]
fn a_refused_answer_names_its_question() {
    let interrupt = || InterruptId::from("i1");
    let named = || Some(json!({"interrupt_id": "i1"}));
    check(
        &R::AlreadyAnswered {
            interrupt: interrupt(),
            at: AT,
            sender: Some("ann".to_owned()),
            command: "answer-1".into(),
            same: true,
        },
        RefusalKind::AlreadyAnswered,
        Some(json!({
            "interrupt_id": "i1",
            "answered_at": AT_TEXT,
            "answered_by": "ann",
            "command_id": "answer-1",
            "same_value": true,
        })),
    );
    check(
        &R::Stale {
            interrupt: interrupt(),
            opened_at: AT,
        },
        RefusalKind::Stale,
        Some(json!({"interrupt_id": "i1", "opened_at": AT_TEXT})),
    );
    check(
        &R::UnknownInterrupt {
            thread: "order-42".into(),
            interrupt: interrupt(),
            open: "none".to_owned(),
        },
        RefusalKind::UnknownInterrupt,
        named(),
    );
    check(
        &R::Expired {
            interrupt: interrupt(),
        },
        RefusalKind::Expired,
        named(),
    );
    check(
        &R::Cancelled {
            interrupt: interrupt(),
            why: "cancelled".to_owned(),
        },
        RefusalKind::Cancelled,
        named(),
    );
}
