//! Durable graphs with people in the loop: the one dependency of a graph's author.
//!
//! A graph is named nodes and edges over the channels of a state. It runs superstep by superstep
//! on a thread; every superstep is saved, so the thread goes on after a crash, or months later
//! when the person answers whom a node asked.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//! use superstep::{Context, Embedded, Graph, NodeError, START, State};
//!
//! #[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
//! struct Review {
//!     draft: String,
//!     status: String,
//! }
//!
//! async fn review(state: Review, ctx: Context) -> Result<ReviewUpdate, NodeError> {
//!     let approved: bool = ctx.interrupt(json!({"question": "Send it?", "draft": state.draft})).await?;
//!     Ok(Review::update().status(if approved { "approved" } else { "rejected" }))
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let graph = Graph::<Review>::builder("review")
//!     .node("review", review)
//!     .edge(START, "review")
//!     .build()?;
//!
//! let app = Embedded::memory().graph(graph).build().await?;
//! let thread = app.thread("order-42");
//!
//! let asked = thread.invoke(Review::update().draft("Dear Ada, ...")).await?;
//! assert_eq!(asked.interrupts[0].value["question"], "Send it?");
//!
//! let done = thread.resume(true).await?;
//! assert_eq!(done.state::<Review>()?.status, "approved");
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

mod command;
pub mod connect;
#[doc(hidden)]
pub mod derive;
mod embedded;
mod error;
mod function;
mod graph;
mod inner;
mod output;
mod route;
mod run;
mod send;
mod state;
mod stream;
mod thread;
mod writes;

pub use command::RunCommand;
pub use embedded::{Embedded, EmbeddedBuilder};
pub use error::Error;
pub use function::{ErrorHandlerFunction, InputNodeFunction, NodeFunction};
pub use graph::{BuildError, Graph, GraphBuilder};
pub use inner::WaitingSubgraph;
pub use output::{Command, IntoOutput, IntoUpdate, ToParent};
pub use route::IntoRoute;
pub use run::RunOutput;
pub use schemars;
pub use send::Send;
pub use state::{IntoInput, State, StateError};
pub use stream::RunStream;
pub use superstep_graph::{
    Breakpoints, ChannelKind as Channel, END, Graph as Topology, InterruptId, NodeName, NodeSpec,
    Reducer, START, TaskId, Warning,
};
pub use superstep_macros::State;
pub use superstep_protocol::{
    Durability, GraphId, Profile, Refusal, RunError, RunId, RunStatus, StreamMode, Streams,
    ThreadId, ThreadStatus, Update,
};
pub use superstep_worker::{
    CachePolicy, CheckpointView, Checkpointer, ErrorKind, Graphs, Interrupt, InterruptView, Limits,
    MemoryCache, NodeCache, NodeContext as Context, NodeError, NodeFailure, NodeReturn, OutputSink,
    Retention, RetryPolicy, RunOptions, RunnableGraph, Sleep, StateView, StreamEvent, TaskInfo,
    TaskView, VersionPolicy, WorkerSettings,
};
pub use thread::Thread;

/// The programs of the guide for people who come from LangGraph.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/from-langgraph.md")]
struct FromLangGraph;

/// The programs of the page on versions.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/versions.md")]
struct Versions;
