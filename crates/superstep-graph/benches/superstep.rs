//! What planning and applying a superstep cost, by the number of channels and of tasks.
//!
//! `cargo bench -p superstep-graph`. A graph has one node, every channel is a list that grows,
//! and the tasks are packets for the node, each writing one item to one channel: a fan-out. What
//! a store or a worker adds is left to their own benchmarks.
//!
//! The rule it keeps: what is measured is what a worker calls, on a checkpoint that a run of the
//! same functions made.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::json;
use superstep_graph::{
    ChannelKind, Checkpoint, Command, Contribution, Delta, Graph, GraphBuilder, Lineage, Namespace,
    NodeName, NodeOutput, NodeSpec, Planned, Reducer, START, Send, Source, Target, Task, TaskPath,
    UnknownTargets, Write, apply, plan, route,
};

/// Channels and tasks of a case.
const CASES: [(usize, usize); 4] = [(10, 1), (10, 1_000), (1_000, 1), (1_000, 1_000)];

/// A graph at the beginning of a superstep.
struct Case {
    graph: Graph,
    checkpoint: Checkpoint,
    tasks: Vec<Task>,
    writes: Vec<Vec<Write>>,
}

impl Case {
    fn new(channels: usize, tasks: usize) -> Self {
        let channel = |at: usize| format!("c{}", at % channels);
        let mut builder = GraphBuilder::new();
        for at in 0..channels {
            builder.channel(channel(at), ChannelKind::Reduce(Reducer::Append));
        }
        builder.node(NodeSpec::new("node"));
        builder.edge(START, "node");
        let graph = builder.compile().expect("it has no mistakes");

        // The superstep before: every channel gets a value, and the packets are sent.
        let mut checkpoint = Checkpoint::empty(Lineage::root("bench"));
        let sent = NodeOutput::command(Command {
            update: (0..channels)
                .map(|at| Write::set(channel(at), json!([0, 1, 2, 3])))
                .collect(),
            goto: (0..tasks)
                .map(|at| Target::Send(Send::new("node", json!({"at": at}))))
                .collect(),
            parent: false,
        });
        let node = NodeName::from("node");
        let unknown = UnknownTargets::Refused;
        let routed = route(&graph, &checkpoint, &node, sent, unknown);
        let sender = Contribution {
            node: &node,
            path: &TaskPath::Pull,
            triggers: &[],
            writes: &routed.writes,
        };
        let delta = apply(&graph, &checkpoint, &[sender]).expect("lists take items");
        checkpoint.merge(&delta);

        let tasks = planned(&graph, &checkpoint);
        let writes = (0..tasks.len())
            .map(|at| vec![Write::set(channel(at), json!([at]))])
            .collect();
        Self {
            graph,
            checkpoint,
            tasks,
            writes,
        }
    }
}

fn planned(graph: &Graph, checkpoint: &Checkpoint) -> Vec<Task> {
    plan(
        graph,
        &Planned {
            base: checkpoint,
            delta: &Delta::default(),
            source: Source::Loop,
            step: checkpoint.step,
            lineage: &checkpoint.lineage,
            ns: &Namespace::root(),
        },
    )
}

fn benches(criterion: &mut Criterion) {
    let cases = CASES.map(|(channels, tasks)| {
        let case = Case::new(channels, tasks);
        assert_eq!(case.tasks.len(), tasks, "every packet is planned");
        let name = format!("{channels} channels, {tasks} tasks");
        (name, case)
    });
    let mut group = criterion.benchmark_group("plan");
    for (name, case) in &cases {
        group.bench_with_input(BenchmarkId::from_parameter(name), case, |bencher, case| {
            bencher.iter(|| planned(black_box(&case.graph), black_box(&case.checkpoint)));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("apply");
    for (name, case) in &cases {
        let contributions: Vec<_> = case
            .tasks
            .iter()
            .zip(&case.writes)
            .map(|(task, writes)| Contribution::of(task, writes))
            .collect();
        group.bench_with_input(BenchmarkId::from_parameter(name), case, |bencher, case| {
            bencher.iter(|| {
                apply(
                    black_box(&case.graph),
                    black_box(&case.checkpoint),
                    black_box(&contributions),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(superstep, benches);
criterion_main!(superstep);
