//! A graph as people and machines see it from outside: Mermaid text, topology, its hash.

use superstep_graph::{Branch, ChannelKind, END, Graph, GraphBuilder, NodeSpec, Reducer, START};

fn review() -> GraphBuilder {
    let mut builder = GraphBuilder::new();
    builder.channel("draft", ChannelKind::Last);
    builder.channel("notes", ChannelKind::Reduce(Reducer::Append));
    for name in ["write", "check facts", "check \"tone\"", "end", "send"] {
        builder.node(NodeSpec::new(name));
    }
    builder
        .edge(START, "write")
        .edge("write", "check facts")
        .edge("write", "check \"tone\"");
    builder.join(["check facts", "check \"tone\""], "end");
    builder.branch(
        "end",
        Branch::new(|_| Ok(vec!["yes".into()])).with_map([
            ("yes", "send"),
            ("no", "write"),
            ("never", END),
        ]),
    );
    builder.branch("send", Branch::new(|_| Ok(vec!["write".into()])));
    builder
}

fn compiled(builder: &GraphBuilder) -> Graph {
    builder.compile().expect("the graph compiles")
}

#[test]
fn a_graph_draws_itself_as_mermaid() {
    insta::assert_snapshot!(compiled(&review()).to_mermaid(), @r#"
    graph TD;
        write["write"];
        check_facts_940b3b["check facts"];
        check__tone__8eb20e["check #quot;tone#quot;"];
        end_4f939f["end"];
        send["send"];
        __start__([start]) --> write["write"];
        write["write"] --> check_facts_940b3b["check facts"];
        write["write"] --> check__tone__8eb20e["check #quot;tone#quot;"];
        check_facts_940b3b["check facts"] --> end_4f939f["end"];
        check__tone__8eb20e["check #quot;tone#quot;"] --> end_4f939f["end"];
        end_4f939f["end"] -. "never" .-> __end__([end]);
        end_4f939f["end"] -. "no" .-> write["write"];
        end_4f939f["end"] -. "yes" .-> send["send"];
        send["send"] -.-> anywhere_send(("?"));
    "#);
}

#[test]
fn the_topology_hash_is_stable() {
    let hash = compiled(&review()).topology_hash();
    assert_eq!(hash, compiled(&review()).topology_hash());
    // Threads of this topology are out there: if this changes, they cannot be continued.
    insta::assert_snapshot!(hash, @"179e651be7926a3b20d8a6ec30e781fc");
}

#[test]
fn a_change_of_topology_changes_the_hash() {
    let changes: [fn(&mut GraphBuilder); 7] = [
        |b| {
            b.channel("more", ChannelKind::Last);
        },
        |b| {
            b.node(NodeSpec::new("more"));
        },
        |b| {
            b.edge("send", END);
        },
        |b| {
            b.edge("send", "end");
        },
        // A join of one source is no edge: it triggers by another channel.
        |b| {
            b.join(["send"], "end");
        },
        |b| {
            b.branch("send", Branch::new(|_| Ok(Vec::new())));
        },
        |b| {
            b.output(["draft".into()]);
        },
    ];
    let mut hashes = vec![compiled(&review()).topology_hash()];
    for change in changes {
        let mut builder = review();
        change(&mut builder);
        hashes.push(compiled(&builder).topology_hash());
    }
    let count = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
}
