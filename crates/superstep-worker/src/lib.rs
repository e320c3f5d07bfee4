//! The shell: runs nodes, decides commands, performs obligations, drains.
//!
//! It awaits, calls the pure crates, performs what they say and reports back. It names no
//! vendor: the log, the queue and the world come in as components.

mod clock;
mod compute;
mod engine;
mod error;
mod graphs;
mod index;
mod local;
mod node;
mod run_task;
mod settings;
mod threads;
mod view;

pub use clock::{SharedWorld, SystemWorld, World};
pub use error::{Error, ErrorKind, chain};
pub use graphs::{Graphs, MissingNode, RunnableGraph};
pub use local::{Local, RunOptions, RunOutput, answers};
pub use node::{
    BoxFuture, Interrupt, Node, NodeContext, NodeError, NodeReturn, OutputSink, TaskInfo,
};
pub use settings::{Limits, WorkerSettings};
pub use threads::{Thread, Threads};
pub use view::{CheckpointView, InterruptView, StateView, TaskView};
