//! Route: what a node's return becomes: updates, gotos, edges, paths, in this order.

use serde_json::{Value, json};
use superstep_graph::{
    Branch, ChannelKind, Checkpoint, Command, END, Graph, GraphBuilder, Horizon, Lineage, Managed,
    NodeOutput, NodeSpec, Reducer, RouteError, Routed, SENDS, START, Send, Target, UnknownTargets,
    Write, output_from_update, route, route_within,
};

/// One node `a` with a path, and `b` to go to.
fn graph(
    path: impl Fn(&Value) -> Result<Vec<Target>, String> + std::marker::Send + Sync + 'static,
    map: Option<&[(&str, &str)]>,
) -> Graph {
    let mut builder = GraphBuilder::new();
    builder.channel("n", ChannelKind::Reduce(Reducer::Add));
    builder.channel("v", ChannelKind::Last);
    builder.channel("e", ChannelKind::Ephemeral { guard: true });
    builder.channel("left", ChannelKind::Managed(Managed::RemainingSteps));
    builder
        .node(NodeSpec::new("a"))
        .node(NodeSpec::new("b"))
        .edge(START, "a");
    let mut branch = Branch::new(path);
    if let Some(map) = map {
        branch = branch.with_map(map.iter().copied());
    }
    builder.branch("a", branch);
    builder.compile().unwrap()
}

fn plain() -> Graph {
    graph(|_| Ok(Vec::new()), None)
}

fn checkpoint() -> Checkpoint {
    let mut checkpoint = Checkpoint::empty(Lineage::root("t"));
    checkpoint.values.insert("n".into(), json!(40));
    checkpoint
        .values
        .insert("e".into(), json!("of the superstep before"));
    checkpoint
}

fn routed(graph: &Graph, output: NodeOutput, unknown: UnknownTargets) -> Routed {
    route(graph, &checkpoint(), &"a".into(), output, unknown)
}

fn updated(graph: &Graph, update: Value) -> Routed {
    let output = output_from_update(graph, update).unwrap();
    routed(graph, output, UnknownTargets::Refused)
}

fn channels(routed: &Routed) -> Vec<&str> {
    routed
        .writes
        .iter()
        .map(|write| write.channel.as_str())
        .collect()
}

fn goto(targets: Vec<Target>) -> NodeOutput {
    NodeOutput::command(Command {
        update: Vec::new(),
        goto: targets,
        parent: false,
    })
}

#[test]
fn an_update_keeps_its_keys_and_sets_others_apart() {
    let graph = plain();
    let output =
        output_from_update(&graph, json!({"n": 1, "x": 2, "v": {"__overwrite__": 3}})).unwrap();
    assert_eq!(
        json!(output.commands[0].update),
        json!([
            {"channel": "n", "set": 1}, {"channel": "v", "overwrite": 3},
        ])
    );
    assert_eq!(json!(output.extra), json!({"x": 2}));
    assert!(
        output_from_update(&graph, json!(null)).unwrap().commands[0]
            .update
            .is_empty()
    );
    insta::assert_snapshot!(output_from_update(&graph, json!("text")).unwrap_err(), @r#"an input or update must be an object of channels, not a text; give {"<channel>": ..}"#);
}

#[test]
fn updates_come_before_gotos_edges_and_paths() {
    let mut builder = GraphBuilder::new();
    builder.channel("v", ChannelKind::Last);
    for node in ["a", "b", "c", "d"] {
        builder.node(NodeSpec::new(node));
    }
    builder
        .edge(START, "a")
        .edge("a", "b")
        .join(["a", "b"], "c");
    builder.branch("a", Branch::new(|_| Ok(vec!["d".into(), END.into()])));
    let graph = builder.compile().unwrap();
    let output = NodeOutput::command(Command {
        update: vec![Write::set("v", json!(1))],
        goto: vec![Send::new("c", json!(7)).into(), "c".into()],
        parent: false,
    });
    let routed = routed(&graph, output, UnknownTargets::Refused);
    assert_eq!(routed.error, None);
    assert_eq!(
        channels(&routed),
        [
            "v",
            SENDS,
            "branch:to:c",
            "branch:to:b",
            "join:a+b:c",
            "branch:to:d"
        ]
    );
}

#[test]
fn a_path_sees_its_own_nodes_writes() {
    // n was 40, v was absent, x is no channel, e lived in the superstep before.
    let graph = graph(|state| Err(state.to_string()), None);
    let routed = updated(&graph, json!({"n": 2, "v": "new", "x": true}));
    assert_eq!(channels(&routed), ["n", "v"]);
    insta::assert_snapshot!(routed.error.unwrap(), @r#"the path of `a` failed: {"n":42,"v":"new","x":true}; a path must not fail, correct it"#);
}

#[test]
fn a_path_sees_what_the_engine_supplies() {
    let graph = graph(|state| Err(format!("{} left", state["left"])), None);
    let output = output_from_update(&graph, json!(null)).unwrap();
    let horizon = Horizon { step: 3, stop: 10 };
    let routed = route_within(
        &graph,
        &checkpoint(),
        &"a".into(),
        output,
        UnknownTargets::Refused,
        horizon,
    );
    assert!(routed.error.unwrap().to_string().contains("7 left"));
}

#[test]
fn a_map_translates_names_and_lets_packets_pass() {
    let path = |state: &Value| -> Result<Vec<Target>, String> {
        Ok(match state["v"].as_str() {
            Some("both") => vec!["go".into(), Send::new("b", json!(1)).into()],
            Some("stop") => vec!["stop".into()],
            Some("nowhere") => Vec::new(),
            _ => vec!["else".into()],
        })
    };
    let graph = graph(path, Some(&[("go", "b"), ("stop", END)]));
    let rows: [(&str, &[&str]); 3] = [
        ("both", &["v", "branch:to:b", SENDS]),
        ("stop", &["v"]),
        ("nowhere", &["v"]),
    ];
    for (value, expected) in rows {
        let routed = updated(&graph, json!({"v": value}));
        assert_eq!(routed.error, None, "{value}");
        assert_eq!(channels(&routed), expected, "{value}");
    }
    let routed = updated(&graph, json!({"v": "other"}));
    let error = routed.error.as_ref().unwrap();
    assert!(error.keeps_writes());
    insta::assert_snapshot!(error, @"the path of `a` gave `else`, which is not in its map; add it to the map or return one of go, stop");
}

#[test]
fn a_path_must_give_a_target_that_can_be() {
    let to = |target: &'static str| graph(move |_| Ok(vec![target.into()]), None);
    for target in ["", START] {
        let routed = updated(&to(target), json!({"v": 1}));
        assert!(
            matches!(routed.error, Some(RouteError::InvalidRoute { .. })),
            "{target}"
        );
        assert_eq!(channels(&routed), ["v"]);
    }
    // LangGraph ignores an unknown node that a path gives.
    for target in ["nowhere", END] {
        assert_eq!(updated(&to(target), json!(null)).error, None, "{target}");
    }
    let to_end = graph(|_| Ok(vec![Send::new(END, json!(1)).into()]), None);
    let routed = updated(&to_end, json!({"v": 1}));
    assert_eq!(channels(&routed), ["v"]);
    insta::assert_snapshot!(routed.error.unwrap(), @"a send cannot go to `__end__`; send to a node, or return no send");
}

#[test]
fn an_unknown_goto_is_refused_or_ignored() {
    let graph = plain();
    for target in [
        Target::from("nowhere"),
        Send::new("nowhere", json!(1)).into(),
    ] {
        let refused = routed(&graph, goto(vec![target.clone()]), UnknownTargets::Refused);
        let error = refused.error.unwrap();
        assert!(!error.keeps_writes());
        assert_eq!(error.kind(), "UnknownTarget");
        let ignored = routed(&graph, goto(vec![target]), UnknownTargets::Ignored);
        assert_eq!(ignored.error, None);
    }
    let refused = routed(
        &graph,
        goto(vec!["nowhere".into()]),
        UnknownTargets::Refused,
    );
    insta::assert_snapshot!(refused.error.unwrap(), @"`a` goes to `nowhere`, which is not in the graph; go to a node, or to END");
}

#[test]
fn a_command_updates_only_channels() {
    let graph = plain();
    let command = Command {
        update: vec![Write::set("v", json!(1)), Write::set("x", json!(2))],
        ..Command::default()
    };
    let output = NodeOutput::command(command);
    let ignored = routed(&graph, output.clone(), UnknownTargets::Ignored);
    assert_eq!(ignored.error, None);
    assert_eq!(channels(&ignored), ["v"]);
    let refused = routed(&graph, output, UnknownTargets::Refused);
    assert!(refused.writes.is_empty());
    let error = refused.error.unwrap();
    assert!(!error.keeps_writes());
    insta::assert_snapshot!(error, @"the graph has no channel `x`; its channels are e, left, n, v");
}

#[test]
fn a_command_for_the_parent_is_all_that_counts() {
    let graph = plain();
    let mut output = output_from_update(&graph, json!({"v": 1})).unwrap();
    output.commands.push(Command {
        parent: true,
        goto: vec!["up".into()],
        ..Command::default()
    });
    let routed = routed(&graph, output, UnknownTargets::Refused);
    assert!(routed.writes.is_empty());
    assert_eq!(routed.error, None);
    assert_eq!(routed.parent.unwrap().goto, ["up".into()]);
}

#[test]
fn a_node_that_is_gone_cannot_be_routed() {
    let graph = plain();
    let routed = route(
        &graph,
        &checkpoint(),
        &"gone".into(),
        NodeOutput::none(),
        UnknownTargets::Refused,
    );
    insta::assert_snapshot!(routed.error.unwrap(), @"the graph has no node `gone` to update the state as; name one of its nodes");
}
