//! What counts as a difference, and how it is told.

use serde_json::{Value, json};

use super::{Difference, Labels, compare, short};
use crate::observe::ANY;

const ID: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "ffffffffffffffffffffffffffffffff";

/// The differences as they are shown.
fn shown(expected: &Value, got: &Value) -> Vec<String> {
    let found = compare(expected, got, &mut Labels::default());
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn equal_observations_have_no_difference() {
    let seen = json!({"result": {"a": [1, {"b": null}]}, "ran": []});
    assert_eq!(shown(&seen, &seen), Vec::<String>::new());
}

#[test]
fn every_place_that_differs_is_named() {
    let expected = json!({"result": {"a": [1, 2], "b": "x"}, "ran": [{"step": 1}]});
    let got = json!({"result": {"a": [1, 3, 4]}, "ran": [{"step": 1}], "error": null});
    let lines = [
        "error: expected nothing, got null",
        "result.a[1]: expected 2, got 3",
        "result.a[2]: expected nothing, got 4",
        "result.b: expected \"x\", got nothing",
    ];
    assert_eq!(shown(&expected, &got), lines);
}

#[test]
fn a_number_is_not_the_same_number_of_another_kind() {
    assert_eq!(shown(&json!(1), &json!(1.0)).len(), 1);
    assert_eq!(shown(&json!(0), &json!(false)).len(), 1);
}

#[test]
fn details_and_triggers_are_not_compared() {
    let expected = json!({
        "error": {"kind": "K", "detail": "words"},
        "data": {"type": "task", "triggers": ["a"]},
    });
    let got = json!({"error": {"kind": "K"}, "data": {"type": "task", "triggers": []}});
    assert_eq!(shown(&expected, &got), Vec::<String>::new());
    let payload = json!({"detail": 1});
    assert_eq!(shown(&payload, &json!({"detail": 2})).len(), 1);
}

#[test]
fn what_may_be_anything_is_equal() {
    let got = json!({"result": ANY});
    assert_eq!(
        shown(&json!({"result": {"a": 1}}), &got),
        Vec::<String>::new()
    );
    assert_eq!(shown(&json!({}), &got), Vec::<String>::new());
}

#[test]
fn a_label_keeps_its_id_through_a_case() {
    let mut labels = Labels::default();
    let mut compare = |label: &str, id: &str| {
        let (expected, got) = (
            json!([{"id": label, "value": 1}]),
            json!([{"id": id, "value": 1}]),
        );
        compare(&expected, &got, &mut labels)
    };
    assert_eq!(compare("int:1", ID), []);
    assert_eq!(compare("int:1", ID), []);
    let changed = Difference {
        path: "[0].id".to_owned(),
        expected: Some(json!("int:1")),
        got: Some(json!("int:new")),
    };
    assert_eq!(compare("int:1", OTHER), [changed]);
    let repeated = Difference {
        path: "[0].id".to_owned(),
        expected: Some(json!("int:2")),
        got: Some(json!("int:1")),
    };
    assert_eq!(compare("int:2", ID), [repeated]);
    assert_eq!(labels.id("int:1"), Some(ID));
    assert_eq!(labels.id("int:2"), None);
}

#[test]
fn labels_stand_for_ids_where_values_are_shown() {
    let mut labels = Labels::default();
    labels.meet("int:1", ID);
    let seen = json!({"a": [{"id": ID, "value": 1}, {"id": OTHER, "value": {"id": 5}}], "id": ID});
    let labelled = json!({
        "a": [{"id": "int:1", "value": 1}, {"id": "int:new", "value": {"id": 5}}], "id": ID,
    });
    assert_eq!(labels.label(&seen), labelled);
}

#[test]
fn the_order_within_a_superstep_counts() {
    let expected = json!({"ran": [{"step": 1, "node": "a"}, {"step": 1, "node": "b"}]});
    let got = json!({"ran": [{"step": 1, "node": "b"}, {"step": 1, "node": "a"}]});
    assert_eq!(shown(&expected, &got).len(), 2);
}

#[test]
fn long_texts_are_cut_between_characters() {
    assert_eq!(short("äöü", 2), "äö ...");
    assert_eq!(short("äöü", 3), "äöü");
}
