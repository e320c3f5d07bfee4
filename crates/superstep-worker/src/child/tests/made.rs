//! Graphs in the making, and threads that run them: what the tests of subgraphs have in common.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_graph::{
    ChannelKind, END, GraphBuilder, InterruptId, NodeName, NodeOutput, NodeSpec, Reducer, START,
};
use superstep_protocol::{Answers, GraphId, Profile, ThreadId, ThreadState};

use crate::{
    Checkpointer, Graphs, Local, Node, NodeCode, NodeContext, NodeError, NodeReturn, RunOptions,
    RunOutput, RunnableGraph, Subgraph, SystemWorld, WorkerSettings,
};

pub(super) type Ran = Arc<Mutex<Vec<String>>>;

/// A graph in the making: channels `log` (a list), `in` and `out`, and nodes that note their runs.
pub(super) struct Made {
    pub(super) builder: GraphBuilder,
    pub(super) nodes: BTreeMap<NodeName, NodeCode>,
    pub(super) ran: Ran,
}

pub(super) fn id(name: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: "1".into(),
    }
}

impl Made {
    pub(super) fn new(ran: &Ran) -> Self {
        let mut builder = GraphBuilder::new();
        builder
            .channel("log", ChannelKind::Reduce(Reducer::Append))
            .channel("in", ChannelKind::Last)
            .channel("out", ChannelKind::Last);
        Self {
            builder,
            nodes: BTreeMap::new(),
            ran: Arc::clone(ran),
        }
    }

    pub(super) fn code(mut self, name: &str, code: impl Into<NodeCode>) -> Self {
        self.builder.node(NodeSpec::new(name));
        self.nodes.insert(name.into(), code.into());
        self
    }

    pub(super) fn node<F, Fut>(self, name: &str, function: F) -> Self
    where
        F: Fn(Value, NodeContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, NodeError>> + Send + 'static,
    {
        let ran = Arc::clone(&self.ran);
        let function = Arc::new(function);
        let node = move |input: Value, ctx: NodeContext| {
            let place: Vec<&str> = ctx.path().iter().map(NodeName::as_str).collect();
            let place = [place.as_slice(), &[ctx.node().as_str()]]
                .concat()
                .join(".");
            ran.lock().unwrap().push(place);
            let function = Arc::clone(&function);
            async move { function(input, ctx).await.map(NodeReturn::Update) }
        };
        let node: Arc<dyn Node> = Arc::new(node);
        self.code(name, node)
    }

    /// A node that notes its name in the log.
    pub(super) fn plain(self, name: &'static str) -> Self {
        self.node(name, move |_, _| async move { Ok(json!({"log": [name]})) })
    }

    /// A node that asks, and puts the answer out.
    pub(super) fn asking(self, name: &'static str) -> Self {
        self.node(name, move |_, ctx| async move {
            let answer: Value = ctx.interrupt(format!("{name}?")).await?;
            Ok(json!({"out": answer, "log": [format!("{name}={answer}")]}))
        })
    }

    /// A node that asks, and notes the answer.
    pub(super) fn noting(self, name: &'static str) -> Self {
        self.node(name, move |_, ctx| async move {
            let answer: Value = ctx.interrupt(format!("{name}?")).await?;
            Ok(json!({"log": [format!("{name}={answer}")]}))
        })
    }

    /// A node that returns what no update can say.
    pub(super) fn returning(self, name: &str, output: NodeOutput) -> Self {
        let node = move |_: Value, _: NodeContext| {
            let output = output.clone();
            async move { Ok(NodeReturn::Output(output)) }
        };
        let node: Arc<dyn Node> = Arc::new(node);
        self.code(name, node)
    }

    pub(super) fn sub(self, name: &str, graph: RunnableGraph) -> Self {
        self.sub_with(name, graph, Checkpointer::Inherit)
    }

    pub(super) fn sub_with(
        self,
        name: &str,
        graph: RunnableGraph,
        checkpointer: Checkpointer,
    ) -> Self {
        let graph = Arc::new(graph);
        self.code(
            name,
            NodeCode::Graph(Subgraph {
                graph,
                checkpointer,
            }),
        )
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut GraphBuilder)) -> Self {
        change(&mut self.builder);
        self
    }

    /// One node after the other.
    pub(super) fn chain(mut self, names: &[&str]) -> Self {
        let all = [&[START], names, &[END]].concat();
        for pair in all.windows(2) {
            self.builder.edge(pair[0], pair[1]);
        }
        self
    }

    pub(super) fn make(self, name: &str) -> RunnableGraph {
        RunnableGraph::new(id(name), self.builder.compile().unwrap(), self.nodes).unwrap()
    }

    /// As a subgraph, of which only `out` comes out.
    pub(super) fn inner(mut self, name: &str) -> RunnableGraph {
        self.builder.output(["out".into()]);
        self.make(name)
    }
}

pub(super) struct World {
    pub(super) local: Local,
    pub(super) thread: ThreadId,
    pub(super) graph: GraphId,
    pub(super) ran: Ran,
}

impl World {
    pub(super) fn new(ran: &Ran, profile: Profile, graph: RunnableGraph) -> Self {
        let id = graph.id().clone();
        let mut graphs = Graphs::new();
        graphs.add(graph);
        let settings = WorkerSettings {
            profile,
            ..WorkerSettings::default()
        };
        let log = Arc::new(MemoryLog::new());
        Self {
            local: Local::new(graphs, log, Arc::new(SystemWorld), settings),
            thread: ThreadId::new("t"),
            graph: id,
            ran: Arc::clone(ran),
        }
    }

    pub(super) async fn invoke(&self, input: Value) -> RunOutput {
        let options = RunOptions::default();
        let invoked = self.local.invoke(&self.graph, &self.thread, input, options);
        invoked.await.unwrap()
    }

    pub(super) async fn resume(&self, answer: impl Into<Value>) -> RunOutput {
        let answers = Answers::Plain(answer.into());
        self.local.resume(&self.thread, answers).await.unwrap()
    }

    pub(super) async fn answer(&self, id: &InterruptId, answer: impl Into<Value>) -> RunOutput {
        let answers = Answers::ById(BTreeMap::from([(id.clone(), answer.into())]));
        self.local.resume(&self.thread, answers).await.unwrap()
    }

    pub(super) async fn retry(&self) -> RunOutput {
        self.local.retry(&self.thread).await.unwrap()
    }

    pub(super) async fn state(&self) -> ThreadState {
        let found = self.local.threads().load(&self.thread).await.unwrap();
        Arc::unwrap_or_clone(found.unwrap().state)
    }

    /// What ran since the last call, by place.
    pub(super) fn ran(&self) -> Vec<String> {
        std::mem::take(&mut *self.ran.lock().unwrap())
    }
}

pub(super) fn asked(output: &RunOutput) -> Vec<&Value> {
    output.interrupts.iter().map(|asked| &asked.value).collect()
}
