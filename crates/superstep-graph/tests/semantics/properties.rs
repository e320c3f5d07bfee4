//! Properties over random graphs and runs: order of arrival, replay, plans, formats, cost.
//!
//! The graphs and runs are those of `random`; the properties hold for every superstep that came
//! about. That the runs reach what they are there for is a test of its own, as without it the
//! others would prove nothing.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use superstep_graph::{
    ChannelChange, ChannelKind, ChannelName, Command, Contribution, Delta, Lineage, Namespace,
    NodeName, NodeOutput, SENDS, START, Send, Source, Task, TaskPath, UnknownTargets, Write, apply,
    read_state, route, update_state,
};

use crate::random::{NODES, advance, build, build_of, build_telling, draws, run, shape, tasks_of};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no others", |f| f.is_finite())
            .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn any_change() -> impl Strategy<Value = ChannelChange> {
    prop_oneof![
        any_json().prop_map(ChannelChange::Set),
        prop::collection::vec(any_json(), 0..4).prop_map(ChannelChange::Push),
        Just(ChannelChange::Remove),
        (".{1,8}", any::<bool>()).prop_map(|(id, push)| ChannelChange::Blob { id, push }),
    ]
}

fn any_delta() -> impl Strategy<Value = Delta> {
    let name = || "[a-c:]{1,4}".prop_map(ChannelName::from);
    let versions = prop::collection::btree_map(name(), any::<u64>(), 0..3);
    (
        prop::collection::btree_map(name(), any_change(), 0..3),
        prop::collection::btree_map(name(), any_change(), 0..3),
        versions.clone(),
        prop::collection::btree_map("[a-c]".prop_map(NodeName::from), versions, 0..3),
    )
        .prop_map(|(channels, untracked, versions, seen)| Delta {
            channels,
            untracked,
            versions,
            seen,
        })
}

fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("it serializes");
    serde_json::from_str(&text).expect("it reads back")
}

/// Puts `items` into an order that `seed` draws.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut draw = seed;
    for at in (1..items.len()).rev() {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        items.swap(at, usize::try_from(draw >> 33).unwrap() % (at + 1));
    }
}

/// Fails unless the tasks are of nodes among `nodes`, no two the same, and named ones once.
fn check_plan(tasks: &[Task], nodes: &[&str]) -> Result<(), TestCaseError> {
    let ids: BTreeSet<_> = tasks.iter().map(|task| &task.id).collect();
    prop_assert_eq!(ids.len(), tasks.len(), "one id twice");
    let is_pulled = |task: &&Task| task.path == TaskPath::Pull;
    let pulled: Vec<_> = tasks.iter().filter(is_pulled).map(|t| &t.node).collect();
    let distinct: BTreeSet<_> = pulled.iter().collect();
    prop_assert_eq!(distinct.len(), pulled.len(), "one node twice");
    for task in tasks {
        prop_assert!(
            nodes.contains(&task.node.as_str()),
            "{} is unknown",
            task.node
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn order_of_arrival_does_not_matter(shape in shape(), draws in draws(), seed in any::<u64>()) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            let mut arrived = step.contributions();
            shuffle(&mut arrived, seed);
            // A refusal is the same too: which write is to blame must not depend on luck.
            prop_assert_eq!(apply(&graph, &step.before, &arrived), step.applied);
        }
    }

    #[test]
    fn replaying_from_any_checkpoint_gives_the_same(shape in shape(), draws in draws()) {
        let graph = build(&shape);
        let steps = run(&graph, &draws);
        for from in 0..steps.len() {
            // Another process: a checkpoint read back, and nothing else but the recorded writes.
            let mut checkpoint = round_trip(&steps[from].before);
            for step in &steps[from..] {
                prop_assert_eq!(&tasks_of(&graph, &checkpoint), &step.tasks);
                let applied = apply(&graph, &checkpoint, &step.contributions());
                prop_assert_eq!(&applied, &step.applied);
                let Ok(delta) = applied else { break };
                (checkpoint, _) = advance(&graph, &checkpoint, &round_trip(&delta), Source::Loop);
                prop_assert_eq!(&checkpoint, &step.after);
            }
        }
    }

    #[test]
    fn planning_before_and_after_the_merge_is_the_same(shape in shape(), draws in draws()) {
        let graph = build(&shape);
        for step in run(&graph, &draws).iter().filter(|step| step.applied.is_ok()) {
            prop_assert_eq!(&tasks_of(&graph, &step.after), &step.next);
        }
    }

    #[test]
    fn plans_name_known_nodes_and_no_task_twice(shape in shape(), draws in draws()) {
        let graph = build(&shape);
        let mut all = BTreeSet::new();
        for step in run(&graph, &draws) {
            check_plan(&step.next, &NODES)?;
            prop_assert!(step.next.iter().filter(|t| t.path == TaskPath::Pull).is_sorted_by_key(|t| &t.node));
            for task in step.next {
                prop_assert!(all.insert(task.id), "an id of an earlier superstep");
            }
        }
    }

    #[test]
    fn a_graph_with_fewer_nodes_plans_only_its_own(shape in shape(), draws in draws(), left in 1..NODES.len()) {
        let (graph, smaller) = (build(&shape), build_of(&shape, left));
        for step in run(&graph, &draws) {
            let tasks = tasks_of(&smaller, &step.after);
            check_plan(&tasks, &NODES[..left])?;
            // Nor does it trip over what the larger graph's tasks wrote.
            prop_assert_eq!(apply(&smaller, &step.before, &step.contributions()).is_ok(), step.applied.is_ok());
        }
    }

    #[test]
    fn an_update_at_any_checkpoint_plans_known_nodes(shape in shape(), draws in draws(), at in 0..NODES.len(), sum in 0..3) {
        let graph = build(&shape);
        let node = NodeName::from(NODES[at]);
        for step in run(&graph, &draws) {
            let values = json!({"add": sum, "append": ["updated"]});
            let updates = vec![(values, Some(node.clone()))];
            let updated = update_state(&graph, &step.after, updates.clone()).expect("no path can fail");
            prop_assert_eq!(&updated.made[0].0, &node);
            let (after, tasks) = advance(&graph, &step.after, &updated.delta, Source::Update);
            check_plan(&tasks, &NODES)?;
            prop_assert!(tasks.iter().filter(|t| t.path == TaskPath::Pull).is_sorted_by_key(|t| graph.definition_order(&t.node)));
            prop_assert_eq!(tasks_of(&graph, &round_trip(&after)), tasks);
            prop_assert_eq!(update_state(&graph, &round_trip(&step.after), updates), Ok(updated));
        }
    }

    #[test]
    fn a_path_sees_what_its_node_alone_would_leave(shape in shape(), draws in draws()) {
        let telling = build_telling(&shape);
        for step in run(&build(&shape), &draws) {
            for (task, writes) in step.tasks.iter().zip(&step.writes).filter(|(task, _)| task.node != START) {
                let update: Vec<Write> = writes.iter().filter(|w| telling.state_channels().contains(&w.channel)).cloned().collect();
                let alone = Contribution { node: &task.node, path: &task.path, triggers: &[], writes: &update };
                let Ok(delta) = apply(&telling, &step.before, &[alone]) else { continue };
                let mut after = step.before.clone();
                after.merge(&delta);
                let output = NodeOutput::command(Command { update: update.clone(), ..Command::default() });
                let routed = route(&telling, &step.before, &task.node, output, UnknownTargets::Refused);
                let told = routed.writes.iter().find(|w| w.channel == SENDS).map(|w| &w.value.value()["arg"]);
                prop_assert_eq!(told, Some(&read_state(&telling, &after)));
            }
        }
    }

    #[test]
    fn versions_only_grow_and_only_with_a_change(shape in shape(), draws in draws()) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            let Ok(delta) = step.applied else { continue };
            for (channel, version) in &delta.versions {
                prop_assert!(step.before.versions.get(channel).is_none_or(|before| before < version));
                let change = delta.channels.get(channel).or_else(|| delta.untracked.get(channel));
                prop_assert!(change.is_some());
            }
            let changed = delta.channels.len() + delta.untracked.len();
            prop_assert_eq!(changed, delta.versions.len());
            for (node, seen) in &step.before.seen {
                for (channel, version) in seen {
                    prop_assert!(step.after.seen[node].get(channel) >= Some(version), "{node} forgot {channel}");
                }
            }
        }
    }

    #[test]
    fn a_list_that_grows_is_stored_as_its_growth(shape in shape(), draws in draws()) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            let Ok(delta) = step.applied else { continue };
            for (channel, change) in &delta.channels {
                let lists = (step.before.content(channel.as_str()), step.after.content(channel.as_str()));
                let (Some(Value::Array(old)), Some(Value::Array(new))) = lists else { continue };
                let reduced = matches!(graph.channel(channel.as_str()), Some(ChannelKind::Reduce(_)));
                if reduced && !old.is_empty() && new.starts_with(old) {
                    let growth = new[old.len()..].to_vec();
                    prop_assert_eq!(change, &ChannelChange::Push(growth), "{}", channel);
                }
            }
        }
    }

    #[test]
    fn checkpoints_and_tasks_read_back_as_written(shape in shape(), draws in draws()) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            prop_assert_eq!(&round_trip(&step.after), &step.after);
            prop_assert_eq!(&round_trip(&step.next), &step.next);
            prop_assert_eq!(&round_trip(&step.writes), &step.writes);
            if let Ok(delta) = &step.applied {
                prop_assert_eq!(&round_trip(delta), delta);
            }
        }
    }

    #[test]
    fn any_delta_reads_back_as_written(delta in any_delta(), packet in any_json()) {
        prop_assert_eq!(&round_trip(&delta), &delta);
        let send = Send::new("a", packet.clone());
        prop_assert_eq!(&round_trip(&send), &send);
        let ns = Namespace::root();
        let path = TaskPath::Push(3);
        let task = Task {
            id: Task::id_of(&Lineage::root("t"), &ns, 1, &"a".into(), &path),
            node: "a".into(),
            path,
            triggers: Vec::new(),
            packet: Some(packet),
        };
        prop_assert_eq!(&round_trip(&task), &task);
    }
}

/// The runs must come by what they are there for; otherwise they prove nothing.
#[test]
fn random_runs_reach_every_channel_and_route() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut changed, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let (mut several, mut pushed, mut supersteps) = (0, 0, 0);
    for _ in 0..256 {
        let (shape, draws) = (shape(), draws()).new_tree(&mut runner).unwrap().current();
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            supersteps += 1;
            several += usize::from(step.tasks.len() > 1);
            pushed += usize::from(step.tasks.iter().any(|t| t.path != TaskPath::Pull));
            match step.applied {
                Ok(delta) => changed.extend(
                    delta
                        .channels
                        .into_keys()
                        .chain(delta.untracked.into_keys())
                        .filter(|channel| graph.channel(channel.as_str()).is_some())
                        .map(|channel| graph.channel(channel.as_str()).unwrap().name().to_owned()),
                ),
                Err(error) => {
                    refused.insert(error.to_string().split('`').nth(1).unwrap().to_owned());
                }
            }
        }
    }
    assert!(
        supersteps > 800 && several > 200 && pushed > 100,
        "{supersteps} {several} {pushed}"
    );
    let kinds: Vec<&str> = changed.iter().map(String::as_str).collect();
    let expected = [
        "add",
        "after_finish",
        "any",
        "append",
        "barrier",
        "barrier_after_finish",
        "by_id",
        "concat",
        "ephemeral",
        "last",
        "max",
        "merge",
        "messages",
        "minus",
        "topic",
        "topic_acc",
        "union",
        "untracked",
    ];
    assert_eq!(kinds, expected);
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    let expected = [
        "add",
        "append",
        "guarded",
        "last",
        "merge",
        "messages",
        "untracked",
    ];
    assert_eq!(refused, expected, "the channels that refused a write");
}
