//! Graphs that can run: a topology, its node functions, and how it is registered.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Value, json};
use superstep_graph::{Graph, NodeName, START, digest};
use superstep_protocol::{GraphId, GraphName, ThreadState};

use crate::{
    cache::{MemoryCache, NodeCache},
    error::Error,
    node::Node,
    policies::Policies,
    versions::VersionPolicy,
};

/// How much of a subgraph's state outlives a call of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpointer {
    /// As long as the call: it is saved with its parent's task, and an interrupted call goes on
    /// where it stopped.
    #[default]
    Inherit,
    /// As long as the thread: each call goes on with the state that the last one left.
    Own,
    /// Not at all: a call that was interrupted begins anew, with the answers that were given.
    None,
}

impl Checkpointer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inherit => "progress",
            Self::Own => "state",
            Self::None => "nothing",
        }
    }
}

/// A graph that runs as a node of another.
#[derive(Clone, Debug)]
pub struct Subgraph {
    /// The graph.
    pub graph: Arc<RunnableGraph>,
    /// How much of its state outlives a call.
    pub checkpointer: Checkpointer,
}

/// What a node runs.
#[derive(Clone)]
pub enum NodeCode {
    /// A function.
    Function(Arc<dyn Node>),
    /// A graph.
    Graph(Subgraph),
}

impl fmt::Debug for NodeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(_) => f.write_str("Function"),
            Self::Graph(graph) => f.debug_tuple("Graph").field(graph).finish(),
        }
    }
}

impl From<Arc<dyn Node>> for NodeCode {
    fn from(node: Arc<dyn Node>) -> Self {
        Self::Function(node)
    }
}

/// A graph with its node functions, under the name and version it is registered by.
#[derive(Clone)]
pub struct RunnableGraph {
    id: GraphId,
    topology: Arc<Graph>,
    nodes: BTreeMap<NodeName, NodeCode>,
    policies: BTreeMap<NodeName, Policies>,
    cache: Arc<dyn NodeCache>,
    input_schema: Option<Value>,
    description: String,
    versions: VersionPolicy,
}

impl fmt::Debug for RunnableGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnableGraph")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A topology and functions that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}` of graph `{graph}` has no function; give it one where the node is added")]
pub struct MissingNode {
    /// The graph.
    pub graph: GraphName,
    /// The node.
    pub node: NodeName,
}

impl RunnableGraph {
    /// Joins a topology and the functions of its nodes.
    ///
    /// # Errors
    /// If a node has no function.
    pub fn new(
        id: GraphId,
        topology: Graph,
        nodes: BTreeMap<NodeName, impl Into<NodeCode>>,
    ) -> Result<Self, MissingNode> {
        if let Some(node) = topology
            .node_names()
            .find(|node| !nodes.contains_key(*node))
        {
            return Err(MissingNode {
                graph: id.name,
                node: node.clone(),
            });
        }
        let topology = Arc::new(topology);
        Ok(Self {
            id,
            topology,
            nodes: nodes
                .into_iter()
                .map(|(name, code)| (name, code.into()))
                .collect(),
            policies: BTreeMap::new(),
            cache: Arc::new(MemoryCache::default()),
            input_schema: None,
            description: String::new(),
            versions: VersionPolicy::default(),
        })
    }

    /// Checks inputs against this JSON Schema before a run starts.
    #[must_use]
    pub fn with_input_schema(mut self, schema: Value) -> Self {
        self.input_schema = Some(schema);
        self
    }

    /// Says in a line what the graph is for.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Gives nodes their policies; a node that the graph does not have is never asked for its.
    #[must_use]
    pub fn with_policies(mut self, policies: BTreeMap<NodeName, Policies>) -> Self {
        self.policies = policies;
        self
    }

    /// Keeps the results of cached nodes in `cache`; otherwise each graph has one of its own in
    /// memory, which its clones share.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn NodeCache>) -> Self {
        self.cache = cache;
        self
    }

    /// Says what becomes of threads that began on another version of the graph; they stay there
    /// otherwise.
    #[must_use]
    pub fn with_versions(mut self, versions: VersionPolicy) -> Self {
        self.versions = versions;
        self
    }

    /// What becomes of threads that began on another version.
    pub fn versions(&self) -> &VersionPolicy {
        &self.versions
    }

    /// The name and version.
    pub fn id(&self) -> &GraphId {
        &self.id
    }

    /// The topology.
    pub fn topology(&self) -> &Graph {
        &self.topology
    }

    /// What the graph is for.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The JSON Schema that inputs are checked against, if any.
    pub fn input_schema(&self) -> Option<&Value> {
        self.input_schema.as_ref()
    }

    pub(crate) fn node(&self, name: &str) -> Option<&NodeCode> {
        if name == START {
            None
        } else {
            self.nodes.get(name)
        }
    }

    /// The topology as data, with those of the graphs that run as its nodes.
    fn described(&self) -> Value {
        let mut topology = self.topology.topology();
        let subgraphs: serde_json::Map<String, Value> = self
            .nodes
            .iter()
            .filter_map(|(name, code)| match code {
                NodeCode::Graph(Subgraph {
                    graph,
                    checkpointer,
                }) => Some((
                    name.to_string(),
                    json!({"keeps": checkpointer.as_str(), "topology": graph.described()}),
                )),
                NodeCode::Function(_) => None,
            })
            .collect();
        if !subgraphs.is_empty() {
            topology["subgraphs"] = Value::Object(subgraphs);
        }
        topology
    }

    /// A digest of the topology, subgraphs and all: 32 hex digits.
    pub fn topology_hash(&self) -> String {
        digest(&[&self.described().to_string()]).to_string()
    }

    /// What there is to say of a node beside its code.
    pub(crate) fn policies(&self, node: &NodeName) -> Option<&Policies> {
        self.policies.get(node)
    }

    pub(crate) fn cache(&self) -> &dyn NodeCache {
        self.cache.as_ref()
    }

    /// What the registry says of the graph: deciders check inputs by it, people read it.
    pub fn about(&self) -> Value {
        json!({
            "graph": self.id.name,
            "version": self.id.version,
            "description": self.description,
            "topology": self.described(),
            "topology_hash": self.topology_hash(),
            "versions": self.versions.as_str(),
            "nodes": self.topology.node_names().collect::<Vec<_>>(),
            "mermaid": self.topology.to_mermaid(),
            "input_schema": self.input_schema,
        })
    }
}

/// The graphs that a worker holds.
#[derive(Clone, Debug, Default)]
pub struct Graphs {
    by_id: BTreeMap<GraphId, Arc<RunnableGraph>>,
}

impl Graphs {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a graph; one of the same name and version is replaced.
    pub fn add(&mut self, graph: RunnableGraph) -> &mut Self {
        self.by_id.insert(graph.id.clone(), Arc::new(graph));
        self
    }

    /// The graph of this name and version.
    pub fn get(&self, id: &GraphId) -> Option<&Arc<RunnableGraph>> {
        self.by_id.get(id)
    }

    /// The graph of this name; of several versions the last in order.
    pub fn by_name(&self, name: &str) -> Option<&Arc<RunnableGraph>> {
        self.by_id
            .iter()
            .rev()
            .find(|(id, _)| id.name == *name)
            .map(|(_, graph)| graph)
    }

    /// That a thread's graph is none of these.
    pub(crate) fn lacks(&self, state: &ThreadState) -> Error {
        let held: Vec<String> = self.iter().map(|graph| graph.id().to_string()).collect();
        Error::NoSuchGraph {
            thread: state.thread.clone(),
            graph: state.graph.to_string(),
            held: held.join(", "),
        }
    }

    /// Every graph, by name and version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RunnableGraph>> {
        self.by_id.values()
    }
}

#[cfg(test)]
mod tests {
    use superstep_graph::{ChannelKind, END, GraphBuilder, NodeSpec};

    use super::*;

    fn graph(name: &str, node: &str, code: NodeCode) -> RunnableGraph {
        let mut builder = GraphBuilder::new();
        builder.channel("x", ChannelKind::Last);
        builder
            .node(NodeSpec::new(node))
            .edge(START, node)
            .edge(node, END);
        let id = GraphId {
            name: name.into(),
            version: "1".into(),
        };
        let nodes = BTreeMap::from([(NodeName::new(node), code)]);
        RunnableGraph::new(id, builder.compile().unwrap(), nodes).unwrap()
    }

    #[test]
    fn a_subgraphs_topology_is_part_of_the_graphs() {
        let function = |_: Value, _: crate::NodeContext| async {
            Ok::<_, crate::NodeError>(crate::NodeReturn::Update(Value::Null))
        };
        let leaf = |node: &str| {
            let function: Arc<dyn Node> = Arc::new(function);
            Arc::new(graph("leaf", node, function.into()))
        };
        let around = |node: &str, checkpointer| {
            let graph_inside = leaf(node);
            let code = NodeCode::Graph(Subgraph {
                graph: graph_inside,
                checkpointer,
            });
            graph("around", "inner", code)
        };
        let hash = |node, keeps| around(node, keeps).topology_hash();
        let first = hash("a", Checkpointer::Inherit);
        assert_eq!(first, hash("a", Checkpointer::Inherit));
        assert_ne!(first, hash("b", Checkpointer::Inherit));
        assert_ne!(first, hash("a", Checkpointer::Own));
        let plain = leaf("a");
        assert_eq!(plain.topology_hash(), plain.topology().topology_hash());
        let about = around("a", Checkpointer::None).about();
        assert_eq!(about["topology"]["subgraphs"]["inner"]["keeps"], "nothing");
    }
}
