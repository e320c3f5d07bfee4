//! Cancels, at each moment of a run at which one can come.
//!
//! Whatever it meets, it holds: what supersteps completed stays, nothing else is applied, and nothing
//! goes on afterwards. The lease of work is longer than these tests, so a node that is told was told
//! because its worker heard of the cancel.

use superstep_protocol::RunStatus;

use super::{
    scripted::{Scene, scripted, soon, start_body},
    *,
};

/// What a cancel meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// It comes before the start.
    Before,
    /// It comes right after the start.
    AtOnce,
    /// The start is accepted, and no worker has taken the input.
    Input,
    /// A node that looks whether it is to stop.
    Listens,
    /// A node that does not.
    Holds,
    /// A node that is done by the time it is looked at.
    Commits,
    /// An open question.
    Asks,
    /// A node that sleeps for long.
    Sleeps,
    /// A pause between two attempts.
    Retries,
}

const MOMENTS: [Moment; 9] = [
    Moment::Before,
    Moment::AtOnce,
    Moment::Input,
    Moment::Listens,
    Moment::Holds,
    Moment::Commits,
    Moment::Asks,
    Moment::Sleeps,
    Moment::Retries,
];

impl Moment {
    fn how(self) -> &'static str {
        match self {
            Self::Before | Self::AtOnce | Self::Input | Self::Holds => "hold",
            Self::Listens => "listen",
            Self::Commits => "gate",
            Self::Asks => "ask",
            Self::Sleeps => "sleep",
            Self::Retries => "retry",
        }
    }

    /// Comes to this moment, and cancels.
    async fn cancel(self, scene: &mut Scene) {
        let start = start_body("r", self.how(), json!({}));
        let cancel = message(Cancel, "t", &json!({"reason": "no more"}));
        match self {
            Self::Before => {
                scene.cluster.queue.publish_command(&cancel).await.unwrap();
                scene.starts("r", self.how(), json!({})).await;
                return;
            }
            Self::AtOnce => {
                let start = message(Begin, "scripted", &start);
                scene.cluster.queue.publish_command(&start).await.unwrap();
            }
            Self::Input => {
                // The only worker that is left has not this graph.
                scene.cluster.shutdown.cancel();
                for worker in scene.cluster.workers.drain(..) {
                    worker.await.unwrap().unwrap();
                }
                scene.cluster.shutdown = CancellationToken::new();
                scene.cluster.add(Graphs::new(), WorkerSettings::default());
                scene.starts("r", self.how(), json!({})).await;
                assert!(scene.cluster.state("t").await.decision.is_some());
            }
            Self::Listens | Self::Holds | Self::Commits => {
                scene.starts("r", self.how(), json!({})).await;
                scene.script.noted("begins r").await;
            }
            Self::Asks => {
                scene.starts("r", self.how(), json!({})).await;
                scene.cluster.event(EventKind::Interrupt).await;
            }
            Self::Sleeps | Self::Retries => {
                scene.starts("r", self.how(), json!({})).await;
                scene.until("it pauses", ThreadState::is_paused).await;
            }
        }
        scene.cancels(json!({"reason": "no more"})).await;
    }

    /// What its node comes to, once it is cancelled.
    async fn node(self, scene: &mut Scene) {
        match self {
            Self::Listens => scene.script.noted("told r").await,
            Self::Holds => scene.script.noted("dropped r").await,
            Self::Commits => {
                scene.script.gate.add_permits(1);
                scene.script.noted("ends r").await;
            }
            Self::Input => {
                let graphs = scripted(&scene.script);
                scene.cluster.add(graphs, WorkerSettings::default());
            }
            Self::Before | Self::AtOnce | Self::Asks | Self::Sleeps | Self::Retries => {}
        }
    }
}

#[tokio::test]
async fn a_cancel_holds_whenever_it_comes() {
    for moment in MOMENTS {
        let grace = match moment {
            // A node that looks has no need of it.
            Moment::Listens | Moment::Commits => Duration::from_secs(600),
            _ => Duration::from_millis(50),
        };
        let settings = WorkerSettings {
            cancel_grace: grace,
            ..WorkerSettings::default()
        };
        let mut scene = Scene::new(1, settings).await;
        soon(&format!("{moment:?}"), moment.cancel(&mut scene)).await;
        scene.cancelled(&["r"]).await;
        moment.node(&mut scene).await;

        let state = scene.cluster.state("t").await;
        assert!(!state.is_busy(), "{moment:?}");
        assert_eq!(state.run.unwrap().status, RunStatus::Interrupted);
        let log = scene.log().await;
        if matches!(moment, Moment::Before | Moment::AtOnce | Moment::Input) {
            assert!(log.is_empty() || log == ["first r"], "{moment:?}: {log:?}");
        } else {
            assert_eq!(log, ["first r"], "{moment:?}");
        }
        let now = scene.cluster.log.now().await.unwrap();
        let due = scene.cluster.log.due(now.plus_ms(7_200_000), 10).await;
        assert_eq!(due.unwrap(), [], "{moment:?}");

        // Nothing of it goes on, and the thread takes the next run.
        scene.starts("next", "go", json!({})).await;
        scene.completed("next").await;
        let after = scene.log().await;
        assert_eq!(after[..log.len()], log, "{moment:?}");
        assert_eq!(
            after[log.len()..],
            ["first next", "second next"],
            "{moment:?}"
        );
        scene.cluster.stop().await;
    }
}

/// Either the cancel is in the log first, and the writes are not applied, or the writes are, and there
/// is nothing to cancel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_and_a_commit_race_for_one_record() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    let mut expected = Vec::new();
    for n in 0..20 {
        let run = format!("r{n}");
        scene.starts(&run, "gate", json!({})).await;
        scene.script.noted(&format!("begins {run}")).await;
        let (reply, ()) = tokio::join!(scene.cluster.send(Cancel, "t", json!({})), async {
            scene.script.gate.add_permits(1);
        });
        expected.push(format!("first {run}"));
        match reply.outcome {
            Outcome::Accepted => scene.cancelled(&[&run]).await,
            Outcome::Refused | Outcome::Unknown => {
                let refusal = reply.refusal.expect("it says why");
                assert_eq!(refusal.kind.as_str(), "nothing_to_cancel");
                expected.push(format!("second {run}"));
            }
        }
        // A node that did not come to the gate leaves it open.
        scene.script.noted(&format!("ends {run}")).await;
        assert_eq!(scene.log().await, expected);
    }
    scene.cluster.stop().await;
}

#[tokio::test]
async fn one_run_is_cancelled_and_the_others_go_on() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    for run in ["r1", "r2", "r3"] {
        scene.starts(run, "gate", json!({})).await;
    }
    scene.script.noted("begins r1").await;
    scene.cancels(json!({"run_id": "r2"})).await;
    scene.cancelled(&["r2"]).await;
    assert_eq!(scene.script.count("ends r1"), 0);
    scene.cancels(json!({"run_id": "r1"})).await;
    scene.cancelled(&["r1"]).await;
    scene.script.gate.add_permits(2);
    scene.completed("r3").await;
    assert_eq!(scene.log().await, ["first r1", "first r3", "second r3"]);
    assert_eq!(scene.script.count("begins r2"), 0);
    let unknown = scene
        .cluster
        .send(Cancel, "t", json!({"run_id": "r4"}))
        .await;
    assert_eq!(unknown.refusal.unwrap().kind.as_str(), "unknown_run");
    scene.cluster.stop().await;
}

#[tokio::test]
async fn a_cancel_without_a_run_empties_the_queue() {
    let mut scene = Scene::new(2, WorkerSettings::default()).await;
    for run in ["r1", "r2", "r3"] {
        scene.starts(run, "listen", json!({})).await;
    }
    scene.script.noted("begins r1").await;
    scene.cancels(json!({})).await;
    scene.cancelled(&["r1", "r2", "r3"]).await;
    scene.script.noted("told r1").await;
    let state = scene.cluster.state("t").await;
    assert!(!state.is_busy() && state.queue.is_empty());
    assert_eq!(scene.log().await, ["first r1"]);
    scene.cluster.stop().await;
}

/// The worker that must go tells its nodes; one that gives up is run by another worker, and has not
/// failed.
#[tokio::test]
async fn a_node_that_gives_up_for_a_drain_runs_again() {
    let mut scene = Scene::new(1, WorkerSettings::default()).await;
    scene.starts("r", "listen", json!({})).await;
    scene.script.noted("begins r").await;
    let Cluster {
        shutdown, workers, ..
    } = &mut scene.cluster;
    shutdown.cancel();
    let first = workers.remove(0);
    let drained = soon("the worker drains", first).await.unwrap().unwrap();
    assert_eq!(drained, Drained::Clean);
    assert_eq!(scene.script.count("told r"), 1);

    scene.cluster.shutdown = CancellationToken::new();
    scene
        .cluster
        .add(scripted(&scene.script), WorkerSettings::default());
    soon("it begins again", async {
        while scene.script.count("begins r") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let state = scene.cluster.state("t").await;
    assert!(state.is_busy() && state.run.unwrap().error.is_none());
    scene.cancels(json!({})).await;
    scene.cancelled(&["r"]).await;
    scene.cluster.stop().await;
}
