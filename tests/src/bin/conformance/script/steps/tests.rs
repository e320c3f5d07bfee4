//! What steps do, on a world of prepared answers.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Returned, Step, World, run};
use crate::script::{Counters, Env};

/// Answers from a list; without one the node is over, as with an open question.
#[derive(Default)]
struct Prepared {
    answers: Mutex<Vec<Value>>,
    told: Mutex<Vec<Value>>,
}

impl World for Prepared {
    type Error = String;

    async fn interrupt(&self, payload: Value) -> Result<Value, String> {
        let mut answers = self.answers.lock().unwrap();
        if answers.is_empty() {
            return Err(format!("asked {payload}"));
        }
        Ok(answers.remove(0))
    }

    fn emit(&self, data: Value) {
        self.told.lock().unwrap().push(data);
    }

    fn error(&self, class: &str, message: &str) -> String {
        format!("{class}: {message}")
    }
}

async fn run_on(world: &Prepared, steps: &Value) -> Result<Returned, String> {
    let steps: Vec<Step> = serde_json::from_str(&steps.to_string()).unwrap();
    let env = Env::new(json!({"v": 1}), 1, Arc::new(Counters::default()));
    run(&steps, env, world).await
}

async fn run_alone(steps: &Value) -> Result<Returned, String> {
    run_on(&Prepared::default(), steps).await
}

#[tokio::test]
async fn a_later_set_replaces_the_earlier() {
    let steps = json!([
        {"set": {"a": 1, "b": {"get": "v"}}},
        {"let": {"x": 5}},
        {"set": {"a": {"var": "x"}}},
    ]);
    let update = json!({"a": 5, "b": 1});
    assert_eq!(run_alone(&steps).await, Ok(Returned::Update(update)));
}

#[tokio::test]
async fn a_node_that_sets_nothing_returns_null() {
    let nothing = Ok(Returned::Update(Value::Null));
    assert_eq!(run_alone(&json!([])).await, nothing);
    assert_eq!(run_alone(&json!([{"goto": []}])).await, nothing);
}

#[tokio::test]
async fn a_branch_goes_on_after_its_end() {
    let steps = json!([
        {"if": {"get": "v"}, "then": [{"if": 0, "then": [], "else": [{"set": {"in": true}}]}],
         "else": [{"return": "never"}]},
        {"set": {"after": true}},
    ]);
    let update = json!({"in": true, "after": true});
    assert_eq!(run_alone(&steps).await, Ok(Returned::Update(update)));
}

#[tokio::test]
async fn answers_are_bound_in_order() {
    let world = Prepared::default();
    *world.answers.lock().unwrap() = vec![json!("yes"), json!(null)];
    let steps = json!([
        {"interrupt": "one", "into": "x"},
        {"interrupt": null, "into": "y"},
        {"set": {"got": [{"var": "x"}, {"var": "y"}]}},
        {"interrupt": {"var": "x"}},
    ]);
    assert_eq!(
        run_on(&world, &steps).await,
        Err("asked \"yes\"".to_owned())
    );
}

#[tokio::test]
async fn a_failure_has_its_class_and_text() {
    let failed = run_alone(&json!([{"fail": {"add": ["no ", 5]}, "class": "Odd"}])).await;
    assert_eq!(failed, Err("Odd: no 5".to_owned()));
    let failed = run_alone(&json!([{"fail": "why"}])).await;
    assert_eq!(failed, Err("Error: why".to_owned()));
    let bad = run_alone(&json!([{"set": {"a": {"len": 3}}}])).await;
    assert_eq!(bad, Err("BadScript: 3 has no length".to_owned()));
}

#[tokio::test]
async fn gotos_add_up_to_a_command() {
    let steps = json!([
        {"goto": "a"},
        {"set": {"v": 2}},
        {"goto": [{"send": ["b", 1]}, "c"], "graph": "parent"},
    ]);
    let command = Returned::Command {
        update: json!({"v": 2}),
        goto: vec![json!("a"), json!({"$send": ["b", 1]}), json!("c")],
        parent: true,
    };
    assert_eq!(run_alone(&steps).await, Ok(command));
}

#[tokio::test]
async fn a_return_forgets_what_was_set() {
    let steps = json!([{"set": {"a": 1}}, {"goto": "b"}, {"return": null}, {"fail": "never"}]);
    assert_eq!(run_alone(&steps).await, Ok(Returned::Update(Value::Null)));
}

#[tokio::test]
async fn what_is_emitted_is_told_at_once() {
    let world = Prepared::default();
    let steps = json!([{"emit": {"get": "v"}}, {"emit": null}, {"fail": "late"}]);
    assert!(run_on(&world, &steps).await.is_err());
    assert_eq!(*world.told.lock().unwrap(), [json!(1), json!(null)]);
}

#[test]
fn what_is_no_step_is_refused() {
    for odd in ["{}", r#"{"set": {}, "let": {}}"#, r#"{"sleep": 1}"#] {
        assert!(serde_json::from_str::<Step>(odd).is_err(), "{odd}");
    }
    let odd = r#"{"goto": "a", "graph": "child"}"#;
    assert!(serde_json::from_str::<Step>(odd).is_err());
}
