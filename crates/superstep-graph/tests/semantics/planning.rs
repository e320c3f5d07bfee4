//! Plan and apply on single checkpoints: triggers, order, ids, and what a delta costs.

use serde_json::{Value, json};
use superstep_graph::{
    ChannelChange, ChannelKind, Checkpoint, Contribution, Delta, Graph, GraphBuilder, Horizon,
    Lineage, Namespace, NodeSpec, Planned, Reducer, SENDS, START, Send, Source, Task, TaskPath,
    Write, apply, input_of, listing_order, plan, start_writes, take_input,
};

/// Nodes declared as z, m, a, all entered from the start; `log` is a list.
fn zma() -> Graph {
    let mut builder = GraphBuilder::new();
    builder.channel("log", ChannelKind::Reduce(Reducer::Append));
    for node in ["z", "m", "a"] {
        builder.node(NodeSpec::new(node)).edge(START, node);
    }
    builder.compile().unwrap()
}

fn planned(graph: &Graph, base: &Checkpoint, delta: &Delta, source: Source) -> Vec<Task> {
    plan(
        graph,
        &Planned {
            base,
            delta,
            source,
            step: base.step + 1,
            lineage: &base.lineage,
            ns: &Namespace::root(),
        },
    )
}

/// The checkpoint after the start, with these packets sent besides, and its tasks.
fn started(graph: &Graph, sends: &[Send], source: Source) -> (Checkpoint, Vec<Task>) {
    let mut checkpoint = Checkpoint::empty(Lineage::root("t"));
    let input = take_input(graph, &checkpoint, &[], &json!({})).unwrap();
    let tasks = planned(graph, &checkpoint, &input, Source::Input);
    checkpoint.merge(&input);
    let mut writes = start_writes(graph, &checkpoint, &json!({})).unwrap();
    writes.extend(sends.iter().map(|send| Write::set(SENDS, json!(send))));
    let delta = apply(graph, &checkpoint, &[Contribution::of(&tasks[0], &writes)]).unwrap();
    let tasks = planned(graph, &checkpoint, &delta, source);
    checkpoint.merge(&delta);
    (checkpoint, tasks)
}

fn names(tasks: &[Task]) -> Vec<&str> {
    tasks.iter().map(|task| task.node.as_str()).collect()
}

#[test]
fn an_empty_thread_plans_nothing() {
    let graph = zma();
    let empty = Checkpoint::empty(Lineage::root("t"));
    for source in [Source::Input, Source::Update] {
        assert_eq!(planned(&graph, &empty, &Delta::default(), source), []);
    }
}

#[test]
fn an_input_triggers_the_start_alone() {
    let graph = zma();
    let empty = Checkpoint::empty(Lineage::root("t"));
    let delta = take_input(&graph, &empty, &[], &json!({"log": [1]})).unwrap();
    let tasks = planned(&graph, &empty, &delta, Source::Input);
    assert_eq!(names(&tasks), [START]);
    let mut checkpoint = empty;
    checkpoint.merge(&delta);
    let horizon = Horizon { step: 0, stop: 9 };
    let input = input_of(&graph, &checkpoint, &tasks[0], horizon);
    assert_eq!(input, json!({"log": [1]}));
}

#[test]
fn only_an_object_is_an_input() {
    let graph = zma();
    let empty = Checkpoint::empty(Lineage::root("t"));
    let error = take_input(&graph, &empty, &[], &json!([1])).unwrap_err();
    insta::assert_snapshot!(error, @r#"an input or update must be an object of channels, not a list; give {"<channel>": ..}"#);
}

#[test]
fn packets_come_first_and_nodes_by_name() {
    let graph = zma();
    let sends = [Send::new("m", json!(1)), Send::new("a", json!(2))];
    let (_, tasks) = started(&graph, &sends, Source::Loop);
    assert_eq!(names(&tasks), ["m", "a", "a", "m", "z"]);
    assert_eq!(listing_order(&graph, &tasks), ["m", "a", "z", "m", "a"]);
}

#[test]
fn after_an_update_nodes_come_as_they_were_defined() {
    let graph = zma();
    for source in [Source::Update, Source::Fork] {
        let (_, tasks) = started(&graph, &[], source);
        assert_eq!(names(&tasks), ["z", "m", "a"]);
    }
}

#[test]
fn packets_to_unknown_nodes_are_dropped() {
    let graph = zma();
    let sends = [
        Send::new("gone", json!(1)),
        Send::new(START, json!(2)),
        Send::new("a", json!(null)),
    ];
    let (checkpoint, tasks) = started(&graph, &sends, Source::Loop);
    assert_eq!(names(&tasks), ["a", "a", "m", "z"]);
    // The packet keeps its own index, and null is its whole input.
    assert_eq!(tasks[0].path, TaskPath::Push(2));
    let horizon = Horizon { step: 1, stop: 9 };
    assert_eq!(
        input_of(&graph, &checkpoint, &tasks[0], horizon),
        json!(null)
    );
    assert_eq!(
        input_of(&graph, &checkpoint, &tasks[1], horizon),
        json!({"log": []})
    );
}

#[test]
fn a_task_is_triggered_once_for_each_new_version() {
    let graph = zma();
    let (mut checkpoint, tasks) = started(&graph, &[], Source::Loop);
    let none: Vec<Contribution<'_>> = tasks
        .iter()
        .map(|task| Contribution::of(task, &[]))
        .collect();
    let delta = apply(&graph, &checkpoint, &none).unwrap();
    assert_eq!(planned(&graph, &checkpoint, &delta, Source::Loop), []);
    checkpoint.merge(&delta);
    assert_eq!(
        planned(&graph, &checkpoint, &Delta::default(), Source::Update),
        []
    );
}

#[test]
fn ids_of_tasks_come_from_what_they_are() {
    let root = Lineage::root("t");
    let id = |lineage: &Lineage, ns: &str, step, node: &str, path: &TaskPath| {
        Task::id_of(lineage, &Namespace::new(ns), step, &node.into(), path).to_string()
    };
    let mut ids = vec![
        id(&root, "", 1, "a", &TaskPath::Pull),
        id(&root.next(0, None), "", 1, "a", &TaskPath::Pull),
        id(&root, "a:1", 1, "a", &TaskPath::Pull),
        id(&root, "", 2, "a", &TaskPath::Pull),
        id(&root, "", 1, "b", &TaskPath::Pull),
        id(&root, "", 1, "a", &TaskPath::Push(0)),
        id(&root, "", 1, "a", &TaskPath::Push(1)),
    ];
    assert_eq!(ids[0], id(&root, "", 1, "a", &TaskPath::Pull));
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn lineages_follow_the_parent_and_the_commands() {
    let root = Lineage::root("t");
    assert_eq!(
        root.next(1, ["a", "b"]),
        Lineage::root("t").next(1, ["a", "b"])
    );
    let others = [
        Lineage::root("u").next(1, ["a", "b"]),
        root.next(2, ["a", "b"]),
        root.next(1, ["b", "a"]),
        root.next(1, ["ab"]),
        root.next(1, None),
        root.next(0, None).next(1, ["a", "b"]),
    ];
    for other in others {
        assert_ne!(other, root.next(1, ["a", "b"]));
    }
}

#[test]
fn writes_are_applied_by_name_and_then_by_packet() {
    let graph = zma();
    let sends = [Send::new("m", json!(1)), Send::new("a", json!(2))];
    let (checkpoint, tasks) = started(&graph, &sends, Source::Loop);
    let writes: Vec<[Write; 1]> = tasks
        .iter()
        .map(|task| {
            [Write::set(
                "log",
                json!([format!("{} {:?}", task.node, task.path)]),
            )]
        })
        .collect();
    let contributions: Vec<_> = tasks
        .iter()
        .zip(&writes)
        .map(|(t, w)| Contribution::of(t, w))
        .collect();
    let delta = apply(&graph, &checkpoint, &contributions).unwrap();
    let expected = ["a Pull", "m Pull", "z Pull", "m Push(0)", "a Push(1)"];
    assert_eq!(delta.value_written(&"log".into()), Some(json!(expected)));
}

#[test]
fn a_superstep_costs_what_it_changes() {
    let graph = zma();
    let (mut checkpoint, tasks) = started(&graph, &[], Source::Loop);
    let old: Vec<Value> = (0..10_000).map(Value::from).collect();
    checkpoint.values.insert("log".into(), json!(old));
    checkpoint.values.insert("unread".into(), json!("large"));
    let writes = [Write::set("log", json!(["new"]))];
    let delta = apply(&graph, &checkpoint, &[Contribution::of(&tasks[0], &writes)]).unwrap();
    assert_eq!(
        delta.channels.get("log"),
        Some(&ChannelChange::Push(vec![json!("new")]))
    );
    // Besides it: the branch channels, which live for one superstep.
    let others: Vec<&ChannelChange> = delta
        .channels
        .iter()
        .filter(|(c, _)| **c != "log")
        .map(|(_, d)| d)
        .collect();
    assert_eq!(others, [&ChannelChange::Remove; 3]);
    assert_eq!(delta.seen.len(), 1);
    assert_eq!(delta.versions.len(), 4);
}

#[test]
fn a_refused_write_changes_nothing() {
    let mut builder = GraphBuilder::new();
    builder.channel("one", ChannelKind::Last);
    builder.node(NodeSpec::new("a")).node(NodeSpec::new("b"));
    builder.edge(START, "a").edge(START, "b");
    let graph = builder.compile().unwrap();
    let (checkpoint, tasks) = started(&graph, &[], Source::Loop);
    let write = [Write::set("one", json!(1))];
    let both: Vec<_> = tasks
        .iter()
        .map(|task| Contribution::of(task, &write))
        .collect();
    let error = apply(&graph, &checkpoint, &both).unwrap_err();
    insta::assert_snapshot!(error, @"channel `one` got several values in one superstep but keeps one; give it a reducer, or let only one parallel node write it");
}

#[test]
fn writes_to_channels_that_are_gone_are_dropped() {
    let graph = zma();
    let (checkpoint, tasks) = started(&graph, &[], Source::Loop);
    let writes = [
        Write::set("gone", json!(1)),
        Write::set("branch:to:gone", json!(null)),
    ];
    let delta = apply(&graph, &checkpoint, &[Contribution::of(&tasks[0], &writes)]).unwrap();
    assert!(
        !delta
            .channels
            .keys()
            .any(|channel| channel.as_str().ends_with("gone"))
    );
}
