//! What can happen to tasks: rounds that are over, answers that are gone, cancels, updates and
//! deletes under a running node, nodes that panic or hang.

use std::time::Duration;

use serde_json::{Value, json};
use superstep_graph::{Branch, ChannelKind, GraphBuilder, NodeSpec, Reducer, START};
use superstep_protocol::{RunStatus, ThreadState, ThreadStatus};
use superstep_queue::CommandKind::{Cancel, Resume, Retry, Update};
use superstep_wire::{Outcome, RefusalKind};
use tokio::time::sleep;

use crate::{
    graphs::{Stage, alone, entry, id},
    ledger::Lenient,
    plan::{Fate, Odds},
    rig::{Rig, Setup, block_on, is_done, settings},
};
use superstep_worker::{Node, NodeContext, NodeError, NodeReturn, RunnableGraph, Sending};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn asks(state: &ThreadState) -> bool {
    !state.is_busy() && state.open_questions().next().is_some()
}

fn failed(state: &ThreadState) -> bool {
    state.status() == ThreadStatus::Error
}

/// A node that takes `count` seconds.
fn slow(stage: &Stage) -> RunnableGraph {
    let stage = stage.clone();
    alone("slow", move |input: Value, ctx: NodeContext| {
        let stage = stage.clone();
        async move {
            stage.count("begun");
            let time = secs(input["count"].as_u64().unwrap());
            tokio::select! {
                biased;
                () = ctx.cancelled() => {
                    stage.count("cancelled");
                    std::future::pending::<()>().await;
                }
                () = sleep(time) => { stage.count("ended"); }
            }
            Ok::<_, NodeError>(entry(&ctx, &[]))
        }
    })
}

fn slow_rig(workers: usize) -> std::sync::Arc<Rig> {
    Rig::start(Setup {
        workers,
        graphs: vec!["fan".to_owned()],
        own: |stage| vec![slow(stage)],
        ..Setup::default()
    })
}

#[test]
fn a_late_result_of_an_old_round_asks_nobody_again() {
    // Every piece of work is done twice, and one of the two brings its result when the
    // question was answered long ago and its round is over.
    for (label, both) in [("put_result", true), ("append", false)] {
        let odds = Odds {
            twice: 1000,
            ..Odds::default()
        };
        let graph = if both { "both" } else { "twice" };
        for skip in 0..4 {
            block_on(async {
                let rig = Rig::start(Setup {
                    odds: odds.clone(),
                    graphs: vec![graph.to_owned()],
                    ..Setup::default()
                });
                rig.faults.script(label, skip, Fate::Slow(secs(5)));
                rig.see_through(graph, "t").await;
                rig.rest().await;
                let asked = rig.ledger.events_of("interrupt");
                assert_eq!(asked.len(), 2, "{}", rig.faults.story());
            });
        }
    }
}

#[test]
fn a_result_of_a_lost_answer_changes_nothing() {
    block_on(async {
        let rig = Rig::start(Setup {
            workers: 1,
            graphs: Vec::new(),
            own: |_| {
                vec![alone("asking", |_: Value, ctx: NodeContext| async move {
                    let answer: Value = ctx.interrupt(json!({})).await?;
                    sleep(secs(2)).await;
                    Ok::<_, NodeError>(entry(&ctx, &[answer]))
                })]
            },
            durable_after: Duration::from_millis(2500),
            lenient: Lenient {
                steps_back: true,
                ..Lenient::default()
            },
            ..Setup::default()
        });
        rig.begin("asking", "t", json!({"count": 1})).await;
        let asked = rig.until("t", "asking", asks).await;
        let question = asked.open_questions().next().unwrap().1.id.clone();
        sleep(secs(5)).await;
        let body = |value: &str| json!({"resume": value, "interrupt_id": question});
        rig.send(Resume, "t", "first", &body("lost")).await;
        rig.until("t", "answered", ThreadState::is_busy).await;
        assert!(rig.store.step_back(1));
        assert_eq!(rig.state("t").unwrap().head, asked.head);
        // Somebody else answers what is open again; the node still runs on the lost answer.
        rig.send(Resume, "t", "second", &body("kept")).await;
        let done = rig.until("t", "done", is_done).await;
        let log = &done.checkpoint.values["log"];
        assert_eq!(log[0]["answers"], json!(["kept"]), "{log}");
        rig.quiet().await;
        rig.ledger.assert_nothing_wrong();
        let outcome = rig.outcome("t", "first").await;
        let kind = outcome.refusal.map(|refusal| refusal.kind);
        assert_eq!(kind, Some(RefusalKind::AlreadyAnswered));
    });
}

#[test]
fn a_lost_answer_is_decided_again() {
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
        rig.begin("chain", "t", json!({"count": 1})).await;
        let asked = rig.until("t", "asking", asks).await;
        sleep(secs(5)).await;
        let (_, question) = asked.open_questions().next().unwrap();
        rig.answer("t", question).await;
        let done = rig.until("t", "done", is_done).await;
        let lost = usize::try_from(done.head.version - asked.head.version).unwrap();
        // Its appends, and as often the thread left the watch.
        assert!(rig.store.step_back(lost + 1));
        assert!(rig.state("t").unwrap().head.version <= asked.head.version);
        let again = rig.until("t", "done", is_done).await;
        assert_ne!(again.head, done.head);
        rig.rest().await;
    });
}

#[test]
fn work_of_a_record_that_is_gone_brings_what_is_owed() {
    // The store forgets a superstep whose message is acked; the message of the next, which is
    // in no log any more, is all that is left to remind anyone.
    block_on(async {
        let mut setup = Setup {
            workers: 1,
            graphs: vec!["chain".to_owned()],
            durable_after: Duration::from_millis(2500),
            lenient: Lenient {
                steps_back: true,
                ..Lenient::default()
            },
            settings: settings(),
            ..Setup::default()
        };
        setup.settings.run_ahead_supersteps = 0;
        let rig = Rig::start(setup);
        rig.faults.script("load", 3, Fate::Slow(secs(1)));
        rig.begin("chain", "t", json!({"count": 1})).await;
        let nodes = |state: &ThreadState| -> Vec<String> {
            state
                .tasks
                .iter()
                .map(|t| t.task.node.to_string())
                .collect()
        };
        let at_b = rig.until("t", "at b", |state| nodes(state) == ["b"]).await;
        assert!(at_b.is_busy(), "its work is held up");
        assert!(rig.store.step_back(1));
        assert_eq!(nodes(&rig.state("t").unwrap()), ["a"]);
        rig.until("t", "asking", asks).await;
    });
}

#[test]
fn an_answer_runs_no_other_node_again() {
    block_on(async {
        let rig = Rig::start(Setup {
            workers: 3,
            graphs: vec!["both".to_owned()],
            ..Setup::default()
        });
        rig.begin("both", "t", json!({"count": 1})).await;
        let asked = rig.until("t", "asking", asks).await;
        // Both answered nodes are held up, so that each answer comes while the other runs.
        for _ in 0..2 {
            rig.faults.script("node", 0, Fate::Slow(secs(3)));
        }
        for (_, question) in asked.open_questions() {
            rig.answer("t", question).await;
            sleep(secs(1)).await;
        }
        rig.until("t", "done", is_done).await;
        rig.rest().await;
        assert_eq!((rig.runs_of("b"), rig.runs_of("c")), (2, 2));
    });
}

#[test]
fn a_run_can_be_cancelled_in_its_first_instant() {
    // Between the start's record and each of the next ones.
    for held_up in ["load", "append", "publish_events", "publish_work"] {
        for skip in 1..4 {
            block_on(async {
                let rig = Rig::start(Setup {
                    graphs: vec!["chain".to_owned()],
                    ..Setup::default()
                });
                rig.faults.script(held_up, skip, Fate::Slow(secs(2)));
                rig.begin("chain", "t", json!({"count": 1})).await;
                rig.until("t", "there", |_| true).await;
                rig.send(Cancel, "t", "cancel", &json!({})).await;
                let outcome = rig.outcome("t", "cancel").await;
                assert_eq!(outcome.outcome, Outcome::Accepted, "{held_up} {skip}");
                rig.rest().await;
                let state = rig.state("t").unwrap();
                assert!(!state.is_busy());
                assert_eq!(state.run.unwrap().status, RunStatus::Interrupted);
            });
        }
    }
}

#[test]
fn a_cancel_reaches_the_node_that_runs() {
    block_on(async {
        let rig = slow_rig(1);
        rig.begin("slow", "t", json!({"count": 100})).await;
        rig.until("t", "running", |state| state.tasks.len() == 1)
            .await;
        sleep(secs(1)).await;
        rig.send(Cancel, "t", "cancel", &json!({})).await;
        let before = rig.faults.world.elapsed();
        rig.rest().await;
        assert!(rig.faults.world.elapsed().saturating_sub(before) < secs(10));
        assert_eq!((rig.runs_of("cancelled"), rig.runs_of("ended")), (1, 0));
        // What was cancelled can be run again, and runs once.
        rig.send(Retry, "t", "retry", &json!({})).await;
        rig.until("t", "done", is_done).await;
        rig.rest().await;
        assert_eq!((rig.runs_of("begun"), rig.runs_of("ended")), (2, 1));
    });
}

#[test]
fn a_retry_while_the_cancelled_node_still_runs_is_not_disturbed() {
    block_on(async {
        let rig = slow_rig(2);
        rig.begin("slow", "t", json!({"count": 6})).await;
        rig.until("t", "running", |state| state.tasks.len() == 1)
            .await;
        sleep(secs(1)).await;
        rig.send(Cancel, "t", "cancel", &json!({})).await;
        rig.until("t", "cancelled", |state| !state.is_busy()).await;
        rig.send(Retry, "t", "retry", &json!({})).await;
        rig.until("t", "done", is_done).await;
        rig.rest().await;
        assert_eq!(rig.runs_of("begun"), 2, "{}", rig.faults.story());
    });
}

#[test]
fn an_update_of_a_busy_thread_is_refused() {
    block_on(async {
        let mut setup = Setup {
            graphs: vec!["fan".to_owned()],
            ..Setup::default()
        };
        setup.settings.limits.tasks_max = 50;
        let rig = Rig::start(setup);
        for skip in 0..3 {
            rig.faults.script("put_result", skip, Fate::Slow(secs(4)));
        }
        rig.begin("fan", "t", json!({"count": 20})).await;
        rig.until("t", "fanning", |state| state.tasks.len() == 20)
            .await;
        let body = json!({"values": {"note": "x"}});
        rig.send(Update, "t", "update", &body).await;
        let outcome = rig.outcome("t", "update").await;
        let kind = outcome.refusal.map(|refusal| refusal.kind);
        assert_eq!(kind, Some(RefusalKind::Busy));
        rig.until("t", "done", is_done).await;
        rig.rest().await;
    });
}

#[test]
fn late_results_do_not_bring_a_deleted_thread_back() {
    for graph in ["slow", "fan"] {
        block_on(async {
            let rig = slow_rig(2);
            let count = if graph == "slow" { 5 } else { 8 };
            if graph == "fan" {
                for skip in 0..4 {
                    rig.faults.script("put_result", skip, Fate::Slow(secs(5)));
                }
            }
            rig.begin(graph, "t", json!({"count": count})).await;
            rig.until("t", "running", |state| {
                !state.rounds.is_empty() && state.saved.is_some()
            })
            .await;
            sleep(secs(1)).await;
            let deleted = rig.client().delete(&"t".into(), &Sending::default()).await;
            assert!(matches!(
                deleted,
                Ok(superstep_worker::Sent::Accepted { .. })
            ));
            let tombstone = rig.state("t").unwrap();
            sleep(secs(20)).await;
            rig.quiet().await;
            assert_eq!(rig.state("t").unwrap(), tombstone);
            // A thread of the same name begins anew, and what was lost of the old one is.
            let body = json!({"thread_id": "t", "input": {"count": 1}});
            rig.send(superstep_queue::CommandKind::Start, graph, "second", &body)
                .await;
            let done = rig.until("t", "done", is_done).await;
            assert_eq!(done.incarnation, "second");
            let kinds = rig.ledger.events_of("thread_deleted");
            assert_eq!(kinds.len(), 1);
        });
    }
}

#[test]
fn a_slow_store_loses_no_lease() {
    // The watch over a running node asks the store for the thread's head, and waits.
    block_on(async {
        let rig = slow_rig(2);
        rig.faults.script("head", 0, Fate::SlowAnswer(secs(25)));
        rig.begin("slow", "t", json!({"count": 40})).await;
        rig.until("t", "done", is_done).await;
        rig.rest().await;
        assert_eq!(rig.runs_of("begun"), 1, "{}", rig.faults.story());
    });
}

#[test]
fn a_slow_append_does_not_cancel_what_comes_next() {
    block_on(async {
        let mut setup = Setup {
            graphs: vec!["chain".to_owned()],
            ..Setup::default()
        };
        setup.settings.run_ahead_time = secs(100);
        let rig = Rig::start(setup);
        for skip in 1..4 {
            rig.faults.script("append", skip, Fate::SlowAnswer(secs(4)));
            rig.faults
                .script("publish_events", skip, Fate::Slow(secs(4)));
        }
        rig.see_through("chain", "t").await;
        rig.rest().await;
        let story = rig.faults.story();
        assert!(!story.contains("attempt 2"), "{story}");
        assert_eq!(
            rig.runs_of("b"),
            2,
            "once for the question, once for the answer"
        );
    });
}

/// A value that panics where it is dropped.
struct Landmine;

impl Drop for Landmine {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the landmine goes off");
    }
}

fn explosive(_: &Stage) -> Vec<RunnableGraph> {
    let node = |input: Value, ctx: NodeContext| async move {
        match input["note"].as_str() {
            Some("node") => panic!("in the node"),
            Some("drop at question") => {
                let _landmine = Landmine;
                ctx.interrupt::<Value>(json!({})).await?;
                std::process::abort();
            }
            Some("drop at timeout") => {
                let _landmine = Landmine;
                std::future::pending().await
            }
            Some("reducer") => Ok(NodeReturn::Update(json!({"odd": 1}))),
            _ => Ok::<_, NodeError>(NodeReturn::Update(Value::Null)),
        }
    };
    let mut builder = GraphBuilder::new();
    builder.channel("note", ChannelKind::Last).channel(
        "odd",
        ChannelKind::Reduce(Reducer::Custom {
            name: "explosive".into(),
            initial: Some(json!([])),
            reduce: std::sync::Arc::new(|_, _| panic!("in the reducer")),
        }),
    );
    builder.node(NodeSpec::new("n")).edge(START, "n").branch(
        "n",
        Branch::new(|state: &Value| match state["note"].as_str() {
            Some("path") => panic!("in the path"),
            _ => Ok(Vec::new()),
        }),
    );
    let nodes = std::collections::BTreeMap::from([(
        "n".into(),
        std::sync::Arc::new(node) as std::sync::Arc<dyn Node>,
    )]);
    vec![RunnableGraph::new(id("explosive"), builder.compile().unwrap(), nodes).unwrap()]
}

#[test]
fn a_panic_in_the_graphs_code_fails_the_run() {
    block_on(async {
        let mut setup = Setup {
            workers: 1,
            graphs: Vec::new(),
            own: explosive,
            ..Setup::default()
        };
        setup.settings.task_timeout = secs(3);
        let rig = Rig::start(setup);
        for (note, kind) in [
            ("node", "Panic"),
            ("path", "Panic"),
            ("reducer", "Panic"),
            ("drop at timeout", "NodeTimeout"),
        ] {
            rig.begin("explosive", note, json!({"note": note})).await;
            let state = rig.until(note, "failed", failed).await;
            let error = state.run.unwrap().error.unwrap();
            assert_eq!(error.kind, kind, "{note}: {}", error.message);
        }
        let note = "drop at question";
        rig.begin("explosive", note, json!({"note": note})).await;
        rig.until(note, "asking", asks).await;
        rig.rest().await;
        let story = rig.faults.story();
        assert!(!story.contains("attempt 2"), "{story}");
    });
}

#[test]
fn a_node_that_hangs_is_not_run_beside_itself() {
    block_on(async {
        let mut setup = Setup {
            graphs: Vec::new(),
            own: |stage| vec![slow(stage)],
            ..Setup::default()
        };
        setup.settings.task_timeout = secs(60);
        let rig = Rig::start(setup);
        rig.begin("slow", "t", json!({"count": 1000})).await;
        let state = rig.until("t", "failed", failed).await;
        assert_eq!(state.run.unwrap().error.unwrap().kind, "NodeTimeout");
        rig.rest().await;
        assert_eq!(rig.runs_of("begun"), 1);
    });
}

#[test]
fn an_error_of_any_length_is_told() {
    block_on(async {
        let rig = Rig::start(Setup {
            workers: 1,
            graphs: Vec::new(),
            own: |_| {
                vec![alone("wordy", |_: Value, _: NodeContext| async {
                    Err::<NodeReturn, _>(NodeError::new("Wordy", "ä".repeat(2 << 20)))
                })]
            },
            ..Setup::default()
        });
        rig.begin("wordy", "t", json!({"count": 1})).await;
        let state = rig.until("t", "failed", failed).await;
        let message = state.run.unwrap().error.unwrap().message;
        assert!(message.starts_with("ää"), "{}", message.len());
        rig.rest().await;
        assert_eq!(rig.ledger.events_of("run_failed").len(), 1);
    });
}
