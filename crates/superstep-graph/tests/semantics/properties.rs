//! Properties over random graphs and runs: order of arrival, merge and plan, formats, cost.
//!
//! A graph here has up to five nodes with random edges, joins, defers and channel kinds; what a
//! node writes and where it goes is drawn by task and step. Whatever is refused on the way ends
//! the run; the properties hold for every superstep that came about.

use proptest::prelude::*;
use serde_json::{Value, json};
use superstep_graph::{
    ChannelChange, ChannelKind, Checkpoint, Command, Contribution, Delta, END, Graph, GraphBuilder,
    Lineage, Namespace, NodeOutput, NodeSpec, Planned, Reducer, START, Send, Source, Target, Task,
    TaskPath, UnknownTargets, Write, apply, plan, route, start_writes, take_input,
};

const NODES: [&str; 5] = ["e", "b", "d", "a", "c"];

fn kinds() -> [(&'static str, ChannelKind); 10] {
    use ChannelKind as Kind;
    [
        ("append", Kind::Reduce(Reducer::Append)),
        ("add", Kind::Reduce(Reducer::Add)),
        ("concat", Kind::Reduce(Reducer::Concat)),
        ("union", Kind::Reduce(Reducer::Union)),
        ("by_id", Kind::Reduce(Reducer::ById)),
        ("any", Kind::Any),
        ("eph", Kind::Ephemeral { guard: false }),
        ("topic", Kind::Topic { accumulate: false }),
        ("topics", Kind::Topic { accumulate: true }),
        ("untracked", Kind::Untracked),
    ]
}

#[derive(Clone, Debug)]
struct Shape {
    edges: Vec<(usize, usize)>,
    joins: Vec<(Vec<usize>, usize)>,
    defers: Vec<usize>,
}

fn shape() -> impl Strategy<Value = Shape> {
    let node = 0..NODES.len();
    (
        prop::collection::vec((node.clone(), node.clone()), 1..8),
        prop::collection::vec(
            (prop::collection::vec(node.clone(), 1..4), node.clone()),
            0..3,
        ),
        prop::collection::vec(node, 0..2),
    )
        .prop_map(|(edges, joins, defers)| Shape {
            edges,
            joins,
            defers,
        })
}

fn build(shape: &Shape) -> Graph {
    let mut builder = GraphBuilder::new();
    for (name, kind) in kinds() {
        builder.channel(name, kind);
    }
    for (at, name) in NODES.iter().enumerate() {
        let mut spec = NodeSpec::new(*name);
        spec.defer = shape.defers.contains(&at);
        builder.node(spec);
    }
    builder.edge(START, NODES[shape.edges[0].0]);
    for (from, to) in &shape.edges {
        builder.edge(NODES[*from], NODES[*to]);
    }
    for (from, to) in &shape.joins {
        builder.join(from.iter().map(|at| NODES[*at]), NODES[*to]);
    }
    builder.compile().expect("random graphs compile")
}

/// What a node does, drawn from a number.
fn output(draw: u64, node: &Task) -> NodeOutput {
    let (channel, _) = kinds()[usize::try_from(draw % 10).unwrap()].clone();
    let value = match channel {
        "append" | "topic" | "topics" | "union" => json!([draw % 7, draw % 3]),
        "add" => json!(draw % 100),
        "concat" => json!(node.node),
        "by_id" => json!([{"id": draw % 4, "by": node.node}]),
        _ => json!(draw),
    };
    let goto: Vec<Target> = match draw / 10 % 6 {
        0 => vec![Send::new(NODES[usize::try_from(draw % 5).unwrap()], json!(draw)).into()],
        1 => vec![NODES[usize::try_from(draw / 3 % 5).unwrap()].into()],
        2 => vec![END.into(), "unknown".into()],
        _ => Vec::new(),
    };
    NodeOutput::command(Command {
        update: vec![Write::set(channel, value)],
        goto,
        parent: false,
    })
}

/// One superstep of a random run.
struct Step {
    before: Checkpoint,
    tasks: Vec<Task>,
    writes: Vec<Vec<Write>>,
    delta: Delta,
    next: Vec<Task>,
}

fn planned(
    graph: &Graph,
    base: &Checkpoint,
    delta: &Delta,
    source: Source,
    step: i64,
) -> Vec<Task> {
    let lineage = base.lineage.next(step, None);
    let ns = Namespace::root();
    plan(
        graph,
        &Planned {
            base,
            delta,
            source,
            step,
            lineage: &lineage,
            ns: &ns,
        },
    )
}

/// Runs a graph for a few supersteps with the draws.
fn run(graph: &Graph, draws: &[u64]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut checkpoint = Checkpoint::empty(Lineage::root("t"));
    let input = json!({"append": [0]});
    let delta = take_input(graph, &checkpoint, &[], &input).expect("an object is an input");
    let mut tasks = planned(graph, &checkpoint, &delta, Source::Input, -1);
    checkpoint.merge(&delta);
    checkpoint.step = -1;
    let mut draws = draws.iter().copied().cycle();
    for _ in 0..8 {
        let writes: Vec<Vec<Write>> = tasks
            .iter()
            .map(|task| {
                if task.node == START {
                    return start_writes(graph, &checkpoint, &input).expect("no path can fail");
                }
                let output = output(draws.next().expect("draws go on"), task);
                route(
                    graph,
                    &checkpoint,
                    &task.node,
                    output,
                    UnknownTargets::Ignored,
                )
                .writes
            })
            .collect();
        let contributions: Vec<_> = tasks
            .iter()
            .zip(&writes)
            .map(|(t, w)| Contribution::of(t, w))
            .collect();
        let Ok(delta) = apply(graph, &checkpoint, &contributions) else {
            break;
        };
        let step = checkpoint.step + 1;
        let next = planned(graph, &checkpoint, &delta, Source::Loop, step);
        let before = checkpoint.clone();
        checkpoint.merge(&delta);
        checkpoint.step = step;
        checkpoint.lineage = before.lineage.next(step, None);
        steps.push(Step {
            before,
            tasks,
            writes,
            delta,
            next: next.clone(),
        });
        tasks = next;
        if tasks.is_empty() {
            break;
        }
    }
    steps
}

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
    let name = || "[a-c:]{1,4}".prop_map(superstep_graph::ChannelName::from);
    let versions = prop::collection::btree_map(name(), any::<u64>(), 0..3);
    (
        prop::collection::btree_map(name(), any_change(), 0..3),
        prop::collection::btree_map(name(), any_change(), 0..3),
        versions.clone(),
        prop::collection::btree_map(
            "[a-c]".prop_map(superstep_graph::NodeName::from),
            versions,
            0..3,
        ),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn order_of_arrival_does_not_matter(shape in shape(), draws in prop::collection::vec(any::<u64>(), 1..12), seed in any::<u64>()) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            let mut arrived: Vec<_> = step.tasks.iter().zip(&step.writes).map(|(t, w)| Contribution::of(t, w)).collect();
            // A permutation drawn by the seed.
            let mut draw = seed;
            for at in (1..arrived.len()).rev() {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                arrived.swap(at, usize::try_from(draw >> 33).unwrap() % (at + 1));
            }
            prop_assert_eq!(apply(&graph, &step.before, &arrived), Ok(step.delta));
        }
    }

    #[test]
    fn planning_before_and_after_the_merge_is_the_same(shape in shape(), draws in prop::collection::vec(any::<u64>(), 1..12)) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            let mut merged = step.before.clone();
            merged.merge(&step.delta);
            let number = step.before.step + 1;
            let after = planned(&graph, &merged, &Delta::default(), Source::Loop, number);
            prop_assert_eq!(after, step.next);
        }
    }

    #[test]
    fn plans_name_known_nodes_and_no_task_twice(shape in shape(), draws in prop::collection::vec(any::<u64>(), 1..12)) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            let mut ids: Vec<_> = step.next.iter().map(|task| task.id.clone()).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), step.next.len());
            let mut pulled: Vec<_> = step.next.iter().filter(|t| t.path == TaskPath::Pull).map(|t| &t.node).collect();
            prop_assert!(pulled.is_sorted());
            pulled.dedup();
            prop_assert_eq!(pulled.len(), step.next.iter().filter(|t| t.path == TaskPath::Pull).count());
            for task in &step.next {
                prop_assert!(graph.has_node(task.node.as_str()) && task.node != START);
            }
        }
    }

    #[test]
    fn versions_only_grow_and_only_with_a_change(shape in shape(), draws in prop::collection::vec(any::<u64>(), 1..12)) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            for (channel, version) in &step.delta.versions {
                prop_assert!(step.before.versions.get(channel).is_none_or(|before| before < version));
                let change = step.delta.channels.get(channel).or_else(|| step.delta.untracked.get(channel));
                prop_assert!(change.is_some());
            }
            let changed = step.delta.channels.len() + step.delta.untracked.len();
            prop_assert_eq!(changed, step.delta.versions.len());
        }
    }

    #[test]
    fn a_push_never_repeats_old_items(shape in shape(), draws in prop::collection::vec(any::<u64>(), 1..12)) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            let new: usize = step.writes.iter().flatten().filter(|w| w.channel == "append")
                .map(|w| w.value.value().as_array().map_or(1, Vec::len)).sum();
            if let Some(change) = step.delta.channels.get("append") {
                let ChannelChange::Push(items) = change else {
                    return Err(TestCaseError::fail("an append was stored as a whole"));
                };
                prop_assert_eq!(items.len(), new);
            }
        }
    }

    #[test]
    fn checkpoints_and_tasks_read_back_as_written(shape in shape(), draws in prop::collection::vec(any::<u64>(), 1..12)) {
        let graph = build(&shape);
        for step in run(&graph, &draws) {
            prop_assert_eq!(&round_trip(&step.before), &step.before);
            prop_assert_eq!(&round_trip(&step.delta), &step.delta);
            prop_assert_eq!(&round_trip(&step.next), &step.next);
            prop_assert_eq!(&round_trip(&step.writes), &step.writes);
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
