//! What comes from outside a superstep: new input over pending tasks, updates of the state.

use serde_json::{Value, json};
use superstep_graph::{
    ChannelKind, Checkpoint, END, Graph, GraphBuilder, Lineage, Namespace, NodeName, NodeSpec,
    Planned, Reducer, RouteError, START, Source, Task, plan, read_state, take_input, update_state,
};

use crate::engine::{Engine, Failure, Returned};

/// `a`, then `b` and `c` side by side, then `end` as their join; `b` and `c` fail.
fn stuck() -> Graph {
    let mut builder = GraphBuilder::new();
    builder.channel("log", ChannelKind::Reduce(Reducer::Append));
    builder.channel("once", ChannelKind::Ephemeral { guard: true });
    for node in ["a", "b", "c", "end"] {
        builder.node(NodeSpec::new(node));
    }
    builder
        .edge(START, "a")
        .edge("a", "b")
        .edge("a", "c")
        .join(["b", "c"], "end");
    builder.compile().unwrap()
}

/// Runs `stuck` as far as it goes.
fn run(graph: &Graph) -> (Checkpoint, Vec<Task>) {
    let mut engine = Engine::new(graph);
    let ran = engine.invoke(Some(&json!({})), 25, &mut |task, _| {
        if task.node == "a" {
            Ok(Returned::Update(json!({"log": ["a"], "once": 1})))
        } else {
            Err(Failure::new("Error", &"stuck"))
        }
    });
    assert!(ran.error.is_some());
    let last = engine.saved.pop().unwrap();
    (last.checkpoint, last.tasks)
}

fn fresh() -> Checkpoint {
    Checkpoint::empty(Lineage::root("t"))
}

/// What the update triggers, and the values after it.
fn update(
    graph: &Graph,
    before: &Checkpoint,
    values: Value,
    as_node: Option<&str>,
) -> Result<(String, Vec<String>, Value), RouteError> {
    let as_node = as_node.map(NodeName::from);
    let mut updates = update_state(graph, before, vec![(values, as_node)])?;
    let (node, delta) = (updates.made.remove(0).0, updates.delta);
    let tasks = plan(
        graph,
        &Planned {
            base: before,
            delta: &delta,
            source: Source::Update,
            step: before.step + 1,
            lineage: &before.lineage,
            ns: &Namespace::root(),
        },
    );
    let mut after = before.clone();
    after.merge(&delta);
    let names = tasks.iter().map(|task| task.node.to_string()).collect();
    Ok((node.to_string(), names, read_state(graph, &after)))
}

#[track_caller]
fn check(before: &Checkpoint, as_node: Option<&str>, node: &str, next: &[&str], values: Value) {
    let graph = stuck();
    let found = update(&graph, before, json!({"log": ["new"]}), as_node).unwrap();
    let next: Vec<String> = next.iter().map(ToString::to_string).collect();
    assert_eq!(found, (node.to_owned(), next, values));
}

#[test]
fn an_update_goes_on_along_its_nodes_edges() {
    let (checkpoint, tasks) = run(&stuck());
    assert_eq!(tasks.len(), 2);
    let values = json!({"log": ["a", "new"]});
    // As the last node, named or not: its edges again. What was pending is dropped.
    check(&checkpoint, Some("a"), "a", &["b", "c"], values.clone());
    check(&checkpoint, None, "a", &["b", "c"], values.clone());
    // As one of two sources: half of the join.
    check(&checkpoint, Some("b"), "b", &[], values.clone());
    check(&checkpoint, Some("end"), "end", &[], values.clone());
    check(&checkpoint, Some(START), START, &["a"], values);
}

#[test]
fn an_update_completes_a_join_that_was_half_there() {
    let graph = stuck();
    let (mut checkpoint, _) = run(&graph);
    let updates = vec![(json!(null), Some("b".into()))];
    let delta = update_state(&graph, &checkpoint, updates).unwrap().delta;
    checkpoint.merge(&delta);
    check(
        &checkpoint,
        Some("c"),
        "c",
        &["end"],
        json!({"log": ["a", "new"]}),
    );
}

#[test]
fn an_update_of_a_fresh_thread_is_from_the_start() {
    check(&fresh(), None, START, &["a"], json!({"log": ["new"]}));
}

#[test]
fn an_update_after_two_nodes_must_say_from_which() {
    let graph = stuck();
    let mut engine = Engine::new(&graph);
    let ran = engine.invoke(Some(&json!({})), 25, &mut |task, _| {
        if task.node == "end" {
            return Err(Failure::new("Error", &"stuck"));
        }
        Ok(Returned::Update(Value::Null))
    });
    assert!(ran.error.is_some());
    let checkpoint = &engine.saved.last().unwrap().checkpoint;
    let error = update(&graph, checkpoint, json!({}), None).unwrap_err();
    insta::assert_snapshot!(error, @"it is not clear which node the update is from; name one with `as_node`");
    assert!(update(&graph, checkpoint, json!({}), Some("b")).is_ok());
}

#[test]
fn an_update_that_does_not_fit_is_refused() {
    let graph = stuck();
    let refused = |values, as_node| {
        update(&graph, &fresh(), values, as_node)
            .unwrap_err()
            .to_string()
    };
    insta::assert_snapshot!(refused(json!({}), Some("gone")), @"the graph has no node `gone` to update the state as; name one of its nodes");
    insta::assert_snapshot!(refused(json!({}), Some(END)), @"the graph has no node `__end__` to update the state as; name one of its nodes");
    insta::assert_snapshot!(refused(json!({"gone": 1}), Some("a")), @"the graph has no channel `gone`; its channels are log, once");
    insta::assert_snapshot!(refused(json!([1]), Some("a")), @r#"an input or update must be an object of channels, not a list; give {"<channel>": ..}"#);
    // Of a start, LangGraph drops what is no input.
    assert!(update(&graph, &fresh(), json!({"gone": 1}), None).is_ok());
}

#[test]
fn an_update_of_nothing_still_triggers_edges() {
    let (checkpoint, _) = run(&stuck());
    let found = update(&stuck(), &checkpoint, json!(null), Some("a")).unwrap();
    assert_eq!(found.1, ["b", "c"]);
    assert_eq!(found.2, json!({"log": ["a"]}));
}

#[test]
fn new_input_gives_up_what_was_pending() {
    let graph = stuck();
    let (mut checkpoint, pending) = run(&graph);
    let delta = take_input(&graph, &checkpoint, &pending, &json!({})).unwrap();
    let tasks = plan(
        &graph,
        &Planned {
            base: &checkpoint,
            delta: &delta,
            source: Source::Input,
            step: 2,
            lineage: &checkpoint.lineage,
            ns: &Namespace::root(),
        },
    );
    let names: Vec<&str> = tasks.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(names, [START]);
    checkpoint.merge(&delta);
    // A superstep passed over what lives for one.
    assert_eq!(read_state(&graph, &checkpoint), json!({"log": ["a"]}));
}

#[test]
fn new_input_on_a_finished_thread_keeps_its_values() {
    let graph = stuck();
    let (mut checkpoint, _) = run(&graph);
    let delta = take_input(&graph, &checkpoint, &[], &json!({})).unwrap();
    checkpoint.merge(&delta);
    assert_eq!(
        read_state(&graph, &checkpoint),
        json!({"log": ["a"], "once": 1})
    );
}
