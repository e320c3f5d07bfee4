//! Why a graph cannot be built: every mistake at once, each with what to do.

use superstep_graph::{NodeName, Problem};
use superstep_protocol::GraphName;

/// A graph that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The topology is wrong.
    #[error("graph `{graph}` cannot be built: {}", listed(problems))]
    Invalid {
        /// The graph.
        graph: GraphName,
        /// Every mistake; never empty.
        problems: Vec<Problem>,
    },
    /// The name or the version is empty.
    #[error("graph `{graph}` has an empty name or version; name both")]
    Unnamed {
        /// The graph.
        graph: GraphName,
    },
    /// Nodes that it does not have are given a retry policy, a cache policy or an error handler.
    #[error(
        "graph `{graph}` gives a policy or an error handler to nodes that it does not have: {}; \
         add them, or correct their names",
        names(nodes)
    )]
    NoSuchNodes {
        /// The graph.
        graph: GraphName,
        /// Those nodes; never empty.
        nodes: Vec<NodeName>,
    },
    /// The schema of its input is no JSON Schema.
    #[error("the input schema of graph `{graph}` is no JSON Schema: {reason}")]
    Schema {
        /// The graph.
        graph: GraphName,
        /// Why not.
        reason: String,
    },
}

fn listed(problems: &[Problem]) -> String {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}

fn names(nodes: &[NodeName]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| format!("`{node}`")).collect();
    names.join(", ")
}
