//! Runs beside each other on one thread, as LangGraph's server names what a second start does.
//!
//! Real worker code over the memory ports. The rule that each test holds: one run at a time, in the
//! order that the strategy says, on one history.

use superstep_protocol::{
    CommandId, CommandRef, Event as Asked, Profile, RunId, Start, Strategy, Terms,
};

use super::{
    scripted::{Scene, scripted},
    *,
};
use crate::engine::Accepted;

#[tokio::test]
async fn a_second_start_is_rejected_while_one_runs() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    scene.starts("r1", "gate", json!({})).await;
    scene.script.noted("begins r1").await;
    let reject = json!({"multitask_strategy": "reject"});
    let reply = scene.start("r2", "go", reject.clone()).await;
    assert_eq!(reply.refusal.unwrap().kind.as_str(), "busy");
    scene.script.gate.add_permits(1);
    scene.completed("r1").await;
    scene.starts("r3", "go", reject).await;
    scene.completed("r3").await;
    let log = ["first r1", "second r1", "first r3", "second r3"];
    assert_eq!(scene.log().await, log);
    scene.cluster.stop().await;
}

#[tokio::test]
async fn queued_runs_begin_in_their_order() {
    let mut scene = Scene::new(3, WorkerSettings::default()).await;
    let runs = ["r1", "r2", "r3", "r4", "r5"];
    for run in runs {
        scene.starts(run, "gate", json!({})).await;
    }
    scene.script.gate.add_permits(runs.len());
    scene.completed("r5").await;
    let in_order = runs
        .iter()
        .flat_map(|run| [format!("first {run}"), format!("second {run}")]);
    assert_eq!(scene.log().await, in_order.collect::<Vec<_>>());
    let notes = scene.script.notes.lock().unwrap().clone();
    let one_by_one = runs
        .iter()
        .flat_map(|run| [format!("begins {run}"), format!("ends {run}")]);
    assert_eq!(notes, one_by_one.collect::<Vec<_>>());
    scene.cluster.stop().await;
}

#[tokio::test]
async fn a_queued_run_waits_while_a_question_is_open() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    scene.starts("r1", "ask", json!({})).await;
    scene.cluster.event(EventKind::Interrupt).await;
    scene.starts("r2", "go", json!({})).await;
    assert_eq!(scene.cluster.state("t").await.queue.len(), 1);
    assert_eq!(scene.script.count("begins r2"), 0);
    let reply = scene
        .cluster
        .send(Resume, "t", json!({"resume": 1, "run_id": "r1b"}))
        .await;
    assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    scene.completed("r2").await;
    let log = ["first r1", "second r1b", "first r2", "second r2"];
    assert_eq!(scene.log().await, log);
    scene.cluster.stop().await;
}

#[tokio::test]
async fn an_interrupting_start_keeps_what_was_completed() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    scene.starts("r1", "listen", json!({})).await;
    scene.starts("waits", "go", json!({})).await;
    scene.script.noted("begins r1").await;
    scene
        .starts("r2", "go", json!({"multitask_strategy": "interrupt"}))
        .await;
    scene.cancelled(&["r1", "waits"]).await;
    scene.script.noted("told r1").await;
    scene.completed("r2").await;
    assert_eq!(scene.log().await, ["first r1", "first r2", "second r2"]);
    assert_eq!(scene.script.count("begins waits"), 0);
    scene.cluster.stop().await;
}

#[tokio::test]
async fn a_rollback_leaves_no_trace_of_the_run() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    scene.starts("r0", "go", json!({})).await;
    scene.completed("r0").await;
    let before = scene.cluster.checkpoints("t").await;
    scene.starts("r1", "listen", json!({})).await;
    scene.script.noted("begins r1").await;
    let during = scene.cluster.checkpoints("t").await;
    scene
        .starts("r2", "go", json!({"multitask_strategy": "rollback"}))
        .await;
    scene.cancelled(&["r1"]).await;
    scene.completed("r2").await;
    let log = ["first r0", "second r0", "first r2", "second r2"];
    assert_eq!(scene.log().await, log);

    let after = scene.cluster.checkpoints("t").await;
    assert!(after.ends_with(&before), "{after:?} {before:?}");
    let hidden: Vec<&String> = during.iter().filter(|id| !before.contains(id)).collect();
    assert!(!hidden.is_empty());
    assert!(hidden.iter().all(|id| !after.contains(id)), "{after:?}");
    // Whoever kept the id of one still finds it as it was.
    let graphs = scripted(&scene.script);
    let mut saw = Vec::new();
    for id in hidden {
        let threads = scene.cluster.threads();
        let at = threads.state_at(&"t".into(), id, &graphs).await.unwrap();
        saw.push(at.expect("it is there").values["log"].clone());
    }
    let during = json!(["first r0", "second r0", "first r1"]);
    assert_eq!(saw.first(), Some(&during), "{saw:?}");
    scene.cluster.stop().await;
}

#[tokio::test]
async fn the_same_run_begins_once() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    scene.starts("r1", "gate", json!({})).await;
    let (first, again) = tokio::join!(
        scene.start("r2", "go", json!({})),
        scene.start("r2", "go", json!({})),
    );
    assert_eq!(first.outcome, Outcome::Accepted, "{first:?}");
    assert_eq!(again.outcome, Outcome::Accepted, "{again:?}");
    assert_eq!(first.record, again.record);
    scene.script.gate.add_permits(1);
    scene.completed("r2").await;
    let late = scene
        .start("r2", "go", json!({"multitask_strategy": "reject"}))
        .await;
    assert_eq!(
        (late.outcome, late.record),
        (Outcome::Accepted, first.record)
    );
    let log = ["first r1", "second r1", "first r2", "second r2"];
    assert_eq!(scene.log().await, log);
    scene.cluster.stop().await;
}

#[tokio::test]
async fn a_delayed_start_begins_by_its_timer() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    let began = tokio::time::Instant::now();
    scene
        .starts("later", "go", json!({"after_seconds": 1}))
        .await;
    scene.starts("now", "go", json!({})).await;
    scene.completed("later").await;
    assert!(began.elapsed() >= Duration::from_millis(900));
    let log = ["first now", "second now", "first later", "second later"];
    assert_eq!(scene.log().await, log);
    scene.cluster.stop().await;
}

/// A worker that accepts a start and dies: nothing of what its record calls for is published.
async fn accepts_and_dies(scene: &Scene, run: &str, strategy: Strategy) {
    let engine = Engine::new(scene.cluster.threads(), Arc::new(Graphs::new()));
    let start = Asked::Start(Box::new(Start {
        command: CommandRef {
            id: CommandId::new(format!("start of {run}")),
            sent_at: scene.cluster.log.now().await.unwrap(),
            sender: None,
            trace: None,
            tracestate: None,
        },
        run: RunId::from(run),
        graph: id("scripted"),
        profile: Profile::Default,
        input: json!({"how": "go"}),
        recursion_limit: 25,
        config: serde_json::Map::new(),
        metadata: serde_json::Map::new(),
        terms: Terms::default(),
        at: None,
        strategy,
        not_before: None,
        before: None,
        topology: None,
    }));
    let accepted = engine
        .accept(&"t".into(), &start, None, || None)
        .await
        .unwrap();
    assert!(matches!(accepted, Accepted::Appended(_)), "{accepted:?}");
}

#[tokio::test]
async fn what_a_dying_worker_displaced_for_begins() {
    for strategy in [Strategy::Interrupt, Strategy::Rollback, Strategy::Enqueue] {
        let settings = WorkerSettings {
            reconcile_after: Some(Duration::from_millis(100)),
            reconcile_every: Duration::from_millis(50),
            ..WorkerSettings::default()
        };
        let mut scene = Scene::new(2, settings).await;
        scene.starts("r1", "ask", json!({})).await;
        scene.cluster.event(EventKind::Interrupt).await;
        accepts_and_dies(&scene, "r2", strategy).await;
        let mut log = match strategy {
            Strategy::Rollback | Strategy::Interrupt => vec!["first r1"],
            _ => {
                // It waits for the answer, and begins when that has been taken in.
                let answer = json!({"resume": 1, "run_id": "r1b"});
                scene.cluster.send(Resume, "t", answer).await;
                vec!["first r1", "second r1b"]
            }
        };
        scene.completed("r2").await;
        log.extend(["first r2", "second r2"]);
        assert_eq!(scene.log().await, log, "{strategy}");
        scene.cluster.stop().await;
    }
}

#[tokio::test]
async fn a_queue_of_large_inputs_is_bounded() {
    let settings = WorkerSettings {
        limits: crate::Limits {
            state_bytes_max: 64 << 10,
            ..crate::Limits::default()
        },
        ..WorkerSettings::default()
    };
    let mut scene = Scene::new(1, settings).await;
    scene.starts("r0", "gate", json!({})).await;
    scene.script.noted("begins r0").await;
    let large = json!({"input": {"how": "go", "log": ["x".repeat(20 << 10)]}});
    let mut taken = 0;
    let refusal = loop {
        let reply = scene
            .start(&format!("r{}", taken + 1), "go", large.clone())
            .await;
        match reply.refusal {
            None => taken += 1,
            Some(refusal) => break refusal,
        }
    };
    assert!((1..=3).contains(&taken), "{taken}");
    assert_eq!(refusal.kind.as_str(), "invalid_input");
    let says = format!("{taken} wait on this thread");
    assert!(refusal.message.contains("state_bytes_max"), "{refusal:?}");
    assert!(refusal.message.contains(&says), "{refusal:?}");
    // Whatever of it does not fit beside the others when its turn comes is declined; the rest goes on.
    scene.script.gate.add_permits(1);
    scene.completed(&format!("r{taken}")).await;
    assert!(scene.cluster.state("t").await.queue.is_empty());
    scene.cluster.stop().await;
}
