//! A graph and its builder: names, functions, edges.
//!
//! Typed over a derived state, or dynamic over JSON with channels declared one by one; both make
//! the same runnable graph. The checks are those of the engine, at `build`.

mod error;
mod timing;

use std::{collections::BTreeMap, marker::PhantomData, ops::Deref, sync::Arc};

use serde_json::Value;
use superstep_graph::{
    Branch, Breakpoints, ChannelKind, ChannelName, CompileError, GraphBuilder as TopologyBuilder,
    NodeName, NodeSpec,
};
use superstep_protocol::{GraphId, GraphName};
use superstep_worker::{
    CachePolicy, Checkpointer, InputSchema, NodeCache, NodeCode, Policies, RetryPolicy,
    RunnableGraph, Subgraph, VersionPolicy,
};

use crate::{
    function::{ErrorHandlerFunction, InputNodeFunction, NodeFunction},
    route::IntoRoute,
    state::State,
};

pub use error::BuildError;

/// A graph that can run, over the state `S`.
///
/// ```
/// use superstep::{END, Graph, NodeError, START, State};
///
/// #[derive(Clone, Default, State)]
/// struct Story {
///     topic: String,
///     text: String,
/// }
///
/// async fn write(story: Story) -> Result<StoryUpdate, NodeError> {
///     Ok(Story::update().text(format!("Once there was {}.", story.topic)))
/// }
///
/// let graph = Graph::<Story>::builder("story")
///     .version("2")
///     .description("Writes a story on a topic.")
///     .node("write", write)
///     .edge(START, "write")
///     .edge("write", END)
///     .build()?;
/// assert_eq!(graph.id().to_string(), "story@2");
/// # Ok::<(), superstep::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Graph<S> {
    runnable: RunnableGraph,
    state: PhantomData<fn() -> S>,
}

impl<S> Clone for Graph<S> {
    fn clone(&self) -> Self {
        Self {
            runnable: self.runnable.clone(),
            state: PhantomData,
        }
    }
}

impl<S: State> Graph<S> {
    /// A graph of this name with the channels of `S`.
    pub fn builder(name: impl Into<GraphName>) -> GraphBuilder<S> {
        GraphBuilder::new(name.into(), S::input_schema())
    }
}

impl Graph<Value> {
    /// A graph over JSON, for graphs that are made from data.
    ///
    /// ```
    /// use serde_json::{Value, json};
    /// use superstep::{Channel, Context, Graph, Reducer, START};
    ///
    /// let graph = Graph::dynamic("greet")
    ///     .channel("names", Channel::Reduce(Reducer::Append))
    ///     .channel("greeting", Channel::Last)
    ///     .node("greet", |state: Value, _ctx: Context| async move {
    ///         Ok(json!({"greeting": format!("hello, {}", state["names"][0])}))
    ///     })
    ///     .edge(START, "greet")
    ///     .build()?;
    /// # Ok::<(), superstep::BuildError>(())
    /// ```
    pub fn dynamic(name: impl Into<GraphName>) -> GraphBuilder<Value> {
        GraphBuilder::new(name.into(), None)
    }
}

/// The name, version and topology of a graph.
impl<S> Deref for Graph<S> {
    type Target = RunnableGraph;

    fn deref(&self) -> &RunnableGraph {
        &self.runnable
    }
}

impl<S> From<Graph<S>> for RunnableGraph {
    fn from(graph: Graph<S>) -> Self {
        graph.runnable
    }
}

/// Collects nodes and edges, then checks them all.
#[must_use = "a graph is made by `build`"]
pub struct GraphBuilder<S> {
    name: GraphName,
    version: String,
    description: String,
    input_schema: Option<Value>,
    topology: TopologyBuilder,
    functions: BTreeMap<NodeName, NodeCode>,
    policies: BTreeMap<NodeName, Policies>,
    cache: Option<Arc<dyn NodeCache>>,
    versions: VersionPolicy,
    state: PhantomData<fn() -> S>,
}

impl<S> std::fmt::Debug for GraphBuilder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphBuilder")
            .field("name", &self.name)
            .field("topology", &self.topology)
            .finish_non_exhaustive()
    }
}

impl<S: State> GraphBuilder<S> {
    fn new(name: GraphName, input_schema: Option<Value>) -> Self {
        let mut topology = TopologyBuilder::new();
        for (channel, kind) in S::channels() {
            topology.channel(channel, kind);
        }
        Self {
            name,
            version: "1".to_owned(),
            description: String::new(),
            input_schema,
            topology,
            functions: BTreeMap::new(),
            policies: BTreeMap::new(),
            cache: None,
            versions: VersionPolicy::default(),
            state: PhantomData,
        }
    }

    /// The version that the graph is registered under; `1` otherwise. What becomes of threads of
    /// other versions is said by [`versions`](Self::versions).
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Says what becomes of threads that other versions left behind; what is in flight stays with
    /// its version otherwise.
    pub fn versions(mut self, policy: VersionPolicy) -> Self {
        self.versions = policy;
        self
    }

    /// Says in a line what the graph is for.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Checks inputs against another JSON Schema than the state's.
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.input_schema = Some(schema);
        self
    }

    /// Adds a node: an async function of the state, or of the state and a context.
    pub fn node<A>(self, name: impl Into<NodeName>, function: impl NodeFunction<S, A>) -> Self {
        self.add(NodeSpec::new(name), function.into_node())
    }

    /// As [`node`](Self::node), with all there is to say of a node: the channels that it reads,
    /// or that it is deferred until nothing else is left to run.
    ///
    /// ```
    /// use superstep::{Graph, NodeError, NodeSpec, START, State};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Search {
    ///     query: String,
    ///     #[state(reducer = append)]
    ///     found: Vec<String>,
    /// }
    ///
    /// async fn look(search: Search) -> Result<SearchUpdate, NodeError> {
    ///     Ok(Search::update().push_found(search.query))
    /// }
    ///
    /// async fn sum_up(_: Search) -> Result<(), NodeError> {
    ///     Ok(())
    /// }
    ///
    /// let last = NodeSpec { defer: true, ..NodeSpec::new("sum_up") };
    /// let graph = Graph::<Search>::builder("search")
    ///     .node("look", look)
    ///     .node_with(last, sum_up)
    ///     .edge(START, "look")
    ///     .edge(START, "sum_up")
    ///     .build()?;
    /// # Ok::<(), superstep::BuildError>(())
    /// ```
    pub fn node_with<A>(self, spec: NodeSpec, function: impl NodeFunction<S, A>) -> Self {
        self.add(spec, function.into_node())
    }

    /// Adds a node that takes packets: an async function of what a [`Send`](crate::Send) carries,
    /// or of that and a context.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use superstep::{Graph, NodeError, START, Send, State};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Crawl {
    ///     pages: Vec<String>,
    ///     #[state(reducer = append)]
    ///     sizes: Vec<u64>,
    /// }
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Page {
    ///     name: String,
    /// }
    ///
    /// async fn spread(state: Crawl) -> Result<Vec<Send>, NodeError> {
    ///     Ok(state.pages.into_iter().map(|name| Send::to("measure", Page { name })).collect())
    /// }
    ///
    /// async fn measure(page: Page) -> Result<CrawlUpdate, NodeError> {
    ///     Ok(Crawl::update().push_sizes(page.name.len() as u64))
    /// }
    ///
    /// let graph = Graph::<Crawl>::builder("crawl")
    ///     .node("spread", spread)
    ///     .node_with_input("measure", measure)
    ///     .edge(START, "spread")
    ///     .build()?;
    /// # Ok::<(), superstep::BuildError>(())
    /// ```
    pub fn node_with_input<T, A>(
        self,
        name: impl Into<NodeName>,
        function: impl InputNodeFunction<S, T, A>,
    ) -> Self {
        self.add(NodeSpec::new(name), function.into_node())
    }

    /// Adds a graph as a node. It is given the channels of the state that its own input has, or
    /// what a packet carries, and its output channels are the node's update. It can ask, fail and
    /// be continued like any other node; what finished inside does not run again.
    ///
    /// ```
    /// use superstep::{Context, Embedded, Graph, NodeError, START, State};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Review {
    ///     draft: String,
    ///     verdict: String,
    /// }
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Letter {
    ///     draft: String,
    ///     verdict: String,
    ///     sent: bool,
    /// }
    ///
    /// async fn review(state: Review, ctx: Context) -> Result<ReviewUpdate, NodeError> {
    ///     let verdict: String = ctx.interrupt(state.draft).await?;
    ///     Ok(Review::update().verdict(verdict))
    /// }
    ///
    /// async fn send(letter: Letter) -> Result<LetterUpdate, NodeError> {
    ///     Ok(Letter::update().sent(letter.verdict == "good"))
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let review = Graph::<Review>::builder("review")
    ///     .node("review", review)
    ///     .edge(START, "review")
    ///     .build()?;
    /// let letter = Graph::<Letter>::builder("letter")
    ///     .subgraph("review", review)
    ///     .node("send", send)
    ///     .edge(START, "review")
    ///     .edge("review", "send")
    ///     .build()?;
    ///
    /// let app = Embedded::memory().graph(letter).build().await?;
    /// let thread = app.thread("1");
    /// let asked = thread.invoke(Letter::update().draft("Dear Ada, ...")).await?;
    /// assert_eq!(asked.interrupts[0].value, "Dear Ada, ...");
    /// let done = thread.resume("good").await?;
    /// assert!(done.state::<Letter>()?.sent);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn subgraph(self, name: impl Into<NodeName>, graph: impl Into<RunnableGraph>) -> Self {
        self.subgraph_with(NodeSpec::new(name), graph, Checkpointer::Inherit)
    }

    /// As [`subgraph`](Self::subgraph), with all there is to say of a node, and how much of the
    /// subgraph's state outlives a call.
    pub fn subgraph_with(
        self,
        spec: NodeSpec,
        graph: impl Into<RunnableGraph>,
        checkpointer: Checkpointer,
    ) -> Self {
        let graph = Arc::new(graph.into());
        self.add(
            spec,
            NodeCode::Graph(Subgraph {
                graph,
                checkpointer,
            }),
        )
    }

    /// Tries a node again when it fails, within its superstep.
    ///
    /// ```
    /// use superstep::{Context, Embedded, Graph, NodeError, RetryPolicy, START, State};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Page {
    ///     text: String,
    /// }
    ///
    /// async fn fetch(_: Page, ctx: Context) -> Result<PageUpdate, NodeError> {
    ///     if ctx.attempt() < 3 {
    ///         return Err(NodeError::new("Timeout", "the server did not answer"));
    ///     }
    ///     Ok(Page::update().text(format!("fetched at attempt {}", ctx.attempt())))
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let graph = Graph::<Page>::builder("page")
    ///     .node("fetch", fetch)
    ///     .retry("fetch", RetryPolicy::new(3).on(["Timeout"]).without_pauses())
    ///     .edge(START, "fetch")
    ///     .build()?;
    /// let app = Embedded::memory().graph(graph).build().await?;
    /// let done = app.thread("1").invoke(Page::update()).await?;
    /// assert_eq!(done.state::<Page>()?.text, "fetched at attempt 3");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn retry(mut self, node: impl Into<NodeName>, policy: RetryPolicy) -> Self {
        self.policies.entry(node.into()).or_default().retry = Some(policy);
        self
    }

    /// Reuses what a node wrote where its input is the same: it does not run then, on any thread
    /// of the graph. Failures and questions are not kept.
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use superstep::{Embedded, Graph, NodeError, START, State};
    /// # #[derive(Clone, Default, State)]
    /// # struct Lookup { key: String, found: u64 }
    /// use superstep::CachePolicy;
    ///
    /// static CALLS: AtomicU64 = AtomicU64::new(0);
    ///
    /// async fn look_up(_: Lookup) -> Result<LookupUpdate, NodeError> {
    ///     Ok(Lookup::update().found(CALLS.fetch_add(1, Ordering::Relaxed) + 1))
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let graph = Graph::<Lookup>::builder("lookup")
    ///     .node("look_up", look_up)
    ///     .cache("look_up", CachePolicy::new().key(|input| input["key"].to_string()))
    ///     .edge(START, "look_up")
    ///     .build()?;
    /// let app = Embedded::memory().graph(graph).build().await?;
    /// for (thread, key, found) in [("1", "a", 1), ("2", "a", 1), ("3", "b", 2)] {
    ///     let done = app.thread(thread).invoke(Lookup::update().key(key)).await?;
    ///     assert_eq!(done.state::<Lookup>()?.found, found);
    /// }
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn cache(mut self, node: impl Into<NodeName>, policy: CachePolicy) -> Self {
        self.policies.entry(node.into()).or_default().cache = Some(policy);
        self
    }

    /// Keeps the results of cached nodes in `cache`, which workers may share; otherwise in a
    /// bounded memory of this graph's own.
    pub fn cache_in(mut self, cache: impl NodeCache + 'static) -> Self {
        self.cache = Some(Arc::new(cache));
        self
    }

    /// When a node has failed for good, `handler` takes its place in the same superstep and the
    /// run goes on: an async function of the state and the [`NodeFailure`](crate::NodeFailure),
    /// and of a context if it wants it. It may return whatever a node may. The edges of the node
    /// that failed are not followed: the handler says where to go.
    ///
    /// ```
    /// use superstep::{Command, Embedded, Graph, NodeError, NodeFailure, START, State};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Order {
    ///     #[state(reducer = append)]
    ///     log: Vec<String>,
    /// }
    ///
    /// async fn charge(_: Order) -> Result<OrderUpdate, NodeError> {
    ///     Err(NodeError::new("Declined", "the card was declined"))
    /// }
    ///
    /// async fn give_up(_: Order, failure: NodeFailure) -> Result<Command<OrderUpdate>, NodeError> {
    ///     let line = format!("{}: {}", failure.node, failure.error.message());
    ///     Ok(Command::new().update(Order::update().push_log(line)).goto("tell"))
    /// }
    ///
    /// async fn tell(_: Order) -> Result<OrderUpdate, NodeError> {
    ///     Ok(Order::update().push_log("told"))
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let graph = Graph::<Order>::builder("order")
    ///     .node("charge", charge)
    ///     .node("tell", tell)
    ///     .on_error("charge", give_up)
    ///     .edge(START, "charge")
    ///     .build()?;
    /// let app = Embedded::memory().graph(graph).build().await?;
    /// let done = app.thread("1").invoke(Order::update()).await?;
    /// assert_eq!(done.state::<Order>()?.log, ["charge: the card was declined", "told"]);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn on_error<A>(
        mut self,
        node: impl Into<NodeName>,
        handler: impl ErrorHandlerFunction<S, A>,
    ) -> Self {
        let handler = handler.into_node();
        self.policies.entry(node.into()).or_default().on_error = Some(handler);
        self
    }

    /// `to` runs in the superstep after `from` finished.
    pub fn edge(mut self, from: impl Into<NodeName>, to: impl Into<NodeName>) -> Self {
        self.topology.edge(from, to);
        self
    }

    /// `to` runs once every one of `from` has finished since it last ran.
    pub fn join<N: Into<NodeName>>(
        mut self,
        from: impl IntoIterator<Item = N>,
        to: impl Into<NodeName>,
    ) -> Self {
        self.topology.join(from, to);
        self
    }

    /// After `from`, `path` chooses where to go. It sees the state with what `from` wrote, must
    /// be pure, and may go anywhere; see [`IntoRoute`] for what it may return.
    ///
    /// ```
    /// use superstep::{END, Graph, NodeError, START, State};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Count {
    ///     value: u64,
    /// }
    ///
    /// async fn add_one(state: Count) -> Result<CountUpdate, NodeError> {
    ///     Ok(Count::update().value(state.value + 1))
    /// }
    ///
    /// let graph = Graph::<Count>::builder("count")
    ///     .node("add_one", add_one)
    ///     .edge(START, "add_one")
    ///     .branch("add_one", |state| if state.value < 10 { "add_one" } else { END })
    ///     .build()?;
    /// # Ok::<(), superstep::BuildError>(())
    /// ```
    pub fn branch<R: IntoRoute>(
        mut self,
        from: impl Into<NodeName>,
        path: impl Fn(&S) -> R + Send + Sync + 'static,
    ) -> Self {
        self.topology.branch(from, conditional(path));
        self
    }

    /// As [`branch`](Self::branch), with the results that `path` may give and the node that each
    /// leads to, which drawings show and `build` checks.
    ///
    /// ```
    /// # use superstep::{END, Graph, NodeError, START, State};
    /// # #[derive(Clone, Default, State)]
    /// # struct Draft { good: bool }
    /// # async fn write(_: Draft) -> Result<DraftUpdate, NodeError> { Ok(Draft::update().good(true)) }
    /// let graph = Graph::<Draft>::builder("draft")
    ///     .node("write", write)
    ///     .edge(START, "write")
    ///     .branch_map("write", |state| state.good, [("true", END), ("false", "write")])
    ///     .build()?;
    /// # Ok::<(), superstep::BuildError>(())
    /// ```
    pub fn branch_map<R: IntoRoute, K: Into<String>, N: Into<NodeName>>(
        mut self,
        from: impl Into<NodeName>,
        path: impl Fn(&S) -> R + Send + Sync + 'static,
        map: impl IntoIterator<Item = (K, N)>,
    ) -> Self {
        self.topology.branch(from, conditional(path).with_map(map));
        self
    }

    /// Only these channels may be named by an input; all of the state otherwise.
    pub fn input<N: Into<ChannelName>>(mut self, channels: impl IntoIterator<Item = N>) -> Self {
        self.topology.input(channels.into_iter().map(Into::into));
        self
    }

    /// Only these channels are in a run's output; all of the state otherwise.
    pub fn output<N: Into<ChannelName>>(mut self, channels: impl IntoIterator<Item = N>) -> Self {
        self.topology.output(channels.into_iter().map(Into::into));
        self
    }

    /// Runs stop before these nodes and wait to be continued, for people who look at each step.
    /// A run's own breakpoints take the place of these; see [`RunOptions`](crate::RunOptions).
    ///
    /// ```
    /// # use superstep::{Embedded, Graph, NodeError, START, State};
    /// # #[derive(Clone, Default, State)]
    /// # struct Mail { text: String }
    /// # async fn send(_: Mail) -> Result<MailUpdate, NodeError> { Ok(Mail::update().text("sent")) }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let graph = Graph::<Mail>::builder("mail")
    ///     .node("send", send)
    ///     .edge(START, "send")
    ///     .interrupt_before(["send"])
    ///     .build()?;
    /// let app = Embedded::memory().graph(graph).build().await?;
    /// let thread = app.thread("1");
    /// let _ = thread.invoke(Mail::update().text("draft")).await?;
    /// assert_eq!(thread.state().await?.expect("it is there").next, ["send"]);
    /// let done = thread.invoke(serde_json::Value::Null).await?;
    /// assert_eq!(done.state::<Mail>()?.text, "sent");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn interrupt_before<N: Into<NodeName>>(
        mut self,
        nodes: impl IntoIterator<Item = N>,
    ) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.topology.interrupt_before(Breakpoints::Nodes(nodes));
        self
    }

    /// As [`interrupt_before`](Self::interrupt_before), after these nodes.
    pub fn interrupt_after<N: Into<NodeName>>(
        mut self,
        nodes: impl IntoIterator<Item = N>,
    ) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.topology.interrupt_after(Breakpoints::Nodes(nodes));
        self
    }

    /// Runs stop before every node.
    pub fn interrupt_before_all(mut self) -> Self {
        self.topology.interrupt_before(Breakpoints::All);
        self
    }

    /// Runs stop after every node.
    pub fn interrupt_after_all(mut self) -> Self {
        self.topology.interrupt_after(Breakpoints::All);
        self
    }

    /// Checks everything and makes the graph.
    ///
    /// # Errors
    /// Every mistake that was found, each naming the node and what to do.
    ///
    /// # Panics
    /// Never: each node was added with its function.
    pub fn build(self) -> Result<Graph<S>, BuildError> {
        let Self {
            name,
            version,
            description,
            input_schema,
            topology,
            functions,
            policies,
            cache,
            versions,
            state: _,
        } = self;
        if name.as_str().is_empty() || version.is_empty() {
            return Err(BuildError::Unnamed { graph: name });
        }
        let topology = match topology.compile() {
            Ok(topology) => topology,
            Err(CompileError { problems }) => {
                return Err(BuildError::Invalid {
                    graph: name,
                    problems,
                });
            }
        };
        let is_known = |node: &&NodeName| functions.contains_key(*node);
        let unknown: Vec<NodeName> = policies
            .keys()
            .filter(|node| !is_known(node))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(BuildError::NoSuchNodes {
                graph: name,
                nodes: unknown,
            });
        }
        if let Some(schema) = &input_schema
            && let Err(reason) = InputSchema::new(schema)
        {
            return Err(BuildError::Schema {
                graph: name,
                reason,
            });
        }
        let id = GraphId {
            name,
            version: version.into(),
        };
        let runnable = RunnableGraph::new(id, topology, functions)
            .expect("each node was added with its function")
            .with_description(description)
            .with_policies(policies)
            .with_versions(versions);
        let runnable = match cache {
            Some(cache) => runnable.with_cache(cache),
            None => runnable,
        };
        Ok(Graph {
            runnable: match input_schema {
                Some(schema) => runnable.with_input_schema(schema),
                None => runnable,
            },
            state: PhantomData,
        })
    }

    fn add(mut self, spec: NodeSpec, code: impl Into<NodeCode>) -> Self {
        self.functions.insert(spec.name.clone(), code.into());
        self.topology.node(spec);
        self
    }
}

impl GraphBuilder<Value> {
    /// Declares a channel of the state.
    pub fn channel(mut self, name: impl Into<ChannelName>, kind: ChannelKind) -> Self {
        self.topology.channel(name, kind);
        self
    }
}

fn conditional<S: State, R: IntoRoute>(path: impl Fn(&S) -> R + Send + Sync + 'static) -> Branch {
    Branch::new(move |state: &Value| {
        let state = S::from_input(state.clone()).map_err(|error| error.to_string())?;
        path(&state).into_route()
    })
}
