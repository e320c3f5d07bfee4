//! Random graphs, in the shapes of the generator of conformance cases.
//!
//! Channels with reducers, parallel branches, joins, sends, conditional edges, loops that end,
//! gotos, breakpoints, subgraphs, deferred nodes, nodes that ask, sleep and fail. What a node
//! does is a function of its input and its answers alone, so that a run's values are too; a node
//! that fails does so a fixed number of times for its idempotency key, whoever runs it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};
use superstep_graph::{
    Branch, Breakpoints, ChannelKind, Command, END, GraphBuilder, NodeName, NodeOutput, NodeSpec,
    Reducer, START, Send, Target, Write,
};
use superstep_worker::{
    Checkpointer, Node, NodeCode, NodeContext, NodeError, NodeReturn, Policies, RetryPolicy,
    RunnableGraph, Subgraph,
};

use crate::graphs::{INSIDE, Stage, id};

const PREFIX: &str = "random-";

/// The name of the random graph of a seed.
pub(crate) fn name_of(seed: u64) -> String {
    format!("{PREFIX}{seed}")
}

/// The seed of a random graph, if that is what the name says.
pub(crate) fn seed_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// What one node does.
#[derive(Clone, Debug, Default)]
struct Does {
    /// How many questions it asks, and only while `n` is under this.
    asks: usize,
    asks_under: Option<i64>,
    adds: Option<i64>,
    says: bool,
    tags: Vec<&'static str>,
    /// How often it fails first, and in how many attempts it is tried.
    fails: usize,
    attempts: Option<u32>,
    /// The pause before the second attempt, in milliseconds.
    retry_ms: u64,
    /// How long it sleeps before it asks, and after each answer.
    sleeps_ms: Option<u64>,
    goto: Vec<NodeName>,
}

/// A graph as drawn.
#[derive(Default)]
struct Shape {
    nodes: Vec<(String, Does, Kind)>,
    edges: Vec<(String, String)>,
    joins: Vec<(Vec<String>, String)>,
    paths: Vec<(String, Path)>,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Deferred,
    /// A subgraph of so many nodes; the first two of three run beside each other if so.
    Inner {
        nodes: usize,
        beside: bool,
    },
}

/// A conditional edge.
#[derive(Clone)]
enum Path {
    /// The first target while `n` is under the number, then the other.
    ByCount(i64, NodeName, NodeName),
    /// A packet for each item.
    Packets(NodeName, Vec<u64>),
}

struct Draw(StdRng);

impl Draw {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn one<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.0.random_range(0..from.len());
        &from[at]
    }

    fn some<T: Clone>(&mut self, from: &[T], count: usize) -> Vec<T> {
        let mut all = from.to_vec();
        all.shuffle(&mut self.0);
        all.truncate(count);
        all
    }

    fn does(&mut self, inside: bool) -> Does {
        let mut does = Does {
            asks: *self.one(if inside { &[0, 1] } else { &[0, 0, 0, 1, 1, 2] }),
            ..Does::default()
        };
        if self.chance(20) {
            does.asks_under = Some(self.0.random_range(1..5));
        }
        if !inside && self.chance(12) {
            does.fails = *self.one(&[1, 1, 2]);
            let enough = u32::try_from(does.fails + 1).expect("a few");
            does.attempts = self.chance(60).then_some(*self.one(&[enough, 2]));
            // A pause of the worker, or a timer.
            does.retry_ms = *self.one(&[500, 8000, 30_000]);
        }
        if self.chance(15) {
            does.sleeps_ms = Some(*self.one(&[1, 900, 6000, 20_000, 90_000]));
        }
        if self.chance(50) {
            does.adds = Some(*self.one(&[1, 1, 2]));
        }
        does.says = self.chance(15);
        if self.chance(15) {
            let count = self.0.random_range(1..4);
            does.tags = self.some(&["x", "y", "z"], count);
        }
        does
    }

    fn kind(&mut self) -> Kind {
        match self.0.random_range(0..100) {
            0..12 => {
                let nodes = self.0.random_range(1..4);
                let beside = nodes == 3 && self.chance(50);
                Kind::Inner { nodes, beside }
            }
            12..17 => Kind::Deferred,
            _ => Kind::Plain,
        }
    }

    fn shape(&mut self) -> Shape {
        let names = ["ape", "bat", "cat", "dog", "elk", "fox", "gnu", "hen"];
        let count = self.0.random_range(2..7);
        let mut shape = Shape::default();
        for name in self.some(&names, count) {
            let kind = self.kind();
            let name = match kind {
                Kind::Inner { nodes, .. } => format!("sub_{nodes}_{name}"),
                Kind::Plain | Kind::Deferred => name.to_owned(),
            };
            let does = self.does(false);
            shape.nodes.push((name, does, kind));
        }
        let is_plain = |(_, _, kind): &&(String, Does, Kind)| *kind == Kind::Plain;
        let last = shape
            .nodes
            .last()
            .filter(is_plain)
            .map(|(name, ..)| name.clone());
        let packet = last.filter(|_| count > 2 && self.chance(35));
        let names = shape.nodes.iter().map(|(name, ..)| name.clone());
        let mut order: Vec<String> = names.filter(|name| Some(name) != packet.as_ref()).collect();
        order.shuffle(&mut self.0);
        let entries = (*self.one(&[1, 1, 2, 3])).min(order.len());
        for name in &order[..entries] {
            shape.edges.push((START.to_owned(), name.clone()));
        }
        for at in 0..order.len() {
            self.ways_out(&mut shape, &order, at);
        }
        if order.len() >= 3 && self.chance(35) {
            let (to, from) = order.split_last().expect("three");
            let count = self.0.random_range(2..=from.len().min(3));
            shape.joins.push((self.some(from, count), to.clone()));
        }
        if let Some(packet) = packet {
            let from = self.one(&order).clone();
            let count = self.0.random_range(1..5);
            let items = (0..count).map(|_| self.0.random_range(0..9)).collect();
            shape
                .paths
                .push((from, Path::Packets(packet.as_str().into(), items)));
            shape.edges.push((packet, END.to_owned()));
        }
        if self.chance(10) {
            shape.before = Some(self.one(&order).clone());
        }
        if self.chance(8) {
            shape.after = Some(self.one(&order).clone());
        }
        shape
    }

    /// Where a node leads: forward in `order`, or back until `n` has grown.
    fn ways_out(&mut self, shape: &mut Shape, order: &[String], at: usize) {
        let (name, later) = (&order[at], &order[at + 1..]);
        let Some(next) = later.first() else {
            return;
        };
        let place = shape.nodes.iter().position(|(node, ..)| node == name);
        let (_, does, kind) = &mut shape.nodes[place.expect("it is there")];
        let is_inner = matches!(kind, Kind::Inner { .. });
        let under = self.0.random_range(1..5);
        match self.0.random_range(0..100) {
            0..45 => {
                let count = *self.one(&[1, 1, 2]);
                for to in self.some(later, count) {
                    shape.edges.push((name.clone(), to));
                }
            }
            45..60 => {
                let (low, high) = (self.one(later), self.one(later));
                let path = Path::ByCount(under, low.as_str().into(), high.as_str().into());
                shape.paths.push((name.clone(), path));
            }
            // A loop grows `n` each time, so that it ends.
            60..72 if !is_inner => {
                does.adds = Some(1);
                let back = self.one(&order[..=at]).as_str().into();
                let on = self.one(later).as_str().into();
                shape
                    .paths
                    .push((name.clone(), Path::ByCount(under, back, on)));
            }
            72..85 if !is_inner => {
                let count = *self.one(&[1, 2]);
                let goto = self.some(later, count);
                does.goto = goto.iter().map(|to| to.as_str().into()).collect();
            }
            _ => shape.edges.push((name.clone(), next.clone())),
        }
    }
}

fn channels(builder: &mut GraphBuilder) {
    builder
        .channel("log", ChannelKind::Reduce(Reducer::Append))
        .channel("n", ChannelKind::Reduce(Reducer::Add))
        .channel("said", ChannelKind::Reduce(Reducer::Concat))
        .channel("tags", ChannelKind::Reduce(Reducer::Union))
        .channel("count", ChannelKind::Last);
}

impl Path {
    fn branch(self) -> Branch {
        Branch::new(move |state: &Value| {
            Ok(match &self {
                Self::ByCount(under, low, high) => {
                    let is_low = state["n"].as_i64().unwrap_or(0) < *under;
                    vec![Target::Node(if is_low { low } else { high }.clone())]
                }
                Self::Packets(to, items) => {
                    let send = |item| Send::new(to.clone(), json!({"packet": item, "n": item}));
                    items.iter().map(|item| Target::Send(send(item))).collect()
                }
            })
        })
    }
}

/// The random graph of a seed.
pub(crate) fn graph(stage: &Stage, name: &str, seed: u64) -> RunnableGraph {
    let mut draw = Draw(StdRng::seed_from_u64(seed));
    let shape = draw.shape();
    let mut builder = GraphBuilder::new();
    channels(&mut builder);
    let mut nodes: BTreeMap<NodeName, NodeCode> = BTreeMap::new();
    let mut policies: BTreeMap<NodeName, Policies> = BTreeMap::new();
    for (node, does, kind) in shape.nodes {
        let mut spec = NodeSpec::new(node.as_str());
        spec.defer = kind == Kind::Deferred;
        builder.node(spec);
        if let Some(attempts) = does.attempts {
            let retry = RetryPolicy::new(attempts)
                .without_jitter()
                .initial_interval(Duration::from_millis(does.retry_ms));
            let policy = Policies {
                retry: Some(retry),
                ..Policies::default()
            };
            policies.insert(node.as_str().into(), policy);
        }
        let code = match kind {
            Kind::Inner { nodes, beside } => inner(stage, &mut draw, &node, nodes, beside),
            Kind::Plain | Kind::Deferred => NodeCode::from(code(stage, does)),
        };
        nodes.insert(node.as_str().into(), code);
    }
    for (from, to) in shape.edges {
        builder.edge(from.as_str(), to.as_str());
    }
    for (from, to) in shape.joins {
        builder.join(from.iter().map(String::as_str), to.as_str());
    }
    for (from, path) in shape.paths {
        builder.branch(from.as_str(), path.branch());
    }
    let these = |node: Option<String>| {
        let node = node.map(|node| Breakpoints::Nodes([node.as_str().into()].into()));
        node.unwrap_or_default()
    };
    builder.interrupt_before(these(shape.before));
    builder.interrupt_after(these(shape.after));
    let topology = builder.compile().expect("a drawn graph compiles");
    RunnableGraph::new(id(name), topology, nodes)
        .expect("every node has its code")
        .with_policies(policies)
}

fn inner(stage: &Stage, draw: &mut Draw, name: &str, count: usize, beside: bool) -> NodeCode {
    let mut builder = GraphBuilder::new();
    channels(&mut builder);
    let names: Vec<String> = (0..count).map(|n| format!("{INSIDE}{name}_{n}")).collect();
    let mut nodes: BTreeMap<NodeName, Arc<dyn Node>> = BTreeMap::new();
    for node in &names {
        builder.node(NodeSpec::new(node.as_str()));
        let does = draw.does(true);
        nodes.insert(node.as_str().into(), code(stage, does));
    }
    if let (true, [first, second, third]) = (beside, names.as_slice()) {
        builder
            .edge(START, first.as_str())
            .edge(START, second.as_str())
            .join([first.as_str(), second.as_str()], third.as_str());
    } else {
        let mut from = START;
        for to in &names {
            builder.edge(from, to.as_str());
            from = to;
        }
        builder.edge(from, END);
    }
    builder.input(["said".into()]).output(["log".into()]);
    let topology = builder.compile().expect("a drawn subgraph compiles");
    let graph = RunnableGraph::new(id(name), topology, nodes).expect("every node has its code");
    NodeCode::Graph(Subgraph {
        graph: Arc::new(graph),
        checkpointer: Checkpointer::Inherit,
    })
}

fn code(stage: &Stage, does: Does) -> Arc<dyn Node> {
    let stage = stage.clone();
    Arc::new(move |input: Value, ctx: NodeContext| {
        let (stage, does) = (stage.clone(), does.clone());
        async move {
            let name = ctx.node().to_string();
            stage.count(&name);
            stage.pause().await;
            let n = input["n"].as_i64().unwrap_or(0);
            let asks = does.asks_under.is_none_or(|under| n < under);
            let sleep = || async {
                if let Some(ms) = does.sleeps_ms {
                    ctx.sleep(Duration::from_millis(ms)).await;
                }
            };
            sleep().await;
            let mut answers = Vec::new();
            for question in 0..if asks { does.asks } else { 0 } {
                let asked = json!({"node": name, "n": n, "question": question});
                answers.push(ctx.interrupt::<Value>(asked).await?);
                sleep().await;
                stage.pause().await;
            }
            let failed = format!("failures of {}", ctx.idempotency_key());
            if does.fails > 0 && stage.count(&failed) <= does.fails {
                return Err(NodeError::new("Broke", format!("{name} broke")));
            }
            let entry = stage.act(&ctx, &input, &answers);
            let mut update = vec![Write::set("log", json!([entry]))];
            update.extend(does.adds.map(|adds| Write::set("n", json!(adds))));
            if does.says {
                update.push(Write::set("said", json!(format!("{name}:{n} "))));
            }
            if !does.tags.is_empty() {
                update.push(Write::set("tags", json!(does.tags)));
            }
            let goto = does.goto.iter().cloned().map(Target::Node).collect();
            Ok(NodeReturn::Output(NodeOutput::command(Command {
                update,
                goto,
                parent: false,
            })))
        }
    })
}
