//! States: what the derive makes of a struct, in a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use superstep::{END, Graph, IntoInput, NodeError, RunOptions, START, State, StateError};

use crate::app;

fn longest(left: String, right: String) -> String {
    if right.len() > left.len() {
        right
    } else {
        left
    }
}

mod tally {
    use serde::{Deserialize, Serialize};
    use superstep::schemars::JsonSchema;

    #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[schemars(crate = "superstep::schemars")]
    pub(crate) struct Tally {
        pub(crate) yes: u32,
        pub(crate) no: u32,
    }

    pub(crate) fn count(left: Tally, right: Tally) -> Tally {
        Tally {
            yes: left.yes + right.yes,
            no: left.no + right.no,
        }
    }
}

/// One field for each kind of channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, State)]
struct Every {
    last: String,
    maybe: Option<u32>,
    #[state(channel = any)]
    any: Option<u32>,
    #[state(channel = ephemeral)]
    ephemeral: Option<String>,
    #[state(channel = untracked)]
    untracked: Option<String>,
    #[state(channel = topic)]
    topic: Vec<u32>,
    #[state(channel = topic_acc)]
    topic_acc: Vec<u32>,
    #[state(reducer = append)]
    append: Vec<String>,
    #[state(reducer = add)]
    add: u64,
    #[state(reducer = concat)]
    concat: String,
    #[state(reducer = merge)]
    merge: BTreeMap<String, u32>,
    #[state(reducer = union)]
    union: Vec<u32>,
    #[state(reducer = max)]
    max: f64,
    #[state(reducer = by_id)]
    by_id: Vec<Value>,
    #[state(reducer = messages)]
    messages: Vec<Value>,
    #[state(reducer = longest)]
    longest: String,
    #[state(reducer = tally::count, rename = "votes")]
    tally: tally::Tally,
    #[serde(rename = "type")]
    kind: String,
    #[state(channel = remaining_steps)]
    remaining: u64,
    #[state(channel = is_last_step)]
    is_last: bool,
}

#[test]
fn an_update_sets_only_what_it_names() {
    let update = Every::update().last("a").kind("b").maybe(1);
    assert_eq!(
        update.into_input().unwrap(),
        json!({"last": "a", "type": "b", "maybe": 1})
    );
    assert_eq!(Every::update().into_input().unwrap(), json!({}));
}

#[test]
fn setters_write_what_their_channel_takes() {
    let vote = tally::Tally { yes: 1, no: 0 };
    let update = Every::update()
        .last("first")
        .last("second")
        .maybe(1)
        .clear_maybe()
        .append(["a", "b"])
        .push_append("c")
        .push_topic(1)
        .union([3, 1])
        .add(2)
        .tally(vote)
        .overwrite_longest("x")
        .push_messages(json!({"id": "1"}));
    assert_eq!(
        update.into_input().unwrap(),
        json!({
            "last": "second", "maybe": null, "append": ["a", "b", "c"], "topic": [1],
            "union": [3, 1], "add": 2, "votes": {"yes": 1, "no": 0},
            "longest": {"__overwrite__": "x"}, "messages": [{"id": "1"}],
        })
    );
}

#[test]
fn an_input_writes_a_channel_once() {
    let twice = Every::update().add(1).add(2).into_input();
    let channel = "add".into();
    assert_eq!(twice, Err(StateError::WrittenTwice { channel }));
}

#[test]
fn a_state_reads_what_is_there() {
    let Value::Object(values) = json!({"last": "a", "votes": {"yes": 2, "no": 1}, "type": "t"})
    else {
        panic!("this is an object");
    };
    let state = Every::from_channels(values).unwrap();
    let expected = Every {
        last: "a".to_owned(),
        tally: tally::Tally { yes: 2, no: 1 },
        kind: "t".to_owned(),
        ..Every::default()
    };
    assert_eq!(state, expected);
}

#[test]
fn a_value_of_another_form_names_its_place() {
    let values = serde_json::Map::from_iter([("votes".to_owned(), json!({"yes": 1, "no": "x"}))]);
    let message = Every::from_channels(values).unwrap_err().to_string();
    assert!(message.contains("channel `votes`"), "{message}");
    assert!(message.contains("at `no`"), "{message}");
}

#[derive(Clone, Debug, Default, State)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Order {
    #[state(required)]
    number: String,
    #[state(rename = "tally")]
    votes: Option<tally::Tally>,
    #[state(channel = remaining_steps)]
    left: u64,
}

#[test]
fn the_schema_of_an_input_is_closed() {
    let mut schema = Order::input_schema().unwrap();
    let definitions = schema["$defs"].take();
    assert_eq!(definitions["Tally"]["type"], "object");
    assert_eq!(
        schema,
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Order",
            "type": "object",
            "properties": {
                "number": {"type": "string"},
                "tally": {"anyOf": [{"$ref": "#/$defs/Tally"}, {"type": "null"}]},
            },
            "additionalProperties": false,
            "required": ["number"],
            "$defs": null,
        })
    );
    let missing = Order::from_channels(serde_json::Map::new()).unwrap_err();
    assert!(matches!(missing, StateError::Missing { .. }), "{missing:?}");
}

#[derive(Clone, Debug, Default, Serialize, State)]
#[serde(rename_all = "camelCase")]
struct Cased {
    thread_id: String,
    #[state(rename = "kept_as_is")]
    other_name: String,
}

#[test]
fn channels_are_named_as_serde_names_fields() {
    let cased = Cased {
        thread_id: "a".to_owned(),
        other_name: "b".to_owned(),
    };
    let input = cased.into_input().unwrap();
    assert_eq!(input, json!({"threadId": "a", "kept_as_is": "b"}));
}

/// Two nodes write in one superstep, a third looks at what came of it.
#[tokio::test]
async fn parallel_writes_are_folded_in_order() {
    async fn one(_: Every) -> Result<EveryUpdate, NodeError> {
        Ok(Every::update()
            .any(1)
            .ephemeral("here")
            .untracked("here")
            .push_topic(1)
            .push_topic_acc(1)
            .push_append("one")
            .add(1)
            .concat("a")
            .merge([("a".to_owned(), 1)])
            .union([2, 1])
            .max(1.5)
            .push_by_id(json!({"id": 1, "v": "old"}))
            .longest("long")
            .tally(tally::Tally { yes: 1, no: 0 }))
    }
    async fn two(state: Every) -> Result<EveryUpdate, NodeError> {
        assert_eq!(state.remaining, 24);
        Ok(Every::update()
            .any(2)
            .push_topic(2)
            .push_topic_acc(2)
            .push_append("two")
            .add(2)
            .concat("b")
            .merge([("b".to_owned(), 2)])
            .union([3, 2])
            .max(0.5)
            .push_by_id(json!({"id": 1, "v": "new"}))
            .longest("x")
            .tally(tally::Tally { yes: 0, no: 1 }))
    }
    async fn look(state: Every) -> Result<EveryUpdate, NodeError> {
        assert_eq!(state.ephemeral.as_deref(), Some("here"));
        assert_eq!(state.untracked.as_deref(), Some("here"));
        assert_eq!((state.topic, state.topic_acc), (vec![1, 2], vec![1, 2]));
        assert_eq!(state.any, Some(2));
        Ok(Every::update().last("looked"))
    }
    let graph = Graph::<Every>::builder("every")
        .node("one", one)
        .node("two", two)
        .node("look", look)
        .edge(START, "one")
        .edge(START, "two")
        .join(["one", "two"], "look")
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    assert_eq!(run.error, None);
    let state: Every = run.state().unwrap();
    let expected = Every {
        last: "looked".to_owned(),
        untracked: Some("here".to_owned()),
        topic_acc: vec![1, 2],
        append: vec!["one".to_owned(), "two".to_owned()],
        add: 3,
        concat: "ab".to_owned(),
        merge: BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]),
        union: vec![1, 2, 3],
        max: 1.5,
        by_id: vec![json!({"id": 1, "v": "new"})],
        longest: "long".to_owned(),
        tally: tally::Tally { yes: 1, no: 1 },
        ..Every::default()
    };
    assert_eq!(state, expected);
}

#[tokio::test]
async fn parallel_writes_of_a_plain_channel_fail() {
    let write = |_: Every| async { Ok(Every::update().last("mine")) };
    let graph = Graph::<Every>::builder("clash")
        .node("one", write)
        .node("two", write)
        .edge(START, "one")
        .edge(START, "two")
        .build()
        .unwrap();
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    let error = run.error.unwrap();
    assert_eq!(error.kind, "InvalidUpdateError");
    assert!(error.message.contains("`last`"), "{error:?}");
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_refused() {
    let graph = Graph::<Order>::builder("order")
        .node("n", |_: Order| async { Ok(()) })
        .edge(START, "n")
        .build()
        .unwrap();
    let app = app(graph).await;
    for (input, words) in [
        (json!({}), "number"),
        (json!({"number": 7}), "/number"),
        (json!({"number": "a", "nubmer": 1}), "nubmer"),
        (json!("a text"), "object"),
    ] {
        let error = app.thread("1").invoke(input).await.unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.kind(), "invalid_input");
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
    assert_eq!(app.thread("1").state().await.unwrap(), None);
}

#[tokio::test]
async fn a_node_may_return_nothing() {
    let graph = Graph::<Every>::builder("nothing")
        .node("none", |_: Every| async { Ok(None::<EveryUpdate>) })
        .node("unit", |_: Every| async { Ok(()) })
        .edge(START, "none")
        .edge("none", "unit")
        .build()
        .unwrap();
    let app = app(graph).await;
    let whole = Every {
        last: "kept".to_owned(),
        ..Every::default()
    };
    let run = app.thread("1").invoke(whole).await.unwrap();
    assert_eq!(run.state::<Every>().unwrap().last, "kept");
}

/// Counts down to the end of its run; the path looks at what is left.
#[tokio::test]
async fn a_path_sees_how_far_the_run_may_go() {
    let graph = Graph::<Every>::builder("bounded")
        .node("work", |_: Every| async { Ok(Every::update().add(1)) })
        .edge(START, "work")
        .branch("work", |state| if state.is_last { END } else { "work" })
        .build()
        .unwrap();
    let thread = app(graph).await.thread("1");
    let options = RunOptions {
        recursion_limit: Some(4),
        ..RunOptions::default()
    };
    let run = thread.invoke_with(json!({}), options).await.unwrap();
    assert_eq!(run.error, None);
    // The input took one of the four.
    assert_eq!(run.state::<Every>().unwrap().add, 3);
}

#[tokio::test]
async fn an_input_may_begin_a_list_anew() {
    let graph = Graph::<Every>::builder("anew")
        .node("more", |_: Every| async {
            Ok(Every::update().push_append("more"))
        })
        .edge(START, "more")
        .build()
        .unwrap();
    let thread = app(graph).await.thread("1");
    let _ = thread
        .invoke(Every::update().push_append("old"))
        .await
        .unwrap();
    let anew = Every::update().overwrite_append(["new".to_owned()]);
    let run = thread.invoke(anew).await.unwrap();
    assert_eq!(run.values["append"], json!(["new", "more"]));
}
