//! What can happen to commands: sent twice, early, late, at once; workers that die before
//! their ack. Each has one outcome, whoever tells it.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use superstep_protocol::ThreadState;
use superstep_queue::CommandKind::{Cancel, Resume, Start};
use superstep_wire::{Outcome, RefusalKind};
use tokio::time::sleep;

use crate::{
    ledger::Lenient,
    plan::Fate,
    rig::{Rig, Setup, block_on, is_done},
};
use superstep_worker::RunnableGraph;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn asks(state: &ThreadState) -> bool {
    !state.is_busy() && state.open_questions().next().is_some()
}

fn rig_of(graph: &'static str, workers: usize) -> Arc<Rig> {
    Rig::start(Setup {
        workers,
        graphs: vec![graph.to_owned()],
        dedupes: false,
        ..Setup::default()
    })
}

async fn refused(rig: &Rig, thread: &str, command: &str) -> Option<RefusalKind> {
    let outcome = rig.outcome(thread, command).await;
    outcome.refusal.map(|refusal| refusal.kind)
}

#[test]
fn a_refusal_stays_a_refusal() {
    // Told, and the worker dies at each place before its ack; when the command comes again it
    // could be accepted.
    for (label, fate) in [
        ("put_outcome", Fate::DiesAfter),
        ("publish_events", Fate::DiesAfter),
        ("reply", Fate::DiesAfter),
        ("ack", Fate::DiesBefore),
    ] {
        block_on(async {
            let rig = rig_of("chain", 1);
            rig.see_through("chain", "t").await;
            rig.quiet().await;
            rig.faults.script(label, 0, fate);
            rig.send(Cancel, "t", "cancel", &json!({})).await;
            let kind = refused(&rig, "t", "cancel").await;
            assert_eq!(kind, Some(RefusalKind::NothingToCancel), "{label}");
            let body = json!({"thread_id": "t", "input": {"count": 1}});
            rig.send(Start, "chain", "second", &body).await;
            rig.until("t", "asking", asks).await;
            sleep(secs(30)).await;
            assert!(rig.faults.script_is_done());
            // Whoever sends it once more is told the same again.
            rig.send(Cancel, "t", "cancel", &json!({})).await;
            rig.rest().await;
            assert!(asks(&rig.state("t").unwrap()), "{label}");
        });
    }
}

#[test]
fn an_accepted_command_is_accepted_once() {
    for (label, skip, fate) in [
        ("append", 0, Fate::DiesAfter),
        ("publish_events", 0, Fate::DiesBefore),
        ("publish_work", 0, Fate::DiesBefore),
        ("reply", 0, Fate::DiesBefore),
        ("ack", 0, Fate::DiesBefore),
    ] {
        block_on(async {
            let rig = rig_of("twice", 1);
            rig.begin("twice", "t", json!({"count": 1})).await;
            let asked = rig.until("t", "asking", asks).await;
            rig.quiet().await;
            rig.faults.script(label, skip, fate);
            let (_, question) = asked.open_questions().next().unwrap();
            rig.answer("t", question).await;
            rig.answer("t", question).await;
            rig.until("t", "asking on", |state| {
                asks(state) && state.head != asked.head
            })
            .await;
            sleep(secs(30)).await;
            assert!(rig.faults.script_is_done(), "{label}");
            rig.answer("t", question).await;
            rig.rest().await;
            let state = rig.state("t").unwrap();
            assert!(asks(&state), "{label}: the second question is still open");
        });
    }
}

#[test]
fn an_outcome_that_is_lost_alone_is_decided_again() {
    block_on(async {
        let rig = Rig::start(Setup {
            graphs: vec!["chain".to_owned()],
            durable_after: Duration::from_millis(2500),
            lenient: Lenient {
                steps_back: true,
                ..Lenient::default()
            },
            ..Setup::default()
        });
        let body = json!({"thread_id": "t", "run_id": "run", "input": {"count": 1}});
        rig.send(Start, "chain", "one", &body).await;
        rig.until("t", "asking", asks).await;
        rig.quiet().await;
        sleep(secs(5)).await;
        // Its run is known, by a record that is durable; that it was told so is not yet.
        rig.send(Start, "chain", "two", &body).await;
        let told = rig.outcome("t", "two").await;
        assert!(rig.store.step_back(1));
        assert!(!rig.is_decided("t", "two").await);
        rig.rest().await;
        assert_eq!(rig.outcome("t", "two").await, told);
    });
}

#[test]
fn a_double_click_does_not_answer_the_next_question() {
    block_on(async {
        let rig = rig_of("twice", 1);
        rig.begin("twice", "t", json!({"count": 1})).await;
        let first = rig.until("t", "asking", asks).await;
        rig.quiet().await;
        // Both are sent before the second question is there; one is decided after it is.
        sleep(secs(1)).await;
        rig.faults.script("load", 1, Fate::Slow(secs(1)));
        rig.faults
            .script("node", 0, Fate::Slow(Duration::from_millis(100)));
        rig.send(Resume, "t", "one", &json!({"resume": 1})).await;
        rig.send(Resume, "t", "two", &json!({"resume": 1})).await;
        let second = rig
            .until("t", "asking on", |s| asks(s) && s.head != first.head)
            .await;
        let kinds = [
            refused(&rig, "t", "one").await,
            refused(&rig, "t", "two").await,
        ];
        assert_eq!(kinds, [None, Some(RefusalKind::Stale)]);
        rig.rest().await;
        assert_eq!(rig.state("t").unwrap().head, second.head);
        // The same click once more, later: it still was made before the question.
        rig.send(Resume, "t", "two", &json!({"resume": 1})).await;
        rig.send(Resume, "t", "three", &json!({"resume": 2})).await;
        rig.until("t", "done", is_done).await;
        rig.rest().await;
        assert_eq!(refused(&rig, "t", "three").await, None);
    });
}

#[test]
fn of_two_answers_at_once_one_is_accepted() {
    for slow in 0..2 {
        block_on(async {
            let rig = rig_of("chain", 2);
            rig.begin("chain", "t", json!({"count": 1})).await;
            let asked = rig.until("t", "asking", asks).await;
            rig.quiet().await;
            // Both are decided on the same head.
            rig.faults.script("append", slow, Fate::Slow(secs(1)));
            let (_, question) = asked.open_questions().next().unwrap();
            let body = json!({"resume": "yes", "interrupt_id": question.id});
            rig.send(Resume, "t", "one", &body).await;
            rig.send(Resume, "t", "two", &body).await;
            rig.until("t", "done", is_done).await;
            rig.rest().await;
            let mut kinds = vec![
                refused(&rig, "t", "one").await,
                refused(&rig, "t", "two").await,
            ];
            kinds.sort();
            assert_eq!(kinds, [None, Some(RefusalKind::AlreadyAnswered)]);
        });
    }
}

#[test]
fn a_command_overtakes_its_start_after_a_pause() {
    // All workers were away for longer than commands are held back; the start is decided last.
    block_on(async {
        let rig = Rig::new(Setup {
            graphs: vec!["chain".to_owned()],
            ..Setup::default()
        });
        rig.begin("chain", "t", json!({"count": 1})).await;
        rig.send(Cancel, "t", "cancel", &json!({})).await;
        sleep(secs(60)).await;
        rig.faults.script("append", 0, Fate::Slow(secs(2)));
        rig.add_worker();
        let outcome = rig.outcome("t", "cancel").await;
        assert_eq!(outcome.outcome, Outcome::Accepted, "{outcome:?}");
        rig.rest().await;
    });
}

#[test]
fn a_command_to_nobody_is_refused_in_time() {
    block_on(async {
        let rig = rig_of("chain", 2);
        rig.send(Resume, "nobody", "resume", &json!({"resume": 1}))
            .await;
        let before = rig.faults.world.elapsed();
        let kind = refused(&rig, "nobody", "resume").await;
        assert_eq!(kind, Some(RefusalKind::UnknownThread));
        let waited = rig.faults.world.elapsed().saturating_sub(before);
        assert!(waited >= secs(4) && waited < secs(15), "{waited:?}");
        rig.rest().await;
    });
}

fn with_schema(_: &crate::graphs::Stage) -> Vec<RunnableGraph> {
    // Two mistakes, each of which quotes the value.
    let schema = json!({"properties": {
        "count": {"allOf": [{"type": "integer"}, {"type": "number"}]},
    }});
    let node = |_, _| async {
        Ok(superstep_worker::NodeReturn::Update(
            serde_json::Value::Null,
        ))
    };
    vec![crate::graphs::alone("strict", node).with_input_schema(schema)]
}

#[test]
fn a_refusal_is_told_whatever_the_size_of_the_mistake() {
    block_on(async {
        let rig = Rig::start(Setup {
            workers: 1,
            graphs: Vec::new(),
            own: with_schema,
            ..Setup::default()
        });
        let wrong = "x".repeat(900_000);
        rig.begin("strict", "t", json!({"count": wrong})).await;
        let kind = refused(&rig, "t", "t-start").await;
        assert_eq!(kind, Some(RefusalKind::InvalidInput));
        rig.rest().await;
    });
}
