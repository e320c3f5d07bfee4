//! Whole cases through the runner: what passes, what fails, and how that is reported.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use superstep_tests::servers::ServerBinary;

use super::{Verdict, Why, run_all};
use crate::{
    args::BackendKind,
    backend::Backends,
    case::{Found, read_cases},
    report::Report,
};

/// A case of one node that asks, answered once.
fn asking() -> Value {
    json!({
        "name": "small/asks",
        "graph": {
            "channels": {"a": "last"},
            "nodes": [{"name": "ask", "do": [
                {"interrupt": "why?", "into": "x"}, {"set": {"a": {"var": "x"}}}]}],
            "edges": [["__start__", "ask"]],
        },
        "ops": [{"op": "invoke", "input": {"a": 0}}, {"op": "command", "resume": "so"}],
        "expect": [
            {"result": {"a": 0, "__interrupt__": [{"id": "int:1", "value": "why?"}]},
             "ran": [{"step": 1, "node": "ask"}]},
            {"result": {"a": "so"}, "ran": [{"step": 1, "node": "ask"}]},
        ],
    })
}

fn found(cases: &[Value]) -> Vec<Arc<Found>> {
    let found = read_cases(&json!(cases).to_string()).unwrap();
    found.into_iter().map(Arc::new).collect()
}

fn memory() -> Arc<Backends> {
    Arc::new(Backends::start(BackendKind::Memory).unwrap())
}

async fn verdict(case: Value) -> Verdict {
    run_all(&found(&[case]), &memory()).await.remove(0)
}

#[tokio::test]
async fn a_case_that_is_met_passes() {
    assert!(verdict(asking()).await.failure.is_none());
}

#[tokio::test]
async fn a_case_fails_at_its_first_difference() {
    let mut case = asking();
    case["expect"][1]["result"]["a"] = json!("other");
    let failure = verdict(case).await.failure.unwrap();
    assert_eq!(failure.op, Some(1));
    let Why::Differs { differences, .. } = failure.why else {
        panic!("{failure:?}");
    };
    let line = "result.a: expected \"other\", got \"so\"";
    assert_eq!(differences[0].to_string(), line);
    assert_eq!(differences.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_done_never_passes() {
    let mut odd_channel = asking();
    odd_channel["graph"]["channels"]["a"] = json!("stack");
    let mut odd_field = asking();
    odd_field["ops"][0]["hurry"] = json!(true);
    for case in [odd_channel, odd_field] {
        let failure = verdict(case).await.failure.unwrap();
        assert!(matches!(failure.why, Why::Unsupported(_)), "{failure:?}");
    }
    let mut nowhere = asking();
    nowhere["ops"][1] = json!({"op": "resume_map", "answers": [{"at": 5, "value": 1}]});
    let failure = verdict(nowhere).await.failure.unwrap();
    assert!(matches!(failure.why, Why::Broken(_)), "{failure:?}");
}

#[tokio::test]
async fn quirks_are_counted_apart() {
    let mut wrong = asking();
    wrong["name"] = json!("small/wrong");
    wrong["expect"][0]["ran"] = json!([]);
    let mut quirk = wrong.clone();
    quirk["name"] = json!("small/quirk");
    quirk["quirk"] = json!("see doc");
    let cases = found(&[asking(), wrong, quirk]);
    let verdicts = run_all(&cases, &memory()).await;
    let names: BTreeMap<&str, &Found> = cases.iter().map(|f| (f.name.as_str(), &**f)).collect();
    let report = Report {
        backend: BackendKind::Memory,
        verdicts: &verdicts,
        cases: names,
        whole: false,
    };
    assert_eq!(report.totals(), (1, 1));
    let text = report.text();
    assert!(text.contains("FAILED small/wrong\n  op 0: {\"input\":{\"a\":0},\"op\":\"invoke\"}\n"));
    assert!(text.contains("quirk small/quirk\n"));
    assert!(
        text.contains("\nsmall         1       1  0 of 1\n"),
        "{text}"
    );
    assert!(text.ends_with("\n1 passed, 1 failed\n"));
    let json = report.json();
    assert_eq!(json["failures"][0]["case"], "small/wrong");
    assert_eq!(json["failures"][1]["quirk"], true);
}

/// A case that asks twice, updates in between, and reads what the graph makes of it.
fn asking_twice() -> Value {
    let asked = |id: &str, node: &str| json!({"name": node, "kind": "pull", "interrupts": [{"id": id, "value": node}]});
    let node = |name: &str| {
        json!({"name": name, "do": [
            {"interrupt": name, "into": "x"}, {"set": {"a": [{"var": "x"}]}}]})
    };
    let (first, second) = (
        json!({"id": "int:1", "value": "a"}),
        json!({"id": "int:2", "value": "b"}),
    );
    json!({
        "name": "small/asks_twice",
        "graph": {
            "channels": {"a": "append", "b": "last"},
            "output": ["a"],
            "nodes": [node("b"), node("a")],
            "edges": [["__start__", "a"], ["__start__", "b"]],
        },
        "ops": [
            {"op": "invoke", "input": {"b": 0}},
            {"op": "command", "resume": "which?"},
            {"op": "resume_map", "answers": [{"node": "b", "value": 2}]},
            {"op": "state"},
            {"op": "update", "values": {"none": 1}, "as_node": "nobody"},
            {"op": "update", "values": {"a": [3]}, "as_node": "a"},
            {"op": "state"},
            {"op": "history", "limit": 1},
            {"op": "state", "thread": "2"},
        ],
        "expect": [
            {"result": {"a": [], "__interrupt__": [first, second]},
             "ran": [{"step": 1, "node": "a"}, {"step": 1, "node": "b"}]},
            {"error": {"kind": "AmbiguousResume"}, "ran": []},
            {"result": {"a": [2], "__interrupt__": [first]},
             "ran": [{"step": 1, "node": "a"}, {"step": 1, "node": "b"}]},
            {"values": {"a": [2], "b": 0}, "next": ["a"], "source": "loop", "step": 0,
             "tasks": [{"name": "b", "kind": "pull", "result": {"a": [2]}}, asked("int:1", "a")],
             "interrupts": [first]},
            {"error": {"kind": "InvalidUpdateError"}},
            {"ok": true},
            {"values": {"a": [3], "b": 0}, "next": [], "source": "update", "step": 1,
             "tasks": [], "interrupts": []},
            {"history": [{"values": {"a": [3], "b": 0}, "next": [], "source": "update", "step": 1,
             "tasks": [], "interrupts": [], "parent": "out_of_list"}]},
            {"values": {}, "next": [], "source": null, "step": null, "tasks": [],
             "interrupts": []},
        ],
    })
}

#[tokio::test]
async fn every_backend_gives_a_case_the_same_verdict() {
    let mut kinds = vec![BackendKind::Memory, BackendKind::Sqlite];
    let name = "conformance::every_backend_gives_a_case_the_same_verdict";
    if ServerBinary::Nats.available_to(name) && ServerBinary::Redis.available_to(name) {
        kinds.push(BackendKind::Cluster);
    }
    let mut wrong = asking_twice();
    wrong["expect"][5] = json!({"error": {"kind": "InvalidUpdateError"}});
    let cases = found(&[asking_twice(), wrong]);
    for kind in kinds {
        let backends = Arc::new(Backends::start(kind).unwrap());
        let verdicts = run_all(&cases, &backends).await;
        assert!(verdicts[0].failure.is_none(), "{kind:?}: {verdicts:?}");
        let failure = verdicts[1].failure.as_ref().unwrap();
        assert_eq!(failure.op, Some(5), "{kind:?}");
    }
}
