//! Random graphs and runs of them, for the properties.
//!
//! A graph here has up to five nodes with every kind of channel, random edges, joins, defers and
//! conditional edges with and without a map; what a node writes and where it goes is drawn by
//! task and step. Whatever is refused on the way ends the run. What must hold of all this is left
//! to `properties`.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use superstep_graph::{
    Branch, ChannelKind, Checkpoint, Command, Contribution, Delta, END, Graph, GraphBuilder,
    InvalidUpdate, Lineage, Managed, Namespace, NodeOutput, NodeSpec, Planned, Reducer, START,
    Send, Source, Target, Task, UnknownTargets, Write, WriteValue, apply, plan, route,
    start_writes, take_input,
};

pub(crate) const NODES: [&str; 5] = ["e", "b", "d", "a", "c"];

/// The channels that nodes write: one of every kind, reducer and setting.
fn kinds() -> [(&'static str, ChannelKind); 16] {
    use ChannelKind as Kind;
    let custom = Reducer::Custom {
        name: "minus".into(),
        initial: None,
        // Neither commutes nor associates, so that any other order shows.
        reduce: Arc::new(|left, right| Ok(json!([left, right]))),
    };
    [
        ("append", Kind::Reduce(Reducer::Append)),
        ("add", Kind::Reduce(Reducer::Add)),
        ("concat", Kind::Reduce(Reducer::Concat)),
        ("merge", Kind::Reduce(Reducer::Merge)),
        ("union", Kind::Reduce(Reducer::Union)),
        ("max", Kind::Reduce(Reducer::Max)),
        ("by_id", Kind::Reduce(Reducer::ById)),
        ("messages", Kind::Reduce(Reducer::Messages)),
        ("custom", Kind::Reduce(custom)),
        ("last", Kind::Last),
        ("any", Kind::Any),
        ("eph", Kind::Ephemeral { guard: false }),
        ("guarded", Kind::Ephemeral { guard: true }),
        ("topic", Kind::Topic { accumulate: false }),
        ("topics", Kind::Topic { accumulate: true }),
        ("untracked", Kind::Untracked),
    ]
}

#[derive(Clone, Debug)]
pub(crate) struct Shape {
    edges: Vec<(usize, usize)>,
    joins: Vec<(Vec<usize>, usize)>,
    branches: Vec<(usize, usize, bool)>,
    defers: Vec<usize>,
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let node = 0..NODES.len();
    (
        prop::collection::vec((node.clone(), node.clone()), 1..8),
        prop::collection::vec(
            (prop::collection::vec(node.clone(), 1..4), node.clone()),
            0..3,
        ),
        prop::collection::vec((node.clone(), node.clone(), any::<bool>()), 0..3),
        prop::collection::vec(node, 0..2),
    )
        .prop_map(|(edges, joins, branches, defers)| Shape {
            edges,
            joins,
            branches,
            defers,
        })
}

pub(crate) fn draws() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>(), 1..12)
}

/// The graph of a shape.
pub(crate) fn build(shape: &Shape) -> Graph {
    build_of(shape, NODES.len())
}

/// The graph of a shape with only the first nodes of [`NODES`], as an older version might be.
pub(crate) fn build_of(shape: &Shape, nodes: usize) -> Graph {
    let name = |at: usize| NODES[at % nodes];
    let mut builder = without_paths(shape, nodes);
    for (from, to, mapped) in &shape.branches {
        builder.branch(name(*from), branch(name(*to), *mapped));
    }
    builder.compile().expect("random graphs compile")
}

/// The graph of a shape, with paths that send on all that they see.
pub(crate) fn build_telling(shape: &Shape) -> Graph {
    let mut builder = without_paths(shape, NODES.len());
    for name in NODES {
        let tell = |state: &Value| Ok(vec![Send::new(NODES[0], state.clone()).into()]);
        builder.branch(name, Branch::new(tell));
    }
    builder.compile().expect("random graphs compile")
}

fn without_paths(shape: &Shape, nodes: usize) -> GraphBuilder {
    let mut builder = GraphBuilder::new();
    for (name, kind) in kinds() {
        builder.channel(name, kind);
    }
    builder.channel("left", ChannelKind::Managed(Managed::RemainingSteps));
    for (at, name) in NODES[..nodes].iter().enumerate() {
        let mut spec = NodeSpec::new(*name);
        spec.defer = shape.defers.contains(&at);
        builder.node(spec);
    }
    let name = |at: usize| NODES[at % nodes];
    builder.edge(START, name(shape.edges[0].0));
    for (from, to) in &shape.edges {
        builder.edge(name(*from), name(*to));
    }
    for (from, to) in &shape.joins {
        builder.join(from.iter().map(|at| name(*at)), name(*to));
    }
    builder
}

/// A path that goes by the state: to `to`, with a packet for it, or to the end.
fn branch(to: &'static str, mapped: bool) -> Branch {
    let path = Branch::new(move |state: &Value| {
        let sum = state["add"].as_i64().unwrap_or_default();
        Ok(match sum % 3 {
            0 => vec![if mapped { "there" } else { to }.into()],
            1 => vec![Send::new(to, json!({"sum": sum})).into()],
            _ => vec![if mapped { "done" } else { END }.into()],
        })
    });
    if mapped {
        path.with_map([("there", to), ("done", END)])
    } else {
        path
    }
}

/// What a node does, drawn from a number.
fn output(draw: u64, task: &Task) -> NodeOutput {
    let kinds = kinds();
    let write = |draw: u64| {
        let (channel, _) = &kinds[pick(draw, kinds.len())];
        let value = match *channel {
            "append" | "topic" | "topics" | "union" => json!([draw % 7, draw % 3]),
            "add" | "max" => json!(draw % 100),
            "concat" => json!(task.node),
            "merge" => json!({task.node.as_str(): draw % 9, "last": task.node}),
            "by_id" => json!([{"id": draw % 4, "by": task.node}]),
            "messages" if draw.is_multiple_of(5) => json!({"type": "remove", "id": "1"}),
            "messages" => {
                json!([{"type": "human", "id": (draw % 4).to_string(), "content": task.node}])
            }
            _ => json!([draw, task.node]),
        };
        let overwrites =
            matches!(*channel, "append" | "add" | "merge") && (draw / 100).is_multiple_of(8);
        Write {
            channel: (*channel).into(),
            value: if overwrites {
                WriteValue::Overwrite(value)
            } else {
                WriteValue::Set(value)
            },
        }
    };
    let goto: Vec<Target> = match draw / 10 % 6 {
        0 => vec![Send::new(NODES[pick(draw, 5)], json!(draw)).into()],
        1 => vec![NODES[pick(draw / 3, 5)].into()],
        2 => vec![END.into(), "unknown".into()],
        _ => Vec::new(),
    };
    // Mostly one write, sometimes a second one, which may go to the same channel.
    let update = (0..=u64::from(draw.is_multiple_of(4)))
        .map(|nth| write(draw / (nth * 6 + 1)))
        .collect();
    NodeOutput::command(Command {
        update,
        goto,
        parent: false,
    })
}

fn pick(draw: u64, count: usize) -> usize {
    usize::try_from(draw % count as u64).expect("less than a count")
}

/// One superstep of a random run.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The checkpoint that planned it.
    pub(crate) before: Checkpoint,
    pub(crate) tasks: Vec<Task>,
    pub(crate) writes: Vec<Vec<Write>>,
    /// What came of the writes.
    pub(crate) applied: Result<Delta, InvalidUpdate>,
    /// The checkpoint after it, and what that planned; as before where nothing was applied.
    pub(crate) after: Checkpoint,
    pub(crate) next: Vec<Task>,
}

impl Step {
    pub(crate) fn contributions(&self) -> Vec<Contribution<'_>> {
        let pairs = self.tasks.iter().zip(&self.writes);
        pairs.map(|(t, w)| Contribution::of(t, w)).collect()
    }
}

/// The tasks of a checkpoint as it is.
pub(crate) fn tasks_of(graph: &Graph, checkpoint: &Checkpoint) -> Vec<Task> {
    plan(
        graph,
        &Planned {
            base: checkpoint,
            delta: &Delta::default(),
            source: checkpoint.source,
            step: checkpoint.step,
            lineage: &checkpoint.lineage,
            ns: &Namespace::root(),
        },
    )
}

/// The next checkpoint, and its tasks, which are planned before it is there, as workers do.
pub(crate) fn advance(
    graph: &Graph,
    before: &Checkpoint,
    delta: &Delta,
    source: Source,
) -> (Checkpoint, Vec<Task>) {
    let step = before.step + 1;
    let lineage = before.lineage.next(step, None);
    let planned = Planned {
        base: before,
        delta,
        source,
        step,
        lineage: &lineage,
        ns: &Namespace::root(),
    };
    let tasks = plan(graph, &planned);
    let mut after = before.clone();
    after.merge(delta);
    (after.step, after.source, after.lineage) = (step, source, lineage);
    (after, tasks)
}

/// Runs a graph for a few supersteps with the draws.
pub(crate) fn run(graph: &Graph, draws: &[u64]) -> Vec<Step> {
    let mut steps = Vec::new();
    let input = json!({"append": [0]});
    let empty = Checkpoint::empty(Lineage::root("t"));
    let delta = take_input(graph, &empty, &[], &input).expect("an object is an input");
    let (mut checkpoint, mut tasks) = advance(graph, &empty, &delta, Source::Input);
    let mut draws = draws.iter().copied().cycle();
    while steps.len() < 8 && !tasks.is_empty() {
        let writes: Vec<Vec<Write>> = tasks
            .iter()
            .map(|task| {
                if task.node == START {
                    return start_writes(graph, &checkpoint, &input).expect("no path can fail");
                }
                let output = output(draws.next().expect("draws go on"), task);
                let unknown = UnknownTargets::Ignored;
                route(graph, &checkpoint, &task.node, output, unknown).writes
            })
            .collect();
        let mut step = Step {
            before: checkpoint.clone(),
            tasks,
            writes,
            applied: Ok(Delta::default()),
            after: checkpoint.clone(),
            next: Vec::new(),
        };
        step.applied = apply(graph, &checkpoint, &step.contributions());
        if let Ok(delta) = &step.applied {
            (step.after, step.next) = advance(graph, &checkpoint, delta, Source::Loop);
        }
        (checkpoint, tasks) = (step.after.clone(), step.next.clone());
        steps.push(step);
    }
    steps
}
