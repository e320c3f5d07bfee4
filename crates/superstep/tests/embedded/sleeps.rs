//! Threads that sleep in the embedded mode: over a restart, and without anyone who waits.
//!
//! Sleeps are short ones that count as long by the app's settings.

use std::time::Duration;

use serde_json::{Value, json};
use superstep::{Channel, Context, Embedded, Graph, START, ThreadStatus, WorkerSettings};

use crate::in_time;

fn sleeping(ms: u64) -> Graph<Value> {
    Graph::dynamic("sleeping")
        .channel("slept", Channel::Last)
        .node("sleep", move |_: Value, ctx: Context| async move {
            ctx.sleep(Duration::from_millis(ms)).await;
            Ok(json!({"slept": true}))
        })
        .edge(START, "sleep")
        .build()
        .unwrap()
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        short_pause_max: Duration::ZERO,
        timers_every: Duration::from_millis(5),
        ..WorkerSettings::default()
    }
}

#[tokio::test]
async fn a_call_waits_for_a_thread_that_sleeps() {
    let app = Embedded::memory().graph(sleeping(50)).settings(settings());
    let thread = app.build().await.unwrap().thread("1");
    let done = in_time(thread.invoke(json!({}))).await.unwrap();
    assert_eq!(done.values["slept"], json!(true));
}

#[tokio::test]
async fn a_thread_that_sleeps_outlives_its_process() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let open = || {
        Embedded::sqlite(&folder)
            .graph(sleeping(400))
            .settings(settings())
    };
    let app = open().build().await.unwrap();
    let thread = app.thread("1");
    let left = tokio::time::timeout(Duration::from_millis(150), thread.invoke(json!({})));
    assert!(left.await.is_err(), "it sleeps");
    assert_eq!(thread.status().await.unwrap(), Some(ThreadStatus::Busy));
    drop((thread, app));

    let app = open().build().await.unwrap();
    let keeper = tokio::spawn({
        let app = app.clone();
        async move { app.keep_time().await }
    });
    in_time(async {
        while app.thread("1").status().await.unwrap() != Some(ThreadStatus::Idle) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let state = app.thread("1").state().await.unwrap().unwrap();
    assert_eq!(state.values["slept"], json!(true));
    keeper.abort();
}
