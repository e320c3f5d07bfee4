//! Policies of nodes over the embedded mode: pauses, stops, answers, handlers, caches, order.
//!
//! Time is tokio's paused clock: a pause is over as soon as nothing else is left to do.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_graph::{ChannelKind, Command, GraphBuilder, NodeOutput, NodeSpec, Reducer, START};
use superstep_protocol::{GraphId, RunStatus, ThreadId};

use crate::{
    CachePolicy, Graphs, Local, Node, NodeContext, NodeError, NodeReturn, Policies, RetryPolicy,
    RunOptions, RunOutput, RunnableGraph, SystemWorld, WorkerSettings, answers,
};

type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, line: impl Into<String>) {
    let mut lines = log.lock().unwrap_or_else(PoisonError::into_inner);
    lines.push(line.into());
}

fn noted(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A graph of nodes that run beside each other and append to `log`.
fn graph(nodes: Vec<(&str, Arc<dyn Node>, Policies)>) -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .channel("log", ChannelKind::Reduce(Reducer::Append))
        .channel("key", ChannelKind::Last)
        .node(NodeSpec::new("after"));
    let (mut functions, mut policies) = (BTreeMap::new(), BTreeMap::new());
    let after = |_: Value, _: NodeContext| async { Ok(writes("after")) };
    functions.insert("after".into(), Arc::new(after) as Arc<dyn Node>);
    for (name, function, given) in nodes {
        builder.node(NodeSpec::new(name)).edge(START, name);
        functions.insert(name.into(), function);
        policies.insert(name.into(), given);
    }
    let id = GraphId {
        name: "g".into(),
        version: "1".into(),
    };
    RunnableGraph::new(id, builder.compile().unwrap(), functions)
        .unwrap()
        .with_policies(policies)
}

fn writes(line: &str) -> NodeReturn {
    NodeReturn::Update(json!({"log": [line]}))
}

fn app(graph: RunnableGraph, at_once: Option<usize>) -> Local {
    let mut graphs = Graphs::new();
    graphs.add(graph);
    let settings = WorkerSettings {
        tasks_at_once: at_once.and_then(NonZeroUsize::new),
        ..WorkerSettings::default()
    };
    Local::new(
        graphs,
        Arc::new(MemoryLog::new()),
        Arc::new(SystemWorld),
        settings,
    )
}

async fn invoke(app: &Local, thread: &str, input: Value) -> RunOutput {
    let graph = app.graphs().by_name("g").unwrap().id().clone();
    let options = RunOptions::default();
    let thread = ThreadId::new(thread);
    Box::pin(app.invoke(&graph, &thread, input, options))
        .await
        .unwrap()
}

/// A node that fails until its attempt of this number.
fn flaky(log: &Log, until: u64) -> Arc<dyn Node> {
    let log = Arc::clone(log);
    Arc::new(move |_: Value, ctx: NodeContext| {
        note(&log, format!("{} {}", ctx.node(), ctx.attempt()));
        async move {
            if ctx.attempt() < until {
                return Err(NodeError::new("Flaky", format!("try {}", ctx.attempt())));
            }
            Ok(writes(ctx.node().as_str()))
        }
    })
}

fn retrying(policy: RetryPolicy) -> Policies {
    Policies {
        retry: Some(policy),
        ..Policies::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_node_is_tried_again_after_growing_pauses() {
    let log = Log::default();
    let policy = retrying(RetryPolicy::new(4).without_jitter());
    let app = app(graph(vec![("a", flaky(&log, 4), policy)]), None);
    let began = tokio::time::Instant::now();
    let output = invoke(&app, "1", json!({})).await;
    assert_eq!(output.values["log"], json!(["a"]));
    assert_eq!(noted(&log), ["a 1", "a 2", "a 3", "a 4"]);
    assert_eq!(began.elapsed().as_millis(), 500 + 1000 + 2000);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_ends_a_run_that_can_be_retried() {
    let log = Log::default();
    let policy = retrying(RetryPolicy::new(2).without_jitter());
    let app = app(graph(vec![("a", flaky(&log, 9), policy)]), None);
    let failed = invoke(&app, "1", json!({})).await;
    assert_eq!(failed.error.unwrap().message, "try 2");
    let again = Box::pin(app.retry(&ThreadId::new("1"))).await.unwrap();
    assert_eq!(again.error.unwrap().message, "try 2");
    assert_eq!(noted(&log), ["a 1", "a 2", "a 1", "a 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_pause_between_attempts() {
    let log = Log::default();
    let policy = RetryPolicy::new(9).initial_interval(Duration::from_secs(3600));
    let app = app(graph(vec![("a", flaky(&log, 9), retrying(policy))]), None);
    let running = tokio::spawn({
        let app = app.clone();
        async move { invoke(&app, "1", json!({})).await }
    });
    while log.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let began = tokio::time::Instant::now();
    app.cancel(&ThreadId::new("1"), None).await.unwrap();
    assert_eq!(running.await.unwrap().status, RunStatus::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(noted(&log), ["a 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_over_attempts() {
    let node = |_: Value, ctx: NodeContext| async move {
        let answer: String = ctx.interrupt("name?").await?;
        if ctx.attempt() < 3 {
            return Err(NodeError::new("Flaky", "again"));
        }
        Ok(writes(&format!("{answer} at {}", ctx.attempt())))
    };
    let policy = retrying(RetryPolicy::new(3));
    let app = app(graph(vec![("a", Arc::new(node), policy)]), None);
    let asked = invoke(&app, "1", json!({})).await;
    assert_eq!(asked.interrupts.len(), 1);
    let thread = ThreadId::new("1");
    let resumed = app.resume(&thread, answers(json!("Ada"), None));
    let resumed = Box::pin(resumed).await.unwrap();
    assert_eq!(resumed.values["log"], json!(["Ada at 3"]));
}

fn handled_by(handler: impl Node) -> Policies {
    Policies {
        on_error: Some(Arc::new(handler)),
        ..Policies::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_takes_the_place_of_its_node() {
    let log = Log::default();
    let handler = |_: Value, ctx: NodeContext| async move {
        let failure = ctx.failure().cloned().unwrap();
        let line = format!("{} {}", failure.node, failure.error);
        Ok(NodeReturn::Output(NodeOutput::command(Command {
            update: vec![superstep_graph::Write::set("log", json!([line]))],
            goto: vec!["after".into()],
            parent: false,
        })))
    };
    let policies = Policies {
        retry: Some(RetryPolicy::new(2).without_pauses()),
        ..handled_by(handler)
    };
    let app = app(graph(vec![("a", flaky(&log, 9), policies)]), None);
    let output = invoke(&app, "1", json!({})).await;
    assert_eq!(output.values["log"], json!(["a Flaky: try 2", "after"]));
    assert_eq!(output.error, None);
    let history = app.history(&ThreadId::new("1"), 10).await.unwrap();
    let task = &history[2].tasks[0];
    assert_eq!(task.error.as_ref().unwrap().message, "try 2");
    assert_eq!(task.result, None);
}

#[tokio::test(start_paused = true)]
async fn a_handler_asks_after_the_questions_of_its_node() {
    let node = |_: Value, ctx: NodeContext| async move {
        let first: String = ctx.interrupt("first?").await?;
        Err(NodeError::new("Told", first))
    };
    let handler = |_: Value, ctx: NodeContext| async move {
        let second: String = ctx.interrupt("second?").await?;
        let first = ctx.failure().cloned().unwrap().error;
        Ok(writes(&format!("{} {second}", first.message())))
    };
    let nodes = vec![("a", Arc::new(node) as _, handled_by(handler))];
    let app = app(graph(nodes), None);
    let asked = invoke(&app, "1", json!({})).await;
    assert_eq!(asked.interrupts[0].value, "first?");
    let thread = ThreadId::new("1");
    let resume = |answer: &str| app.resume(&thread, answers(json!(answer), None));
    let asked = Box::pin(resume("one")).await.unwrap();
    assert_eq!(asked.interrupts[0].value, "second?");
    let done = Box::pin(resume("two")).await.unwrap();
    assert_eq!(done.values["log"], json!(["one two"]));
}

#[tokio::test(start_paused = true)]
async fn a_failing_handler_fails_the_run() {
    let log = Log::default();
    let handler = |_: Value, _: NodeContext| async { Err(NodeError::new("Worse", "no way out")) };
    let nodes = vec![("a", flaky(&log, 9), handled_by(handler))];
    let output = invoke(&app(graph(nodes), None), "1", json!({})).await;
    assert_eq!(output.error.unwrap().kind, "Worse");
}

#[tokio::test(start_paused = true)]
async fn a_cached_node_runs_once_for_its_input() {
    let log = Log::default();
    let policies = Policies {
        cache: Some(
            CachePolicy::new()
                .ttl(Duration::from_secs(60))
                .key(|input| input["key"].to_string()),
        ),
        ..Policies::default()
    };
    let app = app(graph(vec![("a", flaky(&log, 1), policies)]), None);
    for (thread, key) in [("1", "x"), ("2", "x"), ("3", "y")] {
        let output = invoke(&app, thread, json!({"key": key})).await;
        assert_eq!(output.values["log"], json!(["a"]));
    }
    assert_eq!(noted(&log), ["a 1", "a 1"]);
    tokio::time::advance(Duration::from_secs(60)).await;
    invoke(&app, "4", json!({"key": "x"})).await;
    assert_eq!(noted(&log), ["a 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_cached() {
    let log = Log::default();
    let policies = Policies {
        cache: Some(CachePolicy::new()),
        ..Policies::default()
    };
    let app = app(graph(vec![("a", flaky(&log, 9), policies)]), None);
    for thread in ["1", "2"] {
        assert!(invoke(&app, thread, json!({})).await.error.is_some());
    }
    assert_eq!(noted(&log), ["a 1", "a 1"]);
}

#[tokio::test(start_paused = true)]
async fn one_task_at_a_time_runs_in_task_order() {
    let log = Log::default();
    let slow = |name: &'static str, pause: u64| {
        let log = Arc::clone(&log);
        let node = move |_: Value, _: NodeContext| {
            let log = Arc::clone(&log);
            async move {
                note(&log, format!("{name} begins"));
                tokio::time::sleep(Duration::from_secs(pause)).await;
                note(&log, format!("{name} ends"));
                match name {
                    "a" => Err(NodeError::new("Told", "to fail")),
                    name => Ok(writes(name)),
                }
            }
        };
        Arc::new(node) as Arc<dyn Node>
    };
    let handler = {
        let log = Arc::clone(&log);
        move |_: Value, _: NodeContext| {
            note(&log, "a is handled");
            async { Ok(writes("handled")) }
        }
    };
    let nodes = || {
        vec![
            ("c", slow("c", 1), Policies::default()),
            ("b", slow("b", 2), Policies::default()),
            ("a", slow("a", 3), handled_by(handler.clone())),
        ]
    };
    let output = invoke(&app(graph(nodes()), Some(1)), "1", json!({})).await;
    let in_turn = [
        "a begins",
        "a ends",
        "b begins",
        "b ends",
        "c begins",
        "c ends",
        "a is handled",
    ];
    assert_eq!(noted(&log), in_turn);
    assert_eq!(output.values["log"], json!(["handled", "b", "c"]));

    let output = invoke(&app(graph(nodes()), None), "1", json!({})).await;
    let beside = [
        "a begins",
        "b begins",
        "c begins",
        "c ends",
        "b ends",
        "a ends",
        "a is handled",
    ];
    assert_eq!(noted(&log), beside);
    assert_eq!(output.values["log"], json!(["handled", "b", "c"]));

    invoke(&app(graph(nodes()), Some(2)), "1", json!({})).await;
    let by_two = [
        "a begins",
        "b begins",
        "b ends",
        "c begins",
        "a ends",
        "c ends",
        "a is handled",
    ];
    assert_eq!(noted(&log), by_two);
}

#[tokio::test(start_paused = true)]
async fn a_failing_task_keeps_its_siblings_writes() {
    let log = Log::default();
    let nodes = vec![
        ("a", flaky(&log, 9), Policies::default()),
        ("b", flaky(&log, 1), Policies::default()),
    ];
    for at_once in [None, Some(1)] {
        let app = app(graph(nodes.clone()), at_once);
        assert!(invoke(&app, "1", json!({})).await.error.is_some());
        let state = app.state(&ThreadId::new("1")).await.unwrap().unwrap();
        assert_eq!(state.values["log"], json!(["b"]));
        assert_eq!(state.next, ["a"]);
    }
}
