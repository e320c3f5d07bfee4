//! Building a graph, and the checks when it is compiled.
//!
//! Every mistake is reported at once, each naming the node and what to do; what may be meant is
//! a warning. After `compile` no other code checks the topology again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    channel::ChannelKind,
    graph::{Branch, Breakpoints, Drawn, Graph, Node, NodeSpec, Out},
    ids::{ChannelName, END, NodeName, SENDS, START},
};

/// One mistake in a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A node's name is taken.
    #[error("node `{0}` is there twice; give each node a name of its own")]
    DuplicateNode(NodeName),
    /// A channel's name is taken.
    #[error("channel `{0}` is there twice; declare each channel once")]
    DuplicateChannel(ChannelName),
    /// A name that superstep uses itself.
    #[error(
        "`{0}` is a reserved name; names beginning with `__`, `branch:to:` or `join:` belong to \
         superstep, so rename it"
    )]
    Reserved(String),
    /// A name with a character that namespaces use.
    #[error("node name `{0}` is empty or contains `|` or `:`, which namespaces use; rename it")]
    BadName(NodeName),
    /// An edge begins or ends nowhere.
    #[error(
        "an edge from `{from}` to `{to}` names `{unknown}`, which is not a node; add it with \
             node(\"{unknown}\", ..) or correct the edge"
    )]
    UnknownInEdge {
        /// The source.
        from: String,
        /// The target.
        to: NodeName,
        /// Which of them is not there.
        unknown: NodeName,
    },
    /// A branch begins nowhere or its map leads nowhere.
    #[error(
        "a conditional edge from `{from}` names `{unknown}`, which is not a node; add it or \
             correct the map"
    )]
    UnknownInBranch {
        /// The source.
        from: NodeName,
        /// Which name is not there.
        unknown: NodeName,
    },
    /// An edge leaves the end or enters the start.
    #[error(
        "an edge goes from `{from}` to `{to}`: nothing leaves `__end__` or enters `__start__`; turn \
         it round or remove it"
    )]
    WrongWay {
        /// The source.
        from: String,
        /// The target.
        to: NodeName,
    },
    /// A join without sources.
    #[error("a join to `{0}` has no sources; name the nodes it waits for")]
    EmptyJoin(NodeName),
    /// Nothing leaves the start.
    #[error("the graph has no entry; add an edge from START to its first node")]
    NoEntry,
    /// A schema or node names a channel that is not there.
    #[error(
        "{whom} names channel `{channel}`, which the state does not have; declare it or correct the name"
    )]
    UnknownChannel {
        /// Who names it.
        whom: String,
        /// The channel.
        channel: ChannelName,
    },
    /// A breakpoint names a node that is not there.
    #[error("a breakpoint names `{0}`, which is not a node; add it or correct the name")]
    UnknownBreakpoint(NodeName),
}

/// A graph that cannot be compiled; holds every mistake that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the graph cannot be compiled: ")?;
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

/// What may not be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// No static edge or map reaches the node; only a goto, a send or a path without a map can.
    Unreached(NodeName),
    /// Nodes that can run in one superstep may write the same plain channel.
    ParallelWriters {
        /// The channel.
        channel: ChannelName,
        /// The nodes.
        nodes: Vec<NodeName>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(node) => write!(
                f,
                "no edge or map reaches `{node}`; if a goto or send does, all is well, else add \
                 an edge"
            ),
            Self::ParallelWriters { channel, nodes } => {
                let nodes: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                write!(
                    f,
                    "`{}` can run in one superstep and may all write `{channel}`, which keeps \
                     one value; give it a reducer",
                    nodes.join("`, `")
                )
            }
        }
    }
}

/// Collects nodes, edges and channels, then compiles them.
///
/// ```
/// use superstep_graph::{ChannelKind, GraphBuilder, NodeSpec, END, START};
/// let mut builder = GraphBuilder::new();
/// builder.channel("draft", ChannelKind::Last);
/// builder.node(NodeSpec::new("write")).edge(START, "write").edge("write", END);
/// let graph = builder.compile()?;
/// assert!(graph.has_node("write"));
/// # Ok::<(), superstep_graph::CompileError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    channels: Vec<(ChannelName, ChannelKind)>,
    input: Option<BTreeSet<ChannelName>>,
    output: Option<BTreeSet<ChannelName>>,
    nodes: Vec<NodeSpec>,
    edges: Vec<(Vec<NodeName>, NodeName, bool)>,
    branches: Vec<(NodeName, Branch)>,
    interrupt_before: Breakpoints,
    interrupt_after: Breakpoints,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a channel of the state.
    pub fn channel(&mut self, name: impl Into<ChannelName>, kind: ChannelKind) -> &mut Self {
        self.channels.push((name.into(), kind));
        self
    }

    /// Restricts which channels an input may name; all of the state otherwise.
    pub fn input(&mut self, channels: impl IntoIterator<Item = ChannelName>) -> &mut Self {
        self.input = Some(channels.into_iter().collect());
        self
    }

    /// Restricts which channels a result shows; all of the state otherwise.
    pub fn output(&mut self, channels: impl IntoIterator<Item = ChannelName>) -> &mut Self {
        self.output = Some(channels.into_iter().collect());
        self
    }

    /// Adds a node.
    pub fn node(&mut self, spec: NodeSpec) -> &mut Self {
        self.nodes.push(spec);
        self
    }

    /// Adds an edge: `to` runs in the superstep after `from` finished.
    pub fn edge(&mut self, from: impl Into<NodeName>, to: impl Into<NodeName>) -> &mut Self {
        self.edges.push((vec![from.into()], to.into(), false));
        self
    }

    /// Adds a join: `to` runs once every one of `from` has finished since it last ran.
    pub fn join<N: Into<NodeName>>(
        &mut self,
        from: impl IntoIterator<Item = N>,
        to: impl Into<NodeName>,
    ) -> &mut Self {
        self.edges
            .push((from.into_iter().map(Into::into).collect(), to.into(), true));
        self
    }

    /// Adds a conditional edge.
    pub fn branch(&mut self, from: impl Into<NodeName>, branch: Branch) -> &mut Self {
        self.branches.push((from.into(), branch));
        self
    }

    /// Stops before these nodes, in every run.
    pub fn interrupt_before(&mut self, nodes: Breakpoints) -> &mut Self {
        self.interrupt_before = nodes;
        self
    }

    /// Stops after these nodes, in every run.
    pub fn interrupt_after(&mut self, nodes: Breakpoints) -> &mut Self {
        self.interrupt_after = nodes;
        self
    }

    /// Checks everything and makes the graph.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn compile(&self) -> Result<Graph, CompileError> {
        let problems = self.problems();
        if !problems.is_empty() {
            return Err(CompileError { problems });
        }
        let state: BTreeSet<ChannelName> =
            self.channels.iter().map(|(name, _)| name.clone()).collect();
        let mut channels: BTreeMap<ChannelName, ChannelKind> =
            self.channels.iter().cloned().collect();
        channels.insert(START.into(), ChannelKind::Ephemeral { guard: true });
        channels.insert(SENDS.into(), ChannelKind::Topic { accumulate: false });

        let mut nodes = vec![Node {
            spec: NodeSpec::new(START),
            triggers: vec![START.into()],
            edges: Vec::new(),
            branches: Vec::new(),
        }];
        for spec in &self.nodes {
            let trigger = branch_to(&spec.name);
            let kind = if spec.defer {
                ChannelKind::AfterFinish
            } else {
                ChannelKind::Ephemeral { guard: false }
            };
            channels.insert(trigger.clone(), kind);
            nodes.push(Node {
                spec: spec.clone(),
                triggers: vec![trigger],
                edges: Vec::new(),
                branches: Vec::new(),
            });
        }
        let index: BTreeMap<NodeName, usize> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| (node.spec.name.clone(), at))
            .collect();

        let mut drawn = Vec::new();
        for (sources, target, join) in &self.edges {
            drawn.push(Drawn {
                from: sources.clone(),
                to: target.clone(),
                join: *join,
            });
            if !join {
                if *target != END {
                    nodes[index[&sources[0]]]
                        .edges
                        .push(Out::Trigger(branch_to(target)));
                }
                continue;
            }
            if *target == END {
                continue;
            }
            let names: BTreeSet<NodeName> = sources.iter().cloned().collect();
            let channel = join_of(sources, target);
            let at = index[target];
            let kind = if nodes[at].spec.defer {
                ChannelKind::BarrierAfterFinish { names }
            } else {
                ChannelKind::Barrier { names }
            };
            channels.insert(channel.clone(), kind);
            if !nodes[at].triggers.contains(&channel) {
                nodes[at].triggers.push(channel.clone());
                nodes[at].triggers.sort();
            }
            for source in sources {
                nodes[index[source]].edges.push(Out::Join(channel.clone()));
            }
        }
        for (from, branch) in &self.branches {
            nodes[index[from]].branches.push(branch.clone());
        }
        let triggering = nodes
            .iter()
            .flat_map(|node| node.triggers.iter().cloned())
            .collect();
        Ok(Graph {
            channels,
            input: self.input.clone().unwrap_or_else(|| state.clone()),
            output: self.output.clone().unwrap_or_else(|| state.clone()),
            state,
            nodes,
            index,
            triggering,
            drawn,
            interrupt_before: self.interrupt_before.clone(),
            interrupt_after: self.interrupt_after.clone(),
            warnings: self.warnings(),
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut channels = BTreeSet::new();
        for (name, _) in &self.channels {
            let routing = ["__", "branch:to:", "join:"];
            if routing.iter().any(|own| name.as_str().starts_with(own)) {
                problems.push(Problem::Reserved(name.to_string()));
            }
            if !channels.insert(name.clone()) {
                problems.push(Problem::DuplicateChannel(name.clone()));
            }
        }
        let mut nodes: BTreeSet<NodeName> = BTreeSet::new();
        for spec in &self.nodes {
            let name = spec.name.as_str();
            if name.starts_with("__") {
                problems.push(Problem::Reserved(name.to_owned()));
            } else if name.is_empty() || name.contains(['|', ':']) {
                problems.push(Problem::BadName(spec.name.clone()));
            }
            if !nodes.insert(spec.name.clone()) {
                problems.push(Problem::DuplicateNode(spec.name.clone()));
            }
            for channel in spec.reads.iter().chain(&spec.writes).flatten() {
                if !channels.contains(channel) {
                    problems.push(Problem::UnknownChannel {
                        whom: format!("node `{name}`"),
                        channel: channel.clone(),
                    });
                }
            }
        }
        for (whom, schema) in [("the input", &self.input), ("the output", &self.output)] {
            for channel in schema.iter().flatten().filter(|c| !channels.contains(*c)) {
                problems.push(Problem::UnknownChannel {
                    whom: whom.to_owned(),
                    channel: channel.clone(),
                });
            }
        }
        self.edge_problems(&nodes, &mut problems);
        for breakpoints in [&self.interrupt_before, &self.interrupt_after] {
            if let Breakpoints::Nodes(listed) = breakpoints {
                for node in listed.difference(&nodes) {
                    problems.push(Problem::UnknownBreakpoint(node.clone()));
                }
            }
        }
        problems
    }

    fn edge_problems(&self, nodes: &BTreeSet<NodeName>, problems: &mut Vec<Problem>) {
        let source = |name: &NodeName| *name == START || nodes.contains(name);
        let target = |name: &NodeName| *name == END || nodes.contains(name);
        for (from, to, _) in &self.edges {
            let listed: Vec<&str> = from.iter().map(NodeName::as_str).collect();
            let listed = listed.join("`, `");
            if from.is_empty() {
                problems.push(Problem::EmptyJoin(to.clone()));
            }
            if *to == START || from.iter().any(|name| *name == END) {
                problems.push(Problem::WrongWay {
                    from: listed,
                    to: to.clone(),
                });
                continue;
            }
            let unknown = from
                .iter()
                .filter(|name| !source(name))
                .chain(Some(to).filter(|to| !target(to)));
            for unknown in unknown {
                problems.push(Problem::UnknownInEdge {
                    from: listed.clone(),
                    to: to.clone(),
                    unknown: unknown.clone(),
                });
            }
        }
        for (from, branch) in &self.branches {
            if *from == END {
                let to = branch.map.iter().flat_map(BTreeMap::values).next();
                problems.push(Problem::WrongWay {
                    from: from.to_string(),
                    to: to.cloned().unwrap_or_else(|| "a chosen node".into()),
                });
            } else if !source(from) {
                problems.push(Problem::UnknownInBranch {
                    from: from.clone(),
                    unknown: from.clone(),
                });
            }
            for to in branch.map.iter().flat_map(BTreeMap::values) {
                if *to == START {
                    problems.push(Problem::WrongWay {
                        from: from.to_string(),
                        to: to.clone(),
                    });
                } else if !target(to) {
                    problems.push(Problem::UnknownInBranch {
                        from: from.clone(),
                        unknown: to.clone(),
                    });
                }
            }
        }
        let entered = self
            .edges
            .iter()
            .any(|(from, ..)| from.iter().any(|name| *name == START))
            || self.branches.iter().any(|(from, _)| *from == START);
        if !entered {
            problems.push(Problem::NoEntry);
        }
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut reached: BTreeSet<&NodeName> = self.edges.iter().map(|(_, to, _)| to).collect();
        reached.extend(
            self.branches
                .iter()
                .flat_map(|(_, b)| b.map.iter().flat_map(BTreeMap::values)),
        );
        let mut warnings: Vec<Warning> = self
            .nodes
            .iter()
            .filter(|spec| !reached.contains(&spec.name))
            .map(|spec| Warning::Unreached(spec.name.clone()))
            .collect();

        // Targets of one source's plain edges run in one superstep.
        let mut together: BTreeMap<&NodeName, BTreeSet<&NodeName>> = BTreeMap::new();
        for (from, to, join) in &self.edges {
            if !join {
                together.entry(&from[0]).or_default().insert(to);
            }
        }
        for (channel, kind) in &self.channels {
            if !matches!(kind, ChannelKind::Last | ChannelKind::Untracked) {
                continue;
            }
            for targets in together.values() {
                let writers: Vec<NodeName> = self
                    .nodes
                    .iter()
                    .filter(|spec| targets.contains(&spec.name))
                    .filter(|spec| spec.writes.as_ref().is_some_and(|w| w.contains(channel)))
                    .map(|spec| spec.name.clone())
                    .collect();
                let warning = Warning::ParallelWriters {
                    channel: channel.clone(),
                    nodes: writers.clone(),
                };
                if writers.len() > 1 && !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        warnings
    }
}

/// The channel whose new version runs a node (LangGraph's `branch:to:<node>`).
pub(crate) fn branch_to(node: &NodeName) -> ChannelName {
    ChannelName::new(format!("branch:to:{node}"))
}

/// The channel of a join (LangGraph's `join:<a>+<b>:<node>`). A plus in a source's own name is
/// escaped: two joins never share a channel by accident.
fn join_of(sources: &[NodeName], target: &NodeName) -> ChannelName {
    let sources: Vec<String> = sources
        .iter()
        .map(|source| source.as_str().replace('%', "%25").replace('+', "%2B"))
        .collect();
    ChannelName::new(format!("join:{}:{target}", sources.join("+")))
}
