//! A thread of an embedded app, by its name: run it, answer it, look at it.
//!
//! A handle holds no state; each call reads and writes the store. What a call may do is decided
//! by the protocol, whose refusals come back as errors with their kind.

use serde::Serialize;
use serde_json::Value;
use superstep_protocol::{Answers, GraphId, GraphName, Refusal, ThreadId, ThreadStatus};
use superstep_worker::{CheckpointView, RunOptions, StateView, answers};

use crate::{InterruptId, embedded::Embedded, error::Error, run::RunOutput, state::IntoInput};

/// A thread: one durable line of execution.
///
/// Calls on one thread take turns. A call whose future is dropped leaves the run where it was;
/// the next call takes it up.
#[derive(Clone, Debug)]
pub struct Thread {
    app: Embedded,
    id: ThreadId,
    graph: Option<String>,
}

impl Thread {
    pub(crate) fn new(app: Embedded, id: ThreadId) -> Self {
        Self {
            app,
            id,
            graph: None,
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
        self.start(input, options).await
    }

    async fn start(&self, input: Value, options: RunOptions) -> Result<RunOutput, Error> {
        let graph = self.which_graph().await?;
        let local = self.app.local();
        let output = Box::pin(local.invoke(&graph, &self.id, input, options)).await?;
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
        Ok(Box::pin(self.app.local().update(&self.id, values, as_node)).await?)
    }

    /// The thread as it is now: values, next nodes, tasks with their open questions. `None` if
    /// there is no such thread.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn state(&self) -> Result<Option<StateView>, Error> {
        Ok(self.app.local().state(&self.id).await?)
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
