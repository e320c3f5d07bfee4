//! Whole cases through the runner: what passes, what fails, and how that is reported.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{Verdict, Why, run_all};
use crate::{
    args::BackendKind,
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

async fn verdict(case: Value) -> Verdict {
    run_all(&found(&[case]), BackendKind::Memory)
        .await
        .remove(0)
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
    let verdicts = run_all(&cases, BackendKind::Memory).await;
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
