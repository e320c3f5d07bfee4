//! Calls that a process left in the middle: the next one goes on behind the last inner superstep
//! that finished. A dropped future is what a crash leaves of a call in memory: nothing.

use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

use super::*;
use crate::{Policies, RetryPolicy};

/// Where nodes get stuck, once each time it is set.
#[derive(Clone, Default)]
struct Trap(Arc<(AtomicBool, Notify)>);

impl Trap {
    fn set(&self) {
        self.0.0.store(true, Ordering::SeqCst);
    }

    async fn pass(&self) {
        if self.0.0.swap(false, Ordering::SeqCst) {
            self.0.1.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Works until a node is stuck, then lets everything go.
    async fn crash<T>(&self, work: impl Future<Output = T>) {
        self.set();
        tokio::select! {
            _ = work => panic!("nothing was stuck"),
            () = self.0.1.notified() => {}
        }
    }
}

impl Made {
    /// A node that may get stuck.
    fn trapped(self, name: &'static str, trap: &Trap) -> Self {
        let trap = trap.clone();
        self.node(name, move |_, _| {
            let trap = trap.clone();
            async move {
                trap.pass().await;
                Ok(json!({"log": [name], "out": name}))
            }
        })
    }
}

/// `one`, `two` and `three`, of which `two` may get stuck, as the subgraph of a thread's graph.
fn three(ran: &Ran, trap: &Trap, checkpointer: Checkpointer) -> World {
    let inner = Made::new(ran)
        .plain("one")
        .trapped("two", trap)
        .plain("three")
        .chain(&["one", "two", "three"])
        .inner("inner");
    let graph = Made::new(ran)
        .sub_with("sub", inner, checkpointer)
        .plain("last")
        .chain(&["sub", "last"])
        .make("main");
    World::new(ran, Profile::Default, graph)
}

async fn finish(world: &World) {
    world.local.finish(&world.thread).await.unwrap();
    let state = world.state().await;
    assert!(state.tasks.is_empty() && !state.is_busy());
}

#[tokio::test]
async fn finished_inner_supersteps_do_not_run_again() {
    for checkpointer in [Checkpointer::Inherit, Checkpointer::Own] {
        let (ran, trap) = (Ran::default(), Trap::default());
        let world = three(&ran, &trap, checkpointer);
        trap.crash(world.invoke(json!({"in": 1}))).await;
        assert_eq!(world.ran(), ["sub.one", "sub.two"]);
        trap.crash(world.local.finish(&world.thread)).await;
        assert_eq!(world.ran(), ["sub.two"]);
        finish(&world).await;
        assert_eq!(world.ran(), ["sub.two", "sub.three", "last"]);
        let values = world.state().await.checkpoint.values;
        assert_eq!(values["out"], "two");
    }
}

#[tokio::test]
async fn a_call_without_checkpoints_begins_anew() {
    let (ran, trap) = (Ran::default(), Trap::default());
    let world = three(&ran, &trap, Checkpointer::None);
    trap.crash(world.invoke(json!({"in": 1}))).await;
    assert_eq!(world.ran(), ["sub.one", "sub.two"]);
    finish(&world).await;
    assert_eq!(world.ran(), ["sub.one", "sub.two", "sub.three", "last"]);
}

#[tokio::test]
async fn a_call_within_a_call_goes_on_as_well() {
    let (ran, trap) = (Ran::default(), Trap::default());
    let leaf = Made::new(&ran)
        .plain("one")
        .trapped("two", &trap)
        .chain(&["one", "two"])
        .inner("leaf");
    let inner = Made::new(&ran)
        .plain("before")
        .sub("leaf", leaf)
        .plain("after")
        .chain(&["before", "leaf", "after"])
        .inner("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    trap.crash(world.invoke(json!({"in": 1}))).await;
    let begun = ["sub.before", "sub.leaf.one", "sub.leaf.two"];
    assert_eq!(world.ran(), begun);
    finish(&world).await;
    assert_eq!(world.ran(), ["sub.leaf.two", "sub.after"]);
}

#[tokio::test]
async fn an_answered_call_goes_on_behind_the_answer() {
    let (ran, trap) = (Ran::default(), Trap::default());
    let inner = Made::new(&ran)
        .plain("one")
        .asking("ask")
        .trapped("two", &trap)
        .chain(&["one", "ask", "two"])
        .inner("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main");
    for profile in [Profile::Default, Profile::Langgraph] {
        let world = World::new(&ran, profile, graph.clone());
        let stopped = world.invoke(json!({"in": 1})).await;
        assert_eq!(asked(&stopped), [&json!("ask?")]);
        assert_eq!(world.ran(), ["sub.one", "sub.ask"]);
        trap.crash(world.resume("yes")).await;
        assert_eq!(world.ran(), ["sub.ask", "sub.two"]);
        finish(&world).await;
        assert_eq!(world.ran(), ["sub.two"]);
    }
}

#[tokio::test]
async fn each_try_of_a_call_has_progress_of_its_own() {
    let (ran, trap, tries) = (
        Ran::default(),
        Trap::default(),
        Arc::new(AtomicUsize::new(0)),
    );
    let stuck = trap.clone();
    let inner = Made::new(&ran)
        .plain("one")
        .node("two", move |_, _| {
            let (stuck, tries) = (stuck.clone(), Arc::clone(&tries));
            async move {
                if tries.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err(NodeError::new("Flaky", "it broke"));
                }
                stuck.pass().await;
                Ok(json!({"out": "two"}))
            }
        })
        .chain(&["one", "two"])
        .inner("inner");
    let retry = Policies {
        retry: Some(RetryPolicy::new(2).without_pauses()),
        ..Policies::default()
    };
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main")
        .with_policies(BTreeMap::from([("sub".into(), retry)]));
    let world = World::new(&ran, Profile::Default, graph);
    trap.crash(world.invoke(json!({"in": 1}))).await;
    assert_eq!(world.ran(), ["sub.one", "sub.two", "sub.two"]);
    // The first try is known to have failed, and the second goes on where it was.
    finish(&world).await;
    assert_eq!(world.ran(), ["sub.two"]);
    let values = world.state().await.checkpoint.values;
    assert_eq!(values["out"], "two");
}
