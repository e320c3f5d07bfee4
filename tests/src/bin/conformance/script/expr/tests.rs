//! What expressions mean, operator by operator: rows of input and value.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Counters, Env, Expr, Handled, canonical, item_at};

fn env(input: Value) -> Env {
    Env::new(input, 2, Arc::new(Counters::default()))
}

fn read(expr: &Value) -> Expr {
    serde_json::from_str(&expr.to_string()).unwrap()
}

/// Checks an expression's value on an input with keys of every kind.
#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "rows read better without `&`"
)]
fn check(expr: Value, value: Value) {
    let mut env = env(json!({
        "n": 3, "s": "text", "l": [1, [2, 3], {"k": "v"}], "o": {"a": {"b": 5}}, "null": null,
    }));
    env.vars.insert("x".to_owned(), json!({"y": [7, 8]}));
    assert_eq!(env.eval(&read(&expr)), Ok(value), "{expr}");
}

/// Checks that an expression fails.
#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "rows read better without `&`"
)]
fn check_fails(expr: Value) {
    assert!(env(Value::Null).eval(&read(&expr)).is_err(), "{expr}");
}

#[test]
fn scalars_and_lists_are_themselves() {
    check(json!(null), json!(null));
    check(json!(true), json!(true));
    check(json!(-4), json!(-4));
    check(json!(1.5), json!(1.5));
    check(json!("é"), json!("é"));
    check(json!([1, {"get": "n"}]), json!([1, 3]));
    check(json!({"lit": {"get": "n"}}), json!({"get": "n"}));
    check(json!({"obj": {"k": {"get": "n"}}}), json!({"k": 3}));
}

#[test]
fn paths_lead_into_objects_and_lists() {
    check(json!({"get": "n"}), json!(3));
    check(json!({"get": "missing"}), json!(null));
    check(json!({"get": ["o", "a", "b"]}), json!(5));
    check(json!({"get": ["o", "a", "b", "c"]}), json!(null));
    check(json!({"get": ["l", 1, 0]}), json!(2));
    check(json!({"get": ["l", -1, "k"]}), json!("v"));
    check(json!({"get": ["l", -4]}), json!(null));
    check(json!({"get": ["l", 3]}), json!(null));
    check(json!({"get": ["o", 0]}), json!(null));
    check(json!({"var": "x"}), json!({"y": [7, 8]}));
    check(json!({"var": ["x", "y", -2]}), json!(7));
    check(json!({"var": "unbound"}), json!(null));
}

#[test]
fn an_index_counts_from_either_end() {
    assert_eq!(item_at(&[1, 2, 3], 0), Some(&1));
    assert_eq!(item_at(&[1, 2, 3], -3), Some(&1));
    assert_eq!(item_at(&[1, 2, 3], -4), None);
    assert_eq!(item_at(&[1, 2, 3], 3), None);
}

#[test]
fn add_joins_lists_then_texts_then_numbers() {
    check(json!({"add": [1, 2, 3]}), json!(6));
    check(json!({"add": [null, 2]}), json!(2));
    check(json!({"add": [1, 0.5]}), json!(1.5));
    check(json!({"add": [true, 1]}), json!(2));
    check(json!({"add": ["a", 1]}), json!("a1"));
    check(json!({"add": [null, "a"]}), json!("nulla"));
    check(
        json!({"add": ["a", {"lit": {"b": 1, "a": [true]}}]}),
        json!("a{\"a\":[true],\"b\":1}"),
    );
    check(json!({"add": [[1], 2, null, [3]]}), json!([1, 2, 3]));
    check(json!({"add": [null, [1]]}), json!([1]));
    check(json!({"add": [1, 2, "a"]}), json!("3a"));
    check_fails(json!({"add": [{"lit": {}}, 1]}));
    check_fails(json!({"add": [i64::MAX, 1]}));
}

#[test]
fn empty_values_are_false() {
    for empty in [
        json!(null),
        json!(false),
        json!(0),
        json!(0.0),
        json!(""),
        json!([]),
    ] {
        check(json!({"not": empty}), json!(true));
    }
    check(json!({"not": {"lit": {}}}), json!(true));
    for full in [json!(true), json!(-1), json!("0"), json!([0])] {
        check(json!({"not": full}), json!(false));
    }
    check(json!({"and": [1, "a", [0]]}), json!(true));
    check(json!({"and": []}), json!(true));
    check(json!({"or": [0, ""]}), json!(false));
    check(json!({"if": ["", 1, 2]}), json!(2));
}

#[test]
fn only_what_is_needed_is_evaluated() {
    let counted = |expr: Value| {
        let mut env = env(Value::Null);
        env.eval(&read(&json!([expr, {"count": "c"}]))).unwrap()[1].clone()
    };
    assert_eq!(counted(json!({"if": [true, 1, {"count": "c"}]})), json!(1));
    assert_eq!(counted(json!({"and": [0, {"count": "c"}]})), json!(1));
    assert_eq!(counted(json!({"or": [1, {"count": "c"}]})), json!(1));
    assert_eq!(counted(json!({"or": [0, {"count": "c"}]})), json!(2));
}

#[test]
fn equality_is_that_of_json() {
    check(json!({"eq": [true, 1]}), json!(false));
    check(json!({"eq": [0, false]}), json!(false));
    check(json!({"eq": [1, 1.0]}), json!(true));
    check(json!({"eq": [[1, "a"], [1.0, "a"]]}), json!(true));
    check(
        json!({"eq": [{"lit": {"a": 1}}, {"lit": {"a": 1, "b": 2}}]}),
        json!(false),
    );
    check(json!({"eq": [null, {"get": "missing"}]}), json!(true));
    check(json!({"lt": [null, 1]}), json!(true));
    check(json!({"lt": [2, 1.5]}), json!(false));
    check_fails(json!({"lt": ["a", 1]}));
}

#[test]
fn lengths_count_items_and_characters() {
    check(json!({"len": [1, 2]}), json!(2));
    check(json!({"len": "né"}), json!(2));
    check(json!({"len": {"lit": {"a": 1}}}), json!(1));
    check(json!({"len": null}), json!(0));
    check_fails(json!({"len": 3}));
}

#[test]
fn merge_and_map_build_values() {
    check(
        json!({"merge": [{"lit": {"a": 1, "b": 1}}, null, {"lit": {"b": 2}}]}),
        json!({"a": 1, "b": 2}),
    );
    let twice = json!({"add": [{"var": "i"}, {"var": "i"}]});
    check(
        json!({"map": {"over": [1, 2], "as": "i", "do": twice}}),
        json!([2, 4]),
    );
    check(
        json!({"map": {"over": null, "as": "i", "do": 1}}),
        json!([]),
    );
    check(
        json!({"str": {"lit": [1, {"b": 1, "a": 2}]}}),
        json!("[1,{\"a\":2,\"b\":1}]"),
    );
}

#[test]
fn packets_and_overwrites_are_marked() {
    check(
        json!({"send": ["n", {"get": "n"}]}),
        json!({"$send": ["n", 3]}),
    );
    check(json!({"overwrite": [1]}), json!({"__overwrite__": [1]}));
}

#[test]
fn a_node_knows_its_attempt_and_a_handler_its_error() {
    check(json!({"attempt": true}), json!(2));
    check_fails(json!({"error": "message"}));
    let error = Handled {
        node: "n".to_owned(),
        message: "why".to_owned(),
    };
    let mut env = env(json!(5)).handling(error);
    let value = env.eval(&read(
        &json!([{"error": "node"}, {"error": "message"}, {"input": true}]),
    ));
    assert_eq!(value, Ok(json!(["n", "why", 5])));
}

#[test]
fn what_is_no_expression_is_refused() {
    for odd in [
        r#"{"plus": [1]}"#,
        "{}",
        r#"{"get": "a", "add": []}"#,
        r#"{"eq": [1]}"#,
    ] {
        assert!(serde_json::from_str::<Expr>(odd).is_err(), "{odd}");
    }
}

#[test]
fn canonical_text_sorts_keys() {
    assert_eq!(
        canonical(&json!({"b": [1, null], "a": "é\n"})),
        "{\"a\":\"é\\n\",\"b\":[1,null]}"
    );
}
