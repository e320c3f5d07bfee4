//! What a graph is refused or warned for when it is compiled: each text names the node and says
//! what to do.

use superstep_graph::{
    Branch, Breakpoints, ChannelKind, END, GraphBuilder, NodeSpec, Reducer, START,
};

/// A graph of one node that compiles; each test spoils it in one way.
fn sound() -> GraphBuilder {
    let mut builder = GraphBuilder::new();
    builder.channel("draft", ChannelKind::Last);
    builder.node(NodeSpec::new("write")).edge(START, "write");
    builder
}

fn problems(spoil: impl FnOnce(&mut GraphBuilder)) -> String {
    let mut builder = sound();
    spoil(&mut builder);
    let error = builder.compile().expect_err("the graph compiled");
    assert!(!error.problems.is_empty());
    error.to_string()
}

fn warnings(change: impl FnOnce(&mut GraphBuilder)) -> Vec<String> {
    let mut builder = sound();
    change(&mut builder);
    let graph = builder.compile().expect("the graph compiles");
    graph.warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn a_sound_graph_compiles_without_a_word() {
    assert_eq!(warnings(|_| {}), Vec::<String>::new());
}

#[test]
fn names_must_be_free_and_fit() {
    insta::assert_snapshot!(problems(|b| { b.node(NodeSpec::new("write")); }), @"the graph cannot be compiled: node `write` is there twice; give each node a name of its own");
    insta::assert_snapshot!(problems(|b| { b.channel("draft", ChannelKind::Any); }), @"the graph cannot be compiled: channel `draft` is there twice; declare each channel once");
    insta::assert_snapshot!(problems(|b| { b.node(NodeSpec::new("__start__")); }), @"the graph cannot be compiled: `__start__` is a reserved name; names beginning with `__`, `branch:to:` or `join:` belong to superstep, so rename it");
    insta::assert_snapshot!(problems(|b| { b.channel("branch:to:write", ChannelKind::Any); }), @"the graph cannot be compiled: `branch:to:write` is a reserved name; names beginning with `__`, `branch:to:` or `join:` belong to superstep, so rename it");
    insta::assert_snapshot!(problems(|b| { b.node(NodeSpec::new("a|b")); }), @"the graph cannot be compiled: node name `a|b` is empty or contains `|` or `:`, which namespaces use; rename it");
    insta::assert_snapshot!(problems(|b| { b.node(NodeSpec::new("")); }), @"the graph cannot be compiled: node name `` is empty or contains `|` or `:`, which namespaces use; rename it");
}

#[test]
fn a_node_may_be_named_like_a_channel() {
    let mut builder = sound();
    builder.node(NodeSpec::new("draft")).edge("write", "draft");
    assert!(builder.compile().is_ok());
}

#[test]
fn edges_must_lead_somewhere() {
    insta::assert_snapshot!(problems(|b| { b.edge("write", "review"); }), @r#"the graph cannot be compiled: an edge from `write` to `review` names `review`, which is not a node; add it with node("review", ..) or correct the edge"#);
    insta::assert_snapshot!(problems(|b| { b.edge("plan", "write"); }), @r#"the graph cannot be compiled: an edge from `plan` to `write` names `plan`, which is not a node; add it with node("plan", ..) or correct the edge"#);
    insta::assert_snapshot!(problems(|b| { b.join(["write", "plan"], "write"); }), @r#"the graph cannot be compiled: an edge from `write`, `plan` to `write` names `plan`, which is not a node; add it with node("plan", ..) or correct the edge"#);
    insta::assert_snapshot!(problems(|b| { b.edge("write", START); }), @"the graph cannot be compiled: an edge goes from `write` to `__start__`: nothing leaves `__end__` or enters `__start__`; turn it round or remove it");
    insta::assert_snapshot!(problems(|b| { b.edge(END, "write"); }), @"the graph cannot be compiled: an edge goes from `__end__` to `write`: nothing leaves `__end__` or enters `__start__`; turn it round or remove it");
    insta::assert_snapshot!(problems(|b| { b.join(Vec::<&str>::new(), "write"); }), @"the graph cannot be compiled: a join to `write` has no sources; name the nodes it waits for");
}

#[test]
fn conditional_edges_must_lead_somewhere() {
    let to = |node: &str| Branch::new(|_| Ok(Vec::new())).with_map([("yes", node)]);
    insta::assert_snapshot!(problems(|b| { b.branch("write", to("review")); }), @"the graph cannot be compiled: a conditional edge from `write` names `review`, which is not a node; add it or correct the map");
    insta::assert_snapshot!(problems(|b| { b.branch("plan", to("write")); }), @"the graph cannot be compiled: a conditional edge from `plan` names `plan`, which is not a node; add it or correct the map");
    insta::assert_snapshot!(problems(|b| { b.branch("write", to(START)); }), @"the graph cannot be compiled: an edge goes from `write` to `__start__`: nothing leaves `__end__` or enters `__start__`; turn it round or remove it");
    insta::assert_snapshot!(problems(|b| { b.branch(END, to("write")); }), @"the graph cannot be compiled: an edge goes from `__end__` to `write`: nothing leaves `__end__` or enters `__start__`; turn it round or remove it");
}

#[test]
fn a_graph_needs_an_entry() {
    let mut builder = GraphBuilder::new();
    builder.node(NodeSpec::new("write")).edge("write", END);
    let error = builder
        .compile()
        .expect_err("the graph compiled")
        .to_string();
    insta::assert_snapshot!(error, @"the graph cannot be compiled: the graph has no entry; add an edge from START to its first node");
    // A path from the start is one too.
    builder.branch(START, Branch::new(|_| Ok(vec!["write".into()])));
    assert!(builder.compile().is_ok());
}

#[test]
fn schemas_and_breakpoints_name_what_is_there() {
    insta::assert_snapshot!(problems(|b| { b.input(["topic".into()]); }), @"the graph cannot be compiled: the input names channel `topic`, which the state does not have; declare it or correct the name");
    insta::assert_snapshot!(problems(|b| { b.output(["topic".into()]); }), @"the graph cannot be compiled: the output names channel `topic`, which the state does not have; declare it or correct the name");
    insta::assert_snapshot!(
        problems(|b| {
            let mut node = NodeSpec::new("review");
            node.reads = Some(["topic".into()].into());
            b.node(node);
        }),
        @"the graph cannot be compiled: node `review` names channel `topic`, which the state does not have; declare it or correct the name"
    );
    insta::assert_snapshot!(
        problems(|b| {
            b.interrupt_before(Breakpoints::Nodes(["review".into()].into()));
        }),
        @"the graph cannot be compiled: a breakpoint names `review`, which is not a node; add it or correct the name"
    );
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = problems(|b| {
        b.edge("write", "x")
            .edge("y", "write")
            .channel("draft", ChannelKind::Last);
    });
    insta::assert_snapshot!(text.replace("; ", ";\n"), @r#"
    the graph cannot be compiled: channel `draft` is there twice;
    declare each channel once;
    an edge from `write` to `x` names `x`, which is not a node;
    add it with node("x", ..) or correct the edge;
    an edge from `y` to `write` names `y`, which is not a node;
    add it with node("y", ..) or correct the edge
    "#);
}

#[test]
fn what_may_not_be_meant_is_a_warning() {
    insta::assert_snapshot!(
        warnings(|b| { b.node(NodeSpec::new("lonely")); }).join("\n"),
        @"no edge or map reaches `lonely`; if a goto or send does, all is well, else add an edge"
    );
    let writer = |name: &str, channel: &str| {
        let mut node = NodeSpec::new(name);
        node.writes = Some([channel.into()].into());
        node
    };
    insta::assert_snapshot!(
        warnings(|b| {
            b.node(writer("a", "draft")).node(writer("b", "draft"));
            b.edge("write", "a").edge("write", "b");
        })
        .join("\n"),
        @"`a`, `b` can run in one superstep and may all write `draft`, which keeps one value; give it a reducer"
    );
    let silent = warnings(|b| {
        b.channel("log", ChannelKind::Reduce(Reducer::Append));
        b.node(writer("a", "log")).node(writer("b", "log"));
        b.edge("write", "a").edge("write", "b");
        b.node(writer("c", "draft")).edge("a", "c");
    });
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn joins_of_odd_names_stay_apart() {
    let mut builder = sound();
    for name in ["a", "b+c", "a+b", "c", "one", "two"] {
        builder.node(NodeSpec::new(name)).edge("write", name);
    }
    builder.join(["a", "b+c"], "one").join(["a+b", "c"], "one");
    let graph = builder.compile().expect("the graph compiles");
    let joins = graph.topology()["edges"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["join"] == true)
        .count();
    assert_eq!(joins, 2);
    for join in ["join:a+b%2Bc:one", "join:a%2Bb+c:one"] {
        assert!(graph.channel(join).is_some(), "{join}");
    }
}
