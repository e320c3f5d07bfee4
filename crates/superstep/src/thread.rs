//! A thread of an embedded app, by its name: run it, answer it, look at it.
//!
//! A handle holds no state; each call reads and writes the store. What a call may do is decided
//! by the protocol, whose refusals come back as errors with their kind.

use std::future::Future;

use serde::Serialize;
use serde_json::Value;
use superstep_protocol::{
    Answers, GraphId, GraphName, Refusal, StreamMode, Streams, ThreadId, ThreadStatus, Update,
};
use superstep_worker::{CheckpointView, Local, RunOptions, StateView, UpdateOptions, answers};

use crate::{
    InterruptId, NodeName, command::RunCommand, embedded::Embedded, error::Error,
    inner::WaitingSubgraph, run::RunOutput, state::IntoInput, stream::RunStream,
};

/// A thread: one durable line of execution.
///
/// Calls on one thread take turns. A call whose future is dropped leaves the run where it was;
/// the next call takes it up.
#[derive(Clone, Debug)]
pub struct Thread {
    app: Embedded,
    id: ThreadId,
    graph: Option<String>,
    checkpoint: Option<String>,
}

impl Thread {
    pub(crate) fn new(app: Embedded, id: ThreadId) -> Self {
        Self {
            app,
            id,
            graph: None,
            checkpoint: None,
        }
    }

    /// The thread as of one of its checkpoints, by that one's id: it can be looked at and updated,
    /// and runs go on from it. What follows is a branch of its own; nothing that was is lost.
    ///
    /// ```
    /// # use superstep::{Embedded, Graph, NodeError, START, State};
    /// # #[derive(Clone, Default, State)]
    /// # struct Count { #[state(reducer = append)] log: Vec<u64> }
    /// # async fn count(state: Count) -> Result<CountUpdate, NodeError> {
    /// #     Ok(Count::update().push_log(state.log.len() as u64))
    /// # }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let graph = Graph::<Count>::builder("count").node("count", count).edge(START, "count").build()?;
    /// # let app = Embedded::memory().graph(graph).build().await?;
    /// # let thread = app.thread("1");
    /// use serde_json::Value;
    ///
    /// let _ = thread.invoke(Count::update()).await?;
    /// let history = thread.history(10).await?;
    /// let before = history.iter().find(|was| was.next == ["count"]).expect("it ran");
    /// let again = thread.at(&before.checkpoint_id).invoke(Value::Null).await?;
    /// assert_eq!(again.state::<Count>()?.log, [0]);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    #[must_use]
    pub fn at(&self, checkpoint_id: impl Into<String>) -> Self {
        Self {
            checkpoint: Some(checkpoint_id.into()),
            ..self.clone()
        }
    }

    /// Says which graph a new thread is of, where the app has several.
    #[must_use]
    pub fn graph(mut self, name: impl Into<String>) -> Self {
        self.graph = Some(name.into());
        self
    }

    /// The thread's name.
    pub fn id(&self) -> &ThreadId {
        &self.id
    }

    /// Starts a run and works until it ends or stops at a question.
    ///
    /// The input is an update, a whole state, or JSON; null goes on with what is left.
    ///
    /// # Errors
    /// `Refused` if the thread cannot take it or the input does not fit the state. A run that
    /// fails is an output with an error.
    pub async fn invoke(&self, input: impl IntoInput) -> Result<RunOutput, Error> {
        self.invoke_with(input, RunOptions::default()).await
    }

    /// As [`invoke`](Self::invoke), with options: run id, recursion limit, values for nodes.
    ///
    /// # Errors
    /// As [`invoke`](Self::invoke).
    pub async fn invoke_with(
        &self,
        input: impl IntoInput,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        let input = input.into_input()?;
        self.start(self.app.local(), input, options).await
    }

    /// As [`invoke`](Self::invoke), event by event: those of `modes`, of the graph itself.
    pub fn stream(
        &self,
        input: impl IntoInput,
        modes: impl IntoIterator<Item = StreamMode>,
    ) -> RunStream {
        let options = RunOptions {
            streams: Streams::of(modes),
            ..RunOptions::default()
        };
        self.stream_with(input, options)
    }

    /// As [`invoke_with`](Self::invoke_with), event by event: those that the options ask for.
    pub fn stream_with(&self, input: impl IntoInput, options: RunOptions) -> RunStream {
        let input = input.into_input();
        self.followed(options, move |thread, local, options| async move {
            thread.start(&local, input?, options).await
        })
    }

    /// As [`command_with`](Self::command_with), event by event: those that the options ask for.
    ///
    /// ```
    /// # use superstep::{Context, Embedded, Graph, NodeError, START, State};
    /// # #[derive(Clone, Default, State)]
    /// # struct Mail { status: String }
    /// # async fn ask(_: Mail, ctx: Context) -> Result<MailUpdate, NodeError> {
    /// #     Ok(Mail::update().status(ctx.interrupt::<String>("send it?").await?))
    /// # }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let graph = Graph::<Mail>::builder("mail").node("ask", ask).edge(START, "ask").build()?;
    /// # let app = Embedded::memory().graph(graph).build().await?;
    /// # let thread = app.thread("1");
    /// use superstep::{RunCommand, RunOptions, StreamMode, Streams};
    ///
    /// let _ = thread.invoke(Mail::update()).await?;
    /// let options = RunOptions {
    ///     streams: Streams::of([StreamMode::Values]).with_subgraphs(),
    ///     ..RunOptions::default()
    /// };
    /// let mut events = thread.stream_command(RunCommand::new().resume("sent"), options);
    /// let mut last = None;
    /// while let Some(event) = events.next().await {
    ///     last = Some(event.data["status"].clone());
    /// }
    /// assert_eq!(last.unwrap(), "sent");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn stream_command(&self, command: RunCommand, options: RunOptions) -> RunStream {
        self.followed(options, move |thread, local, options| async move {
            thread.go_on(&local, command, options).await
        })
    }

    fn followed<F>(
        &self,
        options: RunOptions,
        begin: impl FnOnce(Self, Local, RunOptions) -> F,
    ) -> RunStream
    where
        F: Future<Output = Result<RunOutput, Error>> + Send + 'static,
    {
        let local = self.app.local().clone();
        let run = options.run.clone().unwrap_or_else(|| local.new_run());
        let options = RunOptions {
            run: Some(run.clone()),
            ..options
        };
        RunStream::new(run, |sink| {
            begin(self.clone(), local.with_output(sink), options)
        })
    }

    async fn start(
        &self,
        local: &Local,
        input: Value,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        let graph = self.which_graph().await?;
        let options = self.placed(options);
        let output = Box::pin(local.invoke(&graph, &self.id, input, options)).await?;
        Ok(output.into())
    }

    fn placed(&self, options: RunOptions) -> RunOptions {
        RunOptions {
            checkpoint: options.checkpoint.or_else(|| self.checkpoint.clone()),
            ..options
        }
    }

    /// Goes on with what waits, as the command says, and works until the run ends or stops again.
    ///
    /// # Errors
    /// `Refused` if the command answers, updates or goes to what is not there; nothing changed.
    pub async fn command(&self, command: RunCommand) -> Result<RunOutput, Error> {
        self.command_with(command, RunOptions::default()).await
    }

    /// As [`command`](Self::command), with options of the run that it begins.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn command_with(
        &self,
        command: RunCommand,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        self.go_on(self.app.local(), command, options).await
    }

    async fn go_on(
        &self,
        local: &Local,
        command: RunCommand,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        let go_on = command.into_go_on()?;
        let options = self.placed(options);
        // LangGraph takes a command on a thread that is not there yet; its graph has to be known.
        let graph = self.which_graph().await.ok();
        let output = Box::pin(local.go_on(graph.as_ref(), &self.id, go_on, options)).await?;
        Ok(output.into())
    }

    /// Answers the one open question and works until the run ends or stops again.
    ///
    /// An object whose keys are all ids of interrupts answers several questions at once.
    ///
    /// # Errors
    /// `Refused` if nothing waits, or several questions do and the answer names none.
    pub async fn resume(&self, answer: impl Serialize) -> Result<RunOutput, Error> {
        self.answer_with(answers(json(answer)?, None)).await
    }

    /// Answers one question by its id and works until the run ends or stops again.
    ///
    /// # Errors
    /// `Refused` if the question is not open, saying what became of it.
    pub async fn answer(
        &self,
        interrupt: &InterruptId,
        answer: impl Serialize,
    ) -> Result<RunOutput, Error> {
        let answers = answers(json(answer)?, Some(interrupt.clone()));
        self.answer_with(answers).await
    }

    async fn answer_with(&self, answers: Answers) -> Result<RunOutput, Error> {
        let resumed = Box::pin(self.app.local().resume(&self.id, answers)).await?;
        Ok(resumed.into())
    }

    /// Runs again what failed or was cancelled.
    ///
    /// # Errors
    /// `Refused` if nothing did.
    pub async fn retry(&self) -> Result<RunOutput, Error> {
        Ok(Box::pin(self.app.local().retry(&self.id)).await?.into())
    }

    /// Runs the thread again from a checkpoint, as if that checkpoint's tasks never had run; what
    /// follows is a branch.
    ///
    /// # Errors
    /// `Refused` if there is no such checkpoint.
    pub async fn retry_from(&self, checkpoint: impl Into<String>) -> Result<RunOutput, Error> {
        let retried = self.app.local().retry_from(&self.id, checkpoint);
        Ok(Box::pin(retried).await?.into())
    }

    /// Gives up what runs or waits; finished supersteps stay.
    ///
    /// # Errors
    /// `Refused` if nothing does.
    pub async fn cancel(&self) -> Result<(), Error> {
        Ok(Box::pin(self.app.local().cancel(&self.id, None)).await?)
    }

    /// Updates the state as if `as_node` had returned `values`, without running anything;
    /// `None` is the node that ran last.
    ///
    /// # Errors
    /// `Refused` if a run is under way, the values do not fit, or it is not clear which node ran
    /// last.
    pub async fn update_state(
        &self,
        values: impl IntoInput,
        as_node: Option<&str>,
    ) -> Result<StateView, Error> {
        let values = values.into_input()?;
        let as_node = as_node.map(Into::into);
        self.update_superstep(vec![Update { values, as_node }])
            .await
    }

    /// Updates the state by several nodes at once, as one superstep. On a thread that is not
    /// there yet the first update makes it.
    ///
    /// # Errors
    /// As [`update_state`](Self::update_state); nothing is updated then.
    pub async fn update_superstep(&self, updates: Vec<Update>) -> Result<StateView, Error> {
        let graph = self.which_graph().await.ok();
        let options = UpdateOptions {
            checkpoint: self.checkpoint.clone(),
            ..UpdateOptions::default()
        };
        let local = self.app.local();
        Ok(Box::pin(local.update_with(&self.id, graph.as_ref(), updates, options)).await?)
    }

    /// Updates the state superstep by superstep, each by several nodes at once (LangGraph's
    /// `bulk_update_state`). Gives the state after the last one.
    ///
    /// # Errors
    /// As [`update_state`](Self::update_state); supersteps before the one that failed are kept.
    pub async fn bulk_update_state(
        &self,
        supersteps: impl IntoIterator<Item = Vec<Update>>,
    ) -> Result<StateView, Error> {
        let mut after = None;
        let mut thread = self.clone();
        for updates in supersteps {
            after = Some(thread.update_superstep(updates).await?);
            // The next one builds on this one.
            thread.checkpoint = None;
        }
        after.ok_or_else(|| {
            let reason = "there is no update to apply; give one at least".to_owned();
            Refusal::InvalidUpdate { reason }.into()
        })
    }

    /// The thread as it is now: values, next nodes, tasks with their open questions. `None` if
    /// there is no such thread.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn state(&self) -> Result<Option<StateView>, Error> {
        let local = self.app.local();
        Ok(match &self.checkpoint {
            None => local.state(&self.id).await?,
            Some(checkpoint) => local.state_at(&self.id, checkpoint).await?,
        })
    }

    /// As [`state`](Self::state), with the states of subgraphs whose calls wait, in their tasks.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn state_with_subgraphs(&self) -> Result<Option<StateView>, Error> {
        Ok(self.local().state_inside(&self.id, &[], true).await?)
    }

    /// A subgraph inside which a task of the thread waits, by its nodes from the outside in.
    ///
    /// ```
    /// # use serde_json::Value;
    /// # use superstep::{Context, Embedded, Graph, NodeError, START, State};
    /// # #[derive(Clone, Default, State)]
    /// # struct Answer { text: String }
    /// # async fn ask(_: Answer, ctx: Context) -> Result<AnswerUpdate, NodeError> {
    /// #     Ok(Answer::update().text(ctx.interrupt::<String>("what?").await?))
    /// # }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ask = Graph::<Answer>::builder("ask").node("ask", ask).edge(START, "ask").build()?;
    /// # let graph = Graph::<Answer>::builder("main").subgraph("inner", ask).edge(START, "inner").build()?;
    /// # let app = Embedded::memory().graph(graph).build().await?;
    /// # let thread = app.thread("1");
    /// # let _ = thread.invoke(Answer::update()).await?;
    /// let inner = thread.subgraph(["inner"]);
    /// assert_eq!(inner.state().await?.expect("it waits").next, ["ask"]);
    /// // Answers in its place, and goes on.
    /// inner.update_state(Answer::update().text("this"), Some("ask")).await?;
    /// let done = thread.invoke(Value::Null).await?;
    /// assert_eq!(done.state::<Answer>()?.text, "this");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    #[must_use]
    pub fn subgraph<N: Into<NodeName>>(
        &self,
        place: impl IntoIterator<Item = N>,
    ) -> WaitingSubgraph {
        let place = place.into_iter().map(Into::into).collect();
        WaitingSubgraph::new(self.clone(), place)
    }

    pub(crate) fn local(&self) -> &Local {
        self.app.local()
    }

    /// How the thread stands; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn status(&self) -> Result<Option<ThreadStatus>, Error> {
        Ok(self.app.local().status(&self.id).await?)
    }

    /// The thread's checkpoints, newest first, at most `limit`.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn history(&self, limit: usize) -> Result<Vec<CheckpointView>, Error> {
        Ok(self.app.local().history(&self.id, limit).await?)
    }

    /// As [`history`](Self::history), of those checkpoints that `wanted` picks.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn history_where(
        &self,
        limit: usize,
        wanted: impl Fn(&CheckpointView) -> bool,
    ) -> Result<Vec<CheckpointView>, Error> {
        let all = self.app.local().history(&self.id, usize::MAX).await?;
        Ok(all
            .into_iter()
            .filter(|view| wanted(view))
            .take(limit)
            .collect())
    }

    /// Deletes the thread and all it holds.
    ///
    /// # Errors
    /// `Refused` if there is no such thread.
    pub async fn delete(&self) -> Result<(), Error> {
        Ok(Box::pin(self.app.local().delete(&self.id)).await?)
    }

    /// The graph that the caller named, else the thread's own, else the only one there is.
    async fn which_graph(&self) -> Result<GraphId, Error> {
        let graphs = self.app.graphs();
        let mut name = self.graph.clone();
        if name.is_none() {
            let thread = self.app.local().threads().load(&self.id).await?;
            name = thread
                .filter(|thread| !thread.state.deleted)
                .map(|thread| thread.state.graph.name.to_string());
        }
        let mut names: Vec<&GraphName> = graphs.iter().map(|graph| &graph.id().name).collect();
        names.dedup();
        let found = match (&name, names.as_slice()) {
            (Some(name), _) => graphs.by_name(name),
            (None, [only]) => graphs.by_name(only.as_str()),
            (None, _) => None,
        };
        if let Some(graph) = found {
            return Ok(graph.id().clone());
        }
        let known: Vec<String> = graphs.iter().map(|graph| graph.id().to_string()).collect();
        let known = known.join(", ");
        Err(match name {
            Some(graph) => Refusal::UnknownGraph { graph, known }.into(),
            None => Error::WhichGraph {
                thread: self.id.clone(),
                known,
            },
        })
    }
}

fn json(answer: impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(answer).map_err(|error| Error::Answer(error.to_string()))
}
