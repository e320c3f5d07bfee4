//! Small graphs that say what they did.
//!
//! Every node appends one entry to `log`: its name, its task, and the answers it was given; the
//! checks compare each with the task's recorded answers. A node takes its time, may be where
//! its worker dies, and counts its runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use superstep_graph::{
    Branch, ChannelKind, END, GraphBuilder, NodeName, NodeSpec, Reducer, START, Send, Target,
};
use superstep_protocol::{GraphId, TASK_POISONED};
use tokio::time::sleep;

use crate::{
    ledger::Ledger,
    plan::{Faults, Process, lock},
    random,
};
use superstep_worker::{
    Checkpointer, Graphs, Node, NodeCode, NodeContext, NodeError, NodeReturn, RunnableGraph,
    Subgraph,
};

/// Every graph.
pub(crate) const GRAPHS: [&str; 9] = [
    "chain",
    "twice",
    "diamond",
    "both",
    "fan",
    "asking_fan",
    "nested",
    "sleepy",
    "poison",
];

/// What the names of nodes in subgraphs begin with.
pub(crate) const INSIDE: &str = "in_";

/// How many nodes the subgraph of a node has, as its name says: `sub_3` has three. Each of them
/// runs once in a call.
pub(crate) fn inner_nodes(node: &str) -> usize {
    let count = node
        .strip_prefix("sub_")
        .and_then(|rest| rest.split('_').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// How often each node was entered, by name.
pub(crate) type Runs = Arc<Mutex<BTreeMap<String, usize>>>;

pub(crate) fn id(name: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: "1".into(),
    }
}

/// What the nodes of one process share.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) faults: Arc<Faults>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) process: Process,
    pub(crate) runs: Runs,
    /// The longest that a node takes between two of its steps.
    pub(crate) node_ms_max: u64,
}

impl Stage {
    pub(crate) async fn pause(&self) {
        let ms = match self.faults.draw(0..10) {
            0..7 => 0,
            7..9 => self.faults.draw(0..self.node_ms_max.div_ceil(10) + 1),
            _ => self.faults.draw(0..self.node_ms_max + 1),
        };
        sleep(Duration::from_millis(ms)).await;
        self.faults.reach(&self.process, "node").await;
    }

    /// Counts, and says how often it did.
    pub(crate) fn count(&self, what: &str) -> usize {
        let mut runs = lock(&self.runs);
        let count = runs.entry(what.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Acts on the outside world under the key of the task, and gives what a node appends to
    /// `log` then.
    pub(crate) fn act(&self, ctx: &NodeContext, input: &Value, answers: &[Value]) -> Value {
        let key = ctx.idempotency_key();
        let packet = input.get("packet");
        self.ledger
            .charged(key, &json!({"node": ctx.node(), "packet": packet}));
        json!({"node": ctx.node(), "task": ctx.task_id(), "answers": answers, "key": key})
    }

    /// A node that asks so many questions, one after another.
    pub(crate) fn node(&self, asks: usize) -> Arc<dyn Node> {
        let stage = self.clone();
        Arc::new(move |input: Value, ctx: NodeContext| {
            let stage = stage.clone();
            async move {
                let name = ctx.node().to_string();
                stage.count(&name);
                stage.pause().await;
                let mut answers = Vec::new();
                for n in 0..asks {
                    let packet = input.get("n").cloned();
                    let asked = json!({"node": name, "packet": packet, "question": n});
                    answers.push(ctx.interrupt::<Value>(asked).await?);
                    stage.pause().await;
                }
                let entry = stage.act(&ctx, &input, &answers);
                Ok::<_, NodeError>(NodeReturn::Update(json!({"log": [entry]})))
            }
        })
    }

    /// A node of a fan, of which every third packet asks.
    fn packet(&self) -> Arc<dyn Node> {
        let (plain, asking) = (self.node(0), self.node(1));
        Arc::new(move |input: Value, ctx: NodeContext| {
            let asks =
                input["asks"] == json!(true) && input["n"].as_u64().is_some_and(|n| n % 3 == 0);
            if asks {
                asking.call(input, ctx)
            } else {
                plain.call(input, ctx)
            }
        })
    }

    /// A node that sleeps for less and less time, asks, and sleeps again.
    fn sleeper(&self) -> Arc<dyn Node> {
        let (stage, asking) = (self.clone(), self.node(1));
        Arc::new(move |input: Value, ctx: NodeContext| {
            let (stage, asking) = (stage.clone(), Arc::clone(&asking));
            async move {
                for ms in [40_000, 7000, 300] {
                    ctx.sleep(Duration::from_millis(ms)).await;
                    stage.pause().await;
                }
                let done = asking.call(input, ctx.clone()).await?;
                ctx.sleep(Duration::from_secs(9)).await;
                Ok(done)
            }
        })
    }

    /// A node that its worker dies of, until the thread says that it does.
    fn killer(&self) -> Arc<dyn Node> {
        let (stage, plain) = (self.clone(), self.node(0));
        Arc::new(move |input: Value, ctx: NodeContext| {
            let (stage, plain) = (stage.clone(), Arc::clone(&plain));
            async move {
                let task = ctx.task_id();
                let begun = stage.count(&format!("deaths of {}", ctx.idempotency_key()));
                stage.ledger.begun_deadly(ctx.idempotency_key(), begun);
                let thread = stage.ledger.state(ctx.thread_id());
                let known = thread.as_ref().and_then(|thread| thread.task(task));
                let error = known.and_then(|known| known.error.as_ref());
                if error.is_some_and(|error| error.kind == TASK_POISONED) {
                    return plain.call(input, ctx).await;
                }
                stage.process.kill();
                std::future::pending().await
            }
        })
    }

    fn graph(&self, name: &str) -> RunnableGraph {
        let mut builder = GraphBuilder::new();
        builder
            .channel("log", ChannelKind::Reduce(Reducer::Append))
            .channel("note", ChannelKind::Last)
            .channel("count", ChannelKind::Last);
        let mut nodes: BTreeMap<_, NodeCode> = BTreeMap::new();
        let mut node = |builder: &mut GraphBuilder, name: &str, asks: usize| {
            builder.node(NodeSpec::new(name));
            nodes.insert(name.into(), self.node(asks).into());
        };
        match name {
            "chain" => {
                for (name, asks) in [("a", 0), ("b", 1), ("c", 0)] {
                    node(&mut builder, name, asks);
                }
                builder
                    .edge(START, "a")
                    .edge("a", "b")
                    .edge("b", "c")
                    .edge("c", END);
            }
            "twice" => {
                node(&mut builder, "ask", 2);
                builder.edge(START, "ask").edge("ask", END);
            }
            "diamond" | "both" => {
                let asks = usize::from(name == "both");
                for (name, asks) in [("a", 0), ("b", 1), ("c", asks), ("d", 0)] {
                    node(&mut builder, name, asks);
                }
                builder
                    .edge(START, "a")
                    .edge("a", "b")
                    .edge("a", "c")
                    .join(["b", "c"], "d")
                    .edge("d", END);
            }
            "fan" | "asking_fan" => {
                let asks = name == "asking_fan";
                node(&mut builder, "spread", 0);
                node(&mut builder, "last", 0);
                builder.node(NodeSpec::new("packet"));
                nodes.insert("packet".into(), self.packet().into());
                builder
                    .edge(START, "spread")
                    .branch(
                        "spread",
                        Branch::new(move |state: &Value| {
                            let count = state["count"].as_u64().unwrap_or(0);
                            let send = |n| Send::new("packet", json!({"n": n, "asks": asks}));
                            Ok((0..count).map(|n| Target::Send(send(n))).collect())
                        }),
                    )
                    .edge("packet", "last")
                    .edge("last", END);
            }
            "nested" => {
                node(&mut builder, "a", 0);
                node(&mut builder, "c", 1);
                node(&mut builder, "d", 0);
                builder.node(NodeSpec::new("sub_3"));
                nodes.insert("sub_3".into(), self.inner());
                builder
                    .edge(START, "a")
                    .edge("a", "sub_3")
                    .edge("a", "c")
                    .join(["sub_3", "c"], "d")
                    .edge("d", END);
            }
            "sleepy" => {
                node(&mut builder, "a", 0);
                node(&mut builder, "c", 1);
                node(&mut builder, "d", 0);
                builder.node(NodeSpec::new("sleeper"));
                nodes.insert("sleeper".into(), self.sleeper().into());
                builder
                    .edge(START, "a")
                    .edge("a", "sleeper")
                    .edge("a", "c")
                    .join(["sleeper", "c"], "d")
                    .edge("d", END);
            }
            "poison" => {
                for name in ["a", "c", "d"] {
                    node(&mut builder, name, 0);
                }
                builder.node(NodeSpec::new("killer"));
                nodes.insert("killer".into(), self.killer().into());
                builder
                    .edge(START, "a")
                    .edge("a", "killer")
                    .edge("a", "c")
                    .join(["killer", "c"], "d")
                    .edge("d", END);
            }
            other => panic!("there is no graph `{other}`"),
        }
        runnable(name, &mut builder, nodes)
    }

    /// A subgraph whose nodes ask one after the other.
    fn inner(&self) -> NodeCode {
        let mut builder = GraphBuilder::new();
        builder
            .channel("log", ChannelKind::Reduce(Reducer::Append))
            .channel("count", ChannelKind::Last);
        let mut nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::new();
        for (name, asks) in [("in_a", 0), ("in_b", 1), ("in_c", 1)] {
            builder.node(NodeSpec::new(name));
            nodes.insert(name.into(), self.node(asks));
        }
        builder
            .edge(START, "in_a")
            .edge("in_a", "in_b")
            .edge("in_b", "in_c")
            .edge("in_c", END)
            .input(["count".into()])
            .output(["log".into()]);
        let graph = runnable("inner", &mut builder, nodes);
        NodeCode::Graph(Subgraph {
            graph: Arc::new(graph),
            checkpointer: Checkpointer::Inherit,
        })
    }

    pub(crate) fn graphs(&self, names: &[String]) -> Graphs {
        let mut graphs = Graphs::new();
        for name in names {
            graphs.add(match random::seed_of(name) {
                Some(seed) => random::graph(self, name, seed),
                None => self.graph(name),
            });
        }
        graphs
    }
}

/// A graph that is known to be sound.
fn runnable(
    name: &str,
    builder: &mut GraphBuilder,
    nodes: BTreeMap<NodeName, impl Into<NodeCode>>,
) -> RunnableGraph {
    let graph = builder.compile().expect("the graph is sound");
    RunnableGraph::new(id(name), graph, nodes).expect("every node has its code")
}

/// A graph of one node `n`, which goes to the end.
#[cfg(test)]
pub(crate) fn alone(name: &str, node: impl Node) -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder
        .channel("log", ChannelKind::Reduce(Reducer::Append))
        .channel("note", ChannelKind::Last)
        .channel("count", ChannelKind::Last);
    builder
        .node(NodeSpec::new("n"))
        .edge(START, "n")
        .edge("n", END);
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([("n".into(), Arc::new(node) as _)]);
    runnable(name, &mut builder, nodes)
}

/// What a node that does nothing outside appends to `log`.
#[cfg(test)]
pub(crate) fn entry(ctx: &NodeContext, answers: &[Value]) -> NodeReturn {
    let entry = json!({"node": ctx.node(), "task": ctx.task_id(), "answers": answers});
    NodeReturn::Update(json!({"log": [entry]}))
}

/// The answer to a question: a function of what it asks, and of who answers.
pub(crate) fn answer_to(payload: &Value, by: &str) -> Value {
    json!({"to": payload, "by": by})
}

/// The values of a thread without what may differ from run to run: tasks and who answered.
pub(crate) fn comparable(values: &serde_json::Map<String, Value>) -> Value {
    let mut values = values.clone();
    values.remove("note");
    let mut values = Value::Object(values);
    if let Some(log) = values["log"].as_array_mut() {
        for entry in log {
            entry["task"] = Value::Null;
            entry["key"] = Value::Null;
            for answer in entry["answers"].as_array_mut().into_iter().flatten() {
                if let Some(by) = answer.get_mut("by") {
                    *by = Value::Null;
                }
            }
        }
    }
    values
}
