//! A table of the built-in reducers: the value so far and a write give the next value.

use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::order;
use crate::channel::Reducer;

#[track_caller]
fn check(reducer: &Reducer, left: Value, right: Value, expected: Value) {
    let text = format!("{reducer:?} of {left} and {right}");
    assert_eq!(reducer.reduce(left, right), Ok(expected), "{text}");
}

#[track_caller]
fn refuses(reducer: &Reducer, left: Value, right: Value) -> String {
    reducer.reduce(left, right).expect_err("it was taken")
}

#[test]
fn values_of_the_reducer_fold_by_its_rule() {
    use Reducer::{Add, Append, ById, Concat, Max, Merge, Union};
    let max = json!(i64::MAX);
    let rows = [
        (Append, json!([1]), json!([2, [3]]), json!([1, 2, [3]])),
        (Append, json!([1]), json!(2), json!([1, 2])),
        (Append, json!([1]), json!(null), json!([1])),
        (Add, json!(1), json!(-3), json!(-2)),
        (Add, json!(1), json!(0.5), json!(1.5)),
        (
            Add,
            max.clone(),
            json!(1),
            json!(9_223_372_036_854_775_808_u64),
        ),
        (Add, json!(u64::MAX), json!(-1), json!(u64::MAX - 1)),
        (Concat, json!("a"), json!("b"), json!("ab")),
        (
            Merge,
            json!({"a": {"x": 1}, "b": 1}),
            json!({"a": {"y": 2}}),
            json!({"a": {"y": 2}, "b": 1}),
        ),
        (Union, json!([3, 1]), json!([2, 1]), json!([1, 2, 3])),
        (Union, json!(["b"]), json!(["a", "b"]), json!(["a", "b"])),
        (Union, json!([1.5]), json!([2, 1]), json!([1, 1.5, 2])),
        (Max, json!(1), json!(2), json!(2)),
        (Max, json!(2), json!(1.5), json!(2)),
        (Max, max.clone(), json!(u64::MAX), json!(u64::MAX)),
        (
            ById,
            json!([{"id": "a", "n": 1}, {"id": "b"}]),
            json!([{"id": "a", "n": 2}, {"id": "c"}, {"n": 3}]),
            json!([{"id": "a", "n": 2}, {"id": "b"}, {"id": "c"}, {"n": 3}]),
        ),
        (ById, json!([]), json!({"id": 1}), json!([{"id": 1}])),
        (
            ById,
            json!([{"n": 1}]),
            json!([{"n": 1}]),
            json!([{"n": 1}, {"n": 1}]),
        ),
    ];
    for (reducer, left, right, expected) in rows {
        check(&reducer, left, right, expected);
    }
}

#[test]
fn messages_are_replaced_appended_and_removed() {
    let old = json!([{"id": "1", "t": "a"}, {"id": "2", "t": "b"}]);
    let remove = |id: &str| json!({"type": "remove", "id": id});
    let rows = [
        (
            json!([{"id": "1", "t": "z"}, {"id": "3"}]),
            json!([{"id": "1", "t": "z"}, {"id": "2", "t": "b"}, {"id": "3"}]),
        ),
        (json!([remove("1")]), json!([{"id": "2", "t": "b"}])),
        (json!(remove("2")), json!([{"id": "1", "t": "a"}])),
        // Removed and given again in one write: it keeps its place.
        (
            json!([remove("1"), {"id": "1", "t": "new"}]),
            json!([{"id": "1", "t": "new"}, {"id": "2", "t": "b"}]),
        ),
        (
            json!([{"id": "4"}, remove("4"), remove("1"), remove("1")]),
            json!([{"id": "2", "t": "b"}]),
        ),
        (
            json!([remove("1"), remove("__remove_all__"), {"id": "9"}]),
            json!([{"id": "9"}]),
        ),
    ];
    for (write, expected) in rows {
        check(&Reducer::Messages, old.clone(), write, expected);
    }
    let gone = refuses(&Reducer::Messages, old, json!([remove("7")]));
    insta::assert_snapshot!(gone, @"a message that is to be removed is not there; remove only those that are");
}

#[test]
fn a_write_of_another_form_is_refused() {
    use Reducer::{Add, ById, Concat, Max, Merge, Union};
    let rows = [
        (
            Add,
            json!(1),
            json!("2"),
            "the write must be a number, not a text",
        ),
        (
            Add,
            json!("1"),
            json!(2),
            "the value so far must be a number, not a text",
        ),
        (
            Add,
            json!(1),
            json!(true),
            "the write must be a number, not a boolean",
        ),
        (
            Add,
            json!(u64::MAX),
            json!(1),
            "the sum does not fit 64 bits",
        ),
        (
            Add,
            json!(f64::MAX),
            json!(f64::MAX),
            "the sum is not finite",
        ),
        (
            Concat,
            json!("a"),
            json!(1),
            "the write must be a text, not a number",
        ),
        (
            Concat,
            json!(1),
            json!("a"),
            "the value so far must be a text, not a number",
        ),
        (
            Merge,
            json!({}),
            json!([]),
            "the write must be an object, not a list",
        ),
        (
            Merge,
            json!([]),
            json!({}),
            "the value so far must be an object, not a list",
        ),
        (
            Union,
            json!([]),
            json!(1),
            "the write must be a list, not a number",
        ),
        (
            Max,
            json!(1),
            json!(null),
            "the write must be a number, not null",
        ),
        (
            Max,
            json!("a"),
            json!(1),
            "the value so far must be a number, not a text",
        ),
        (
            ById,
            json!([]),
            json!(1),
            "the write must be a list, not a number",
        ),
    ];
    for (reducer, left, right, reason) in rows {
        assert_eq!(refuses(&reducer, left, right), reason, "{reducer:?}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    // Around 2^53 integers round to the same float.
    let big = 9_007_199_254_740_990_i64..9_007_199_254_740_999;
    prop_oneof![
        big.clone().prop_map(Value::from),
        big.prop_map(|n| {
            #[expect(clippy::cast_precision_loss, reason = "the loss is what is tested")]
            let float = n as f64;
            json!(float)
        }),
        any::<u64>().prop_map(Value::from),
        prop_oneof![Just(0.0), Just(-0.0)].prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
        Just(json!([1])),
        Just(json!({"a": null})),
    ]
}

proptest! {
    #[test]
    fn the_order_of_values_is_total(a in any_value(), b in any_value(), c in any_value()) {
        prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
        if order(&a, &b) == Ordering::Less && order(&b, &c) == Ordering::Less {
            prop_assert_eq!(order(&a, &c), Ordering::Less);
        }
        if order(&a, &b) == Ordering::Equal {
            prop_assert_eq!(order(&a, &c), order(&b, &c));
        }
    }
}
