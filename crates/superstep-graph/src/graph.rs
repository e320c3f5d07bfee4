//! The compiled graph: what can run, what triggers it, and where its output may go.
//!
//! Only the topology, its reducers and its paths: node functions belong to the shells. A
//! graph is made by `GraphBuilder::compile`, which checks it; nothing here can be changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    channel::ChannelKind,
    compile::Warning,
    ids::{ChannelName, END, NodeName, START, digest},
    task::Target,
};

/// A path function: the state after the node's own writes gives the targets, or a text that
/// says why not. It must be pure.
pub type PathFn = Arc<dyn Fn(&Value) -> Result<Vec<Target>, String> + Send + Sync>;

/// A conditional edge.
#[derive(Clone)]
pub struct Branch {
    /// Chooses the targets.
    pub path: PathFn,
    /// Translates results into nodes; `None`: results are nodes' names.
    pub map: Option<BTreeMap<String, NodeName>>,
}

impl Branch {
    /// A conditional edge by `path`.
    pub fn new<F>(path: F) -> Self
    where
        F: Fn(&Value) -> Result<Vec<Target>, String> + Send + Sync + 'static,
    {
        Self {
            path: Arc::new(path),
            map: None,
        }
    }

    /// Translates the path's results by `map`, which is also what drawings and checks know of
    /// where this edge may go.
    #[must_use]
    pub fn with_map<K: Into<String>, N: Into<NodeName>>(
        mut self,
        map: impl IntoIterator<Item = (K, N)>,
    ) -> Self {
        self.map = Some(
            map.into_iter()
                .map(|(key, node)| (key.into(), node.into()))
                .collect(),
        );
        self
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch")
            .field("map", &self.map)
            .finish_non_exhaustive()
    }
}

/// A node as the author declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: NodeName,
    /// The channels it reads; `None`: all of the state.
    pub reads: Option<BTreeSet<ChannelName>>,
    /// The channels it may write, where the author knows; only checks use it.
    pub writes: Option<BTreeSet<ChannelName>>,
    /// Whether it waits until nothing else is left to run.
    pub defer: bool,
}

impl NodeSpec {
    /// A node that reads the whole state and runs as soon as it is triggered.
    pub fn new(name: impl Into<NodeName>) -> Self {
        Self {
            name: name.into(),
            reads: None,
            writes: None,
            defer: false,
        }
    }
}

/// A node of a compiled graph.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) spec: NodeSpec,
    /// Sorted; any of them with a new version runs the node.
    pub(crate) triggers: Vec<ChannelName>,
    /// Written when the node finishes: its static edges and the joins it is a source of.
    pub(crate) edges: Vec<Out>,
    pub(crate) branches: Vec<Branch>,
}

/// A static way out of a node.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    /// Triggers a node.
    Trigger(ChannelName),
    /// Adds the node's name to a join.
    Join(ChannelName),
}

/// A static edge or a join as it was declared, for drawings and the topology.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) from: Vec<NodeName>,
    pub(crate) to: NodeName,
    pub(crate) join: bool,
}

/// Which nodes a breakpoint stops at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breakpoints {
    /// None.
    #[default]
    None,
    /// Each.
    All,
    /// These.
    Nodes(BTreeSet<NodeName>),
}

impl Breakpoints {
    /// Whether `node` is one of them; `__start__` is only where it is named.
    pub fn holds(&self, node: &NodeName) -> bool {
        match self {
            Self::None => false,
            Self::All => *node != START,
            Self::Nodes(nodes) => nodes.contains(node),
        }
    }
}

/// A compiled graph.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Every channel: those of the state, and those the graph made for its routing.
    pub(crate) channels: BTreeMap<ChannelName, ChannelKind>,
    /// The channels of the state, in no order that matters.
    pub(crate) state: BTreeSet<ChannelName>,
    pub(crate) input: BTreeSet<ChannelName>,
    pub(crate) output: BTreeSet<ChannelName>,
    /// `__start__` first, then in definition order.
    pub(crate) nodes: Vec<Node>,
    pub(crate) index: BTreeMap<NodeName, usize>,
    /// Channels that trigger some node.
    pub(crate) triggering: BTreeSet<ChannelName>,
    /// The static edges and joins as they were declared.
    pub(crate) drawn: Vec<Drawn>,
    pub(crate) interrupt_before: Breakpoints,
    pub(crate) interrupt_after: Breakpoints,
    pub(crate) warnings: Vec<Warning>,
}

impl Graph {
    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    /// Whether the graph has this node; `__start__` counts, `__end__` does not.
    pub fn has_node(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The nodes' names in definition order, without `__start__`.
    pub fn node_names(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes
            .iter()
            .map(|node| &node.spec.name)
            .filter(|name| **name != START)
    }

    /// The place of a node in definition order, `__start__` first; unknown nodes come last.
    pub fn definition_order(&self, name: &NodeName) -> usize {
        self.index.get(name).copied().unwrap_or(usize::MAX)
    }

    /// The channels of the state.
    pub fn state_channels(&self) -> &BTreeSet<ChannelName> {
        &self.state
    }

    /// The channels that a result shows.
    pub fn output_channels(&self) -> &BTreeSet<ChannelName> {
        &self.output
    }

    /// The channels that an input may name.
    pub fn input_channels(&self) -> &BTreeSet<ChannelName> {
        &self.input
    }

    /// What a channel is.
    pub fn channel(&self, name: &str) -> Option<&ChannelKind> {
        self.channels.get(name)
    }

    /// Breakpoints before nodes, as compiled in.
    pub fn interrupt_before(&self) -> &Breakpoints {
        &self.interrupt_before
    }

    /// Breakpoints after nodes, as compiled in.
    pub fn interrupt_after(&self) -> &Breakpoints {
        &self.interrupt_after
    }

    /// What may not be meant, found when the graph was compiled.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The topology as data: nodes, channels, edges, maps. Two graphs with the same topology
    /// can continue each other's threads.
    pub fn topology(&self) -> Value {
        let channels: BTreeMap<&str, &str> = self
            .state
            .iter()
            .map(|name| (name.as_str(), self.channels[name].name()))
            .collect();
        let nodes: Vec<Value> = self
            .node_names()
            .map(|name| {
                let spec = &self.nodes[self.index[name]].spec;
                json!({"name": name, "reads": spec.reads, "defer": spec.defer})
            })
            .collect();
        let edges: Vec<Value> = self
            .drawn
            .iter()
            .map(|edge| json!({"from": edge.from, "to": edge.to, "join": edge.join}))
            .collect();
        let branches: Vec<Value> = self
            .nodes
            .iter()
            .flat_map(|node| node.branches.iter().map(move |branch| (node, branch)))
            .map(|(node, branch)| json!({"from": node.spec.name, "map": branch.map}))
            .collect();
        json!({
            "channels": channels, "input": self.input, "output": self.output,
            "nodes": nodes, "edges": edges, "branches": branches,
        })
    }

    /// A digest of the topology, 32 hex digits.
    pub fn topology_hash(&self) -> String {
        digest(&[&self.topology().to_string()]).to_string()
    }

    /// The graph as Mermaid text: static edges solid, conditional ones dotted.
    pub fn to_mermaid(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::from("graph TD;\n");
        let id = |name: &str| match name {
            START => "__start__([start])".to_owned(),
            END => "__end__([end])".to_owned(),
            name => format!("{}[\"{}\"]", mermaid_id(name), mermaid_text(name)),
        };
        for name in self.node_names() {
            let _ = writeln!(text, "    {};", id(name.as_str()));
        }
        for edge in &self.drawn {
            let to = id(edge.to.as_str());
            for source in &edge.from {
                let _ = writeln!(text, "    {} --> {to};", id(source.as_str()));
            }
        }
        for node in &self.nodes {
            for branch in &node.branches {
                let from = id(node.spec.name.as_str());
                if let Some(map) = &branch.map {
                    for (label, to) in map {
                        let (label, to) = (mermaid_text(label), id(to.as_str()));
                        let _ = writeln!(text, "    {from} -. \"{label}\" .-> {to};");
                    }
                } else {
                    let anywhere = format!("anywhere_{}", mermaid_id(node.spec.name.as_str()));
                    let _ = writeln!(text, "    {from} -.-> {anywhere}((\"?\"));");
                }
            }
        }
        text
    }
}

/// A name as an identifier that Mermaid takes, different for different names. The digest also
/// keeps clear of Mermaid's own words.
fn mermaid_id(name: &str) -> String {
    const WORDS: [&str; 10] = [
        "call",
        "class",
        "click",
        "default",
        "end",
        "flowchart",
        "graph",
        "href",
        "style",
        "subgraph",
    ];
    let mut id: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if id != name || WORDS.contains(&id.to_ascii_lowercase().as_str()) {
        id.push('_');
        id.push_str(&digest(&[name])[..6]);
    }
    id
}

/// A text inside quotes; Mermaid writes a quote as `#quot;` and so a hash as `#35;`.
fn mermaid_text(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;")
}
