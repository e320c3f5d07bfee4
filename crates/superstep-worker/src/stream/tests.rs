//! The order of a run's events over the embedded mode, and what nobody asked for.
//!
//! One task runs at a time, so that the whole order is settled.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_graph::{Breakpoints, ChannelKind, GraphBuilder, NodeSpec, Reducer, START};
use superstep_protocol::{GraphId, RunId, StreamMode, Streams, ThreadId};

use crate::{
    Checkpointer, GoOn, Graphs, Local, Node, NodeCode, NodeContext, NodeError, NodeReturn,
    OutputSink, RunOptions, RunnableGraph, StreamEvent, Subgraph, SystemWorld, WorkerSettings,
    answers,
};

/// Keeps what runs tell, a line each.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl OutputSink for Lines {
    fn emit(&self, _: &ThreadId, _: &RunId, event: StreamEvent) {
        let path = event
            .path
            .iter()
            .fold(String::new(), |path, node| path + node.as_str() + "/");
        let (data, step) = (short(&event), event.step);
        let line = format!("{path}{step} {} {data}", event.mode.as_str());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

fn short(event: &StreamEvent) -> String {
    let data = &event.data;
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
    match event.mode {
        StreamMode::Tasks => format!("{} {}", text("type"), text("name")),
        StreamMode::Checkpoints => format!("{} {}", text("source"), data["next"]),
        StreamMode::Debug => format!("{} {}", text("type"), data["step"]),
        _ if data.get("__interrupt__").is_some() => {
            let asked = data["__interrupt__"].as_array().unwrap();
            let asked = asked.iter().map(|asked| asked["value"].to_string());
            format!("asks {}", asked.collect::<String>())
        }
        _ => data.to_string(),
    }
}

fn id(name: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: "1".into(),
    }
}

fn writes(line: &str) -> NodeReturn {
    NodeReturn::Update(json!({"log": [line]}))
}

/// Nodes that run beside each other: `a` writes, `b` asks and fails at `no`.
fn graph(name: &str, breaks: Breakpoints) -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .channel("log", ChannelKind::Reduce(Reducer::Append))
        .node(NodeSpec::new("a"))
        .node(NodeSpec::new("b"))
        .edge(START, "a")
        .edge(START, "b")
        .interrupt_before(breaks);
    let a = |_: Value, ctx: NodeContext| async move {
        ctx.emit("here is a");
        ctx.emit_message(json!({"id": "m", "content": "tok"}));
        Ok(writes("a"))
    };
    let b = |_: Value, ctx: NodeContext| async move {
        match ctx.interrupt::<String>("sure?").await?.as_str() {
            "no" => Err(NodeError::new("Told", "no")),
            answer => Ok(writes(answer)),
        }
    };
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([
        ("a".into(), Arc::new(a) as Arc<dyn Node>),
        ("b".into(), Arc::new(b) as _),
    ]);
    RunnableGraph::new(id(name), builder.compile().unwrap(), nodes).unwrap()
}

/// A graph whose one node is that graph.
fn outer() -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .channel("log", ChannelKind::Reduce(Reducer::Append))
        .node(NodeSpec::new("sub"))
        .edge(START, "sub");
    let inner = NodeCode::Graph(Subgraph {
        graph: Arc::new(graph("inner", Breakpoints::None)),
        checkpointer: Checkpointer::Inherit,
    });
    let nodes = BTreeMap::from([("sub".into(), inner)]);
    RunnableGraph::new(id("g"), builder.compile().unwrap(), nodes).unwrap()
}

struct App {
    local: Local,
    lines: Arc<Lines>,
}

impl App {
    fn new(graph: RunnableGraph) -> Self {
        let mut graphs = Graphs::new();
        graphs.add(graph);
        let settings = WorkerSettings {
            tasks_at_once: NonZeroUsize::new(1),
            ..WorkerSettings::default()
        };
        let log = Arc::new(MemoryLog::new());
        let lines = Arc::new(Lines::default());
        let sink = Arc::clone(&lines) as Arc<dyn OutputSink>;
        let local = Local::new(graphs, log, Arc::new(SystemWorld), settings).with_output(sink);
        Self { local, lines }
    }

    async fn start(&self, input: Value, streams: Streams) -> Vec<String> {
        let options = RunOptions {
            streams,
            ..RunOptions::default()
        };
        let (graph, thread) = (id("g"), ThreadId::new("t"));
        let run = self.local.invoke(&graph, &thread, input, options);
        Box::pin(run).await.unwrap();
        self.lines.take()
    }

    async fn answer(&self, answer: &str, streams: Streams) -> Vec<String> {
        let options = RunOptions {
            streams,
            ..RunOptions::default()
        };
        let go_on = GoOn {
            answers: Some(answers(json!(answer), None)),
            ..GoOn::default()
        };
        let thread = ThreadId::new("t");
        Box::pin(self.local.go_on(None, &thread, go_on, options))
            .await
            .unwrap();
        self.lines.take()
    }
}

fn all() -> Streams {
    use StreamMode::{Checkpoints, Custom, Messages, Tasks, Updates, Values};
    Streams::of([Values, Updates, Custom, Messages, Tasks, Checkpoints])
}

#[tokio::test]
async fn a_question_is_told_between_task_and_state() {
    let app = App::new(graph("g", Breakpoints::None));
    let told = app.start(json!({"log": []}), all()).await;
    let place = told.iter().position(|line| line.contains("messages"));
    assert!(told[place.unwrap()].contains(r#"{"content":"tok","id":"m"},{"langgraph_node":"a""#));
    let mut told = told;
    told.retain(|line| !line.contains("messages"));
    let expected = [
        r#"0 checkpoints input ["__start__"]"#,
        r#"0 values {"log":[]}"#,
        r#"1 checkpoints loop ["a","b"]"#,
        "1 tasks task a",
        "1 tasks task b",
        r#"1 custom "here is a""#,
        r#"1 updates {"a":{"log":["a"]}}"#,
        "1 tasks result a",
        r#"1 updates asks "sure?""#,
        r#"1 values asks "sure?""#,
        "1 tasks result b",
        r#"1 values {"log":["a"]}"#,
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_run_that_goes_on_repeats_what_is_finished() {
    let app = App::new(graph("g", Breakpoints::None));
    app.start(json!({}), Streams::default()).await;
    let expected = [
        r#"1 values {"log":[]}"#,
        r#"1 checkpoints loop ["a","b"]"#,
        "1 tasks task a",
        "1 tasks task b",
        r#"1 updates {"__metadata__":{"cached":true},"a":{"log":["a"]}}"#,
    ];
    let failed = app.answer("no", all()).await;
    assert_eq!(failed[..5], expected);
    assert_eq!(failed[5..], ["1 tasks result b"]);
}

#[tokio::test]
async fn a_run_that_ends_tells_its_last_checkpoint() {
    let app = App::new(graph("g", Breakpoints::None));
    app.start(json!({}), Streams::default()).await;
    let told = app.answer("yes", all()).await;
    let expected = [
        r#"1 updates {"b":{"log":["yes"]}}"#,
        "1 tasks result b",
        r#"1 values {"log":["a","yes"]}"#,
        "2 checkpoints loop []",
    ];
    assert_eq!(told[told.len() - 4..], expected);
}

#[tokio::test]
async fn a_breakpoint_is_an_empty_list_of_questions() {
    let app = App::new(graph("g", Breakpoints::All));
    let streams = Streams::of([StreamMode::Updates, StreamMode::Debug]);
    let told = app.start(json!({}), streams).await;
    let expected = [
        "0 debug checkpoint -1",
        "1 debug checkpoint 0",
        "1 updates asks ",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn only_what_is_asked_for_is_told() {
    let app = App::new(graph("g", Breakpoints::None));
    let told = app
        .start(json!({}), Streams::of([StreamMode::Custom]))
        .await;
    assert_eq!(told, [r#"1 custom "here is a""#]);
    let told = app.answer("yes", Streams::of([StreamMode::Tasks])).await;
    assert!(told.iter().all(|line| line.starts_with("1 tasks")));
    let nothing = App::new(graph("g", Breakpoints::None));
    let told = nothing.start(json!({}), Streams::default()).await;
    let modes: Vec<&str> = told
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(modes, ["custom", "messages"]);
}

#[tokio::test]
async fn subgraphs_tell_with_their_place_if_asked() {
    let inside = App::new(outer());
    let streams = Streams::of([StreamMode::Updates, StreamMode::Custom]);
    let told = inside
        .start(json!({}), streams.clone().with_subgraphs())
        .await;
    let expected = [
        r#"sub/1 custom "here is a""#,
        r#"sub/1 updates {"a":{"log":["a"]}}"#,
        r#"sub/1 updates asks "sure?""#,
        r#"1 updates asks "sure?""#,
    ];
    assert_eq!(told, expected);
    let outside = App::new(outer());
    let told = outside.start(json!({}), streams).await;
    assert_eq!(told, [r#"1 updates asks "sure?""#]);
}
