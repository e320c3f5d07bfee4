//! Graphs: edges, joins, conditional edges, and the mistakes that `build` tells.

use serde_json::{Value, json};
use superstep::{
    BuildError, Channel, END, Graph, GraphBuilder, NodeError, Reducer, START, Send, State,
};

use crate::app;

#[derive(Clone, Debug, Default, State)]
struct Walk {
    to: String,
    #[state(reducer = append)]
    path: Vec<String>,
}

fn step(name: &'static str) -> impl Fn(Walk) -> std::future::Ready<Result<WalkUpdate, NodeError>> {
    move |_| std::future::ready(Ok(Walk::update().push_path(name)))
}

fn walk(nodes: &[&'static str]) -> GraphBuilder<Walk> {
    nodes
        .iter()
        .fold(Graph::<Walk>::builder("walk"), |graph, name| {
            graph.node(*name, step(name))
        })
}

async fn path(graph: Result<Graph<Walk>, BuildError>, to: &str) -> Vec<String> {
    let app = app(graph.unwrap()).await;
    let run = app.thread("1").invoke(Walk::update().to(to)).await.unwrap();
    assert_eq!(run.error, None);
    run.state::<Walk>().unwrap().path
}

#[tokio::test]
async fn a_join_waits_for_every_source() {
    let graph = walk(&["a", "b", "longer", "end"])
        .edge(START, "a")
        .edge(START, "b")
        .edge("b", "longer")
        .join(["a", "longer"], "end")
        .build();
    assert_eq!(path(graph, "").await, ["a", "b", "longer", "end"]);
}

#[tokio::test]
async fn a_path_chooses_from_the_state() {
    let graph = || {
        walk(&["a", "b", "c"])
            .edge(START, "a")
            .branch("a", |state| match state.to.as_str() {
                "both" => vec!["b".to_owned(), "c".to_owned()],
                "none" => vec![END.to_owned()],
                to => vec![to.to_owned()],
            })
            .build()
    };
    for (to, expected) in [
        ("b", vec!["a", "b"]),
        ("both", vec!["a", "b", "c"]),
        ("none", vec!["a"]),
    ] {
        assert_eq!(path(graph(), to).await, expected, "{to}");
    }
}

#[tokio::test]
async fn a_map_translates_what_a_path_says() {
    let graph = || {
        walk(&["a", "b"])
            .edge(START, "a")
            .branch_map(
                "a",
                |state| state.to == "on",
                [("true", "b"), ("false", END)],
            )
            .build()
    };
    assert_eq!(path(graph(), "on").await, ["a", "b"]);
    assert_eq!(path(graph(), "off").await, ["a"]);
    let drawn = graph().unwrap().topology().to_mermaid();
    assert!(drawn.contains("-. \"true\" .-> b"), "{drawn}");
}

#[tokio::test]
async fn a_path_may_send_packets() {
    let graph = walk(&["a"])
        .node_with_input("work", |name: String| async move {
            Ok(Walk::update().push_path(name))
        })
        .edge(START, "a")
        .branch("a", |_| ["x", "y"].map(|name| Send::to("work", name)))
        .build();
    assert_eq!(path(graph, "").await, ["a", "x", "y"]);
}

#[tokio::test]
async fn a_failing_path_fails_the_run() {
    let graph = walk(&["a"])
        .edge(START, "a")
        .branch("a", |_| Err::<&str, _>("no way out"))
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    let error = run.error.unwrap();
    assert_eq!(error.kind, "PathError");
    assert!(error.message.contains("no way out"), "{error:?}");
}

#[test]
fn every_mistake_is_told_when_a_graph_is_built() {
    let graph = walk(&["a", "a", "__b"])
        .edge("a", "nowhere")
        .branch_map("a", |_| "x", [("x", "elsewhere")])
        .build();
    let message = graph.unwrap_err().to_string();
    let words = [
        "graph `walk` cannot be built",
        "`a` is there twice",
        "`__b` is a reserved name",
        "`nowhere`, which is not a node",
        "`elsewhere`, which is not a node",
        "no entry",
    ];
    for words in words {
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn names_and_schemas_are_checked_too() {
    let unnamed = walk(&["a"]).edge(START, "a").version("").build();
    assert!(matches!(unnamed, Err(BuildError::Unnamed { .. })));
    let schema = walk(&["a"])
        .edge(START, "a")
        .input_schema(json!({"type": "nothing"}))
        .build();
    assert!(matches!(schema, Err(BuildError::Schema { .. })));
}

#[test]
fn a_graph_says_what_it_is() {
    let graph = walk(&["a"])
        .version("3")
        .description("Walks")
        .edge(START, "a")
        .build()
        .unwrap();
    assert_eq!(graph.id().to_string(), "walk@3");
    assert_eq!(graph.description(), "Walks");
    assert!(graph.topology().has_node("a"));
    assert_eq!(graph.input_schema().unwrap()["title"], "Walk");
}

#[tokio::test]
async fn a_dynamic_graph_is_made_from_data() {
    let spec = json!({"channels": ["a", "b"], "nodes": ["x", "y"]});
    let texts = |key: &str| -> Vec<String> { serde_json::from_value(spec[key].clone()).unwrap() };
    let mut graph = Graph::dynamic("made").channel("log", Channel::Reduce(Reducer::Append));
    for channel in texts("channels") {
        graph = graph.channel(channel, Channel::Last);
    }
    let mut before = START.to_owned();
    for name in texts("nodes") {
        let said = name.clone();
        graph = graph
            .node(name.as_str(), move |state: Value| {
                let line = format!("{said} reads {}", state["a"]);
                async move { Ok(json!({"log": line})) }
            })
            .edge(before.as_str(), name.as_str());
        before = name;
    }
    let app = app(graph.build().unwrap()).await;
    let run = app.thread("1").invoke(json!({"a": 7})).await.unwrap();
    assert_eq!(run.values["log"], json!(["x reads 7", "y reads 7"]));
}

#[tokio::test]
async fn only_named_channels_go_in_and_out() {
    let graph = walk(&["a"])
        .input(["to"])
        .output(["path"])
        .edge(START, "a")
        .build()
        .unwrap();
    let app = app(graph).await;
    let run = app
        .thread("1")
        .invoke(json!({"to": "x", "path": ["no"]}))
        .await;
    let run = run.unwrap();
    assert_eq!(Value::Object(run.values), json!({"path": ["a"]}));
}
