//! Whole small graphs with nodes written here: values, steps and order of every run.
//!
//! Each shows one promise of a superstep in a form that fits a screen; what LangGraph does in
//! many more situations is in `cases`.

use serde_json::{Value, json};
use superstep_graph::{
    Branch, ChannelKind, Command, END, Graph, GraphBuilder, NodeOutput, NodeSpec, Reducer, START,
    Send, Target, Write,
};

use crate::engine::{Engine, Failure, Ran, Returned};

fn builder(channels: &[(&str, ChannelKind)], nodes: &[&str]) -> GraphBuilder {
    let mut builder = GraphBuilder::new();
    for (name, kind) in channels {
        builder.channel(*name, kind.clone());
    }
    for node in nodes {
        builder.node(NodeSpec::new(*node));
    }
    builder
}

fn log() -> (&'static str, ChannelKind) {
    ("log", ChannelKind::Reduce(Reducer::Append))
}

/// Every node adds its name to the log.
#[expect(clippy::unnecessary_wraps, reason = "the form of a node")]
fn named(task: &superstep_graph::Task, _: &Value) -> Result<Returned, Failure> {
    Ok(Returned::Update(json!({"log": [task.node]})))
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "rows read better")]
fn check(ran: &Ran, result: Value, steps: &[(i64, &str)]) {
    assert_eq!(ran.error, None);
    assert_eq!(ran.result, result);
    let found: Vec<(i64, &str)> = ran.bodies.iter().map(|(s, n)| (*s, n.as_str())).collect();
    assert_eq!(found, steps);
}

#[test]
fn a_chain_runs_one_node_a_superstep() {
    let mut builder = builder(&[log()], &["a", "b", "c"]);
    builder
        .edge(START, "a")
        .edge("a", "b")
        .edge("b", "c")
        .edge("c", END);
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let ran = engine.invoke(Some(&json!({"log": ["in"]})), 25, &mut named);
    check(
        &ran,
        json!({"log": ["in", "a", "b", "c"]}),
        &[(1, "a"), (2, "b"), (3, "c")],
    );
    let steps: Vec<i64> = engine.saved.iter().map(|s| s.checkpoint.step).collect();
    assert_eq!(steps, [-1, 0, 1, 2, 3]);
    // A second turn takes the input and the start before its first node.
    let ran = engine.invoke(Some(&json!({"log": ["again"]})), 25, &mut named);
    assert_eq!(ran.bodies[0], (6, "a".to_owned()));
}

#[test]
fn a_diamond_joins_both_sides_once() {
    let mut builder = builder(&[log()], &["fork", "right", "left", "far", "end"]);
    builder
        .edge(START, "fork")
        .edge("fork", "right")
        .edge("fork", "left");
    builder.edge("left", "far").join(["right", "far"], "end");
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let ran = engine.invoke(Some(&json!({})), 25, &mut named);
    check(
        &ran,
        json!({"log": ["fork", "left", "right", "far", "end"]}),
        &[
            (1, "fork"),
            (2, "left"),
            (2, "right"),
            (3, "far"),
            (4, "end"),
        ],
    );
}

#[test]
fn a_loop_goes_on_until_its_path_says_so() {
    let mut builder = builder(&[("n", ChannelKind::Reduce(Reducer::Add))], &["more"]);
    builder.edge(START, "more").branch(
        "more",
        Branch::new(|state| Ok(vec![if state["n"] == 3 { END } else { "more" }.into()])),
    );
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let ran = engine.invoke(Some(&json!({"n": 0})), 25, &mut |_, _| {
        Ok(Returned::Update(json!({"n": 1})))
    });
    check(
        &ran,
        json!({"n": 3}),
        &[(1, "more"), (2, "more"), (3, "more")],
    );
}

#[test]
fn a_fan_out_is_reduced_in_packet_order() {
    let mut builder = builder(
        &[("items", ChannelKind::Last), log()],
        &["split", "work", "sum"],
    );
    builder.edge(START, "split").edge("work", "sum").branch(
        "split",
        Branch::new(|state| {
            let items = state["items"].as_array().cloned().unwrap_or_default();
            Ok(items
                .into_iter()
                .map(|i| Send::new("work", i).into())
                .collect())
        }),
    );
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let mut nodes = |task: &superstep_graph::Task, input: &Value| {
        Ok(Returned::Update(match task.node.as_str() {
            "work" => json!({"log": [input["x"]]}),
            "sum" => json!({"log": [input["log"].as_array().unwrap().len()]}),
            _ => Value::Null,
        }))
    };
    let items: Vec<Value> = (0..12).map(|x| json!({"x": x})).collect();
    let ran = engine.invoke(Some(&json!({"items": items})), 25, &mut nodes);
    assert_eq!(ran.error, None);
    assert_eq!(
        ran.result["log"],
        json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    );
    assert_eq!(ran.bodies.len(), 1 + 12 + 1);
}

#[test]
fn a_goto_adds_to_the_static_edges() {
    let mut builder = builder(&[log()], &["a", "b", "c"]);
    builder.edge(START, "a").edge("a", "b");
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let ran = engine.invoke(Some(&json!({})), 25, &mut |task, input| {
        if task.node != "a" {
            return named(task, input);
        }
        let goto: Vec<Target> = vec![
            "c".into(),
            "nowhere".into(),
            END.into(),
            Send::new("c", json!({})).into(),
        ];
        Ok(Returned::Output(NodeOutput::command(Command {
            update: vec![Write::set("log", json!(["a"]))],
            goto,
            parent: false,
        })))
    });
    // The packet runs first and is applied last.
    check(
        &ran,
        json!({"log": ["a", "b", "c", "c"]}),
        &[(1, "a"), (2, "c"), (2, "b"), (2, "c")],
    );
}

#[test]
fn a_deferred_node_runs_when_nothing_else_is_left() {
    let mut builder = builder(&[log()], &["a", "b", "c"]);
    let mut last = NodeSpec::new("last");
    last.defer = true;
    builder.node(last);
    builder
        .edge(START, "a")
        .edge("a", "b")
        .edge("b", "c")
        .edge("a", "last");
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let ran = engine.invoke(Some(&json!({})), 25, &mut named);
    check(
        &ran,
        json!({"log": ["a", "b", "c", "last"]}),
        &[(1, "a"), (2, "b"), (3, "c"), (4, "last")],
    );
}

#[test]
fn a_half_complete_join_survives_the_run() {
    let mut builder = builder(&[("go", ChannelKind::Last), log()], &["a", "b", "end"]);
    builder.join(["a", "b"], "end").branch(
        START,
        Branch::new(|state| Ok(vec![state["go"].as_str().unwrap().into()])),
    );
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    for (go, log) in [
        ("a", json!(["a"])),
        ("a", json!(["a", "a"])),
        ("b", json!(["a", "a", "b", "end"])),
        ("b", json!(["a", "a", "b", "end", "b"])),
        ("a", json!(["a", "a", "b", "end", "b", "a", "end"])),
    ] {
        let ran = engine.invoke(Some(&json!({"go": go})), 25, &mut named);
        assert_eq!(ran.result["log"], log);
    }
}

#[test]
fn the_end_of_a_run_shows_how_far_it_may_go() {
    let mut builder = builder(
        &[
            (
                "left",
                ChannelKind::Managed(superstep_graph::Managed::RemainingSteps),
            ),
            (
                "last",
                ChannelKind::Managed(superstep_graph::Managed::IsLastStep),
            ),
            log(),
        ],
        &["a"],
    );
    // The path stops at the last superstep that is allowed: it sees what its node saw.
    builder.edge(START, "a").branch(
        "a",
        Branch::new(|state| Ok(vec![if state["last"] == true { END } else { "a" }.into()])),
    );
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let mut node = |_: &superstep_graph::Task, input: &Value| {
        Ok(Returned::Update(
            json!({"log": [[input["left"], input["last"]]]}),
        ))
    };
    let ran = engine.invoke(Some(&json!({})), 4, &mut node);
    check(
        &ran,
        json!({"log": [[3, false], [2, false], [1, true]]}),
        &[(1, "a"), (2, "a"), (3, "a")],
    );
}

#[test]
fn a_run_over_its_limit_keeps_what_it_did() {
    let mut builder = builder(&[log()], &["a"]);
    builder.edge(START, "a").edge("a", "a");
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let ran = engine.invoke(Some(&json!({})), 3, &mut named);
    assert_eq!(ran.error.unwrap().kind, "GraphRecursionError");
    assert_eq!(ran.bodies.len(), 3);
    // A run that goes on gets two more than one with an input.
    let ran = engine.invoke(None, 3, &mut named);
    assert_eq!(ran.error.unwrap().kind, "GraphRecursionError");
    assert_eq!(ran.bodies.len(), 5);
    assert_eq!(engine.live().unwrap().0["log"].as_array().unwrap().len(), 8);
}

#[test]
fn finished_siblings_of_a_failure_do_not_run_again() {
    let mut builder = builder(&[log()], &["bad", "good"]);
    builder.edge(START, "bad").edge(START, "good");
    let graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let mut fails = true;
    let mut node = |task: &superstep_graph::Task, input: &Value| {
        if task.node == "bad" && std::mem::take(&mut fails) {
            return Err(Failure::new("Error", &"broken"));
        }
        named(task, input)
    };
    let ran = engine.invoke(Some(&json!({})), 25, &mut node);
    assert_eq!(ran.error.unwrap().message, "broken");
    let (live, left) = engine.live().unwrap();
    assert_eq!((live, left.len()), (json!({"log": ["good"]}), 1));
    let ran = engine.invoke(None, 25, &mut node);
    check(&ran, json!({"log": ["bad", "good"]}), &[(1, "bad")]);
}

#[test]
fn nodes_see_only_what_they_read() {
    let mut builder = GraphBuilder::new();
    builder
        .channel("a", ChannelKind::Last)
        .channel("b", ChannelKind::Last);
    let mut reader = NodeSpec::new("reader");
    reader.reads = Some(["b".into()].into());
    builder.node(reader).edge(START, "reader");
    let graph: Graph = builder.compile().unwrap();
    let mut engine = Engine::new(&graph);
    let mut seen = Value::Null;
    let ran = engine.invoke(
        Some(&json!({"a": 1, "b": 2, "x": 3})),
        25,
        &mut |_, input| {
            seen = input.clone();
            Ok(Returned::Update(Value::Null))
        },
    );
    assert_eq!(ran.error, None);
    assert_eq!(seen, json!({"b": 2}));
}
