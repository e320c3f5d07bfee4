//! Cases recorded from LangGraph 1.2.22, run through the pure functions.
//!
//! A case is a graph, operations, and what LangGraph was observed doing. What a case needs that
//! this loop does not have is named in `unsupported`; everything else must agree exactly.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use superstep_graph::{Source, Task, TaskPath, read_state};

use crate::{
    engine::{Engine, Failure, Ran, Saved, result_of},
    scripted::{Script, build},
};

const FILES: [(&str, &str); 7] = [
    ("basic", include_str!("../../tests-data/basic.json")),
    ("edges", include_str!("../../tests-data/edges.json")),
    ("failure", include_str!("../../tests-data/failure.json")),
    (
        "multi_turn",
        include_str!("../../tests-data/multi_turn.json"),
    ),
    ("recursion", include_str!("../../tests-data/recursion.json")),
    ("reducers", include_str!("../../tests-data/reducers.json")),
    ("send", include_str!("../../tests-data/send.json")),
];

/// What a case needs and this loop does not have.
fn unsupported(case: &Value) -> Option<&'static str> {
    if case["checkpointer"] == false {
        return Some("a graph without a store");
    }
    let graph = case["graph"].to_string();
    for (word, feature) in [
        ("\"interrupt\":", "interrupts"),
        ("\"interrupt_before\":", "breakpoints"),
        ("\"interrupt_after\":", "breakpoints"),
        ("\"graph\":{", "subgraphs"),
        ("\"retry\":", "retries"),
        ("\"cache\":", "caches"),
        ("\"on_error\":", "error handlers"),
    ] {
        if graph.contains(word) {
            return Some(feature);
        }
    }
    for op in case["ops"].as_array().unwrap() {
        if !matches!(op["op"].as_str(), Some("invoke" | "state" | "history")) {
            return Some("commands and updates");
        }
        if op.get("at").is_some() || op.get("limit").is_some() || op.get("filter").is_some() {
            return Some("history by place");
        }
        if op.get("durability").is_some() {
            return Some("durability modes");
        }
    }
    None
}

#[test]
fn recorded_cases_agree_with_langgraph() {
    let mut run = 0;
    let mut left_out: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (file, text) in FILES {
        let cases: Vec<Value> = serde_json::from_str(text).expect(file);
        for case in cases {
            let name = case["name"].as_str().unwrap().to_owned();
            if let Some(feature) = unsupported(&case) {
                left_out.entry(feature).or_default().push(name);
                continue;
            }
            run += 1;
            wrong.extend(differences(&name, &case));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(run, 86);
    assert_eq!(
        json!(left_out),
        json!({
            "a graph without a store": ["basic/no_checkpointer"],
            "commands and updates": [
                "failure/update_state_after_failure",
                "failure/skip_failed_node_by_update",
                "multi_turn/messages_channel",
            ],
            "interrupts": [
                "multi_turn/interrupt_each_turn",
                "recursion/limit_while_interrupts",
                "reducers/untracked_not_saved",
            ],
        })
    );
}

fn differences(name: &str, case: &Value) -> Vec<String> {
    let graph = Arc::new(build(&case["graph"]));
    let script = Script::new(Arc::clone(&graph), &case["graph"]);
    let mut threads: BTreeMap<String, Engine<'_>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let ops = case["ops"].as_array().unwrap();
    for (at, (op, expected)) in ops
        .iter()
        .zip(case["expect"].as_array().unwrap())
        .enumerate()
    {
        let thread = op["thread"].as_str().unwrap_or("1").to_owned();
        let engine = threads.entry(thread).or_insert_with(|| Engine::new(&graph));
        let found = match op["op"].as_str().unwrap() {
            "invoke" => {
                let input = op.get("input").filter(|input| !input.is_null());
                let limit = op["recursion_limit"].as_i64().unwrap_or(25);
                let ran = engine.invoke(input, limit, &mut |task, input| {
                    script.run(task.node.as_str(), input)
                });
                run_observed(ran, op.get("stream").is_some())
            }
            "state" => live_observed(engine),
            _ => history_observed(engine),
        };
        let expected = comparable(expected.clone());
        if found != expected {
            wrong.push(format!(
                "{name}, op {at} ({op}):\n  found    {found}\n  expected {expected}"
            ));
        }
    }
    wrong
}

/// What is compared: not the details of errors, which are for people, and not stream events.
fn comparable(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            object.remove("events");
            if object.contains_key("kind") {
                object.remove("detail");
            }
            for child in object.values_mut() {
                *child = comparable(child.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = comparable(item.take());
            }
        }
        _ => {}
    }
    value
}

fn error_observed(error: &Failure) -> Value {
    if error.node {
        return json!({"kind": "node", "class": error.kind, "message": error.message});
    }
    json!({"kind": error.kind})
}

fn run_observed(ran: Ran, streamed: bool) -> Value {
    let bodies: Vec<Value> = ran
        .bodies
        .iter()
        .map(|(step, node)| json!({"step": step, "node": node}))
        .collect();
    match ran.error {
        Some(error) => json!({"error": error_observed(&error), "ran": bodies}),
        None if streamed => json!({"ran": bodies}),
        None => json!({"result": ran.result, "ran": bodies}),
    }
}

fn live_observed(engine: &Engine<'_>) -> Value {
    let Some(saved) = engine.saved.last() else {
        let (values, _) = engine.live().expect("an empty thread has a state");
        // An empty thread shows nothing, not even the reducers' first values.
        assert!(values.is_object());
        return json!({
            "values": {}, "next": [], "source": null, "step": null, "tasks": [], "interrupts": [],
        });
    };
    match engine.live() {
        Ok((values, left)) => snapshot(engine, saved, &values, &left),
        Err(error) => json!({"error": error_observed(&error)}),
    }
}

fn history_observed(engine: &Engine<'_>) -> Value {
    let count = engine.saved.len();
    let newest_first: Vec<Value> = engine
        .saved
        .iter()
        .rev()
        .enumerate()
        .map(|(at, saved)| {
            let values = read_state(engine.graph, &saved.checkpoint);
            let all = engine.listed(saved.tasks.iter().cloned());
            let mut entry = snapshot(engine, saved, &values, &all);
            entry["parent"] = if at + 1 < count {
                json!(at + 1)
            } else {
                json!(null)
            };
            entry
        })
        .collect();
    json!({"history": newest_first})
}

fn snapshot(engine: &Engine<'_>, saved: &Saved, values: &Value, next: &[Task]) -> Value {
    let source = match saved.checkpoint.source {
        Source::Input => "input",
        Source::Loop => "loop",
        Source::Update | Source::Fork => unreachable!("nothing here updates or forks"),
    };
    let next: Vec<&str> = next.iter().map(|task| task.node.as_str()).collect();
    let tasks: Vec<Value> = engine
        .listed(saved.tasks.iter().cloned())
        .iter()
        .map(|task| {
            let kind = match task.path {
                TaskPath::Pull => "pull",
                TaskPath::Push(_) => "push",
            };
            let mut entry = json!({"name": task.node, "kind": kind});
            if let Some(ended) = saved.ended.get(&task.id) {
                if let Some(error) = &ended.error {
                    entry["error"] = error_observed(error);
                }
                if let Some(writes) = &ended.writes {
                    entry["result"] = result_of(engine.graph, writes);
                }
            }
            entry
        })
        .collect();
    json!({
        "values": values, "next": next, "source": source, "step": saved.checkpoint.step,
        "tasks": tasks, "interrupts": [],
    })
}
