//! Functions as nodes: from what the author writes to what the engine calls.
//!
//! The traits are implemented for functions of one argument (what the node reads) and of two
//! (and its context); `Args` only tells those apart. Nobody implements them by hand.

use std::{future::Future, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;
use superstep_worker::{BoxFuture, Node};

use crate::{Context, NodeError, NodeFailure, NodeReturn, output::IntoOutput, state::State};

/// An async function of the state, and of the context if it wants it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node of a graph over `{S}`",
    label = "not an `async fn({S}[, Context]) -> Result<impl IntoOutput<{S}>, NodeError>`",
    note = "a node takes the state or the state and a `Context`, its future is `Send`, and it \
            returns an update of `{S}`, `()`, a `Command` or sends"
)]
pub trait NodeFunction<S, Args>: Send + Sync + 'static {
    /// The function as the engine calls it.
    fn into_node(self) -> Arc<dyn Node>;
}

/// An async function of the packet of a send, and of the context if it wants it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node that takes packets in a graph over `{S}`",
    note = "such a node takes what a `Send` carries, or that and a `Context`, its future is \
            `Send`, and it returns an update of `{S}`, `()`, a `Command` or sends"
)]
pub trait InputNodeFunction<S, T, Args>: Send + Sync + 'static {
    /// The function as the engine calls it.
    fn into_node(self) -> Arc<dyn Node>;
}

impl<S, F, Fut, O> NodeFunction<S, (S,)> for F
where
    S: State,
    F: Fn(S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    O: IntoOutput<S>,
{
    fn into_node(self) -> Arc<dyn Node> {
        node(move |input, _| Ok(self(state(input)?)))
    }
}

impl<S, F, Fut, O> NodeFunction<S, (S, Context)> for F
where
    S: State,
    F: Fn(S, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    O: IntoOutput<S>,
{
    fn into_node(self) -> Arc<dyn Node> {
        node(move |input, ctx| Ok(self(state(input)?, ctx)))
    }
}

impl<S, T, F, Fut, O> InputNodeFunction<S, T, (T,)> for F
where
    S: State,
    T: DeserializeOwned + 'static,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    O: IntoOutput<S>,
{
    fn into_node(self) -> Arc<dyn Node> {
        node(move |input, ctx| Ok(self(packet(input, &ctx)?)))
    }
}

impl<S, T, F, Fut, O> InputNodeFunction<S, T, (T, Context)> for F
where
    S: State,
    T: DeserializeOwned + 'static,
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    O: IntoOutput<S>,
{
    fn into_node(self) -> Arc<dyn Node> {
        node(move |input, ctx| Ok(self(packet(input, &ctx)?, ctx)))
    }
}

/// An async function of the state and a node's failure, and of the context if it wants it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error handler of a graph over `{S}`",
    label = "not an `async fn({S}, NodeFailure[, Context]) -> Result<impl IntoOutput<{S}>, NodeError>`",
    note = "its future is `Send`, and it returns what a node may"
)]
pub trait ErrorHandlerFunction<S, Args>: Send + Sync + 'static {
    /// The function as the engine calls it.
    fn into_node(self) -> Arc<dyn Node>;
}

impl<S, F, Fut, O> ErrorHandlerFunction<S, (S,)> for F
where
    S: State,
    F: Fn(S, NodeFailure) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    O: IntoOutput<S>,
{
    fn into_node(self) -> Arc<dyn Node> {
        node(move |input, ctx| Ok(self(state(input)?, failure(&ctx)?)))
    }
}

impl<S, F, Fut, O> ErrorHandlerFunction<S, (S, Context)> for F
where
    S: State,
    F: Fn(S, NodeFailure, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    O: IntoOutput<S>,
{
    fn into_node(self) -> Arc<dyn Node> {
        node(move |input, ctx| Ok(self(state(input)?, failure(&ctx)?, ctx)))
    }
}

fn failure(ctx: &Context) -> Result<NodeFailure, NodeError> {
    let failure = ctx.failure().cloned();
    failure.ok_or_else(|| NodeError::new("NoFailure", "nothing failed that could be handled"))
}

fn state<S: State>(input: Value) -> Result<S, NodeError> {
    S::from_input(input).map_err(|error| NodeError::new("InvalidState", error.to_string()))
}

fn packet<T: DeserializeOwned>(input: Value, ctx: &Context) -> Result<T, NodeError> {
    serde_path_to_error::deserialize(input).map_err(|error| {
        let message = format!(
            "the packet for node `{}` does not have the form it takes: {error}",
            ctx.node()
        );
        NodeError::new("InvalidSend", message)
    })
}

/// The engine's node of a function that begins a future, or fails before it.
fn node<S, F, Fut, O>(begin: F) -> Arc<dyn Node>
where
    F: Fn(Value, Context) -> Result<Fut, NodeError> + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    O: IntoOutput<S>,
{
    Arc::new(move |input: Value, ctx: Context| {
        let future = begin(input, ctx);
        let run = async move { future?.await?.into_output() };
        Box::pin(run) as BoxFuture<Result<NodeReturn, NodeError>>
    })
}
