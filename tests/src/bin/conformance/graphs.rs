//! Graphs: from a case's data to a graph of the library, through its dynamic API.
//!
//! Each thing that a graph can say has one place here. What the library cannot say yet is
//! `Unsupported` with its name: the case fails by it and never passes by accident.

use std::sync::Arc;

use serde_json::Value;
use superstep::{
    CachePolicy, Channel, Checkpointer, Context, Graph, GraphBuilder, IntoOutput, IntoRoute,
    NodeError, NodeFailure, NodeReturn, Reducer, RetryPolicy,
};
use superstep_graph::{Managed, Send, Target};

use crate::{
    case::{Breakpoints, Case, GraphSpec, Keeps, Names, NodeSpec, Star},
    recorder::Recorder,
    script::{Counters, Env, Expr, Handled, Returned, SEND, Step, World, canonical, run},
};

/// What the library cannot do yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsupported(pub(crate) String);

impl Unsupported {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// The name under which a case's graph is known.
pub(crate) const GRAPH: &str = "case";

/// Makes the graph of a case.
pub(crate) fn build(case: &Case, recorder: &Arc<Recorder>) -> Result<Graph<Value>, Unsupported> {
    of_spec(&case.graph, GRAPH, recorder)
}

fn of_spec(
    spec: &GraphSpec,
    name: &str,
    recorder: &Arc<Recorder>,
) -> Result<Graph<Value>, Unsupported> {
    let mut builder = Graph::dynamic(name);
    for (name, kind) in &spec.channels {
        builder = builder.channel(name.as_str(), channel(kind)?);
    }
    if let Some(input) = &spec.input {
        builder = builder.input(input.iter().map(String::as_str));
    }
    if let Some(output) = &spec.output {
        builder = builder.output(output.iter().map(String::as_str));
    }
    for node in &spec.nodes {
        builder = add_node(builder, node, recorder)?;
    }
    for (from, to) in &spec.edges {
        builder = match from {
            Names::One(from) => builder.edge(from.as_str(), to.as_str()),
            Names::All(from) => builder.join(from.iter().map(String::as_str), to.as_str()),
        };
    }
    for branch in &spec.branches {
        let counters = recorder.counters();
        let expr = branch.path.clone();
        let path = move |state: &Value| Chosen::by(&expr, state, &counters);
        builder = match &branch.map {
            None => builder.branch(branch.from.as_str(), path),
            Some(map) => {
                let map = map.iter().map(|(key, to)| (key.as_str(), to.as_str()));
                builder.branch_map(branch.from.as_str(), path, map)
            }
        };
    }
    add_breakpoints(builder, spec)
        .build()
        .map_err(|error| Unsupported(format!("the graph cannot be built: {error}")))
}

fn channel(kind: &str) -> Result<Channel, Unsupported> {
    Ok(match kind {
        "last" => Channel::Last,
        "any" => Channel::Any,
        "append" => Channel::Reduce(Reducer::Append),
        "add" => Channel::Reduce(Reducer::Add),
        "concat" => Channel::Reduce(Reducer::Concat),
        "merge" => Channel::Reduce(Reducer::Merge),
        "union" => Channel::Reduce(Reducer::Union),
        "max" => Channel::Reduce(Reducer::Max),
        "by_id" => Channel::Reduce(Reducer::ById),
        "messages" => Channel::Reduce(Reducer::Messages),
        "ephemeral" => Channel::Ephemeral { guard: true },
        "untracked" => Channel::Untracked,
        "topic" => Channel::Topic { accumulate: false },
        "topic_acc" => Channel::Topic { accumulate: true },
        "remaining_steps" => Channel::Managed(Managed::RemainingSteps),
        "is_last_step" => Channel::Managed(Managed::IsLastStep),
        other => return Err(Unsupported(format!("the channel kind `{other}`"))),
    })
}

fn add_node(
    builder: GraphBuilder<Value>,
    spec: &NodeSpec,
    recorder: &Arc<Recorder>,
) -> Result<GraphBuilder<Value>, Unsupported> {
    let mut options = superstep::NodeSpec::new(spec.name.as_str());
    options.defer = spec.defer;
    options.reads = spec.reads.as_ref().map(|reads| {
        reads
            .iter()
            .map(|channel| channel.as_str().into())
            .collect()
    });
    if let Some(inner) = &spec.graph {
        let inner = of_spec(inner, &spec.name, recorder)?;
        let keeps = match spec.checkpointer {
            Keeps::Inherit => Checkpointer::Inherit,
            Keeps::Own => Checkpointer::Own,
            Keeps::None => Checkpointer::None,
        };
        let builder = builder.subgraph_with(options, inner, keeps);
        return Ok(add_policies(builder, spec, recorder));
    }
    let script = Arc::new(Script {
        name: spec.name.clone(),
        steps: spec.steps.clone(),
        recorder: Arc::clone(recorder),
    });
    let function = move |input: Value, ctx: Context| {
        let script = Arc::clone(&script);
        async move { script.run(input, ctx).await }
    };
    let builder = builder.node_with(options, function);
    Ok(add_policies(builder, spec, recorder))
}

/// What a node has beside its steps: a retry policy, a cache policy, an error handler.
fn add_policies(
    mut builder: GraphBuilder<Value>,
    spec: &NodeSpec,
    recorder: &Arc<Recorder>,
) -> GraphBuilder<Value> {
    let name = spec.name.as_str();
    if let Some(retry) = &spec.retry {
        let policy = RetryPolicy::new(retry.max_attempts).without_pauses();
        let policy = match &retry.on {
            None => policy,
            Some(classes) => policy.on(classes),
        };
        builder = builder.retry(name, policy);
    }
    if spec.cache {
        builder = builder.cache(name, CachePolicy::new());
    }
    if let Some(steps) = &spec.on_error {
        let script = Arc::new(Script {
            name: format!("__error_handler__{name}"),
            steps: steps.clone(),
            recorder: Arc::clone(recorder),
        });
        let handler = move |input: Value, failure: NodeFailure, ctx: Context| {
            let script = Arc::clone(&script);
            async move { script.handle(input, failure, ctx).await }
        };
        builder = builder.on_error(name, handler);
    }
    builder
}

fn add_breakpoints(builder: GraphBuilder<Value>, spec: &GraphSpec) -> GraphBuilder<Value> {
    use superstep::Breakpoints as At;
    let builder = match breakpoints(&spec.interrupt_before) {
        None | Some(At::None) => builder,
        Some(At::All) => builder.interrupt_before_all(),
        Some(At::Nodes(nodes)) => builder.interrupt_before(nodes),
    };
    match breakpoints(&spec.interrupt_after) {
        None | Some(At::None) => builder,
        Some(At::All) => builder.interrupt_after_all(),
        Some(At::Nodes(nodes)) => builder.interrupt_after(nodes),
    }
}

/// Where a run stops without a question, at compile or for one run.
pub(crate) fn breakpoints(at: &Breakpoints) -> Option<superstep::Breakpoints> {
    match at {
        Breakpoints::None => None,
        Breakpoints::Each(Star::Each) => Some(superstep::Breakpoints::All),
        Breakpoints::Nodes(nodes) => {
            let nodes = nodes.iter().map(|node| node.as_str().into());
            Some(superstep::Breakpoints::Nodes(nodes.collect()))
        }
    }
}

/// A node of a case.
struct Script {
    name: String,
    steps: Vec<Step>,
    recorder: Arc<Recorder>,
}

impl Script {
    async fn run(&self, input: Value, ctx: Context) -> Result<Scripted, NodeError> {
        let ns: Vec<String> = ctx.path().iter().map(ToString::to_string).collect();
        self.recorder
            .began(&self.name, ctx.step(), &ns, ctx.attempt());
        let env = Env::new(input, ctx.attempt(), self.recorder.counters());
        run(&self.steps, env, &InGraph(ctx)).await.map(Scripted)
    }

    async fn handle(
        &self,
        input: Value,
        failure: NodeFailure,
        ctx: Context,
    ) -> Result<Scripted, NodeError> {
        let ns: Vec<String> = ctx.path().iter().map(ToString::to_string).collect();
        self.recorder
            .began(&self.name, ctx.step(), &ns, ctx.attempt());
        let env = Env::new(input, ctx.attempt(), self.recorder.counters()).handling(Handled {
            node: failure.node.to_string(),
            message: failure.error.message().to_owned(),
        });
        run(&self.steps, env, &InGraph(ctx)).await.map(Scripted)
    }
}

/// The world of a node that runs in a graph.
struct InGraph(Context);

impl World for InGraph {
    type Error = NodeError;

    async fn interrupt(&self, payload: Value) -> Result<Value, NodeError> {
        self.0.interrupt(payload).await
    }

    fn emit(&self, data: Value) {
        self.0.emit(data);
    }

    fn error(&self, class: &str, message: &str) -> NodeError {
        NodeError::new(class.to_owned(), message)
    }
}

/// What a scripted node returned, as an output of the library.
struct Scripted(Returned);

impl IntoOutput<Value> for Scripted {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        let (update, goto, parent) = match self.0 {
            Returned::Update(update) => return update.into_output(),
            Returned::Command {
                update,
                goto,
                parent,
            } => (update, goto, parent),
        };
        let mut command = superstep::Command::new();
        if !update.is_null() {
            command = command.update(update);
        }
        for target in goto {
            command = match target_of(target) {
                Target::Node(node) => command.goto(node),
                Target::Send(send) => command.send(superstep::Send::to(send.node, send.arg)),
            };
        }
        if parent {
            IntoOutput::<Value>::into_output(command.to_parent::<Value>())
        } else {
            IntoOutput::<Value>::into_output(command)
        }
    }
}

/// A target by its value: a name or a packet. What is neither is a name that no node has.
pub(crate) fn target_of(value: Value) -> Target {
    match value {
        Value::String(name) => Target::Node(name.into()),
        // A path that gives null names no node.
        Value::Null => Target::Node("".into()),
        Value::Object(mut object) => match object.remove(SEND) {
            Some(Value::Array(mut parts)) if parts.len() == 2 && parts[0].is_string() => {
                let packet = parts.pop().unwrap_or_default();
                let node = parts[0].as_str().unwrap_or_default();
                Target::Send(Send::new(node, packet))
            }
            _ => Target::Node(format!("no name: {}", canonical(&Value::Object(object))).into()),
        },
        other => Target::Node(format!("no name: {}", canonical(&other)).into()),
    }
}

/// What a path chose.
struct Chosen(Result<Vec<Target>, String>);

impl Chosen {
    fn by(path: &Expr, state: &Value, counters: &Arc<Counters>) -> Self {
        let mut env = Env::new(state.clone(), 1, Arc::clone(counters));
        Self(env.eval(path).map(|chosen| match chosen {
            Value::Array(items) => items.into_iter().map(target_of).collect(),
            one => vec![target_of(one)],
        }))
    }
}

impl IntoRoute for Chosen {
    fn into_route(self) -> Result<Vec<Target>, String> {
        self.0
    }
}
