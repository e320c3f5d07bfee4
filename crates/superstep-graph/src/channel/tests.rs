//! Tables of what each kind of channel does with stored content and the writes of a superstep.
//!
//! A row is (stored, writes, change); a write `{"overwrite": v}` replaces. What a superstep does
//! with the answers is tested with `apply`.

use serde_json::{Value, json};

use super::{ChannelKind, Managed, Reducer};
use crate::{checkpoint::ChannelChange, error::InvalidUpdate, task::WriteValue};

fn write(value: &Value) -> WriteValue {
    match value.get("overwrite") {
        Some(value) => WriteValue::Overwrite(value.clone()),
        None => WriteValue::Set(value.clone()),
    }
}

fn update(
    kind: &ChannelKind,
    stored: Option<&Value>,
    writes: &Value,
) -> Result<Option<ChannelChange>, InvalidUpdate> {
    let writes: Vec<WriteValue> = writes.as_array().unwrap().iter().map(write).collect();
    kind.update(&"c".into(), stored, &writes)
}

/// `stored` null means that nothing is stored; `change` is the serialized change or null.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "rows read better")]
fn check(kind: &ChannelKind, stored: Value, writes: Value, change: Value) {
    let stored = (!stored.is_null()).then_some(stored);
    let found = update(kind, stored.as_ref(), &writes).unwrap();
    let unwritten = writes == json!([]) && found.is_some();
    assert!(!unwritten || kind.fades(), "{kind:?} fades unasked");
    assert_eq!(json!(found), change, "{kind:?} {stored:?} with {writes}");
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "rows read better")]
fn refused(kind: &ChannelKind, stored: Value, writes: Value) -> String {
    let stored = (!stored.is_null()).then_some(stored);
    let found = update(kind, stored.as_ref(), &writes);
    found.expect_err("the channel took the writes").to_string()
}

fn reduce(reducer: Reducer) -> ChannelKind {
    ChannelKind::Reduce(reducer)
}

fn names(names: &[&str]) -> std::collections::BTreeSet<crate::NodeName> {
    names.iter().map(|name| (*name).into()).collect()
}

#[test]
fn a_last_channel_keeps_one_value() {
    for kind in [ChannelKind::Last, ChannelKind::Untracked] {
        check(&kind, json!(1), json!([]), json!(null));
        check(&kind, json!(null), json!([2]), json!({"set": 2}));
        check(&kind, json!(1), json!([null]), json!({"set": null}));
        check(&kind, json!(1), json!([1]), json!({"set": 1}));
        refused(&kind, json!(1), json!([2, 2]));
    }
}

#[test]
fn an_any_channel_keeps_the_last_write_for_one_superstep() {
    check(
        &ChannelKind::Any,
        json!(1),
        json!([2, 3]),
        json!({"set": 3}),
    );
    check(&ChannelKind::Any, json!(1), json!([]), json!("remove"));
    check(&ChannelKind::Any, json!(null), json!([]), json!(null));
}

#[test]
fn an_ephemeral_channel_lives_for_one_superstep() {
    for guard in [true, false] {
        let kind = ChannelKind::Ephemeral { guard };
        check(&kind, json!(null), json!([1]), json!({"set": 1}));
        check(&kind, json!(1), json!([]), json!("remove"));
        check(&kind, json!(null), json!([]), json!(null));
    }
    let open = ChannelKind::Ephemeral { guard: false };
    check(&open, json!(1), json!([2, 3]), json!({"set": 3}));
    refused(
        &ChannelKind::Ephemeral { guard: true },
        json!(1),
        json!([2, 3]),
    );
}

#[test]
fn a_topic_collects_the_writes_of_one_superstep() {
    let kind = ChannelKind::Topic { accumulate: false };
    check(&kind, json!(null), json!([1]), json!({"set": [1]}));
    check(
        &kind,
        json!([9]),
        json!([1, [2, [3]], []]),
        json!({"set": [1, 2, [3]]}),
    );
    check(&kind, json!([9]), json!([]), json!("remove"));
    check(&kind, json!([9]), json!([[]]), json!("remove"));
    check(&kind, json!(null), json!([[]]), json!(null));
}

#[test]
fn an_accumulating_topic_only_grows() {
    let kind = ChannelKind::Topic { accumulate: true };
    check(&kind, json!([9]), json!([1, [2]]), json!({"push": [1, 2]}));
    check(&kind, json!([9]), json!([]), json!(null));
    check(&kind, json!([9]), json!([[]]), json!(null));
}

#[test]
fn a_join_notes_each_source_once() {
    let kind = ChannelKind::Barrier {
        names: names(&["a", "b"]),
    };
    check(&kind, json!(null), json!(["a"]), json!({"set": ["a"]}));
    check(&kind, json!(["a"]), json!(["a"]), json!(null));
    check(
        &kind,
        json!(["b"]),
        json!(["a", "b"]),
        json!({"set": ["a", "b"]}),
    );
    check(&kind, json!(["b"]), json!([]), json!(null));
    refused(&kind, json!(null), json!(["c"]));

    assert!(!kind.available(Some(&json!(["a"]))));
    assert_eq!(kind.consume(Some(&json!(["a"]))), None);
    assert!(kind.available(Some(&json!(["a", "b"]))));
    assert_eq!(
        kind.consume(Some(&json!(["a", "b"]))),
        Some(ChannelChange::Remove)
    );
}

#[test]
fn a_join_is_complete_by_its_own_sources_only() {
    let kind = ChannelKind::Barrier {
        names: names(&["a", "b"]),
    };
    // Left by a version of the graph whose join had another source.
    assert!(!kind.available(Some(&json!(["a", "old"]))));
    assert!(kind.available(Some(&json!(["a", "b", "old"]))));
}

#[test]
fn deferred_triggers_wait_for_the_finish() {
    let plain = ChannelKind::AfterFinish;
    check(
        &plain,
        json!(null),
        json!([null]),
        json!({"set": {"value": null, "finished": false}}),
    );
    let join = ChannelKind::BarrierAfterFinish {
        names: names(&["a", "b"]),
    };
    check(
        &join,
        json!({"seen": ["b"], "finished": false}),
        json!(["a"]),
        json!({"set": {"seen": ["a", "b"], "finished": false}}),
    );
    let half = json!({"seen": ["a"], "finished": false});
    assert_eq!(join.finish(Some(&half)), None);
    for (kind, content) in [
        (&plain, json!({"value": 7, "finished": false})),
        (&join, json!({"seen": ["a", "b"], "finished": false})),
    ] {
        assert!(!kind.available(Some(&content)));
        assert_eq!(kind.consume(Some(&content)), None);
        let Some(ChannelChange::Set(finished)) = kind.finish(Some(&content)) else {
            panic!("{kind:?} does not become available");
        };
        assert!(kind.available(Some(&finished)));
        assert_eq!(kind.finish(Some(&finished)), None);
        assert_eq!(kind.consume(Some(&finished)), Some(ChannelChange::Remove));
        assert_eq!(kind.finish(None), None);
    }
    assert_eq!(
        plain.read(Some(&json!({"value": 7, "finished": true}))),
        Some(json!(7))
    );
    assert_eq!(
        plain.read(Some(&json!({"value": 7, "finished": false}))),
        None
    );
}

#[test]
fn reducers_begin_at_their_initial_value() {
    let rows = [
        (Reducer::Append, json!([])),
        (Reducer::Add, json!(0)),
        (Reducer::Concat, json!("")),
        (Reducer::Merge, json!({})),
        (Reducer::Union, json!([])),
        (Reducer::Max, json!(0)),
        (Reducer::ById, json!([])),
        (Reducer::Messages, json!([])),
    ];
    for (reducer, initial) in rows {
        let kind = reduce(reducer);
        assert!(kind.available(None), "{kind:?}");
        assert_eq!(kind.read(None), Some(initial), "{kind:?}");
        check(&kind, json!(null), json!([]), json!(null));
    }
    let without = reduce(Reducer::Custom {
        name: "first".into(),
        initial: None,
        reduce: std::sync::Arc::new(|left, _| Ok(left)),
    });
    assert!(!without.available(None));
    check(&without, json!(null), json!([5, 6]), json!({"set": 5}));
    check(&without, json!(5), json!([6]), json!({"set": 5}));
}

#[test]
fn an_append_writes_only_its_new_items() {
    let kind = reduce(Reducer::Append);
    let long: Vec<Value> = (0..1_000).map(Value::from).collect();
    check(
        &kind,
        json!(long),
        json!([[1], 2, null, [[3]]]),
        json!({"push": [1, 2, [3]]}),
    );
}

#[test]
fn a_list_that_only_grew_is_stored_as_its_growth() {
    let old = json!([{"id": 1}]);
    let kind = reduce(Reducer::Messages);
    check(
        &kind,
        old.clone(),
        json!([[{"id": 2}]]),
        json!({"push": [{"id": 2}]}),
    );
    check(
        &kind,
        old,
        json!([[{"id": 1, "x": 1}]]),
        json!({"set": [{"id": 1, "x": 1}]}),
    );
}

#[test]
fn an_overwrite_wins_over_plain_writes() {
    let kind = reduce(Reducer::Append);
    let rows = [
        (json!([[1], {"overwrite": [7]}]), json!({"set": [7]})),
        (json!([{"overwrite": [7]}, [1]]), json!({"set": [7]})),
        (json!([{"overwrite": []}]), json!({"set": []})),
        (json!([{"overwrite": [9, 8]}]), json!({"push": [8]})),
    ];
    for (writes, change) in rows {
        check(&kind, json!([9]), writes, change);
    }
    refused(
        &kind,
        json!([]),
        json!([{"overwrite": 1}, {"overwrite": 1}]),
    );
}

#[test]
fn nothing_is_lost_after_an_overwrite_with_no_list() {
    let kind = reduce(Reducer::Append);
    check(
        &kind,
        json!([1]),
        json!([{"overwrite": 5}]),
        json!({"set": 5}),
    );
    assert_eq!(
        refused(&kind, json!(5), json!([[1]])),
        "channel `c` cannot take the write: the value so far must be a list, not a number \
         (reducer `append`)"
    );
}

#[test]
fn nobody_writes_what_the_engine_supplies() {
    let kind = ChannelKind::Managed(Managed::IsLastStep);
    check(&kind, json!(null), json!([]), json!(null));
    assert!(!kind.available(None));
    assert_eq!(kind.read(Some(&json!(true))), None);
    refused(&kind, json!(null), json!([true]));
}

#[test]
fn refusals_name_the_channel_and_what_to_do() {
    insta::assert_snapshot!(
        refused(&ChannelKind::Last, json!(null), json!([1, 2])),
        @"channel `c` got several values in one superstep but keeps one; give it a reducer, or let only one parallel node write it"
    );
    insta::assert_snapshot!(
        refused(
            &reduce(Reducer::Add),
            json!(null),
            json!([{"overwrite": 1}, {"overwrite": 2}])
        ),
        @"channel `c` was overwritten twice in one superstep; overwrite it once"
    );
    insta::assert_snapshot!(
        refused(&reduce(Reducer::Add), json!(1), json!(["one"])),
        @"channel `c` cannot take the write: the write must be a number, not a text (reducer `add`)"
    );
    insta::assert_snapshot!(
        refused(
            &ChannelKind::Managed(Managed::RemainingSteps),
            json!(null),
            json!([1])
        ),
        @"channel `c` is supplied by the engine and cannot be written; leave it out"
    );
    insta::assert_snapshot!(
        refused(
            &ChannelKind::Barrier {
                names: names(&["a"])
            },
            json!(null),
            json!(["b"])
        ),
        @"join `c` does not wait for `b`"
    );
}
