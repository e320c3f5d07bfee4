//! Subgraphs end to end over the memory log: questions, failures, breakpoints, what outlives a
//! call, commands to the parent, and that a round done again makes the same records.

mod crashes;
mod made;
mod policies;
mod sleeps;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use superstep_graph::{Branch, Command, NodeName, NodeOutput, START, Send, Write};
use superstep_protocol::{Answers, Profile};

use self::made::{Made, Ran, World, asked};
use super::*;
use crate::{GoOn, NodeError, RunOptions, UpdateOptions, stream::Stream};

/// `before`, `ask`, `after` in a subgraph, and `last` in the thread's graph.
fn review(ran: &Ran, profile: Profile) -> World {
    let inner = Made::new(ran)
        .plain("before")
        .asking("ask")
        .plain("after")
        .chain(&["before", "ask", "after"])
        .inner("inner");
    let graph = Made::new(ran)
        .sub("sub", inner)
        .plain("last")
        .chain(&["sub", "last"])
        .make("main");
    World::new(ran, profile, graph)
}

#[tokio::test]
async fn a_question_inside_is_one_of_the_thread() {
    for profile in [Profile::Default, Profile::Langgraph] {
        let world = review(&Ran::default(), profile);
        let stopped = world.invoke(json!({"in": 1})).await;
        assert_eq!(asked(&stopped), [&json!("ask?")]);
        assert_eq!(world.ran(), ["sub.before", "sub.ask"]);
        let done = world.resume("yes").await;
        assert_eq!(world.ran(), ["sub.ask", "sub.after", "last"]);
        assert_eq!(done.values["out"], "yes");
        assert_eq!(done.values["log"], json!(["last"]));
        assert!(world.state().await.tasks.is_empty());
    }
}

#[tokio::test]
async fn an_asked_subgraph_ends_as_one_that_knows() {
    let ran = Ran::default();
    let world = review(&ran, Profile::Default);
    let _ = world.invoke(json!({"in": 1})).await;
    let asked = world.resume("yes").await;
    let knowing = Made::new(&ran)
        .plain("before")
        .node("ask", |_, _| async {
            Ok(json!({"out": "yes", "log": ["ask=\"yes\""]}))
        })
        .plain("after")
        .chain(&["before", "ask", "after"])
        .inner("inner");
    let graph = Made::new(&ran)
        .sub("sub", knowing)
        .plain("last")
        .chain(&["sub", "last"])
        .make("main");
    let other = World::new(&ran, Profile::Default, graph);
    let knew = other.invoke(json!({"in": 1})).await;
    assert_eq!(asked.values, knew.values);
    let shown = |world: &World| {
        let (local, thread) = (world.local.clone(), world.thread.clone());
        async move {
            let history = local.history(&thread, 10).await.unwrap();
            let shown = history.into_iter().map(|view| {
                let tasks = view.tasks.into_iter().map(|task| (task.name, task.result));
                (
                    view.step,
                    view.source,
                    view.values,
                    tasks.collect::<Vec<_>>(),
                )
            });
            shown.collect::<Vec<_>>()
        }
    };
    assert_eq!(shown(&world).await, shown(&other).await);
}

#[tokio::test]
async fn parallel_questions_inside_are_answered_one_by_one() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .noting("x")
        .noting("y")
        .with(|graph| {
            graph
                .edge(START, "x")
                .edge(START, "y")
                .output(["log".into()]);
        })
        .make("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let stopped = world.invoke(json!({"log": []})).await;
    assert_eq!(asked(&stopped), [&json!("x?"), &json!("y?")]);
    let y = stopped.interrupts[1].id.clone();
    let half = world.answer(&y, 2).await;
    assert_eq!(asked(&half), [&json!("x?")]);
    assert_eq!(half.interrupts[0].id, stopped.interrupts[0].id);
    let _ = world.ran();
    let done = world.resume(1).await;
    assert_eq!(world.ran(), ["sub.x"]);
    assert_eq!(done.values["log"], json!(["x=1", "y=2"]));
}

#[tokio::test]
async fn two_subgraphs_wait_beside_each_other() {
    let ran = Ran::default();
    let one = |name: &'static str| {
        let inner = Made::new(&ran).asking(name).chain(&[name]);
        inner
            .with(|graph| _ = graph.output(["log".into()]))
            .make(name)
    };
    let graph = Made::new(&ran)
        .sub("one", one("p"))
        .sub("two", one("q"))
        .plain("last")
        .with(|graph| {
            graph
                .edge(START, "one")
                .edge(START, "two")
                .join(["one", "two"], "last");
        })
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let stopped = world.invoke(json!({"in": 0})).await;
    assert_eq!(asked(&stopped), [&json!("p?"), &json!("q?")]);
    let _ = world.ran();
    let first = world.answer(&stopped.interrupts[0].id, 1).await;
    assert_eq!(asked(&first), [&json!("q?")]);
    assert_eq!(world.ran(), ["one.p"]);
    let done = world.resume(2).await;
    assert_eq!(world.ran(), ["two.q", "last"]);
    assert_eq!(done.values["log"], json!(["p=1", "q=2", "last"]));
}

#[tokio::test]
async fn a_nested_question_keeps_every_level_where_it_is() {
    let ran = Ran::default();
    let leaf = Made::new(&ran)
        .plain("a")
        .asking("b")
        .chain(&["a", "b"])
        .inner("leaf");
    let middle = Made::new(&ran)
        .plain("m")
        .sub("leaf", leaf)
        .plain("n")
        .chain(&["m", "leaf", "n"])
        .inner("middle");
    let graph = Made::new(&ran)
        .sub("mid", middle)
        .chain(&["mid"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let stopped = world.invoke(json!({"in": 0})).await;
    assert_eq!(asked(&stopped), [&json!("b?")]);
    assert_eq!(world.ran(), ["mid.m", "mid.leaf.a", "mid.leaf.b"]);
    let view = world
        .local
        .state_inside(&world.thread, &[], true)
        .await
        .unwrap()
        .unwrap();
    let mid = view.tasks[0].state.as_ref().unwrap();
    let leaf = mid.tasks[0].state.as_ref().unwrap();
    assert_eq!(leaf.next, ["b"]);
    assert_eq!(leaf.interrupts, stopped.interrupts);
    let done = world.resume("deep").await;
    assert_eq!(world.ran(), ["mid.leaf.b", "mid.n"]);
    assert_eq!(done.values["out"], "deep");
}

#[tokio::test]
async fn a_failure_inside_is_retried_inside() {
    let ran = Ran::default();
    let tries = Arc::new(AtomicUsize::new(0));
    let inner = Made::new(&ran)
        .plain("before")
        .node("fails", move |_, _| {
            let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    return Err(NodeError::new("Told", "it was told to fail"));
                }
                Ok(json!({"out": "well"}))
            }
        })
        .chain(&["before", "fails"])
        .inner("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let failed = world.invoke(json!({"in": 0})).await;
    let error = failed.error.unwrap();
    assert_eq!(
        (error.kind.as_str(), error.node),
        ("Told", Some("sub".into()))
    );
    assert_eq!(world.ran(), ["sub.before", "sub.fails"]);
    let done = world.retry().await;
    assert_eq!(world.ran(), ["sub.fails"]);
    assert_eq!(done.values["out"], "well");
}

#[tokio::test]
async fn a_limit_inside_is_the_runs_own() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .plain("again")
        .with(|graph| _ = graph.edge(START, "again").edge("again", "again"))
        .inner("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let options = RunOptions {
        recursion_limit: Some(4),
        ..RunOptions::default()
    };
    let input = json!({"in": 0});
    let invoked = world
        .local
        .invoke(&world.graph, &world.thread, input, options);
    let failed = invoked.await.unwrap();
    assert_eq!(failed.error.unwrap().kind, "GraphRecursionError");
    assert_eq!(world.ran().len(), 4);
    // A retry goes on inside.
    assert!(world.retry().await.error.is_some());
    // A run that goes on takes no input, which is two supersteps.
    assert_eq!(world.ran().len(), 6);
}

#[tokio::test]
async fn an_own_state_outlives_the_call() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .asking("ask")
        .node("count", |state, _| async move {
            Ok(json!({"out": state["log"].as_array().unwrap().len()}))
        })
        .with(|graph| {
            graph.input(["in".into()]);
        })
        .chain(&["ask", "count"])
        .inner("inner");
    let graph = Made::new(&ran)
        .sub_with("sub", inner, Checkpointer::Own)
        .chain(&["sub"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    for calls in 1..4 {
        let _ = world.invoke(json!({"in": calls})).await;
        let done = world.resume("yes").await;
        assert_eq!(done.values["out"], calls);
    }
    let state = world.state().await;
    let kept = state.kept.get("sub").unwrap();
    // Its supersteps are counted over all calls: -1 to 2, then four in each.
    assert_eq!(kept.checkpoint.step, 10);
    assert!(!kept.is_busy());
}

#[tokio::test]
async fn a_call_that_keeps_nothing_begins_anew_with_its_answers() {
    for profile in [Profile::Default, Profile::Langgraph] {
        let ran = Ran::default();
        let inner = Made::new(&ran)
            .asking("x")
            .asking("y")
            .chain(&["x", "y"])
            .with(|graph| _ = graph.output(["log".into()]))
            .make("inner");
        let graph = Made::new(&ran)
            .sub_with("sub", inner, Checkpointer::None)
            .chain(&["sub"])
            .make("main");
        let world = World::new(&ran, profile, graph);
        let first = world.invoke(json!({"log": []})).await;
        assert_eq!(asked(&first), [&json!("x?")]);
        assert!(world.state().await.tasks[0].child.is_empty());
        let second = world.resume(1).await;
        assert_eq!(asked(&second), [&json!("y?")]);
        let _ = world.ran();
        let done = world.resume(2).await;
        assert_eq!(world.ran(), ["sub.x", "sub.y"]);
        assert_eq!(done.values["log"], json!(["x=1", "y=2"]));
    }
}

/// A command to the parent: an update of `out`, and where to go.
fn to_parent(out: &str, goto: &str) -> NodeOutput {
    NodeOutput::command(Command {
        update: vec![Write::set("out", json!(out))],
        goto: vec![goto.into()],
        parent: true,
    })
}

#[tokio::test]
async fn a_command_to_the_parent_ends_the_subgraph() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .plain("before")
        .returning("up", to_parent("up", "other"))
        .plain("never")
        .chain(&["before", "up", "never"])
        .make("inner");
    let graph = Made::new(&ran)
        .sub_with("sub", inner, Checkpointer::Own)
        .plain("next")
        .plain("other")
        .with(|graph| _ = graph.edge(START, "sub").edge("sub", "next"))
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let done = world.invoke(json!({"in": 0})).await;
    assert_eq!(world.ran(), ["sub.before", "next", "other"]);
    assert_eq!(done.values["out"], "up");
    assert_eq!(done.values["log"], json!(["next", "other"]));
    // It can be called again all the same.
    let again = world.invoke(json!({"in": 1})).await;
    assert!(again.error.is_none());
}

#[tokio::test]
async fn a_command_goes_up_one_graph_only() {
    let ran = Ran::default();
    let leaf = Made::new(&ran)
        .returning("up", to_parent("leaf", "there"))
        .chain(&["up"])
        .make("leaf");
    let middle = Made::new(&ran)
        .sub("leaf", leaf)
        .plain("there")
        .with(|graph| _ = graph.edge(START, "leaf"))
        .inner("middle");
    let graph = Made::new(&ran)
        .sub("mid", middle)
        .chain(&["mid"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let done = world.invoke(json!({"in": 0})).await;
    assert_eq!(world.ran(), ["mid.there"]);
    assert_eq!(done.values["out"], "leaf");

    let alone = Made::new(&ran)
        .returning("up", to_parent("out", "up"))
        .chain(&["up"])
        .make("alone");
    let world = World::new(&ran, Profile::Default, alone);
    let failed = world.invoke(json!({"in": 0})).await;
    assert_eq!(failed.error.unwrap().kind, "NoParentGraph");
}

#[tokio::test]
async fn each_packet_is_a_call_of_its_own() {
    let ran = Ran::default();
    let inner = Made::new(&ran)
        .node("ask", |state, ctx| async move {
            let answer: Value = ctx.interrupt(state["in"].clone()).await?;
            Ok(json!({"log": [format!("{}{answer}", state["in"])]}))
        })
        .chain(&["ask"])
        .with(|graph| _ = graph.output(["log".into()]))
        .make("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .with(|graph| {
            let packet = |n: u64| Send::new("sub", json!({"in": n, "odd": true})).into();
            let path = Branch::new(move |_: &Value| Ok(vec![packet(1), packet(2)]));
            graph.branch(START, path);
        })
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let stopped = world.invoke(json!({"log": []})).await;
    assert_eq!(asked(&stopped), [&json!(1), &json!(2)]);
    assert_ne!(stopped.interrupts[0].id, stopped.interrupts[1].id);
    let _ = world.answer(&stopped.interrupts[1].id, 20).await;
    let done = world.resume(10).await;
    assert_eq!(done.values["log"], json!(["110", "220"]));
}

#[tokio::test]
async fn a_breakpoint_inside_stops_the_run_and_is_passed() {
    for profile in [Profile::Default, Profile::Langgraph] {
        let ran = Ran::default();
        let inner = Made::new(&ran)
            .plain("before")
            .node("act", |_, _| async { Ok(json!({"out": "acted"})) })
            .chain(&["before", "act"])
            .with(|graph| {
                let act = [NodeName::from("act")].into_iter().collect();
                graph.interrupt_before(superstep_graph::Breakpoints::Nodes(act));
            })
            .inner("inner");
        let graph = Made::new(&ran)
            .sub("sub", inner)
            .chain(&["sub"])
            .make("main");
        let world = World::new(&ran, profile, graph);
        let stopped = world.invoke(json!({"in": 0})).await;
        assert!(stopped.interrupts.is_empty() && stopped.error.is_none());
        assert_eq!(world.ran(), ["sub.before"]);
        let done = world.invoke(Value::Null).await;
        assert_eq!(world.ran(), ["sub.act"]);
        assert_eq!(done.values["out"], "acted");
    }
}

#[tokio::test]
async fn an_offered_answer_reaches_a_question_inside() {
    let ran = Ran::default();
    let inner = Made::new(&ran).asking("ask").chain(&["ask"]).inner("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .with(|graph| {
            graph.interrupt_before(superstep_graph::Breakpoints::All);
        })
        .make("main");
    let world = World::new(&ran, Profile::Langgraph, graph);
    let _ = world.invoke(json!({"in": 0})).await;
    assert!(world.ran().is_empty());
    let done = world.resume("early").await;
    assert_eq!(done.values["out"], "early");
}

#[tokio::test]
async fn new_input_begins_the_subgraph_anew() {
    let ran = Ran::default();
    let world = review(&ran, Profile::Langgraph);
    let first = world.invoke(json!({"in": 1})).await;
    let _ = world.ran();
    let second = world.invoke(json!({"in": 2})).await;
    assert_eq!(world.ran(), ["sub.before", "sub.ask"]);
    assert_ne!(first.interrupts[0].id, second.interrupts[0].id);
}

#[tokio::test]
async fn a_waiting_subgraph_is_updated_and_goes_on() {
    let ran = Ran::default();
    let world = review(&ran, Profile::Default);
    let stopped = world.invoke(json!({"in": 1})).await;
    let _ = world.ran();
    let updates = |as_node: &str| {
        let (values, as_node) = (json!({"out": "patched"}), Some(as_node.into()));
        vec![superstep_protocol::Update { values, as_node }]
    };
    let inside = |place: &str| UpdateOptions {
        subgraph: vec![place.into()],
        ..UpdateOptions::default()
    };
    let (local, thread) = (&world.local, &world.thread);
    for (node, place) in [("nobody", "sub"), ("ask", "last"), ("ask", "nowhere")] {
        let refused = local.update_with(thread, None, updates(node), inside(place));
        assert!(refused.await.is_err());
        assert_eq!(world.state().await.open_questions().count(), 1);
    }
    let patched = local.update_with(thread, None, updates("ask"), inside("sub"));
    let patched = patched.await.unwrap();
    assert_eq!(patched.values["out"], "patched");
    assert_eq!(patched.next, ["after"]);
    let late = Answers::ById(BTreeMap::from([(
        stopped.interrupts[0].id.clone(),
        json!(1),
    )]));
    assert!(local.resume(thread, late).await.is_err());
    let history = local.history_inside(thread, &["sub".into()], 10).await;
    let sources: Vec<_> = history
        .unwrap()
        .unwrap()
        .iter()
        .map(|view| view.source)
        .collect();
    assert_eq!(sources, ["update", "loop", "loop", "input"]);
    let done = world.retry().await;
    assert_eq!(world.ran(), ["sub.after", "last"]);
    assert_eq!(done.values["out"], "patched");
}

#[tokio::test]
async fn a_command_beside_an_answer_goes_on_inside() {
    let ran = Ran::default();
    let world = review(&ran, Profile::Default);
    let _ = world.invoke(json!({"in": 1})).await;
    let _ = world.ran();
    let go_on = GoOn {
        answers: Some(Answers::Plain(json!("yes"))),
        update: json!({"in": 2}),
        ..GoOn::default()
    };
    let options = RunOptions::default();
    let done = world.local.go_on(None, &world.thread, go_on, options).await;
    assert_eq!(world.ran(), ["sub.ask", "sub.after", "last"]);
    assert_eq!(done.unwrap().values["out"], "yes");
}

#[tokio::test]
async fn a_round_done_again_makes_the_same_records() {
    let ran = Ran::default();
    let leaf = Made::new(&ran)
        .plain("a")
        .asking("b")
        .chain(&["a", "b"])
        .inner("leaf");
    let inner = Made::new(&ran)
        .sub("leaf", leaf)
        .asking("beside")
        .with(|graph| _ = graph.edge(START, "leaf").edge(START, "beside"))
        .inner("inner");
    let graph = Made::new(&ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main");
    let world = World::new(&ran, Profile::Default, graph);
    let stopped = world.invoke(json!({"in": 0})).await;
    let mut state = world.state().await;
    let graph = world.local.graphs().get(&world.graph).unwrap();
    let subgraph = subgraph_of(graph, &"sub".into()).unwrap();
    let attempt = Attempt {
        lost: Arc::default(),
        number: 1,
        timeout: std::time::Duration::from_secs(60),
        idle_timeout: None,
        clock: crate::sleep::Clock {
            threads: world.local.threads().clone(),
            short_pause_max: std::time::Duration::from_secs(5),
        },
        stop: crate::stop::Stop::of_thread(
            tokio_util::sync::CancellationToken::new(),
            std::time::Duration::ZERO,
        ),
        stream: Stream::default(),
        offer: Arc::default(),
        before: Before::default(),
        at_once: None,
        slots: None,
        health: crate::Health::default(),
        traced: None,
        inside: Inside::root(100, None),
    };
    let task = state.tasks[0].task.clone();
    let parked = std::mem::take(&mut state.tasks[0].child);
    state.tasks[0].questions.clear();
    state.time = parked[0].time;
    let input = json!({"in": 0, "log": []});
    for number in [1, 2] {
        let attempt = Attempt {
            number,
            ..attempt.clone()
        };
        let called = call(graph, subgraph, &state, &task, input.clone(), &attempt);
        let Called::Waits { raised, child } = called.await.unwrap() else {
            panic!("it has to wait");
        };
        assert_eq!(child, parked);
        let ids: Vec<_> = raised
            .iter()
            .map(|raised| raised.id_for(&task.id))
            .collect();
        let shown: Vec<_> = stopped
            .interrupts
            .iter()
            .map(|asked| asked.id.clone())
            .collect();
        assert_eq!(ids, shown);
    }
}
