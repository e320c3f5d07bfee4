//! Nodes: what they know, what they return, and what becomes of one that fails.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Map, Value, json};
use superstep::{
    Channel, Command, Context, END, Embedded, Graph, NodeError, OutputSink, Reducer, RunId,
    RunOptions, RunStatus, START, Send, StreamEvent, ThreadId, WorkerSettings,
};

use crate::{app, in_time};

fn appending(name: &str) -> superstep::GraphBuilder<Value> {
    Graph::dynamic(name).channel("log", Channel::Reduce(Reducer::Append))
}

fn panics<T>(words: &str) -> T {
    panic!("{words}")
}

#[tokio::test]
async fn a_panic_is_an_error_of_the_run() {
    let graph = appending("panics")
        .node("early", |_: Value| {
            panics::<()>("before the first await");
            async { Ok(()) }
        })
        .node("late", |_: Value| async {
            tokio::task::yield_now().await;
            panics::<()>("after the first await");
            Ok(())
        })
        .branch(START, |state: &Value| {
            state["log"][0].as_str().unwrap_or_default().to_owned()
        })
        .build()
        .unwrap();
    let app = app(graph).await;
    for (node, words) in [("early", "before the first"), ("late", "after the first")] {
        let thread = app.thread(node);
        let run = thread.invoke(json!({"log": node})).await.unwrap();
        assert_eq!(run.status, RunStatus::Error);
        let error = run.error.unwrap();
        assert_eq!(error.kind, "Panic");
        assert!(error.message.contains(words), "{error:?}");
        assert_eq!(error.node.unwrap(), *node);
        assert_eq!(thread.retry().await.unwrap().error.unwrap().kind, "Panic");
    }
}

#[tokio::test]
async fn a_node_that_hangs_is_stopped() {
    let graph = appending("hangs")
        .node("hang", |_: Value| async {
            std::future::pending::<()>().await;
            Ok(())
        })
        .edge(START, "hang")
        .build()
        .unwrap();
    let settings = WorkerSettings {
        task_timeout: Duration::from_millis(20),
        ..WorkerSettings::default()
    };
    let app = Embedded::memory().graph(graph).settings(settings);
    let thread = app.build().await.unwrap().thread("1");
    let run = in_time(thread.invoke(json!({}))).await.unwrap();
    assert_eq!(run.error.unwrap().kind, "NodeTimeout");
}

#[tokio::test]
async fn a_failed_run_goes_on_where_it_failed() {
    let works = Arc::new(Mutex::new(false));
    let switch = Arc::clone(&works);
    let graph = appending("mends")
        .node("first", |_: Value| async { Ok(json!({"log": "first"})) })
        .node("second", move |_: Value| {
            let works = *switch.lock().unwrap();
            async move {
                if !works {
                    return Err(NodeError::new("Upstream", "the service is down"));
                }
                Ok(json!({"log": "second"}))
            }
        })
        .edge(START, "first")
        .edge("first", "second")
        .build()
        .unwrap();
    let thread = app(graph).await.thread("1");
    let failed = thread.invoke(json!({})).await.unwrap();
    let error = failed.error.unwrap();
    assert_eq!(
        (error.kind.as_str(), error.message.as_str()),
        ("Upstream", "the service is down")
    );
    *works.lock().unwrap() = true;
    let done = thread.retry().await.unwrap();
    assert_eq!(done.values["log"], json!(["first", "second"]));
}

#[tokio::test]
async fn any_error_becomes_the_reason_with_its_causes() {
    let graph = appending("parses")
        .node("parse", |_: Value| async {
            let number: i64 = "seven".parse()?;
            Ok(json!({"log": number}))
        })
        .edge(START, "parse")
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    let error = run.error.unwrap();
    assert_eq!(error.kind, "ParseIntError");
    assert!(error.message.contains("invalid digit"), "{error:?}");
}

#[tokio::test]
async fn the_key_of_a_task_is_the_same_on_every_run_of_it() {
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&keys);
    let graph = appending("keys")
        .node("ask", move |_: Value, ctx: Context| {
            seen.lock().unwrap().push(ctx.idempotency_key().to_owned());
            async move {
                let _: Value = ctx.interrupt("?").await?;
                Ok(())
            }
        })
        .edge(START, "ask")
        .build()
        .unwrap();
    let app = app(graph).await;
    for name in ["1", "2"] {
        let _ = app.thread(name).invoke(json!({})).await.unwrap();
        let _ = app.thread(name).resume(1).await.unwrap();
    }
    let keys = keys.lock().unwrap();
    assert_eq!(keys.len(), 4);
    assert_eq!((&keys[0], &keys[2]), (&keys[1], &keys[3]));
    assert_ne!(keys[0], keys[2], "another thread's task is another task");
}

#[derive(Default)]
struct Recorded(Arc<Mutex<Vec<(String, Value)>>>);

impl OutputSink for Recorded {
    fn emit(&self, thread: &ThreadId, run: &RunId, event: StreamEvent) {
        let mut all = self.0.lock().unwrap();
        all.push((format!("{thread}/{run}/{}", event.step), event.data));
    }
}

#[tokio::test]
async fn a_node_knows_its_place_and_tells() {
    let graph = appending("tells")
        .node("tell", |_: Value, ctx: Context| async move {
            ctx.emit(json!({"progress": 0.5}));
            Ok(json!({"log": [
                ctx.thread_id(), ctx.run_id(), ctx.node(), ctx.step(), ctx.attempt(),
                ctx.config("user"), ctx.config("nobody"), ctx.is_cancelled(),
            ]}))
        })
        .edge(START, "tell")
        .build()
        .unwrap();
    let recorded = Recorded::default();
    let told = Arc::clone(&recorded.0);
    let app = Embedded::memory().graph(graph).output(recorded);
    let thread = app.build().await.unwrap().thread("t");
    let options = RunOptions {
        run: Some("r".into()),
        config: Map::from_iter([("user".to_owned(), json!("ada"))]),
        ..RunOptions::default()
    };
    let run = thread.invoke_with(json!({}), options).await.unwrap();
    assert_eq!(run.run, *"r");
    let expected = json!(["t", "r", "tell", 1, 1, "ada", null, false]);
    assert_eq!(run.values["log"], expected);
    let told = told.lock().unwrap();
    assert_eq!(*told, [("t/r/1".to_owned(), json!({"progress": 0.5}))]);
}

#[tokio::test]
async fn a_cancel_reaches_the_running_node() {
    let (begun, mut running) = tokio::sync::mpsc::unbounded_channel();
    let graph = appending("cancelled")
        .node("wait", move |_: Value| {
            let begun = begun.clone();
            async move {
                begun.send(()).unwrap();
                std::future::pending::<()>().await;
                Ok(())
            }
        })
        .edge(START, "wait")
        .build()
        .unwrap();
    let thread = app(graph).await.thread("1");
    let run = tokio::spawn({
        let thread = thread.clone();
        async move { thread.invoke(json!({})).await }
    });
    in_time(running.recv()).await.unwrap();
    thread.cancel().await.unwrap();
    let run = in_time(run).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Interrupted);
    let state = thread.state().await.unwrap().unwrap();
    assert_eq!(state.next, ["wait"]);
}

#[tokio::test]
async fn packets_are_applied_in_the_order_they_were_sent() {
    let graph = appending("sends")
        .node("spread", |_: Value| async {
            Ok((0..20).map(|n| Send::to("work", n)).collect::<Vec<_>>())
        })
        .node_with_input("work", |n: u64| async move {
            // The later ones are ready first.
            tokio::time::sleep(Duration::from_millis(20 - n)).await;
            Ok(json!({"log": n}))
        })
        .edge(START, "spread")
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    let expected: Vec<u64> = (0..20).collect();
    assert_eq!(run.values["log"], json!(expected));
}

#[tokio::test]
async fn a_packet_of_another_form_fails_the_run() {
    let graph = appending("odd")
        .node("spread", |_: Value| async {
            Ok(Send::to("work", "no number"))
        })
        .node_with_input(
            "work",
            |n: u64, _: Context| async move { Ok(json!({"log": n})) },
        )
        .edge(START, "spread")
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    let error = run.error.unwrap();
    assert_eq!(error.kind, "InvalidSend");
    assert!(error.message.contains("`work`"), "{error:?}");
}

#[tokio::test]
async fn a_command_updates_goes_and_sends() {
    let note = |text: &'static str| move |_: Value| async move { Ok(json!({"log": text})) };
    let graph = appending("commands")
        .node("choose", |_: Value| async {
            Ok(Command::new()
                .update(json!({"log": "chosen"}))
                .goto("a")
                .send(Send::to("packet", "x"))
                .sends(["y", "z"].map(|text| Send::to("packet", text))))
        })
        .node("a", note("a"))
        .node("b", note("b"))
        .node_with_input(
            "packet",
            |text: String| async move { Ok(json!({"log": text})) },
        )
        .edge(START, "choose")
        .edge("a", END)
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    // Nodes' writes come before those of packets, as LangGraph sorts them.
    assert_eq!(run.values["log"], json!(["chosen", "a", "x", "y", "z"]));
}

#[tokio::test]
async fn going_to_an_unknown_node_names_it() {
    let graph = appending("lost")
        .node("go", |_: Value| async {
            Ok::<Command, _>(Command::new().goto("nowhere"))
        })
        .edge(START, "go")
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    let error = run.error.unwrap();
    assert_eq!(error.kind, "UnknownTarget");
    assert!(error.message.contains("`nowhere`"), "{error:?}");
}
